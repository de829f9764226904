r"""Kalman filter and smoother of a chain :math:`z` of which :math:`y_t = H z_t + N(0, I)` is seen.

In square-root form: a covariance :math:`P = W W^\top` is kept as its root W, and roots are joined
by QR decompositions. No covariance is formed or subtracted, so that float32 keeps its digits where
scales differ much. Covariances do not depend on the data: once for a whole batch.

References:
    Kalman (1960), *A new approach to linear filtering and prediction problems*, J. Basic Eng. 82.
    Rauch, Tung, Striebel (1965), *Maximum likelihood estimates of linear dynamic systems*,
    AIAA J. 3.
    Bishop (2006), *Pattern recognition and machine learning*, section 13.3.
"""

from __future__ import annotations

from math import log, pi
from typing import NamedTuple

import torch
from torch import Tensor

from pyro_lvm.distributions.linear_gaussian_chain import LinearGaussianChain, full_precision

__all__ = ["Filtered", "kalman_filter", "smoother", "triangular_root"]


class Filtered(NamedTuple):
    """What is known of a step from the data up to it; of all steps, with a dim T added.

    Attributes:
        predicted: ``(B, T, L)`` mean of z_t before y_t is seen.
        mean: ``(B, T, L)`` mean once it is.
        root: ``(T, L, L)`` root of the covariance once it is.
        log_prob: ``(B, T)`` log-density of y_t given those before it, nats.
    """

    predicted: Tensor
    mean: Tensor
    root: Tensor
    log_prob: Tensor


def kalman_filter(prior: LinearGaussianChain, seen: Tensor, y: Tensor) -> Filtered:
    """Run over the steps of ``y``, vectorised over data.

    Args:
        prior: of z, batch shape ``()`` and event shape ``(T, L)``.
        seen: H, ``(D, L)``.
        y: ``(B, T, D)`` data in units of their noise.

    Example:
        One step of a standard Normal, seen as 2 with noise of scale 1.

        >>> prior = LinearGaussianChain(torch.zeros(1, 1), torch.ones(0, 1, 1), torch.ones(1, 1, 1))
        >>> filtered = kalman_filter(prior, torch.ones(1, 1), torch.full((1, 1, 1), 2.0))
        >>> filtered.mean.flatten(), filtered.root.square().flatten()
        (tensor([1.]), tensor([0.5000]))
    """
    (first, *shifts), (start, *noises) = prior.offset, prior.scale_tril
    seen_first, *others = y.unbind(1)
    with full_precision(y):
        steps = [_update(first.expand(len(y), -1), start, seen, seen_first)]
        for transition, shift, noise, now in zip(prior.transition, shifts, noises, others):
            predicted = steps[-1].mean @ transition.mT + shift
            root = triangular_root(transition @ steps[-1].root, noise)
            steps.append(_update(predicted, root, seen, now))
    return Filtered(
        predicted=torch.stack([step.predicted for step in steps], 1),
        mean=torch.stack([step.mean for step in steps], 1),
        root=torch.stack([step.root for step in steps]),
        log_prob=torch.stack([step.log_prob for step in steps], 1),
    )


def smoother(prior: LinearGaussianChain, filtered: Filtered) -> LinearGaussianChain:
    r"""The joint posterior of all steps: a chain from the last to the first, batch ``(B,)``.

    Given :math:`z_{t+1}`, and so all that follows it, :math:`z_t` is what the filter knows,
    updated by :math:`z_{t+1} = A z_t + b + S \epsilon` as by any other datum.
    """
    noise = prior.scale_tril[1:]
    with full_precision(filtered.mean):
        seen = torch.linalg.solve_triangular(noise, prior.transition, upper=False)
        left, _ = _observe(filtered.root[:-1], seen)
        pull = left @ (seen @ left).mT  # (T - 1, L, L)
        gain = torch.linalg.solve_triangular(noise, pull, upper=False, left=False)
        pulled = torch.einsum("tml,btl->btm", gain, filtered.predicted[:, 1:])
    offset = torch.cat([filtered.mean[:, :-1] - pulled, filtered.mean[:, -1:]], 1)
    scale_tril = triangular_root(torch.cat([left, filtered.root[-1:]]))
    return LinearGaussianChain(offset.flip(1), gain.flip(0), scale_tril.flip(0), reverse=True)


def triangular_root(*roots: Tensor) -> Tensor:
    """The lower triangular root of a sum of covariances, given a root ``(*, L, M)`` of each."""
    upper: Tensor = torch.linalg.qr(torch.cat([root.mT for root in roots], -2)).R
    signs = upper.diagonal(dim1=-2, dim2=-1).sign()
    return (upper * signs.unsqueeze(-1)).mT


def _update(predicted: Tensor, root: Tensor, seen: Tensor, y: Tensor) -> Filtered:
    """Bayes' rule for one step, with the density of ``y`` taken at the new mean.

    No large quadratic forms are subtracted: the residual and the move of the mean, each in
    units of its noise, add up.
    """
    after, gram = _observe(root, seen)
    weight = torch.linalg.solve_triangular(gram.mT, (seen @ after).mT, upper=True)
    move = (y - predicted @ seen.mT) @ weight.mT
    mean = predicted + move @ root.mT
    squares = (y - mean @ seen.mT).square().sum(-1) + move.square().sum(-1)
    volume = gram.diagonal().log().sum() + 0.5 * log(2 * pi) * y.shape[-1]
    return Filtered(predicted, mean, after, -0.5 * squares - volume)


def _observe(root: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
    r"""Root of the covariance once :math:`H z + N(0, I)` is seen, :math:`W G^{-\top}`, and G.

    G is triangular, with :math:`G G^\top = I + (HW)^\top HW`, which is never formed.
    """
    identity = torch.eye(root.shape[-1]).to(root).expand_as(root)
    gram = triangular_root(identity, (seen @ root).mT)
    return torch.linalg.solve_triangular(gram, root.mT, upper=False).mT, gram
