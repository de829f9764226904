r"""Annealed importance sampling: weights whose mean is the evidence, whatever the guide.

A chain starts at :math:`z_0 \sim q_0` and moves through :math:`q_0^{1 - \beta} p(x, \cdot)^\beta`
for rising :math:`\beta`, a Hamiltonian Monte Carlo transition at each. Its weight is
:math:`\prod_t (p(x, z_{t-1}) / q_0(z_{t-1}))^{\beta_t - \beta_{t-1}}`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import ceil, exp, log
from typing import Any

import pyro
import torch
from torch import Tensor
from tqdm.auto import tqdm  # type: ignore[import-untyped, unused-ignore]

from pyro_lvm.diagnostics.chunks import check_count
from pyro_lvm.diagnostics.path import GeometricPath, portions
from pyro_lvm.diagnostics.unconstrained import UnconstrainedModel
from pyro_lvm.errors import PyroLVMError, explain
from pyro_lvm.hmc import Point, transition

__all__ = ["AIS", "Chains"]

Program = Callable[..., Any]

_TARGET_ACCEPTANCE = 0.65  # best in many dims: Neal (2011), section 4.4
_NUM_PILOT_CHAINS, _NUM_PILOT_STEPS = 4, 50
_FIRST_STEP = 0.5  # in units of the spread of the start distribution
_GAIN = 0.1  # of the log step size per unit of acceptance
_MAX_ELEMENTS = 2**22  # values of all sites in one chunk; a gradient holds a few times as many


@dataclass(frozen=True)
class AIS:
    r"""How to anneal.

    Args:
        num_temperatures: T, steps from the start distribution to the posterior. One is plain
            importance sampling from the start distribution.
        num_leapfrog: leapfrog steps of each transition, one gradient of the model each.
        initial: where chains start: ``"prior"``, for which the guide may be None, or
            ``"guide"``, a diagonal Normal with the moments of the guide's draws of each datum
            (in unconstrained space), for which the guide needs no density.

    Raises:
        PyroLVMError: a count below 1, or an unknown start.

    Example:
        >>> [round(beta, 2) for beta in AIS(num_temperatures=4).betas()]
        [0.0, 0.1, 0.5, 0.9, 1.0]
    """

    num_temperatures: int = 500
    num_leapfrog: int = 10
    initial: str = "prior"

    def __post_init__(self) -> None:
        check_count("num_temperatures", self.num_temperatures)
        check_count("num_leapfrog", self.num_leapfrog)
        if self.initial not in ("prior", "guide"):
            hint = "Pass initial='prior'."
            raise PyroLVMError(explain("initial", "'prior' or 'guide'", repr(self.initial), hint))

    def betas(self) -> list[float]:
        """The T + 1 inverse temperatures from 0 to 1, close together at both ends.

        References:
            Wu et al. (2017), arXiv:1611.04273: a scaled sigmoid, from -4 to 4.
        """
        count = self.num_temperatures
        raw = [1 / (1 + exp(4 - 8 * t / count)) for t in range(count + 1)]
        return [(value - raw[0]) / (raw[-1] - raw[0]) for value in raw]


class Chains:
    """Iterates over log-weights ``(m, *batch)`` of ``num_chains`` independent chains in all.

    A pilot run, whose weights are thrown away, tunes a step size for each datum and
    temperature; the chains themselves keep to these, so that their weights are unbiased.

    Args:
        options: how to anneal.
        model: generative program, called as ``model(*args, **kwargs)``.
        guide: its guide, or None where the chains start at the prior.
        args: positional arguments of both.
        kwargs: keyword arguments of both.
        num_chains: chains of each datum.
        chunk_size: chains at a time; by default as many as bound the memory.

    Raises:
        PyroLVMError: a count below 1, or no guide to start from.
        ProgramError: a model that cannot be annealed; see
            :class:`~pyro_lvm.diagnostics.unconstrained.UnconstrainedModel`.
    """

    def __init__(
        self,
        options: AIS,
        model: Program,
        guide: Program | None,
        args: Any,
        kwargs: Any,
        num_chains: int,
        chunk_size: int | None = None,
    ) -> None:
        from_guide = options.initial == "guide"
        if from_guide and guide is None:
            raise PyroLVMError(explain("guide", "a guide", "None", "Pass AIS(initial='prior')."))
        self.options = options
        self.num_chains = check_count("num_samples", num_chains)
        unconstrained = UnconstrainedModel(model, args, kwargs, guide if from_guide else None)
        self.scale = unconstrained.layout.scale
        affordable = max(1, _MAX_ELEMENTS // unconstrained.elements)
        wanted = affordable if chunk_size is None else chunk_size
        self.chunk_size = check_count("chunk_size", wanted)
        self._path = GeometricPath(unconstrained, self.chunk_size)

    def __iter__(self) -> Iterator[Tensor]:
        counts = portions(self.num_chains, self.chunk_size)
        pilot = _Pilot(self.options.betas()[1:-1])
        total = len(pilot.betas) + (self.options.num_temperatures - 1) * len(counts)
        with tqdm(total=total, disable=None, unit="move") as bar:
            step_sizes = self._tune(pilot, bar)
            for count in counts:
                yield self._anneal(count, step_sizes, bar)

    @torch.no_grad()
    def _tune(self, pilot: _Pilot, bar: tqdm) -> list[Tensor]:
        """A step size for each temperature, ``(*batch, 1)``."""
        point = self._path(self._path.draw(min(_NUM_PILOT_CHAINS, self.chunk_size)))
        log_step = torch.full_like(point.log_joint[0], log(_FIRST_STEP))
        found = []
        for beta in pilot.betas:
            point, accepted = self._move(point, beta, log_step.exp()[..., None], bar)
            log_step = log_step + _GAIN * (accepted.mean(0) - _TARGET_ACCEPTANCE)
            found.append(log_step.exp()[..., None])
        return pilot.last_of_each(found)

    @torch.no_grad()
    def _anneal(self, count: int, step_sizes: list[Tensor], bar: tqdm) -> Tensor:
        """Log-weights ``(count, *batch)``."""
        betas = self.options.betas()
        point = self._path(self._path.draw(count))
        log_weights = betas[1] * (point.log_joint - point.log_start)
        for beta, later, step_size in zip(betas[1:-1], betas[2:], step_sizes, strict=True):
            point, _ = self._move(point, beta, step_size, bar)
            log_weights = log_weights + (later - beta) * (point.log_joint - point.log_start)
        return log_weights

    def _move(
        self, point: Point, beta: float, step_size: Tensor, bar: tqdm
    ) -> tuple[Point, Tensor]:
        steps = step_size * self._path.spread
        with pyro.validation_enabled(False):  # a step may run into a density that is none
            moved, accepted = transition(self._path, point, beta, steps, self.options.num_leapfrog)
        bar.update()
        if not bar.disable:
            bar.set_postfix(accepted=f"{float(accepted.mean()):.2f}")
        return moved, accepted


class _Pilot:
    """Temperatures of the pilot run: a warm-up at the first, then each as often as it takes."""

    def __init__(self, betas: list[float]) -> None:
        self.repeats = ceil(_NUM_PILOT_STEPS / max(1, len(betas)))
        self.betas = betas[:1] * _NUM_PILOT_STEPS + [b for b in betas for _ in range(self.repeats)]

    def last_of_each(self, found: list[Tensor]) -> list[Tensor]:
        """What was found at the last visit to each temperature."""
        return found[_NUM_PILOT_STEPS:][self.repeats - 1 :: self.repeats]
