"""Columns of several families in one site, each scored, and masked, on its own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from pyro.distributions import TorchDistribution, constraints
from pyro.nn import PyroModule
from torch import Size, Tensor, nn

from pyro_lvm.distributions.likelihoods import Likelihood
from pyro_lvm.errors import ProgramError, explain
from pyro_lvm.scoring import log_prob

__all__ = ["Columns", "MixedLikelihood"]

_NO_SIZE = Size()


class Columns(TorchDistribution):
    """Independent numbers in a row: univariate distributions side by side over the last dim.

    The columns are a batch dim, as those of ``Normal(loc, scale)`` are: ``.to_event(1)`` makes
    a row one event, and ``.mask(observed).to_event(1)`` one with missing entries. Draws are
    floating point, counts and class numbers too.

    Args:
        parts: distributions of batch shape ``(*, d)`` and event shape ``()``, left to right;
            all but the last dim broadcast.

    Example:
        >>> import pyro.distributions as dist
        >>> row = Columns([dist.Normal(torch.zeros(5, 2), 1.0), dist.Poisson(torch.ones(3))])
        >>> row.batch_shape, row.to_event(1).log_prob(torch.zeros(5, 5)).shape
        (torch.Size([5, 5]), torch.Size([5]))
    """

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012

    def __init__(self, parts: Sequence[TorchDistribution]) -> None:
        left = torch.broadcast_shapes(*(part.batch_shape[:-1] for part in parts))
        self._parts = [part.expand((*left, part.batch_shape[-1])) for part in parts]
        super().__init__(Size((*left, sum(self._lengths))), validate_args=False)

    @property
    def support(self) -> Any:
        """Of each column its own."""
        supports = [part.support for part in self._parts]
        alike = all(support is supports[0] for support in supports)
        return supports[0] if alike else constraints.cat(supports, -1, self._lengths)

    @property
    def mean(self) -> Tensor:
        return self._joined(part.mean for part in self._parts)

    @property
    def variance(self) -> Tensor:
        return self._joined(part.variance for part in self._parts)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Columns:
        *left, _ = batch_shape
        return Columns([part.expand((*left, part.batch_shape[-1])) for part in self._parts])

    def sample(self, sample_shape: Any = _NO_SIZE) -> Tensor:  # (*sample, *batch)
        return self._joined(part.sample(sample_shape) for part in self._parts)

    def log_prob(self, value: Tensor) -> Tensor:  # (*batch,)
        """Of each number, in nats.

        Raises:
            ValueError: a family cannot have a value of its columns, which are counted from 0.
        """
        values = zip(self._parts, value.split(self._lengths, -1), strict=True)
        scores: list[Tensor] = []
        for part, numbers in values:
            try:
                scores.append(log_prob(part, numbers))
            except ValueError as error:
                first = sum(self._lengths[: len(scores)])
                last = first + part.batch_shape[-1] - 1
                raise ValueError(f"in columns {first} to {last}: {error}") from error
        return self._joined(scores)

    @property
    def _lengths(self) -> list[int]:
        return [part.batch_shape[-1] for part in self._parts]

    @staticmethod
    def _joined(parts: Iterable[Tensor]) -> Tensor:
        return torch.cat(list(parts), -1)


class MixedLikelihood(Likelihood):
    """Likelihoods side by side: the first takes the first columns, and so on.

    References:
        Nazabal, Olmos, Ghahramani, Valera (2018), *Handling incomplete heterogeneous data
        using VAEs*, arXiv:1807.03653.

    Args:
        parts: one for each group of neighbouring columns.

    Raises:
        ProgramError: no parts.

    Example:
        >>> from pyro_lvm.distributions import CategoricalLikelihood, GaussianLikelihood
        >>> table = MixedLikelihood([GaussianLikelihood(2), CategoricalLikelihood(1, 3)])
        >>> table.features, table.num_outputs
        (3, 5)
        >>> table(torch.zeros(7, 5)).batch_shape
        torch.Size([7, 3])
    """

    def __init__(self, parts: Sequence[Likelihood]) -> None:
        if not parts:
            hint = "Pass [GaussianLikelihood(3), PoissonLikelihood(2)], say."
            raise ProgramError(explain("parts", "at least one likelihood", "none", hint))
        super().__init__(sum(part.features for part in parts))
        self.num_outputs = sum(part.num_outputs for part in parts)
        self.parts: Any = PyroModule[nn.ModuleList](parts)  # type: ignore[arg-type]

    def forward(self, output: Tensor) -> TorchDistribution:
        outputs = output.split([part.num_outputs for part in self.parts], -1)
        return Columns([part(raw) for part, raw in zip(self.parts, outputs, strict=True)])

    def start(self, mean: Tensor) -> Tensor:
        means = mean.split([part.features for part in self.parts])
        return torch.cat([part.start(m) for part, m in zip(self.parts, means, strict=True)])
