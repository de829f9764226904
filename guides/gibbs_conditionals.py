"""Every column of a row given all others, by one network."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from pyro.poutine.util import is_validation_enabled
from torch import Tensor, nn

from pyro_lvm.distributions import Cells, NormalMixture
from pyro_lvm.errors import DataError, ProgramError, explain
from pyro_lvm.nn import MLP, ZeroImputing, as_batch, check_size, positive_scale

__all__ = ["GibbsConditionals"]


class GibbsConditionals(PyroModule):
    r"""Amortised conditionals :math:`q(x_j \mid x_{-j})` of the D columns of a row.

    A network reads the row with the column in question hidden from it, and a linear layer of
    that column's own makes the distribution: a mixture of Normals (a single one by default), or
    class probabilities. Each row is asked for a column of its own choice in one pass.

    The network is an encoder of incomplete data: whatever else is NaN is hidden too. The
    conditionals are learned one by one and need not be those of any joint distribution.

    References:
        Simkus, Rhodes, Gutmann (2023), *Variational Gibbs inference for statistical model
        estimation from incomplete data*, arXiv:2111.13180.

    Args:
        in_features: number of columns, D.
        num_classes: of each column, 0 for real ones; all are real if left out.
        num_components: M, Normals in the mixture of a real column.
        hidden: hidden sizes of the network that all columns share; none at all makes a real
            column's mean linear in the others.
        separate: a network for each column in place of the shared one.
        encoder: of incomplete data, from ``(B, D)`` with NaN to ``(B, encoder.out_features)``,
            in place of the MLP: a ``TableEncoder`` where there are classes, say.

    Raises:
        ProgramError: a size below 1, ``num_classes`` of another length, ``separate`` beside an
            ``encoder``.

    Example:
        >>> conditionals = GibbsConditionals(3, num_classes=(0, 0, 4), hidden=(9,))
        >>> x = torch.tensor([[0.1, -0.3, 2.0], [0.5, 1.0, 3.0]])
        >>> q = conditionals(x, torch.tensor([0, 2]))  # the first column here, the last there
        >>> q.sample(), q.log_prob(x[[0, 1], [0, 2]]).shape
        (tensor([1.2450, 3.0000]), torch.Size([2]))
    """

    num_classes: Tensor

    def __init__(
        self,
        in_features: int = 64,
        *,
        num_classes: Sequence[int] | None = None,
        num_components: int = 1,
        hidden: Sequence[int] = (100, 100),
        separate: bool = False,
        encoder: nn.Module | None = None,
    ) -> None:
        super().__init__(name=type(self).__name__)
        self.in_features = check_size("in_features", in_features)
        self.num_components = check_size("num_components", num_components)
        counts = _checked(num_classes, in_features)
        self.register_buffer("num_classes", torch.tensor(counts), persistent=False)
        self.most_classes = max(counts)
        self.num_reals = 0 if all(counts) else 3 * num_components if num_components > 1 else 2
        self.body = _body(in_features, hidden, separate, encoder)
        outputs = self.num_reals + self.most_classes
        self.head = _ByColumn(in_features, self.body.out_features, outputs)
        self._spread()

    def forward(self, x: Tensor, column: Tensor) -> dist.TorchDistribution:
        """The distribution of ``x[..., column]`` given the rest: batch ``(*,)``.

        Args:
            x: rows ``(*, D)``; what stands at ``column`` is not read, NaN elsewhere are hidden.
            column: ``(*,)``, from 0 to D - 1.
        """
        h = self.body(x.scatter(-1, column.unsqueeze(-1), torch.nan), column)
        raw = self.head(h, column)
        reals, classes = raw.split([self.num_reals, self.most_classes], -1)
        if not self.most_classes:
            return self._reals(reals)
        counts = self.num_classes[column]
        beyond = torch.arange(self.most_classes, device=raw.device) >= counts.unsqueeze(-1)
        beyond = beyond & (counts > 0).unsqueeze(-1)
        category = dist.Categorical(logits=classes.masked_fill(beyond, -torch.inf))
        return Cells(self._reals(reals), category, counts > 0)

    def rows(self, x: Any) -> Tensor:
        """Data as ``(B, D)``, NaN where missing, on the device and in the dtype of the network.

        Raises:
            DataError: another shape; infinite entries, or a number that no class of its column
                has, looked for while Pyro's validation is on.
        """
        rows = as_batch(x, self.in_features, like=self.head.bias)
        if is_validation_enabled():
            self._check(rows)
        return rows

    def _check(self, rows: Tensor) -> None:
        unknown = (rows < 0) | (rows >= self.num_classes) | (rows != rows.round())
        wrong = (unknown & (self.num_classes > 0) & ~rows.isnan()) | rows.isinf()
        if bool(wrong.any()):
            row, column = wrong.nonzero()[0].tolist()
            count = int(self.num_classes[column])
            expected = f"classes 0 to {count - 1}, or NaN" if count else "finite numbers, or NaN"
            found = f"{float(rows[row, column]):g} in row {row}"
            hint = "Number classes from 0, and set cells that are not known to NaN."
            raise DataError(explain(f"column {column} of x", expected, found, hint))

    def _reals(self, raw: Tensor) -> dist.TorchDistribution:
        if not self.num_reals:  # of class columns alone
            return dist.Normal(raw.new_zeros(raw.shape[:-1]), 1.0)
        *logits, loc, scale = raw.split(self.num_components, -1)
        if logits:
            return NormalMixture(logits[0], loc, positive_scale(scale))
        return dist.Normal(loc.squeeze(-1), positive_scale(scale).squeeze(-1))

    @torch.no_grad()
    def _spread(self) -> None:
        """Components start apart, or they would all learn the same."""
        if self.num_reals and self.num_components > 1:
            count = self.num_components
            self.head.bias[:, count : 2 * count] = torch.linspace(-1.0, 1.0, count)


class _ByColumn(nn.Module):
    """A linear layer for each column: ``(*, in)`` and columns ``(*,)`` to ``(*, out)``."""

    def __init__(self, columns: int, in_features: int, out_features: int) -> None:
        super().__init__()
        reach = (6.0 / (in_features + out_features)) ** 0.5
        weight = torch.empty(columns, in_features, out_features).uniform_(-reach, reach)
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(torch.zeros(columns, out_features))

    def forward(self, h: Tensor, column: Tensor) -> Tensor:
        return (h.unsqueeze(-1) * self.weight[column]).sum(-2) + self.bias[column]


class _Shared(nn.Module):
    """An encoder of incomplete data that all columns share."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.out_features = check_size("encoder.out_features", encoder.out_features)

    def forward(self, x: Tensor, column: Tensor) -> Tensor:
        h: Tensor = self.encoder(x.reshape(-1, x.shape[-1]))
        return h.reshape(*x.shape[:-1], self.out_features)


class _Separate(nn.Module):
    """Hidden layers of each column's own, zeros where the row has NaN."""

    def __init__(self, columns: int, hidden: Sequence[int]) -> None:
        super().__init__()
        sizes = [columns, *(check_size("hidden", size) for size in hidden)]
        self.layers = nn.ModuleList(_ByColumn(columns, *pair) for pair in pairwise(sizes))
        self.out_features = sizes[-1]

    def forward(self, x: Tensor, column: Tensor) -> Tensor:
        h = x.nan_to_num(0.0)
        for layer in self.layers:
            h = torch.tanh(layer(h, column))
        return h


def _body(
    columns: int, hidden: Sequence[int], separate: bool, encoder: nn.Module | None
) -> _Shared | _Separate:
    if not separate:
        return _Shared(encoder or ZeroImputing(MLP(2 * columns, None, hidden)))
    if encoder is not None:
        hint = "Leave one of the two out."
        found = f"separate=True beside a {type(encoder).__name__}"
        raise ProgramError(explain("encoder", "None where columns share nothing", found, hint))
    return _Separate(columns, hidden)


def _checked(num_classes: Sequence[int] | None, columns: int) -> list[int]:
    counts = [0] * columns if num_classes is None else list(num_classes)
    if len(counts) != columns or min(counts) < 0:
        hint = "Pass 0 for a real column, and the number of classes for the others."
        expected = f"{columns} numbers >= 0, one a column"
        raise ProgramError(explain("num_classes", expected, repr(counts), hint))
    return counts
