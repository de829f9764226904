"""Held-out bound and importance-sampling diagnostics of a fit in progress."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from pyro_lvm.errors import PlateError, explain
from pyro_lvm.objective import Objective
from pyro_lvm.particles import Particles
from pyro_lvm.training.fabric import Fabric
from pyro_lvm.training.loader import Batch, Batches
from pyro_lvm.training.precision import full_densities
from pyro_lvm.training.programs import Programs
from pyro_lvm.training.rng import seeded
from pyro_lvm.training.state import Row
from pyro_lvm.weights import effective_sample_size, pareto_khat

__all__ = ["DatumCount", "Evaluator"]

KHAT_LIMIT = 0.7


class DatumCount:
    """How many data a loss speaks for: its rows, times the N/B scale of their plate.

    One draw per batch size tells; later batches of that size are looked up. A joint bound
    (a global latent variable) counts the rows of its observed data.

    Args:
        objective: whose loss it is.
        programs: the model and guide.
        is_share: a batch is what one of several processes sees.
        is_part: an epoch has several batches.

    Raises:
        PlateError: a joint bound of a part or share that stands for itself alone: each batch, or
            process, would count the global latents in full.
    """

    def __init__(
        self,
        objective: Objective,
        programs: Programs,
        is_share: bool = False,
        is_part: bool = False,
    ) -> None:
        self.objective = objective
        self.programs = programs
        self.is_share = is_share
        self.is_part = is_part
        self.known: dict[int, float] = {}

    def __call__(self, batch: Batch) -> float:
        if batch.size not in self.known:
            with seeded("count"), torch.no_grad(), self.programs.evaluating():
                particles = self.objective._draw(  # in chunks without draws, unlike particles()
                    self.programs.model, self.programs.guide, batch.args, batch.kwargs
                )
            self.known[batch.size] = _num_data(particles, batch)
            is_joint = not particles.log_weights.shape[1:]
            if is_joint and (self.is_share or (self.is_part and _plated(particles, batch))):
                _check_scaled(self.known[batch.size], batch)
        return self.known[batch.size]


class Evaluator:
    """Evaluates the programs with the same random numbers every time.

    Args:
        objective: whose bound to report.
        programs: the model and guide.
        held_out: batches of held-out data, if any.
        probe: the few data for the effective sample size and k-hat, if wanted.
        num_particles: draws per datum for those.
        count: the number of data a bound speaks for.
        seed: what the random numbers depend on.
        fabric: precision, and the sum over processes.
    """

    def __init__(
        self,
        objective: Objective,
        programs: Programs,
        *,
        held_out: Batches | None,
        probe: Batches | None,
        num_particles: int,
        count: DatumCount,
        seed: int,
        fabric: Fabric,
    ) -> None:
        self.objective = objective
        self.programs = programs
        self.held_out = held_out
        self.probe = probe
        self.many = copy.copy(objective)
        self.many.num_particles = num_particles
        self.seed = seed
        self.fabric = fabric
        self.count = count

    def __call__(self) -> Row:
        """``bound`` in nats per datum, ``ess`` as a share of the draws, ``khat``, ``khat_high``."""
        with (
            seeded(self.seed, "evaluate", self.fabric.global_rank),
            torch.no_grad(),
            self.programs.evaluating(),
            self.fabric.autocast(),
            full_densities(self.fabric),
        ):
            row: Row = {}
            if self.held_out is not None:
                row["bound"] = self._bound(self.held_out)
            if self.probe is not None:
                row |= self._weights(next(self.probe.epoch(0)))
            return row

    def _bound(self, batches: Batches) -> float:
        sums = torch.stack([self._batch_sums(batch) for batch in batches.epoch(0)]).sum(0)
        total, size = self._over_processes(sums).tolist()
        return float(total / size)

    def _batch_sums(self, batch: Batch) -> Tensor:  # (2,): bound times data, data
        bound = self._call(self.objective.bound, batch)
        mean = bound.mean() if bound.dim() else bound / self.count(batch)
        return torch.stack([mean.double() * batch.size, mean.new_tensor(batch.size).double()])

    def _weights(self, batch: Batch) -> Row:
        log_weights = self._call(self.many.log_weights, batch)  # (K, *batch)
        khat = pareto_khat(log_weights)
        ess = effective_sample_size(log_weights) / len(log_weights)
        values = torch.stack([ess.mean(), khat.median(), (khat > KHAT_LIMIT).double().mean()])
        shares = self._over_processes(values.double()) / self.fabric.world_size
        return dict(zip(("ess", "khat", "khat_high"), shares.tolist()))

    def _call(self, method: Any, batch: Batch) -> Tensor:
        value = method(self.programs.model, self.programs.guide, *batch.args, **batch.kwargs)
        return torch.as_tensor(value)

    def _over_processes(self, values: Tensor) -> Tensor:
        return torch.as_tensor(self.fabric.all_reduce(values, reduce_op="sum"))


def _num_data(particles: Particles, batch: Batch) -> float:
    shape = particles.log_weights.shape[1:]
    if shape:
        return float(torch.as_tensor(particles.scale).expand(shape).sum())
    scales = [site.scale for site in particles.model.values() if site.is_observed]
    return batch.size * float(torch.as_tensor(scales[0]).mean()) if scales else float(batch.size)


def _plated(particles: Particles, batch: Batch) -> bool:
    """Whether the data of a batch are in a plate that not all latents are in."""
    sites = [site for site in particles.model.values() if site.is_observed]
    return any(frame.size == batch.size for site in sites for frame in site.frames)


def _check_scaled(num_data: float, batch: Batch) -> None:
    if num_data == batch.size:
        raise PlateError(
            explain(
                "plates of the data",
                "the size of all the data, beside a global latent that batches or processes share",
                f"{batch.size}, the share of one batch or process",
                "Give the model num_data=N, or open the plate with size=N, subsample=<tensor of "
                "the batch's length>; or pass batch_size=None.",
            )
        )
