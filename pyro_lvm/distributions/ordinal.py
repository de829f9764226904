"""Columns of ordered classes: cut points on the line that the decoder's output moves along."""

from __future__ import annotations

import torch
from pyro.distributions import TorchDistribution, constraints
from pyro.nn import PyroParam
from torch import Tensor
from torch.nn.functional import logsigmoid, pad

from pyro_lvm.distributions.categorical import ClassNumber
from pyro_lvm.distributions.likelihoods import Likelihood
from pyro_lvm.errors import ProgramError, explain
from pyro_lvm.nn import check_size

__all__ = ["OrdinalLikelihood"]


class OrdinalLikelihood(Likelihood):
    r"""Ordered class numbers 0 to C - 1; the outputs are one position for each column.

    .. math:: p(x \le c) = \sigma(t_c - \mathrm{output})

    with ordered cut points :math:`t_c`, parameters ``cut_points`` ``(D, C - 1)``.

    References:
        McCullagh (1980), *Regression models for ordinal data*, JRSS B 42(2).
        Nazabal, Olmos, Ghahramani, Valera (2018), *Handling incomplete heterogeneous data using
        VAEs*, arXiv:1807.03653; there the cut points depend on the latents too.

    Args:
        features: number of columns, D.
        num_classes: C, of every column, at least 2.

    Raises:
        ProgramError: a size below 1, or fewer than 2 classes.

    Example:
        >>> OrdinalLikelihood(1, num_classes=3)(torch.zeros(1)).probs.detach()
        tensor([[0.2689, 0.4621, 0.2689]])
    """

    cut_points: Tensor

    def __init__(self, features: int, num_classes: int) -> None:
        if check_size("num_classes", num_classes) < 2:
            hint = "Leave out a column that has one class."
            raise ProgramError(explain("num_classes", "at least 2", str(num_classes), hint))
        super().__init__(features)
        points = 2.0 * torch.arange(num_classes - 1) - (num_classes - 2.0)
        self.cut_points = PyroParam(  # type: ignore[assignment]
            points.expand(features, -1).clone(), constraint=constraints.ordered_vector
        )

    def forward(self, output: Tensor) -> TorchDistribution:
        distance = self.cut_points - output.unsqueeze(-1)  # (*, D, C - 1)
        below = pad(logsigmoid(distance), (0, 1))  # log p(x <= c), 0 of the last
        above = pad(logsigmoid(-distance), (1, 0))  # log p(x >= c), 0 of the first
        gap = torch.log(-torch.expm1(-self.cut_points.diff()))
        return ClassNumber(logits=below + above + pad(gap, (1, 1)))

    def start(self, mean: Tensor) -> Tensor:
        """The middle of the cut points: frequencies do not follow from a mean."""
        return mean.new_zeros(self.num_outputs)
