"""Fluorescence traces, checked, with frames that may be missing."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyro_lvm.errors import DataError, explain
from pyro_lvm.nn import as_batch

__all__ = ["as_traces"]


def as_traces(x: Any, row_shape: tuple[int, ...], like: Tensor) -> tuple[Tensor, Tensor]:
    """Traces as a tensor ``(B, *row_shape, T)``, 0 where NaN, and what was observed of them.

    Args:
        x: the traces, one row a cell or a stretch of a recording; NaN where a frame is missing.
        row_shape: ``()``, or the number of traces in a row, ``(C,)``.
        like: a parameter of the program that will use them.

    Raises:
        DataError: no rows, rows of another shape, or fewer than two frames.

    Example:
        >>> values, observed = as_traces([[0.5, float("nan"), 2.0]], (), like=torch.zeros(1))
        >>> values, observed
        (tensor([[0.5000, 0.0000, 2.0000]]), tensor([[ True, False,  True]]))
    """
    traces = as_batch(x, None, like=like).to(like.dtype)
    shape = tuple(traces.shape)
    if len(shape) != 2 + len(row_shape) or shape[-1] < 2 or shape[1:-1] != row_shape:
        expected = f"shape ({', '.join(map(str, ('batch', *row_shape, 'frames >= 2')))})"
        hint = "Put frames last; x[None] makes one trace a batch."
        raise DataError(explain("x", expected, f"shape {shape}", hint))
    observed = ~traces.isnan()
    return torch.where(observed, traces, 0.0), observed
