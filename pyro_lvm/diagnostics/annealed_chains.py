"""Chains that are annealed from a start distribution to the posterior, or back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from math import ceil, log
from typing import Any

import pyro
import torch
from torch import Tensor
from tqdm.auto import tqdm  # type: ignore[import-untyped, unused-ignore]

from pyro_lvm.diagnostics.ais import AIS
from pyro_lvm.diagnostics.chunks import check_count
from pyro_lvm.diagnostics.path import GeometricPath, portions
from pyro_lvm.diagnostics.unconstrained import UnconstrainedModel
from pyro_lvm.errors import PyroLVMError, explain
from pyro_lvm.hmc import Point, transition
from pyro_lvm.weights import log_mean_exp

__all__ = ["Chains"]

Program = Callable[..., Any]

_TARGET_ACCEPTANCE = 0.65  # best in many dims: Neal (2011), section 4.4
_NUM_PILOT_CHAINS, _NUM_PILOT_STEPS = 4, 50
_FIRST_STEP = 0.5  # in units of the spread of the start distribution
_GAIN = 0.1  # of the log step size per unit of acceptance
_MAX_ELEMENTS = 2**22  # values of all sites in one chunk; a gradient holds a few times as many


class Chains:
    """Log-weights of independent chains, or of populations of chains, of each datum.

    Iterates over ``(m, *batch)`` log-weights, ``num_weights`` of them in all; the mean weight is
    p(x) in expectation. A pilot run, whose weights are thrown away, tunes a step size for each
    datum and temperature; the chains themselves keep to these, so that their weights are
    unbiased.

    Args:
        options: how to anneal.
        model: generative program, called as ``model(*args, **kwargs)``.
        guide: its guide, or None where the chains start at the prior.
        args: positional arguments of both.
        kwargs: keyword arguments of both.
        num_weights: chains, or populations, of each datum.
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
        num_weights: int,
        chunk_size: int | None = None,
    ) -> None:
        from_guide = options.initial == "guide"
        if from_guide and guide is None:
            raise PyroLVMError(explain("guide", "a guide", "None", "Pass initial='prior'."))
        self.options = options
        self.num_weights = check_count("num_samples", num_weights)
        self._model = UnconstrainedModel(model, args, kwargs, guide if from_guide else None)
        self.scale = self._model.layout.scale
        affordable = max(1, _MAX_ELEMENTS // self._model.elements)
        wanted = affordable if chunk_size is None else chunk_size
        self.chunk_size = check_count("chunk_size", wanted)
        self._path = GeometricPath(self._model, self.chunk_size)
        self._step_sizes: list[Tensor] | None = None

    def __iter__(self) -> Iterator[Tensor]:
        return self._run(self.options.betas(), self._path.draw)

    def backwards(self, latents: Mapping[str, Tensor]) -> Iterator[Tensor]:
        """Log-weights ``(m, *batch)`` of chains from the posterior to the start distribution.

        Their mean weight is 1 / p(x) in expectation. The moves are those of the chains forwards,
        in the opposite order: each leaves its own target invariant and is reversible.

        Args:
            latents: one exact draw of the posterior, by site, ``(*plates, *event)``. All chains
                start there, so that they are not independent.
        """
        start = self._model.vector(latents)
        return self._run(
            self.options.betas()[::-1], lambda count: start.expand(count, *start.shape[1:])
        )

    def _run(self, betas: list[float], start: Callable[[int], Tensor]) -> Iterator[Tensor]:
        size = self.options.population
        counts = portions(self.num_weights, max(1, self.chunk_size // size))
        pilot = _Pilot(self.options.betas()[1:-1])
        tunes = self._step_sizes is None
        total = (len(betas) - 2) * len(counts) + tunes * len(pilot.betas)
        with tqdm(total=total, disable=None, unit="move") as bar:
            if self._step_sizes is None:
                self._step_sizes = self._tune(pilot, bar)
            is_forward = betas[0] < betas[-1]
            step_sizes = self._step_sizes if is_forward else self._step_sizes[::-1]
            for count in counts:
                yield self._anneal(start(count * size), betas, step_sizes, bar)

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
    def _anneal(
        self, start: Tensor, betas: list[float], step_sizes: list[Tensor], bar: tqdm
    ) -> Tensor:
        """Log-weights ``(populations, *batch)`` of chains from ``start`` on."""
        point = self._path(start)
        log_weights = (betas[1] - betas[0]) * point.log_ratio
        before = log_weights.new_zeros(())  # log-weights of populations until they were resampled
        for beta, later, step_size in zip(betas[1:-1], betas[2:], step_sizes, strict=True):
            point, log_weights, log_mean = self.options.resampled(point, log_weights)
            before = before + log_mean
            point, _ = self._move(point, beta, step_size, bar)
            log_weights = log_weights + (later - beta) * point.log_ratio
        by_population = log_weights.unflatten(0, (-1, self.options.population))
        return before + log_mean_exp(by_population, 1)

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
