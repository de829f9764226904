"""How well inferred spikes agree with true ones: correlation and counts, cell by cell."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pyro_lvm.data import rebin
from pyro_lvm.errors import DataError, explain

__all__ = ["Spread", "check_spikes", "count_bias", "count_ratio", "spike_correlation", "spread"]


def spike_correlation(
    estimate: Tensor, truth: Tensor, rate: float, *, bin_ms: float = 40.0
) -> Tensor:  # (cells,)
    """Pearson correlation of inferred and true spike counts in bins of time, for each cell.

    It rises with the width of the bins, so only values of one width can be compared. Frames
    that two bins share are shared out by time. The measure of the spikefinder challenge:
    Berens et al. (2018), Community-based benchmarking improves spike rate inference from
    two-photon calcium imaging data, PLoS Computational Biology 14, with bins of 40 ms.

    Args:
        estimate: ``(cells, frames)`` expected counts, probabilities or anything that grows
            with them; scale and offset do not matter.
        truth: ``(cells, frames)`` true counts, NaN = unknown; bins with such frames are left
            out.
        rate: frames a second, Hz.
        bin_ms: width of the bins, ms, at least a frame.

    Returns:
        NaN where either side is constant, such as a cell that never fired.

    Raises:
        DataError: other shapes, or bins shorter than a frame.

    Example:
        >>> truth = torch.tensor([[0.0, 1.0, 0.0, 0.0, 2.0, 0.0]])
        >>> late = truth.roll(1)
        >>> spike_correlation(late, truth, rate=50.0, bin_ms=20.0)
        tensor([-0.4286])
        >>> spike_correlation(late, truth, rate=50.0, bin_ms=60.0)
        tensor([1.])
    """
    check_spikes(estimate, truth)
    ratio = rate * bin_ms / 1000
    a, b = (rebin(values, ratio).double() for values in (estimate, truth))
    known = ~(a.isnan() | b.isnan())
    a, b = (_centred(values, known) for values in (a, b))
    return ((a * b).sum(1) / (a.square().sum(1) * b.square().sum(1)).sqrt()).to(estimate.dtype)


def _centred(values: Tensor, known: Tensor) -> Tensor:
    values = values.where(known, 0)
    mean = values.sum(1, keepdim=True) / known.sum(1, keepdim=True)
    return (values - mean).where(known, 0)


def count_ratio(estimate: Tensor, truth: Tensor) -> Tensor:  # (cells,)
    """Inferred over true number of spikes, for each cell; infinite or NaN without true ones.

    Args:
        estimate: ``(cells, frames)`` expected counts.
        truth: ``(cells, frames)`` true counts, NaN = unknown.

    Example:
        >>> count_ratio(torch.tensor([[0.5, 1.0, 9.0]]), torch.tensor([[1.0, 1.0, float("nan")]]))
        tensor([0.7500])
    """
    check_spikes(estimate, truth)
    return estimate.where(~truth.isnan(), 0).sum(1) / truth.nansum(1)


def count_bias(estimate: Tensor, truth: Tensor, rate: float) -> Tensor:  # (cells,)
    """Inferred less true spikes a second, for each cell; defined for silent cells too.

    Args:
        estimate: ``(cells, frames)`` expected counts.
        truth: ``(cells, frames)`` true counts, NaN = unknown.
        rate: frames a second, Hz.

    Example:
        >>> count_bias(torch.tensor([[0.5, 1.0]]), torch.tensor([[1.0, 1.0]]), rate=10.0)
        tensor([-2.5000])
    """
    check_spikes(estimate, truth)
    return (estimate - truth).nanmean(1) * rate


class Spread(NamedTuple):
    """Median and quartiles over the cells that have a value.

    Attributes:
        median: of them.
        low: first quartile.
        high: third quartile.
        cells: how many there are.

    Example:
        >>> print(Spread(median=0.3, low=0.2, high=0.4, cells=5))
        0.30 (0.20 to 0.40)
    """

    median: float
    low: float
    high: float
    cells: int

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f} to {self.high:.2f})"


def spread(values: Tensor) -> Spread:
    """Median and quartiles of what is finite in ``values``; NaN if nothing is.

    Args:
        values: ``(cells,)``

    Example:
        >>> str(spread(torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5, float("nan")])))
        '0.30 (0.20 to 0.40)'
    """
    finite = values[values.isfinite()]
    if not len(finite):
        return Spread(torch.nan, torch.nan, torch.nan, 0)
    low, median, high = finite.quantile(finite.new_tensor([0.25, 0.5, 0.75])).tolist()
    return Spread(median, low, high, len(finite))


def check_spikes(estimate: Tensor, truth: Tensor) -> None:
    """Raise unless the two have one shape, ``(cells, frames)`` to the right.

    Raises:
        DataError: they do not.
    """
    if truth.dim() != 2 or estimate.shape[-2:] != truth.shape:
        expected = f"inferred spikes of shape (..., cells, frames) = {tuple(truth.shape)}"
        hint = "Pass both on the same frames; pyro_lvm.data.resample brings them there."
        raise DataError(explain("spikes", expected, f"shape {tuple(estimate.shape)}", hint))
