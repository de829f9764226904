"""Which plates hold independent data, and how log-probabilities fold into them.

The batch of a program pair is the set of plates that *every* site of both programs is in:
its data are independent given the parameters, and each gets a bound of its own. A site
outside a plate (a global latent) joins that plate's data into one joint weight. The N/B
scale of a batch plate multiplies the bound; a factor that all sites share
(``poutine.scale`` around the whole programs) does too. Any other scale is part of the
density the user wrote and stays inside the weight.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import isclose, prod
from typing import Any

import torch
from pyro.poutine.indep_messenger import CondIndepStackFrame
from pyro.poutine.util import is_validation_enabled
from torch import Tensor

from pyro_lvm.errors import PlateError, explain
from pyro_lvm.tracing import Site

__all__ = ["Layout", "Scale", "chosen_rows", "differs_from_one", "fitted", "scaled"]

Scale = float | Tensor


@dataclass(frozen=True)
class Layout:
    """The dims of a draw: particles, then plates; which of the plates are the batch.

    Attributes:
        max_plate_nesting: P, dims reserved for plates.
        batch: frames of the batch plates, left to right.
        scale: factor of the per-datum bounds, broadcastable to ``(*batch,)``.
        model_scales: factor of each model site's log-probability, and
        guide_scales: of each guide site's.
        subsampled_inside: subsampled plates that are not in the batch.
    """

    max_plate_nesting: int
    batch: tuple[Any, ...]
    scale: Scale
    model_scales: Mapping[str, Scale]
    guide_scales: Mapping[str, Scale]
    subsampled_inside: tuple[str, ...]

    @classmethod
    def of(
        cls, model: Mapping[str, Site], guide: Mapping[str, Site], max_plate_nesting: int
    ) -> Layout:
        """The layout of all sites of a model and its guide; runs of one structure share it."""
        of_model, of_guide = _placed(model), _placed(guide)
        tensors = [name for name, scale, _ in of_model + of_guide if isinstance(scale, Tensor)]
        layout = _layout.__wrapped__ if tensors else _layout  # what they hold may change
        return layout(max_plate_nesting, of_model, of_guide)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(frame.name for frame in self.batch)

    @cached_property
    def shape(self) -> tuple[int, ...]:
        return tuple(frame.size for frame in self.batch)

    def common(self, scales: Sequence[Scale]) -> Scale | None:
        """What all of ``scales`` are, broadcastable to ``(*batch,)``, or None if they differ."""
        shared, rest = _split([*scales] or [1.0])
        if any(differs_from_one(scale) for scale in rest):
            return None
        return self._scale_of_batch(shared) if isinstance(shared, Tensor) else shared

    def fold(self, log_prob: Tensor) -> Tensor:  # (K or 1, *batch)
        """Sum a site's log-prob of shape ``(K?, *plates)`` over all plates but the batch."""
        if log_prob.dtype in (torch.float16, torch.bfloat16):
            log_prob = log_prob.float()
        padded = self._pad(log_prob)
        return padded.sum(self._inside) if self._inside else padded

    def unfold(self, weights: Tensor) -> Tensor:  # (K, *plates), ones where not in the batch
        """Put weights of shape ``(K, *batch)`` where the plates' dims are."""
        sizes = [1] * self.max_plate_nesting
        for frame in self.batch:
            sizes[frame.dim] = frame.size
        return weights.reshape(-1, *sizes)

    def plates(self, site: Site) -> tuple[str | None, ...]:
        """Name of the plate at each plate dim of ``site``, left to right."""
        names: list[str | None] = [None] * self.max_plate_nesting
        for frame in site.frames:
            if frame.dim is not None:
                names[frame.dim] = frame.name
        return tuple(names)

    @cached_property
    def _inside(self) -> tuple[int, ...]:
        """The plates' dims that are not the batch's."""
        batch = {frame.dim for frame in self.batch}
        return tuple(dim for dim in range(-self.max_plate_nesting, 0) if dim not in batch)

    def _pad(self, tensor: Tensor) -> Tensor:
        missing = self.max_plate_nesting + 1 - tensor.dim()
        return tensor.reshape((1,) * missing + tensor.shape) if missing else tensor

    def _scale_of_batch(self, scale: Tensor) -> Tensor:
        padded = self._pad(scale)
        for dim in self._inside:
            if padded.shape[dim] != 1:
                raise PlateError(
                    explain(
                        "poutine.scale around both programs",
                        f"a factor over the batch plates {list(self.names)}",
                        f"a tensor of shape {tuple(scale.shape)}",
                        "Scale the sites one by one, or use one factor a datum.",
                    )
                )
        return self.fold(padded)[0]


_Placed = tuple[str, Scale, tuple[tuple[Any, ...], ...]]
"""A site's name, scale and plates, these as plain tuples: Pyro's hash of a frame is slow."""


def _placed(sites: Mapping[str, Site]) -> tuple[_Placed, ...]:
    return tuple([(n, site.scale, tuple(map(tuple, site.frames))) for n, site in sites.items()])


@lru_cache(maxsize=256)
def _layout(
    max_plate_nesting: int, model: tuple[_Placed, ...], guide: tuple[_Placed, ...]
) -> Layout:
    sites = [*model, *guide]
    plates = [[CondIndepStackFrame(*plate) for plate in placed] for _, _, placed in sites]
    frames = _common_frames(plates)
    plate_scale = prod(frame.full_size / frame.size for frame in frames)
    shared, inner = _split([scale / plate_scale for _, scale, _ in sites])
    if isinstance(shared, Tensor):
        shared = Layout(max_plate_nesting, frames, 1.0, {}, {}, ())._scale_of_batch(shared)
    scales = [(name, scale) for (name, _, _), scale in zip(sites, inner, strict=True)]
    reduced = {f.name for each in plates for f in each if f.full_size != f.size}
    return Layout(
        max_plate_nesting,
        frames,
        shared * plate_scale,
        dict(scales[: len(model)]),
        dict(scales[len(model) :]),
        tuple(sorted(reduced - {frame.name for frame in frames})),
    )


def _common_frames(plates: Sequence[Sequence[Any]]) -> tuple[Any, ...]:
    names = [{f.name for f in each if f.dim is not None} for each in plates]
    common = set.intersection(*names) if names else set()
    frames = {f.name: f for each in plates for f in each if f.name in common}
    return tuple(sorted(frames.values(), key=lambda frame: int(frame.dim)))


def _split(ratios: list[Scale]) -> tuple[Scale, tuple[Scale, ...]]:
    """Into one factor shared by all sites and what is left for each."""
    if not any(isinstance(ratio, Tensor) for ratio in ratios):
        first = ratios[0]
        shared = all(isclose(ratio, first, rel_tol=1e-6) for ratio in ratios)
        return (first, (1.0,) * len(ratios)) if shared else (1.0, tuple(ratios))
    return _split_tensors(ratios)


def _split_tensors(ratios: list[Scale]) -> tuple[Scale, tuple[Scale, ...]]:
    tensor = next(r for r in ratios if isinstance(r, Tensor))
    all_ratios = [torch.as_tensor(r, dtype=tensor.dtype, device=tensor.device) for r in ratios]
    first = all_ratios[0]
    same = torch.stack(
        torch.broadcast_tensors(*[torch.isclose(r, first, rtol=1e-6) for r in all_ratios])
    ).all(0)
    one = torch.ones_like(first)
    return torch.where(same, first, one), tuple(torch.where(same, one, r) for r in all_ratios)


def scaled(term: Tensor, factor: Scale) -> Tensor:
    """``term`` times ``factor``, at no cost where that is one."""
    return term if isinstance(factor, float) and factor == 1.0 else term * factor


def differs_from_one(factor: Scale) -> bool:
    """Whether a factor changes anything; of a tensor only told while Pyro's validation is on."""
    if isinstance(factor, Tensor):
        return is_validation_enabled() and bool((factor != 1).any())
    return factor != 1.0


def chosen_rows(value: Tensor, chosen: Tensor) -> Tensor:
    """Of ``(K, *plates, *event)`` the particles ``(S, *plates)`` that each datum chose."""
    return value.gather(0, fitted(chosen, value).expand(-1, *value.shape[1:]))


def fitted(tensor: Tensor, value: Tensor) -> Tensor:
    """``(S, *plates)`` with a dim for each event dim of ``value``."""
    return tensor.reshape(*tensor.shape, *[1] * (value.dim() - tensor.dim()))
