"""Distributions of fewer rows, or of rows in another shape: all parameters changed alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pyro.distributions import LowRankMultivariateNormal, MultivariateNormal, Normal
from torch import Tensor
from torch.distributions import Independent

from pyro_lvm.distributions.flow import FlowDistribution

__all__ = ["mapped"]

_PARAMETERS: dict[Any, tuple[str, ...]] = {
    Normal: ("loc", "scale"),
    MultivariateNormal: ("loc", "scale_tril"),
    LowRankMultivariateNormal: ("loc", "cov_factor", "cov_diag"),
}


def mapped(fn: Any, change: Callable[[Tensor], Tensor]) -> Any | None:
    """``fn`` with ``change``, of batch dims, made to its parameters, or to a flow's context.

    Returns:
        The distribution; None unless ``fn`` is a Normal, or a flow as it was made.

    Example:
        >>> import torch
        >>> rows = MultivariateNormal(torch.zeros(5, 2), torch.eye(2))
        >>> mapped(rows, lambda parameter: parameter[:3]).batch_shape
        torch.Size([3])
    """
    if isinstance(fn, Independent):
        base = mapped(fn.base_dist, change)
        return None if base is None else base.to_event(fn.reinterpreted_batch_ndims)
    if isinstance(fn, FlowDistribution) and fn.given is not None:
        make, context = fn.given
        return make(change(context))
    if type(fn) not in _PARAMETERS:
        return None
    return type(fn)(**{name: change(getattr(fn, name)) for name in _PARAMETERS[type(fn)]})
