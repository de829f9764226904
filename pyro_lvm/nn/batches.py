"""Data as a batch of the right shape, and the plate over it."""

from __future__ import annotations

from typing import Any

import pyro
import torch
from torch import Tensor

from pyro_lvm.errors import DataError, PlateError, explain
from pyro_lvm.nn.arguments import check_size

__all__ = ["as_batch", "check_num_data", "data_plate"]


def as_batch(x: Any, features: int | None, like: Tensor) -> Tensor:
    """Data as a tensor ``(B, features)`` of the dtype and on the device of ``like``.

    NumPy arrays, lists, integers and other floating types are converted.

    Args:
        x: the data, one row a datum.
        features: size of a row; None allows rows of any shape, and leaves integers be (they
            may be indices).
        like: a parameter of the program that will use them.

    Raises:
        DataError: no rows, or rows of another shape.

    Example:
        >>> as_batch([[1, 2], [3, 4]], 2, like=torch.zeros(1))
        tensor([[1., 2.],
                [3., 4.]])
    """
    batch = torch.as_tensor(x, device=like.device)
    if features is not None or batch.is_floating_point():
        batch = batch.to(like.dtype)
    shape = tuple(batch.shape)
    if features is not None and (batch.dim() != 2 or shape[1] != features):
        hint = "x[None] makes one datum a batch" if len(shape) == 1 else "x.flatten(1) makes rows"
        wanted = f"shape (batch, {features})"
        raise DataError(explain("x", wanted, f"shape {shape}", f"Check in_features; {hint}."))
    if not shape or shape[0] == 0:
        raise DataError(
            explain("x", "at least one datum", f"an empty batch {shape}", "Skip empty batches.")
        )
    return batch


def check_num_data(num_data: Any) -> int | None:
    """N of the full data, an integer >= 1; None where a batch stands for no more than itself.

    Raises:
        ProgramError: it is neither.

    Example:
        >>> check_num_data(60_000), check_num_data(None)
        (60000, None)
    """
    return None if num_data is None else check_size("num_data", num_data)


def data_plate(batch_size: int, num_data: int | None = None, like: Tensor | None = None) -> Any:
    """The plate "data" at dim -1 over a batch that stands for ``num_data`` data.

    Its N/B scale is 1 where ``num_data`` is None. No index is drawn at random.

    Args:
        batch_size: B, rows in the batch.
        num_data: N, rows in the full data.
        like: a tensor on the device that the indices should be on.

    Raises:
        PlateError: ``num_data`` is below ``batch_size``.

    Example:
        >>> import pyro.distributions as dist
        >>> with data_plate(2, num_data=10):
        ...     z = pyro.sample("z", dist.Normal(0.0, 1.0))
        >>> z.shape
        torch.Size([2])
    """
    if num_data is None or num_data == batch_size:
        return pyro.plate("data", batch_size, dim=-1)
    if num_data < batch_size:
        raise PlateError(
            explain(
                "num_data",
                f"at least the batch size {batch_size}",
                str(num_data),
                "Pass the number of training data, or leave num_data out.",
            )
        )
    indices = torch.arange(batch_size, device=None if like is None else like.device)
    return pyro.plate("data", num_data, subsample=indices, dim=-1)
