"""Objectives with a discriminator in place of the guide's density."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from pyro_lvm.adversary import Adversary
from pyro_lvm.annealing import Schedule, at_step
from pyro_lvm.contrast import CONTRASTS
from pyro_lvm.critic import MakeOptimizer
from pyro_lvm.errors import ProgramError, explain
from pyro_lvm.gradients import Draw
from pyro_lvm.objective import Objective
from pyro_lvm.particles import Particles
from pyro_lvm.tracing import Program

__all__ = ["AdversarialObjective"]


class AdversarialObjective(Objective):
    """A bound in which a discriminator's logit stands for log q(z | x) - log p(z).

    Its value is an estimate, not a bound: a discriminator that errs moves it either way. The
    discriminator is the objective's own: trained by its own optimiser in each training step,
    saved in ``state_dict``, never in the optimiser of the programs.

    Args:
        discriminator: module called as ``discriminator(z, context)``.
        num_particles: K draws per datum.
        gradient: one of the class's; its first if left out.
        contrast: "prior", or "adaptive": a Gaussian with the moments of each datum's guide.
        context: from the programs' arguments to the discriminator's context; by default their
            first argument.
        num_discriminator_steps: for each step of the programs.
        discriminator_lr: its learning rate, a number or a function of the training step. It
            should be above that of the programs, which run ahead of the discriminator else.
        discriminator_optimizer: from parameters to an optimiser, in place of Adam with
            beta_1 = 0.5. Its rate is set to ``discriminator_lr`` before each step.
        r1: gradient penalty on the discriminator; biases the ratio, off by default.
        ema: decay of an average of the discriminator's weights; 0 for none. The average lags
            behind a guide that moves.
        sites: latent sites it covers; by default those without a density, else all.
        beta: KL warm-up factor in the loss, a number or a function of the step.
        max_plate_nesting: dims the plates may take.

    Raises:
        ValueError: an argument out of range.

    Example:
        The Rényi bound of order 1/2, with a discriminator.

        >>> from pyro_lvm.nn import Discriminator
        >>> from pyro_lvm.weights import log_mean_exp
        >>> class RenyiAVB(AdversarialObjective):
        ...     takes = ("dreg",)
        ...     def bound_per_datum(self, log_weights):
        ...         return 2 * log_mean_exp(log_weights / 2)
        >>> objective = RenyiAVB(Discriminator(latent_features=2, context_features=4), 2)
        >>> objective.bound_per_datum(torch.tensor([[1.0], [9.0]]).log())  # (K=2, batch=1)
        tensor([1.3863])
    """

    is_bound: ClassVar[bool] = False
    keeps_in_place: ClassVar[bool] = True
    takes: ClassVar[tuple[str, ...]] = ("stl",)
    sees_data: ClassVar[bool] = True
    """Whether the discriminator has the data as its context."""

    ratio: Adversary

    def __init__(
        self,
        discriminator: nn.Module,
        num_particles: int = 1,
        gradient: str | None = None,
        *,
        contrast: str = "prior",
        context: Callable[..., Any] | None = None,
        num_discriminator_steps: int = 1,
        discriminator_lr: Schedule = 3e-4,
        discriminator_optimizer: MakeOptimizer | None = None,
        r1: float = 0.0,
        ema: float = 0.0,
        sites: Sequence[str] | None = None,
        beta: Schedule = 1.0,
        max_plate_nesting: int | None = None,
    ) -> None:
        _check(contrast, num_discriminator_steps, r1, ema)
        super().__init__(
            num_particles,
            gradient or self.takes[0],
            beta=beta,
            max_plate_nesting=max_plate_nesting,
        )
        self.discriminator_lr = discriminator_lr
        self.ratio = Adversary(
            discriminator,
            contrast=contrast,
            context=context or self.sees_data,
            num_steps=num_discriminator_steps,
            optimizer=discriminator_optimizer,
            r1=r1,
            ema=ema,
            sites=sites,
        )

    @property
    def discriminator(self) -> nn.Module:
        return self.ratio.critic.discriminator

    def estimate(self, draw: Draw) -> tuple[Particles, Tensor]:
        """Draws, and the bound ``(*batch,)`` with its gradient, after the discriminator's steps."""
        self.ratio.learns = torch.is_grad_enabled()
        try:
            return super().estimate(draw)
        finally:
            self.ratio.learns = False

    def before_step(self, model: Program, guide: Program, args: Any, kwargs: Any) -> None:
        """Set the discriminator's learning rate."""
        self.ratio.critic.set_rate(at_step(self.discriminator_lr, self.step))

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs to go on exactly: numbers and tensors only."""
        return super().state_dict() | {"adversary": self.ratio.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.ratio.load_state_dict(state["adversary"])


def _check(contrast: str, num_steps: int, r1: float, ema: float) -> None:
    wrong = {
        "contrast": (contrast in CONTRASTS, f"one of {sorted(CONTRASTS)}", contrast, "'prior'"),
        "num_discriminator_steps": (num_steps >= 0, "an integer >= 0", num_steps, "1"),
        "r1": (r1 >= 0, "a number >= 0", r1, "0.0"),
        "ema": (0 <= ema < 1, "a number from 0 to 1, not 1", ema, "0.0"),
    }
    for name, (holds, expected, found, instead) in wrong.items():
        if not holds:
            raise ProgramError(explain(name, expected, repr(found), f"Pass {name}={instead}."))
