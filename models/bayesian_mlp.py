"""Bayesian fully connected network: regression or classes by layers of latent weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from pyro_lvm.models.bayesian_network import BayesianNetwork
from pyro_lvm.nn import as_batch, check_size

__all__ = ["BayesianMLP", "linear"]


class BayesianMLP(BayesianNetwork):
    r"""Rectified layers whose weights are latent, then a Normal or classes.

    .. math:: h_l = \max(0, W_l h_{l-1} + b_l), \quad
        y \sim N(W_L h_{L-1} + b_L, s^2) \text{ or } \mathrm{Cat}(\mathrm{softmax}(\cdot))

    Called as ``model(x, y)``. Layer l has the site "w1", "w2" and so on, the rows of
    :math:`(W_l, b_l)` one after the other, outside the plate "data" in which "y" is observed:
    all data share one log-weight, a bound is one number, and a minibatch is for the ELBO. K draws
    of the weights are one product of matrices in each layer.

    References:
        Blundell, Cornebise, Kavukcuoglu, Wierstra (2015), *Weight uncertainty in neural
        networks*, arXiv:1505.05424.

    Args:
        in_features: D.
        hidden: sizes of the hidden layers; none makes it a linear model.
        num_classes: C, of a classifier; None for a regression.
        prior: "normal", "log_uniform", "ard" or "ard_columns", see
            :class:`~pyro_lvm.models.weight_priors.WeightPriors`.
        prior_scale: its scale.
        noise_scale: of a regression: that of the outcomes, if known; otherwise its log is the
            latent site "log_noise", N(-1, 1), which suits standardised outcomes.
        num_data: N, if batches are parts of the data; the plate then scales by N/B.

    Raises:
        ProgramError: a size below 1, a scale not above 0, an unknown prior.
        DataError: ``x`` has another number of features, or no rows; ``y`` another shape.

    Example:
        >>> model = BayesianMLP(3, (5,))
        >>> model.latent_features
        {'w1': 20, 'w2': 6, 'log_noise': 1}
        >>> draws = {name: torch.zeros(7, size) for name, size in model.latent_features.items()}
        >>> model.outcome(torch.zeros(4, 3), draws).batch_shape  # of 7 draws at 4 rows
        torch.Size([7, 4])
    """

    def __init__(
        self,
        in_features: int = 3,
        hidden: Sequence[int] = (50,),
        num_classes: int | None = None,
        *,
        prior: str = "normal",
        prior_scale: float = 1.0,
        noise_scale: float | None = None,
        num_data: int | None = None,
    ) -> None:
        outputs = 1 if num_classes is None else check_size("num_classes", num_classes)
        sizes = [check_size("in_features", in_features)]
        sizes += [*(check_size("hidden", size) for size in hidden), outputs]
        layers = enumerate(pairwise(sizes), start=1)
        shapes = {f"w{number}": (above, below + 1) for number, (below, above) in layers}
        super().__init__(shapes, num_classes, prior, prior_scale, noise_scale, num_data)
        self.in_features = in_features

    def rows(self, x: Any) -> Tensor:  # (B, D)
        return as_batch(x, self.in_features, like=self._origin)

    def network(self, x: Tensor, weights: Mapping[str, Tensor]) -> Tensor:  # (*left, B, out)
        first, *others = weights.values()
        h = linear(x, first)
        for matrix in others:
            h = linear(torch.relu(h), matrix)
        return h


def linear(h: Tensor, matrix: Tensor) -> Tensor:  # (*left, B, out)
    """Rows ``(*left, B, in)`` by a matrix ``(*left, out, in + 1)`` whose last column is added."""
    return h @ matrix[..., :-1].mT + matrix[..., None, :, -1]
