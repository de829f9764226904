"""The path of densities from where chains start to the joint density, and the start itself."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Normal

from pyro_lvm.diagnostics.unconstrained import UnconstrainedModel
from pyro_lvm.errors import ProgramError, PyroLVMError, explain
from pyro_lvm.hmc import Point

__all__ = ["GeometricPath", "portions"]

_NUM_MOMENT_DRAWS = 200


class GeometricPath:
    """From the prior, or a diagonal Normal with the moments of guide draws, to p(x, z).

    Args:
        model: the densities; its guide, if it has one, is where the path starts.
        chunk_size: draws at a time for the moments.

    Attributes:
        spread: ``(*batch, D)`` standard deviations of the start, 0 where an entry is masked.

    Raises:
        PyroLVMError: the guide's draws are all the same.
        ProgramError: the model's density changes from run to run.
    """

    def __init__(self, model: UnconstrainedModel, chunk_size: int) -> None:
        self.model = model
        draw = model.prior_draws if model.guide is None else model.guide_draws
        draws = torch.cat([draw(n) for n in portions(_NUM_MOMENT_DRAWS, chunk_size)])
        self._normal = _normal_like(draws)
        self.spread = self._normal.scale * model.counted[0]
        self._check_repeatable()

    def draw(self, count: int) -> Tensor:  # (count, *batch, D)
        """Positions from the start distribution."""
        if self.model.guide is None:
            return self.model.prior_draws(count)
        drawn: Tensor = self._normal.sample(torch.Size([count]))
        return drawn

    @torch.enable_grad()
    def __call__(self, position: Tensor) -> Point:
        """Both ends of the path and their slopes at positions ``(M, *batch, D)``."""
        position = position.detach().requires_grad_()
        log_joint, log_prior = self.model.densities(position)
        log_start = log_prior if self.model.guide is None else self._log_normal(position)
        (start_slope,) = torch.autograd.grad(log_start.sum(), position, retain_graph=True)
        (joint_slope,) = torch.autograd.grad(log_joint.sum(), position)
        ends = (log_start.detach(), log_joint.detach())
        return Point(position.detach(), *ends, start_slope, joint_slope)

    def _log_normal(self, position: Tensor) -> Tensor:  # (M, *batch)
        log_prob: Tensor = self._normal.log_prob(position)
        return torch.where(self.model.counted, log_prob, 0.0).sum(-1)

    def _check_repeatable(self) -> None:
        position = self.draw(2)
        first, second = (self(position).log_joint for _ in range(2))
        if not torch.allclose(first, second, equal_nan=True):
            raise ProgramError(
                explain(
                    "model",
                    "one density at given latents",
                    "another one when it is run again",
                    "Call model.eval() if it has dropout; let no data depend on what obs_mask "
                    "imputes.",
                )
            )


def portions(total: int, at_a_time: int) -> list[int]:
    """``total`` as a sum of numbers of at most ``at_a_time``."""
    return [min(at_a_time, total - start) for start in range(0, total, at_a_time)]


def _normal_like(draws: Tensor) -> Normal:
    spread = draws.std(0)
    if not (spread > 0).all():
        hint = "Pass AIS(initial='prior')."
        raise PyroLVMError(explain("start", "draws that differ", "a point mass", hint))
    return Normal(draws.mean(0), spread, validate_args=False)
