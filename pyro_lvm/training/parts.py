"""The three sets of batches of a run: training, held out, and a few to diagnose."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from torch.utils.data import DataLoader

from pyro_lvm.errors import DataError, explain
from pyro_lvm.training.fabric import Fabric
from pyro_lvm.training.inputs import Data, as_dataset, split
from pyro_lvm.training.loader import Batches, Transform
from pyro_lvm.training.precision import placed
from pyro_lvm.training.rng import mix

__all__ = ["Parts"]

PROBE_SIZE = 64


@dataclass(frozen=True)
class Parts:
    """Batches for training, for the held-out bound, and for ESS and k-hat."""

    train: Batches
    held_out: Batches | None
    probe: Batches

    @classmethod
    def of(
        cls,
        data: Data,
        validation: Data | float | None,
        batch_size: int | None,
        *,
        seed: int,
        transform: Transform | None,
        allow_nan: bool,
        min_size: int,
        fabric: Fabric,
    ) -> Parts:
        """Check the data and deal them out."""
        train, held_out = _split(data, validation, seed, allow_nan)
        batches = partial(
            Batches,
            transform=transform,
            rank=fabric.global_rank,
            world_size=fabric.world_size,
            to_device=partial(placed, fabric),
        )
        apart = partial(batches, seed=mix(seed, "held out"), shuffle=False)
        size = batch_size or _length(train)
        probed = train if held_out is None else held_out
        whole = size >= _length(train)  # the programs may know all rows, and only them
        return cls(
            train=batches(train, size, seed=seed, min_size=min_size),
            held_out=None if held_out is None else apart(held_out, size),
            probe=apart(probed, size if whole else min(size, PROBE_SIZE)),
        )


def _split(
    data: Data, validation: Data | float | None, seed: int, allow_nan: bool
) -> tuple[Data, Data | None]:
    dataset = as_dataset(data, "data", allow_nan)
    is_loader = isinstance(data, DataLoader)
    if isinstance(validation, float):
        if is_loader:
            raise DataError(
                explain(
                    "validation",
                    "held-out data beside a DataLoader",
                    f"the fraction {validation}",
                    "Pass a DataLoader or tensors of held-out data.",
                )
            )
        return split(dataset, validation, seed)
    if validation is not None:
        checked = as_dataset(validation, "validation", allow_nan)
        validation = validation if isinstance(validation, DataLoader) else checked
    return (data if is_loader else dataset), validation


def _length(data: Data) -> int:
    dataset: Any = data.dataset if isinstance(data, DataLoader) else data
    return len(dataset)
