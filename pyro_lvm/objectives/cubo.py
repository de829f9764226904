"""The chi-square upper bound on the evidence."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from pyro_lvm.errors import ProgramError, explain
from pyro_lvm.nn.arguments import is_number
from pyro_lvm.objectives.alpha_divergence import descend_alpha_divergence
from pyro_lvm.weighted import Coefficients, WeightedObjective
from pyro_lvm.weights import log_mean_exp

__all__ = ["CUBO"]


class CUBO(WeightedObjective):
    r"""Chi-square upper bound of order n on log p(x), in nats per datum.

    .. math:: \tfrac1n \log \mathbb E_q [w^n] \ge \log p(x), \qquad
        w = p(x, z) / q(z \mid x)

    The guide descends it, and so its chi-square divergence from the posterior: it covers the
    posterior, for importance sampling. :meth:`bound` puts the mean of K draws in place of the
    expectation. The log of a mean is biased *downwards*: the mean of the estimate rises to the
    bound as K grows and may lie below log p(x), so neither ``is_bound`` nor a certificate; the
    expectation itself is infinite where the guide's tails are lighter than the posterior's.
    ``loss`` is the bound, to be minimised. The model, for which lowering an upper bound means
    nothing, ascends the importance-weighted bound of the same draws.

    References:
        Dieng, Tran, Ranganath, Paisley, Blei (2017), *Variational inference via χ upper bound
        minimization*, arXiv:1611.00328, eq. 3.

    Args:
        order: n > 1.
        num_particles: draws per datum, K >= 2.
        gradient: "score" holds the draws fixed, so that sites of any kind are trained; "dreg"
            has the same mean through reparameterised draws.
        max_plate_nesting: dims the plates may take; found by one extra run if left out.
        chunk_particles: particles at a time; see :class:`~pyro_lvm.objective.Objective`.

    Raises:
        ValueError: an argument out of range.

    Example:
        The weights 1 and 3 have mean square 5.

        >>> import torch
        >>> log_weights = torch.tensor([[1.0], [3.0]]).log()  # (K=2, batch=1)
        >>> CUBO(num_particles=2, order=2.0).bound_per_datum(log_weights)
        tensor([0.8047])
    """

    is_bound: ClassVar[bool] = False
    is_upper: ClassVar[bool] = True

    def __init__(
        self,
        num_particles: int = 2,
        gradient: str = "score",
        *,
        order: float = 2.0,
        max_plate_nesting: int | None = None,
        chunk_particles: int | None = None,
    ) -> None:
        if not is_number(order) or not 1.0 < order < float("inf"):
            hint = "Pass order=2.0."
            raise ProgramError(explain("order", "a finite number above 1", repr(order), hint))
        self.order = order
        super().__init__(
            num_particles,
            gradient,
            max_plate_nesting=max_plate_nesting,
            chunk_particles=chunk_particles,
        )

    def bound_per_datum(self, log_weights: Tensor) -> Tensor:
        return log_mean_exp(self.order * log_weights) / self.order

    def coefficients(self, log_weights: Tensor) -> Coefficients:
        """The bound's gradient is order - 1 times that which the divergence descends."""
        order = self.order
        return descend_alpha_divergence(log_weights, order, self.gradient, rate=order - 1.0)
