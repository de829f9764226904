"""Objectives of programs that play against critics: no density of what these compare."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from pyro_lvm.annealing import Schedule, at_step
from pyro_lvm.critic import Critic, MakeOptimizer, Side
from pyro_lvm.densities import log_prob
from pyro_lvm.divergences import DIVERGENCES
from pyro_lvm.encounter import Encounter, meet
from pyro_lvm.errors import ProgramError, explain
from pyro_lvm.gradients import Draw
from pyro_lvm.nn import check_choice
from pyro_lvm.objective import Objective
from pyro_lvm.particles import Particles, assembled, folded
from pyro_lvm.tracing import Program

__all__ = ["ONLY", "GameObjective", "Played", "Sides"]

Sides = Mapping[str, tuple[Side, Side]]
"""By critic, the draws of a and of b whose log-ratio it learns."""

ONLY = "only"
"""Name of a critic that is alone."""

_SATURATED = "Raise the rate of the programs or lower discriminator_lr, and judge the model by AIS."


@dataclass(frozen=True)
class Played(Particles):
    """Particles, and what their programs ascend, ``(*batch,)``, for its gradient alone."""

    ascent: Tensor | None = None


class GameObjective(Objective):
    r"""Programs against critics, each of which learns the log-ratio of two distributions.

    .. math:: E_q \Bigl[ \sum_s \log p_s - \sum_c \lambda \, T_c \Bigr]

    A subclass names what each critic compares. The sites s that no critic sees, such as labels,
    keep their densities. The gradient descends a divergence of the pairs, see
    :mod:`pyro_lvm.divergences`; the value is the estimate of minus the KL(a || b) of each pair,
    whatever is descended: *no bound*.

    Critics are the objective's own: trained by an optimiser of their own in each training step,
    saved in ``state_dict``, never in the optimiser of the programs.

    Args:
        discriminator: the one critic, or several by name.
        num_particles: K draws per datum of the guide; the model dreams one a datum.
        gradient: "reparam", the one there is.
        divergence: of each pair, one of :data:`~pyro_lvm.divergences.DIVERGENCES`.
        max_weight: weights of the logits' gradients are kept from 1 / max_weight to max_weight.
        data: the observed site that critics see; by default the only one.
        num_discriminator_steps: for each step of the programs.
        discriminator_lr: their learning rate, a number or a function of the training step.
        discriminator_optimizer: from parameters to an optimiser, in place of Adam with
            beta_1 = 0.5. Its rate is set to ``discriminator_lr`` before each step.
        max_plate_nesting: dims the plates may take.

    Raises:
        ValueError: an argument out of range.

    Example:
        Latents and data apart, each before a critic of its own.

        >>> from pyro_lvm.guides import AmortizedNormal
        >>> from pyro_lvm.models import VAE
        >>> from pyro_lvm.nn import Discriminator
        >>> class Marginals(GameObjective):
        ...     def sides(self, met):
        ...         return {
        ...             "z": (Side(met.z), Side(met.dreamt_z)),
        ...             "x": (Side(met.x), Side(met.dreamt_x)),
        ...         }
        >>> objective = Marginals({"z": Discriminator(2), "x": Discriminator(4)})
        >>> model = VAE(4, 2, hidden=(8,), likelihood="gaussian")
        >>> guide = AmortizedNormal(in_features=4, latent_features=2, hidden=(8,))
        >>> objective.bound(model, guide, torch.zeros(5, 4)).shape
        torch.Size([5])
    """

    is_bound: ClassVar[bool] = False
    is_linear: ClassVar[bool] = True
    keeps_in_place: ClassVar[bool] = True
    takes: ClassVar[tuple[str, ...]] = ("reparam",)

    holds_latents: ClassVar[bool] = False
    """Whether the model is also run on latents without their gradient."""

    critic_weight: float = 1.0
    """What multiplies each logit."""

    def __init__(
        self,
        discriminator: nn.Module | Mapping[str, nn.Module],
        num_particles: int = 1,
        gradient: str = "reparam",
        *,
        divergence: str = "non_saturating",
        max_weight: float = torch.inf,
        data: str | None = None,
        num_discriminator_steps: int = 1,
        discriminator_lr: Schedule = 3e-4,
        discriminator_optimizer: MakeOptimizer | None = None,
        max_plate_nesting: int | None = None,
    ) -> None:
        check_choice("divergence", divergence, DIVERGENCES)
        _check_at_least("max_weight", max_weight, 1)
        _check_at_least("num_discriminator_steps", num_discriminator_steps, 0)
        super().__init__(num_particles, gradient, max_plate_nesting=max_plate_nesting)
        self.divergence = divergence
        self.max_weight = max_weight
        self.data = data
        self.num_discriminator_steps = num_discriminator_steps
        self.discriminator_lr = discriminator_lr
        modules = discriminator if isinstance(discriminator, Mapping) else {ONLY: discriminator}
        self.critics = {
            name: Critic(module, optimizer=discriminator_optimizer, hint=_SATURATED)
            for name, module in modules.items()
        }

    @abstractmethod
    def sides(self, met: Encounter) -> Sides:
        """What each critic compares, with gradients in the draws that programs may move."""

    def densities(self, met: Encounter) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Terms of log p and of log q by site, ``(K or 1, *batch)`` nats."""
        sites = {n: s for n, s in met.others.items() if s.is_observed}
        terms = {name: log_prob(site) for name, site in sites.items()}
        return folded(met.layout, terms, met.layout.model_scales), {}

    def bound_per_datum(self, log_weights: Tensor) -> Tensor:
        return log_weights.mean(0)

    def before_step(self, model: Program, guide: Program, args: Any, kwargs: Any) -> None:
        """Set the critics' learning rate."""
        for critic in self.critics.values():
            critic.set_rate(at_step(self.discriminator_lr, self.step))

    def estimate(self, draw: Draw) -> tuple[Particles, Tensor]:
        """Draws, and the value ``(*batch,)`` with the gradient of the game attached."""
        particles = cast(Played, draw())
        value = self.bound_per_datum(particles.log_weights).detach()
        ascent = cast(Tensor, particles.ascent)
        return particles, value + (ascent - ascent.detach())

    def run(
        self,
        model: Program,
        guide: Program,
        args: Any,
        kwargs: Any,
        max_plate_nesting: int,
        **how: Any,
    ) -> Played:
        """K draws, after the critics' steps if gradients are enabled."""
        again = partial(
            meet,
            model,
            guide,
            args,
            kwargs,
            num_particles=self.num_particles,
            max_plate_nesting=max_plate_nesting,
            data=self.data,
            hold=self.holds_latents,
        )
        met = again()
        for critic in self.critics.values():
            critic.follow(met.z)
        if torch.is_grad_enabled():
            self._learn(met, again)
        return self._played(met)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs to go on exactly: numbers and tensors only."""
        critics = {name: critic.state_dict() for name, critic in self.critics.items()}
        return super().state_dict() | {"critics": critics}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        for name, critic in self.critics.items():
            critic.load_state_dict(state["critics"][name])

    @torch.no_grad()
    def _learn(self, met: Encounter, again: Callable[[], Encounter]) -> None:
        """The first step is on the objective's own draws."""
        for step in range(self.num_discriminator_steps):
            for name, (a, b) in self.sides(again() if step else met).items():
                self.critics[name].learn(a, b)

    def _played(self, met: Encounter) -> Played:
        particles = assembled(
            met.model, met.guide, met.layout, *self.densities(met), self.num_particles
        )
        ascent, log_q = particles.log_weights.mean(0), particles.log_q
        for name, (a, b) in self.sides(met).items():
            at_a, at_b = self.critics[name](a), self.critics[name](b)
            ascent = ascent + self.critic_weight * self._ascent(at_a, at_b, met)
            log_q = log_q + self.critic_weight * self._by_particle(met.layout.fold(at_a))
        return Played(**vars(replace(particles, log_q=log_q)), ascent=ascent)

    def _ascent(self, at_a: Tensor, at_b: Tensor, met: Encounter) -> Tensor:  # (*batch,)
        weight, fold = DIVERGENCES[self.divergence], met.layout.fold
        down = fold(self._within(weight.a(at_a.detach())) * at_a)
        up = fold(self._within(weight.b(at_b.detach())) * at_b)
        return up.mean(0) - down.mean(0)

    def _by_particle(self, logits: Tensor) -> Tensor:  # (K or 1, *batch)
        return logits if len(logits) == self.num_particles else logits.mean(0, keepdim=True)

    def _within(self, weight: Tensor) -> Tensor:
        return weight.clamp(1 / self.max_weight, self.max_weight)


def _check_at_least(name: str, value: float, least: int) -> None:
    if not value >= least:  # NaN too
        raise ProgramError(
            explain(name, f"a number >= {least}", repr(value), f"Pass {name}={least}.")
        )
