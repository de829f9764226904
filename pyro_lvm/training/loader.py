"""Batches in an order that depends only on the seed and the epoch, so that it can be resumed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, default_collate
from torch.utils.data.distributed import DistributedSampler

from pyro_lvm.errors import DataError, explain
from pyro_lvm.training.inputs import Data, as_dataset
from pyro_lvm.training.rng import generator_at, mix, seeded
from pyro_lvm.training.rows import Rows, checksum

__all__ = ["Batch", "Batches", "Transform"]

Transform = Callable[[Any, torch.Generator], Any]

_ON_CPU = torch.device("cpu")
"""Where orders are drawn, whatever the default device."""


@dataclass(frozen=True)
class Batch:
    """Arguments of one call of the programs, and how many data they hold."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    size: int

    @classmethod
    def of(cls, raw: Any) -> Batch:
        """A tensor is one argument, a tuple or list several, a dict keyword arguments."""
        if isinstance(raw, dict):
            return cls((), raw, len(next(iter(raw.values()))))
        args = tuple(raw) if isinstance(raw, tuple | list) else (raw,)
        return cls(args, {}, len(args[0]))


class Batches:
    """All batches of a data set, epoch after epoch.

    A batch of all the data is never shuffled: its rows stay those of the user's plates.
    The order, the transform's randomness and each process's share are functions of the seed,
    the epoch and the position: any point of training can be returned to. Several processes
    split each batch among them; up to ``world_size - 1`` data of a batch are then left out,
    so that all shares are equal.

    Args:
        data: see :data:`pyro_lvm.training.inputs.Data`. A ``DataLoader`` keeps its own
            batches, ``collate_fn`` and workers.
        batch_size: data per step, over all processes.
        seed: what the order depends on.
        shuffle: a new order each epoch; otherwise the given one.
        transform: function of a batch and a generator that returns the batch to use.
        rank: this process.
        world_size: the number of processes.
        min_size: batches with fewer data per process are left out.
        to_device: function that moves a batch.
    """

    def __init__(
        self,
        data: Data,
        batch_size: int,
        *,
        seed: int,
        shuffle: bool = True,
        transform: Transform | None = None,
        rank: int = 0,
        world_size: int = 1,
        min_size: int = 1,
        to_device: Callable[[Any], Any] = lambda raw: raw,
    ) -> None:
        self.loader = data if isinstance(data, DataLoader) else None
        self.dataset = as_dataset(data, "data", allow_nan=True)
        self.batch_size = batch_size
        self.seed = seed
        self.shuffle = shuffle
        self.transform = transform
        self.rank = rank
        self.world_size = world_size
        self.min_size = min_size
        self.to_device = to_device
        _check_sampler(self.loader)
        if not self.steps(0):
            raise self._no_batches()

    @property
    def num_data(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    @property
    def checksum(self) -> int | None:
        """Of the data, where they are arrays."""
        return checksum(self.dataset) if isinstance(self.dataset, Rows) else None

    def steps(self, epoch: int) -> int:
        """Number of batches in ``epoch``."""
        return len(self._order(epoch))

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of ``epoch`` from position ``start`` on."""
        order = self._order(epoch)[start:]
        with _ON_CPU:  # where torch draws a seed by the loader's generator
            loader = iter(self._reader(order, epoch))
        for position, raw in enumerate(loader, start):
            if self.transform is not None:
                generator = generator_at(self.seed, "transform", epoch, position, self.rank)
                raw = self.transform(raw, generator)
            yield Batch.of(self.to_device(raw))

    def _order(self, epoch: int) -> list[list[int]]:
        with _ON_CPU:
            batches = self._loader_order(epoch) if self.loader else self._own_order(epoch)
        shares = [self._share(batch) for batch in batches]
        return [share for share in shares if len(share) >= self.min_size]

    def _own_order(self, epoch: int) -> list[list[int]]:
        rows = torch.arange(self.num_data)
        if self.shuffle and self.batch_size < len(rows):
            rows = torch.randperm(len(rows), generator=generator_at(self.seed, "order", epoch))
        return [batch.tolist() for batch in rows.split(self.batch_size)]

    def _loader_order(self, epoch: int) -> list[list[int]]:
        loader: Any = self.loader
        own_generator = getattr(loader.batch_sampler, "generator", None) or getattr(
            loader.sampler, "generator", None
        )
        if own_generator is not None:
            own_generator.manual_seed(mix(self.seed, "order", epoch))
        with seeded(self.seed, "order", epoch):
            return [list(batch) for batch in loader.batch_sampler]

    def _share(self, batch: list[int]) -> list[int]:
        whole = len(batch) - len(batch) % self.world_size
        return batch[:whole][self.rank :: self.world_size]

    def _reader(self, order: list[list[int]], epoch: int) -> DataLoader[Any]:
        loader = self.loader
        return DataLoader(
            self.dataset,
            batch_sampler=order,
            collate_fn=self._collate,
            num_workers=loader.num_workers if loader else 0,
            pin_memory=loader.pin_memory if loader else False,
            worker_init_fn=loader.worker_init_fn if loader else None,
            generator=generator_at(self.seed, "workers", epoch),
        )

    @property
    def _collate(self) -> Callable[[Any], Any]:
        if isinstance(self.dataset, Rows):
            return _already_a_batch
        return self.loader.collate_fn if self.loader else default_collate

    def _no_batches(self) -> DataError:
        least = self.min_size * self.world_size
        return DataError(
            explain(
                "data",
                f"a batch of at least {least} (BatchNorm needs two data in each process)",
                f"{self.num_data} data in batches of {self.batch_size}",
                "Pass more data, a larger batch_size, or a network without BatchNorm.",
            )
        )


def _already_a_batch(batch: Tensor) -> Tensor:
    return batch


def _check_sampler(loader: DataLoader[Any] | None) -> None:
    if loader is not None and loader.batch_sampler is None:
        raise DataError(
            explain(
                "data",
                "a DataLoader that makes batches",
                "one with batch_size=None",
                "Give it a batch_size, or pass the Dataset itself.",
            )
        )
    if loader is not None and isinstance(loader.sampler, DistributedSampler):
        raise DataError(
            explain(
                "data",
                "a DataLoader over all the data",
                "one with a DistributedSampler",
                "Leave the sampler out: fit gives each process its share of every batch.",
            )
        )
