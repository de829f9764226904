"""Class labels of data, some of them unknown, and the site "y" that they are in a program."""

from __future__ import annotations

from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor

from pyro_lvm.errors import DataError, explain

__all__ = ["as_labels", "drawn_labels", "one_hot_labels", "sampled_labels"]


def as_labels(y: Any, like: Tensor) -> Tensor:
    """Labels ``(B,)`` as integers on the device of the data ``like`` ``(B, ...)``.

    Args:
        y: class numbers from 0; below 0 where the label is unknown.
        like: the data that they are of.

    Raises:
        DataError: another number of labels than of data, or numbers that are not whole.

    Example:
        >>> as_labels([2, -1], like=torch.zeros(2, 5))
        tensor([ 2, -1])
    """
    labels = torch.as_tensor(y, device=like.device)
    if labels.shape != like.shape[:1] or labels.is_floating_point():
        expected = f"integers of shape ({len(like)},), one a datum"
        found = f"{labels.dtype} of shape {tuple(labels.shape)}"
        hint = "Pass class numbers from 0, and -1 for an unknown label."
        raise DataError(explain("labels y", expected, found, hint))
    return labels.long()


def sampled_labels(
    prior: dist.TorchDistribution, y: Tensor | None, *, sum_out: bool = False
) -> Tensor:
    """A model's labels: the site "y", or "y_observed" and "y_unobserved" of a mixed batch.

    Labels to be summed out are "y" in any batch: at known ones the sum is over the prior alone,
    which is 1.

    Args:
        prior: of a label.
        y: ``(B,)`` labels, below 0 where unknown; None where none are known.
        sum_out: mark the unknown ones to be summed out by any objective.
    """
    known: Any = None if y is None else y >= 0
    if sum_out:
        label: Tensor = pyro.sample("y", prior, infer={"enumerate": "parallel"})
        return label if y is None else torch.where(known, _observed(prior, y, known), label)
    seen = None if y is None else y.clamp(min=0)
    label = pyro.sample("y", prior, obs=seen, obs_mask=known)
    return label


def _observed(prior: dist.TorchDistribution, y: Tensor, known: Any) -> Tensor:
    with poutine.mask(mask=known):  # as obs_mask= does, which drops infer=
        label: Tensor = pyro.sample("y_observed", prior, obs=y.clamp(min=0))
    return label


def drawn_labels(q: dist.TorchDistribution, y: Tensor | None) -> Tensor:
    """A guide's labels: those that are known, and draws from ``q`` of the others."""
    if y is None:
        label: Tensor = pyro.sample("y", q)
        return label
    return torch.where(y >= 0, y, pyro.sample("y_unobserved", q))


def one_hot_labels(y: Tensor, num_classes: int, like: Tensor) -> Tensor:
    """Labels ``(*,)`` as indicators ``(*, num_classes)`` of the dtype of ``like``."""
    return (y.unsqueeze(-1) == torch.arange(num_classes, device=y.device)).to(like.dtype)
