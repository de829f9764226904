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

__all__ = ["OrdinalLikelihood", "class_shares"]

_LEAST = 1e-6  # a share, so that neighbouring cut points differ in single precision


class OrdinalLikelihood(Likelihood):
    r"""Ordered class numbers 0 to C - 1; the outputs are one position for each column.

    .. math:: p(x \le c) = \sigma(t_c - \mathrm{output})

    with ordered cut points :math:`t_c`, parameters ``cut_points`` ``(D, C - 1)``. Of responses to
    items it is the graded response model, with one position an item. The points move in small
    steps: start them at the shares of the classes by :meth:`of`.

    References:
        McCullagh (1980), *Regression models for ordinal data*, JRSS B 42(2).
        Samejima (1969), *Estimation of latent ability using a response pattern of graded
        scores*, Psychometrika Monograph 17.
        Nazabal, Olmos, Ghahramani, Valera (2018), *Handling incomplete heterogeneous data using
        VAEs*, arXiv:1807.03653; there the cut points depend on the latents too.

    Args:
        features: number of columns, D.
        num_classes: C, of every column, at least 2.
        shares: of the classes, ``(C,)`` or ``(D, C)``, all above 0: where the cut points start;
            without them they are 2 apart.

    Raises:
        ProgramError: a size below 1, or fewer than 2 classes.

    Example:
        >>> OrdinalLikelihood(1, num_classes=3)(torch.zeros(1)).probs.detach()
        tensor([[0.2689, 0.4621, 0.2689]])
    """

    cut_points: Tensor

    def __init__(self, features: int, num_classes: int, shares: Tensor | None = None) -> None:
        if check_size("num_classes", num_classes) < 2:
            hint = "Leave out a column that has one class."
            raise ProgramError(explain("num_classes", "at least 2", str(num_classes), hint))
        super().__init__(features)
        evenly = 2.0 * torch.arange(num_classes - 1) - (num_classes - 2.0)
        points = evenly if shares is None else _points(shares).to(evenly)
        self.cut_points = PyroParam(  # type: ignore[assignment]
            points.expand(features, num_classes - 1).clone(), constraint=constraints.ordered_vector
        )

    @classmethod
    def of(cls, x: Tensor, num_classes: int) -> OrdinalLikelihood:
        """With the shares of the classes in ``(N, D)`` numbers, NaN where missing, to start at.

        Example:
            >>> x = torch.tensor([[0.0], [0.0], [1.0], [2.0], [torch.nan]])
            >>> OrdinalLikelihood.of(x, num_classes=3)(torch.zeros(1)).probs.detach()
            tensor([[0.4545, 0.2727, 0.2727]])
        """
        return cls(x.shape[1], num_classes, class_shares(x, num_classes))

    def forward(self, output: Tensor) -> TorchDistribution:
        distance = self.cut_points - output.unsqueeze(-1)  # (*, D, C - 1)
        below = pad(logsigmoid(distance), (0, 1))  # log p(x <= c), 0 of the last
        above = pad(logsigmoid(-distance), (1, 0))  # log p(x >= c), 0 of the first
        least = torch.finfo(self.cut_points.dtype).eps  # points of a class never seen may meet
        gap = torch.log(-torch.expm1(-self.cut_points.diff().clamp(min=least)))
        return ClassNumber(logits=below + above + pad(gap, (1, 1)))

    def start(self, mean: Tensor) -> Tensor:
        """The middle of the cut points: frequencies do not follow from a mean."""
        return mean.new_zeros(self.num_outputs)


def class_shares(x: Tensor, num_classes: int) -> Tensor:  # (D, C)
    """Share of each class in the columns of ``(N, D)`` numbers, half a case added to each.

    Example:
        >>> class_shares(torch.tensor([[0.0], [0.0], [2.0], [torch.nan]]), 3)
        tensor([[0.5556, 0.1111, 0.3333]])
    """
    seen = [column[~column.isnan()].long() for column in x.unbind(-1)]
    counts = torch.stack([numbers.bincount(minlength=num_classes) for numbers in seen]) + 0.5
    return (counts / counts.sum(-1, keepdim=True)).clamp(min=_LEAST)


def _points(shares: Tensor) -> Tensor:  # (*, C - 1)
    """The log-odds of all classes up to each but the last."""
    below, above = shares.cumsum(-1), shares.flip(-1).cumsum(-1).flip(-1)
    return below[..., :-1].log() - above[..., 1:].log()
