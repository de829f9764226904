"""The acceptance rate of Metropolis-Hastings where densities are learned from draws."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from pyro_lvm.acceptance import LOWER_BOUNDS, log_ratio
from pyro_lvm.adversarial import AdversarialObjective
from pyro_lvm.contrast import Covered
from pyro_lvm.critic import Side
from pyro_lvm.errors import ProgramError, explain
from pyro_lvm.nn import check_choice
from pyro_lvm.particles import Particles
from pyro_lvm.tracing import Program

__all__ = ["ImplicitAcceptance"]


class ImplicitAcceptance(AdversarialObjective):
    r"""Trains a generator to be a proposal that a target given by samples accepts.

    .. math:: \log A \ge E \min\{0, T(x) - T(x')\}, \qquad T \to \log q - \log p,
        \quad x \sim p, \; x' \sim q

    in nats, with T the logit of a discriminator of the two. The model is the target: one site whose
    draws are samples, for instance :class:`~pyro_lvm.distributions.Implicit`. The guide draws the
    same site; neither needs a density. "symmetric" ascends :math:`E T(x) - E T(x')`, minus the sum
    of both divergences. An *estimate*, as good as the discriminator, and a mode that either side
    never shows stays unseen.

    States are samples of p, so there are no chains to keep. Let ``discriminator_lr`` fall to 0: the
    last steps of a constant rate move whole modes, and calibration averages that out. For draws
    corrected by the ratio afterwards, see :class:`~pyro_lvm.mcmc.ImplicitMetropolisHastings`.

    References:
        Neklyudov, Egorov, Shvechikov, Vetrov (2018), *Metropolis-Hastings view on variational
        inference and adversarial training*, arXiv:1810.07151v1, section 3.

    Args:
        discriminator: module called as ``discriminator(x, None)``.
        num_particles: K proposals, and states.
        lower_bound: "jensen" or "symmetric".
        **options: those of :class:`~pyro_lvm.adversarial.AdversarialObjective`.

    Raises:
        ProgramError: an argument out of range, or a model that observes data.

    Example:
        >>> import pyro
        >>> from pyro_lvm.distributions import Implicit
        >>> from pyro_lvm.nn import Discriminator
        >>> samples = 2.0 + torch.randn(1000, 1)
        >>> def target():
        ...     def some(shape):
        ...         return samples[torch.randint(1000, shape)]
        ...     pyro.sample("x", Implicit(some, event_dim=1))
        >>> def generator():
        ...     pyro.sample("x", Implicit(lambda shape: torch.randn(*shape, 1), event_dim=1))
        >>> objective = ImplicitAcceptance(Discriminator(1), num_particles=50)
        >>> objective.acceptance(target, generator).shape
        torch.Size([])
    """

    takes: ClassVar[tuple[str, ...]] = ("reparam",)
    sees_data: ClassVar[bool] = False

    def __init__(
        self,
        discriminator: nn.Module,
        num_particles: int = 64,
        *,
        lower_bound: str = "jensen",
        **options: Any,
    ) -> None:
        check_choice("lower_bound", lower_bound, LOWER_BOUNDS)
        super().__init__(discriminator, num_particles, **options)
        self.lower_bound = lower_bound

    def bound_per_datum(self, log_weights: Tensor) -> Tensor:
        """From the log-ratios ``(2 K, *batch)`` at samples and proposals."""
        ratio = log_ratio(log_weights)
        return (ratio.clamp(max=0.0) if self.lower_bound == "jensen" else ratio).mean(0)

    def acceptance(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> Tensor:
        """What the discriminator takes for the acceptance rate, ``(*batch,)``, no gradient."""
        log_weights = self.log_weights(model, guide, *args, **kwargs)
        return log_ratio(log_weights).clamp(max=0.0).exp().mean(0)

    def run(
        self,
        model: Program,
        guide: Program,
        args: Any,
        kwargs: Any,
        max_plate_nesting: int,
        **how: Any,
    ) -> Particles:
        """Samples of the target, then proposals: ``(2 K, *batch)``."""
        particles = super().run(model, guide, args, kwargs, max_plate_nesting, **how)
        _check_nothing_observed(particles)
        names = self.ratio.covers(particles.model, particles.guide)
        covered = Covered([particles.model[n] for n in names], [], [])
        with torch.no_grad():
            states = covered.fresh(covered.model, self.num_particles)
            log_q = self.ratio.critic(Side(states)).expand_as(particles.log_q)
        return replace(
            particles,
            log_p=torch.cat([torch.zeros_like(particles.log_p), particles.log_p]),
            log_q=torch.cat([log_q, particles.log_q]),
        )


def _check_nothing_observed(particles: Particles) -> None:
    for name, site in particles.model.items():
        if site.is_observed:
            hint = "Use MHAcceptance for a posterior, or AVB for one by a guide without a density."
            expected = "a model whose draws are the target's samples, and no data"
            raise ProgramError(explain(f"site '{name}'", expected, "data", hint))
