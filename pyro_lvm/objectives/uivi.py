"""Semi-implicit guides by the gradient of their exact evidence lower bound."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import log
from typing import Any, ClassVar

import torch
from torch import Tensor

from pyro_lvm.annealing import Schedule
from pyro_lvm.checks import record_checked
from pyro_lvm.densities import guide_sites, log_prob
from pyro_lvm.hmc import transition
from pyro_lvm.mixing import Mixing, check_draws, mixing_sites
from pyro_lvm.mixing_chain import MixingDensity
from pyro_lvm.mixing_rows import GuideRows
from pyro_lvm.particles import Part
from pyro_lvm.semi_implicit import (
    MixedParticles,
    SemiImplicitObjective,
    check_in_full,
    run_model,
    weighed,
)
from pyro_lvm.tracing import Program

__all__ = ["UIVI"]

_RATE = 0.05  # of the step size's adaptation, in its log
_ACCEPTANCE = 0.9


class UIVI(SemiImplicitObjective):
    r"""Bound of a semi-implicit guide, trained by the gradient of its evidence lower bound.

    .. math::

        \mathbb E\left[\left(\nabla_z \log p(x, z) - \mathbb E_{q(\psi' \mid z, x)}
        \nabla_z \log q(z \mid \psi', x)\right) \partial_\phi z\right]

    The inner mean is taken over a short Hamiltonian chain for each particle and datum, started
    at the :math:`\psi` that made z, which is a draw of the wanted law already, and has only to
    be forgotten: z's own path depends on it. So far as it is, the gradient is that of the bound
    at infinitely many mixing draws, where :class:`SIVI`'s is of J. Its price is one run of the
    guide for each leapfrog step. The step size adapts to an acceptance of 0.9.

    The value, of the loss and of the bound, is that of :class:`SIVI` with ``num_mixing``
    draws, a lower bound in the mean; draws of z are averaged.

    References:
        Titsias, Ruiz (2019), *Unbiased implicit variational inference*, arXiv:1808.02078,
        eq. 11 and 12.

    Args:
        num_particles: K draws per datum, averaged.
        gradient: "reparam".
        num_mixing: J >= 0 fresh draws, for the value only.
        num_burn_in: transitions of a chain before the first draw kept.
        num_chain: draws kept, one a transition.
        num_leapfrog: steps of a transition.
        beta: KL warm-up factor in the loss, a number or a function of the step.
        free_bits: floor of the mean KL in the loss, nats.
        max_plate_nesting: dims the plates may take; found by one extra run if left out.

    Raises:
        ValueError: an argument out of range.

    Example:
        >>> import pyro
        >>> import pyro.distributions as dist
        >>> def model(x):
        ...     with pyro.plate("data", len(x)):
        ...         z = pyro.sample("z", dist.Normal(0.0, 1.0))
        ...         pyro.sample("x", dist.Normal(z, 1.0), obs=x)
        >>> shift = torch.tensor(0.5, requires_grad=True)
        >>> def guide(x):
        ...     with pyro.plate("data", len(x)):
        ...         law = dist.Normal(x / 2 + shift, 0.5)
        ...         psi = pyro.sample("psi", law, infer={"is_auxiliary": True})
        ...         pyro.sample("z", dist.Normal(psi, 0.5))  # the exact posterior but for shift
        >>> loss = UIVI(10).differentiable_loss(model, guide, torch.ones(1000)) / 1000
        >>> loss.backward()
        >>> print(f"{shift.grad:.1f}")  # of the KL divergence, shift^2
        1.0
    """

    is_linear: ClassVar[bool] = True
    keeps_in_place: ClassVar[bool] = True

    def __init__(
        self,
        num_particles: int = 1,
        gradient: str = "reparam",
        *,
        num_mixing: int = 50,
        num_burn_in: int = 5,
        num_chain: int = 5,
        num_leapfrog: int = 5,
        beta: Schedule = 1.0,
        free_bits: float = 0.0,
        max_plate_nesting: int | None = None,
    ) -> None:
        self.num_mixing = check_draws("num_mixing", num_mixing, 0)
        self.num_burn_in = check_draws("num_burn_in", num_burn_in, 0)
        self.num_chain = check_draws("num_chain", num_chain, 1)
        self.num_leapfrog = check_draws("num_leapfrog", num_leapfrog, 1)
        self.log_step_size = torch.tensor(log(0.1))
        super().__init__(
            Mixing(num_mixing),
            num_particles,
            gradient,
            beta=beta,
            free_bits=free_bits,
            max_plate_nesting=max_plate_nesting,
        )

    def bound_per_datum(self, log_weights: Tensor) -> Tensor:
        return log_weights.mean(0)

    def run(
        self,
        model: Program,
        guide: Program,
        args: Any,
        kwargs: Any,
        max_plate_nesting: int,
        **how: Any,
    ) -> MixedParticles:
        q = GuideRows(self.num_particles, max_plate_nesting, self.mixing)
        record_checked(guide, args, kwargs, q)
        p = run_model(model, args, kwargs, q, self.mixing)
        names = mixing_sites(q.sites, p.sites)
        drawn = guide_sites(q.sites, p.sites)
        log_q = {n: log_prob(s) for n, s in drawn.items() if n not in names}
        if not names or not torch.is_grad_enabled():
            return weighed(p, q, q, log_q)
        particles = weighed(p, q, q, {n: term.detach() for n, term in log_q.items()})
        own = {n: q.sites[n].value[0] for n in names}
        layout: Any = particles.layout
        check_in_full(log_q, layout.guide_scales)
        density = MixingDensity(guide, args, kwargs, q, particles.values, own, layout)
        return _with_path(particles, density.score(self._chain(density)))

    @torch.no_grad()
    def _chain(self, density: MixingDensity) -> Tensor:  # (S, K, *batch, D)
        """Draws of the mixing variables given the latents; adapts the step size."""
        self.log_step_size = self.log_step_size.to(density.start)
        step = self.log_step_size.clone()
        point, kept = density(density.start), []
        for _ in range(self.num_burn_in + self.num_chain):
            point, accepted = transition(density, point, 1.0, step.exp(), self.num_leapfrog)
            step = step + _RATE * (accepted.mean() - _ACCEPTANCE)
            kept.append(point.position)
        self.log_step_size.copy_(step)
        return torch.stack(kept[self.num_burn_in :])

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs to go on exactly: numbers and tensors only."""
        return super().state_dict() | {"log_step_size": self.log_step_size.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        saved = state["log_step_size"]
        own = self.log_step_size.to(torch.promote_types(self.log_step_size.dtype, saved.dtype))
        self.log_step_size = own.copy_(saved)


def _with_path(particles: MixedParticles, score: Mapping[str, Tensor]) -> MixedParticles:
    """log q with the derivative ``score`` through the latents, and no other."""
    layout: Any = particles.layout
    products = [particles.values[n] * slope for n, slope in score.items()]
    lead = 1 + layout.max_plate_nesting
    inner = [layout.fold(p.reshape(*p.shape[:lead], -1).sum(-1)) for p in products]
    path = sum(inner[1:], inner[0])
    path = path - path.detach()
    parts = {**particles.parts, "path": Part(None, path)}
    return replace(particles, log_q=particles.log_q + path, parts=parts)
