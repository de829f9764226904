"""Data that are sequences of any length, checked."""

from __future__ import annotations

from typing import Any

from pyro.poutine.util import is_validation_enabled
from torch import Tensor

from pyro_lvm.errors import DataError, explain
from pyro_lvm.nn import as_batch

__all__ = ["as_sequences", "as_words"]


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


def as_words(x: Any, vocabulary: int, like: Tensor) -> Tensor:
    """Texts as numbers of words ``(B, T)``, integers on the device of ``like``.

    Args:
        x: the texts, all of one length.
        vocabulary: V, number of words.
        like: a parameter of the program that will use them.

    Raises:
        DataError: no texts, no integers, or, while Pyro's validation is on, none of 0 to V - 1.

    Example:
        >>> import torch
        >>> as_words([[1, 2, 0], [0, 0, 1]], 3, like=torch.zeros(1))
        tensor([[1, 2, 0],
                [0, 0, 1]])
    """
    batch = as_batch(x, None, like=like)
    if batch.dim() != 2 or batch.is_floating_point():
        found = f"shape {tuple(batch.shape)} of {batch.dtype}"
        hint = "Pass numbers of words; x[None] makes one text a batch."
        raise DataError(explain("x", "integers of shape (batch, words)", found, hint))
    if is_validation_enabled() and not bool(((batch >= 0) & (batch < vocabulary)).all()):
        found = f"words from {int(batch.min())} to {int(batch.max())}"
        hint = "Give all words beyond the vocabulary one number of it."
        raise DataError(explain("x", f"words from 0 to {vocabulary - 1}", found, hint))
    return batch
