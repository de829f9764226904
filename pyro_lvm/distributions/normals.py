"""Normals, of any covariance, with each parameter changed alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pyro.distributions import LowRankMultivariateNormal, MultivariateNormal, Normal
from torch import Tensor
from torch.distributions import Independent

__all__ = ["is_normal", "mapped_normal"]

_PARAMETERS: dict[Any, tuple[str, ...]] = {
    Normal: ("loc", "scale"),
    MultivariateNormal: ("loc", "scale_tril"),
    LowRankMultivariateNormal: ("loc", "cov_factor", "cov_diag"),
}


def is_normal(fn: Any) -> bool:
    """Whether ``fn``, under ``to_event``, is a Normal that :func:`mapped_normal` takes."""
    return is_normal(fn.base_dist) if isinstance(fn, Independent) else type(fn) in _PARAMETERS


def mapped_normal(fn: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The Normal whose parameters are those of ``fn`` after ``change``, of the batch dims.

    Example:
        >>> import torch
        >>> rows = MultivariateNormal(torch.zeros(5, 2), torch.eye(2))
        >>> mapped_normal(rows, lambda parameter: parameter[:3]).batch_shape
        torch.Size([3])
    """
    if isinstance(fn, Independent):
        return mapped_normal(fn.base_dist, change).to_event(fn.reinterpreted_batch_ndims)
    return type(fn)(**{name: change(getattr(fn, name)) for name in _PARAMETERS[type(fn)]})
