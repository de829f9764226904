"""Data that are sequences of any length, checked."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from pyro_lvm.errors import DataError, explain
from pyro_lvm.nn import as_batch

__all__ = ["as_sequences"]


def as_sequences(x: Any, row_shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Data as a tensor ``(B, T, *row_shape)`` of the dtype and on the device of ``like``.

    Args:
        x: the data, a sequence a datum, all of one length.
        row_shape: shape of one step: ``()`` or ``(D,)``.
        like: a parameter of the program that will use them.

    Raises:
        DataError: no sequences, no steps, or steps of another shape.

    Example:
        >>> import torch
        >>> as_sequences([[1, 2, 0], [0, 0, 1]], (), like=torch.zeros(1))
        tensor([[1., 2., 0.],
                [0., 0., 1.]])
    """
    batch = as_batch(x, None, like=like).to(like.dtype)
    shape = tuple(batch.shape)
    if len(shape) != 2 + len(row_shape) or not shape[1] or shape[2:] != row_shape:
        expected = f"shape ({', '.join(map(str, ('batch', 'steps >= 1', *row_shape)))})"
        hint = "Check in_features; x[None] makes one sequence a batch."
        raise DataError(explain("x", expected, f"shape {shape}", hint))
    return batch
