"""Log-probabilities whose masked entries, NaN included, have clean gradients.

Zero times NaN is NaN: a masked NaN gives a finite loss and NaN gradients unless it is
replaced *before* the density sees it. So values are filled first, then masked.
"""

from __future__ import annotations

from typing import Any

import torch
from pyro.distributions import MaskedDistribution, constraints
from torch import Tensor
from torch.distributions import Independent, transform_to

from pyro_lvm.scoring import log_prob

__all__ = ["fill_masked", "masked_log_prob"]

Mask = bool | Tensor | None


def masked_log_prob(
    fn: Any, value: Tensor, mask: Mask, is_observed: bool, held: bool = False
) -> Tensor:
    """``log p(value)`` in nats, 0 where ``mask`` is False (True = counted).

    Args:
        fn: a Pyro distribution, itself perhaps masked inside.
        value: shape ``(*batch, *event)``; may be NaN wherever it is masked.
        mask: broadcastable to ``fn.batch_shape``, a bool, or None.
        is_observed: only observed values are filled; latent ones keep their gradient.
        held: hold the distribution fixed: the derivative goes through ``value`` alone.

    Example:
        >>> import pyro.distributions as dist
        >>> x = torch.tensor([0.0, float("nan")])
        >>> loc = torch.zeros(2, requires_grad=True)
        >>> mask = torch.tensor([True, False])
        >>> masked_log_prob(dist.Normal(loc, 1.0), x, mask, is_observed=True).sum().backward()
        >>> loc.grad
        tensor([0., 0.])
    """
    if mask is True:
        mask = None
    if is_observed:
        value = _as_number(fn, fill_masked(fn, value, mask))
    if mask is False:
        return torch.zeros(fn.batch_shape, device=value.device)
    scored = log_prob(fn, value, held)
    return scored if mask is None else torch.where(mask, scored, torch.zeros_like(scored))


def fill_masked(fn: Any, value: Tensor, mask: Mask = None) -> Tensor:
    """``value`` with a point of ``fn``'s support wherever ``mask`` or an inner mask is False."""
    if mask is not None:
        value = _fill(fn, value, mask)
    if isinstance(fn, Independent):
        return fill_masked(fn.base_dist, value)
    if isinstance(fn, MaskedDistribution):
        return fill_masked(fn.base_dist, value, fn._mask)
    return value


def _fill(fn: Any, value: Tensor, mask: bool | Tensor) -> Tensor:
    if isinstance(mask, bool):
        mask = torch.full((), mask, dtype=torch.bool, device=value.device)
    mask = mask.reshape(mask.shape + (1,) * fn.event_dim)
    return torch.where(mask, value, _inside(fn, value))


def _as_number(fn: Any, value: Tensor) -> Tensor:
    """``value``, in floating point where ``Bernoulli`` could not score it as it is."""
    if value.is_floating_point() or _support(fn) is not constraints.boolean:
        return value
    return value.to(torch.get_default_dtype())


def _support(fn: Any) -> Any:
    support = fn.support
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    return support


def _inside(fn: Any, value: Tensor) -> Tensor:
    """A point of the support, broadcastable to ``value`` and of its dtype."""
    support = _support(fn)
    if support is constraints.one_hot or support is constraints.multinomial:
        sample: Tensor = fn.sample()
        return sample.to(value.dtype)
    if support.is_discrete:
        lower = getattr(support, "lower_bound", 0)
        return torch.as_tensor(lower).to(value)
    try:
        inside: Tensor = transform_to(support)(value.new_zeros(fn.event_shape))
        return inside
    except NotImplementedError:
        drawn: Tensor = fn.sample()
        return drawn.to(value.dtype)
