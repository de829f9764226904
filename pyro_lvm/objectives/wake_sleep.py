"""Wake-sleep: the model learns on data, the guide on weighted draws or on dreams."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from pyro_lvm.dreams import Arguments, dream_log_q
from pyro_lvm.errors import ProgramError, explain
from pyro_lvm.tracing import Program
from pyro_lvm.weighted import Coefficients, WeightedObjective
from pyro_lvm.weights import log_mean_exp

__all__ = ["ReweightedWakeSleep", "WakeSleep"]


class ReweightedWakeSleep(WeightedObjective):
    r"""Reweighted wake-sleep: the guide minimises KL(p(z|x) || q(z|x)), datum by datum.

    .. math:: \theta: \sum_k \tilde w_k \, \partial_\theta \log p(x, z_k), \qquad
        \phi: \lambda \sum_k \tilde w_k \, \partial_\phi \log q(z_k \mid x) +
        (1 - \lambda) \, \mathbb E_{p(x', z')} \, \partial_\phi \log q(z' \mid x')

    with the draws fixed, so sites of any kind are trained without a baseline. The weights are
    normalised over the particles of each datum; a bound whose weights are those of whole
    minibatches (Pyro's ``ReweightedWakeSleep``) learns another guide. The value is the
    importance-weighted bound, in nats per datum; the guide's gradient is biased by O(1/K).

    References:
        Bornschein, Bengio (2015), *Reweighted wake-sleep*, arXiv:1406.2751, eq. 5 to 9.
        Le, Kosiorek, Siddharth, Teh, Wood (2019), *Revisiting reweighted wake-sleep for models
        with stochastic control flow*, arXiv:1805.10469.
        Tucker et al. (2019), arXiv:1810.04152, for "dreg".

    Args:
        num_particles: draws per datum, K >= 2.
        gradient: "score", or "dreg": the wake phase of the guide through reparameterised
            draws, with the same mean.
        insomnia: :math:`\lambda`, the share of the wake phase in the guide's gradient; below 1
            the model also dreams one datum for each of the batch.
        arguments: makes the guide's arguments, one or a tuple, from dreamt data by site. By
            default dreams take the place of the argument that the site observes.
        max_plate_nesting: dims the plates may take; found by one extra run if left out.
        chunk_particles: particles at a time; see :class:`~pyro_lvm.objective.Objective`.

    Raises:
        ValueError: an argument out of range.

    Example:
        >>> log_weights = torch.tensor([[1 / 6], [1 / 3], [1 / 2]]).log()  # (K=3, batch=1)
        >>> objective = ReweightedWakeSleep(num_particles=3)
        >>> objective.bound_per_datum(log_weights)
        tensor([-1.0986])
        >>> objective.coefficients(log_weights).score.squeeze(1)
        tensor([0.1667, 0.3333, 0.5000])
    """

    def __init__(
        self,
        num_particles: int = 2,
        gradient: str = "score",
        *,
        insomnia: float = 1.0,
        arguments: Arguments | None = None,
        max_plate_nesting: int | None = None,
        chunk_particles: int | None = None,
    ) -> None:
        if not 0.0 <= insomnia <= 1.0:
            hint = "Pass insomnia=1.0 for the wake phase alone, 0.0 for the sleep phase alone."
            raise ProgramError(explain("insomnia", "a number from 0 to 1", repr(insomnia), hint))
        self.insomnia = insomnia
        self.arguments = arguments
        super().__init__(
            num_particles,
            gradient,
            max_plate_nesting=max_plate_nesting,
            chunk_particles=chunk_particles,
        )

    def bound_per_datum(self, log_weights: Tensor) -> Tensor:
        return log_mean_exp(log_weights)

    def coefficients(self, log_weights: Tensor) -> Coefficients:
        model = torch.softmax(log_weights, 0)
        if self.gradient == "dreg":
            return Coefficients(model, path=self.insomnia * model * (1.0 - model))
        return Coefficients(model, score=self.insomnia * model)

    def extra_loss(self, model: Program, guide: Program, args: Any, kwargs: Any) -> Tensor | None:
        """Minus the sleep phase's log q of dreamt latents, summed and scaled, nats."""
        if self.insomnia == 1.0:
            return None
        nesting = self.max_plate_nesting or 0
        log_q = dream_log_q(
            model, guide, args, kwargs, max_plate_nesting=nesting, arguments=self.arguments
        )
        return -(1.0 - self.insomnia) * log_q


class WakeSleep(WeightedObjective):
    r"""Wake-sleep: the model learns on real data, the guide on dreamt data.

    .. math:: \theta: \tfrac1K \sum_k \partial_\theta \log p(x, z_k), \quad z_k \sim
        q(z \mid x), \qquad \phi: \mathbb E_{p(x', z')} \, \partial_\phi \log q(z' \mid x')

    The sleep phase minimises KL(p(z|x) || q(z|x)), without bias, over the model's own data: it
    needs no reparameterisation, and the guide never sees which data are real. The value is the
    ELBO, in nats per datum; the model ascends it, the guide does not, so the two may circle.

    References:
        Hinton, Dayan, Frey, Neal (1995), *The wake-sleep algorithm for unsupervised neural
        networks*, Science 268; as in Bornschein, Bengio (2015), arXiv:1406.2751, section 2.

    Args:
        num_particles: draws per datum for the model, K >= 1.
        arguments: makes the guide's arguments, one or a tuple, from dreamt data by site. By
            default dreams take the place of the argument that the site observes.
        gradient: "score".
        max_plate_nesting: dims the plates may take; found by one extra run if left out.

    Raises:
        ValueError: an argument out of range.
        ProgramError: in training, no argument is what a site observes.

    Example:
        >>> log_weights = torch.tensor([[1.0], [3.0]]).log()  # (K=2, batch=1)
        >>> WakeSleep(num_particles=2).bound_per_datum(log_weights)
        tensor([0.5493])
    """

    takes: ClassVar[tuple[str, ...]] = ("score",)
    min_particles: ClassVar[int] = 1

    def __init__(
        self,
        num_particles: int = 1,
        gradient: str = "score",
        *,
        arguments: Arguments | None = None,
        max_plate_nesting: int | None = None,
    ) -> None:
        self.arguments = arguments
        super().__init__(num_particles, gradient, max_plate_nesting=max_plate_nesting)

    def bound_per_datum(self, log_weights: Tensor) -> Tensor:
        return log_weights.mean(0)

    def coefficients(self, log_weights: Tensor) -> Coefficients:
        return Coefficients(torch.full_like(log_weights, 1.0 / log_weights.shape[0]))

    def extra_loss(self, model: Program, guide: Program, args: Any, kwargs: Any) -> Tensor | None:
        """Minus the sleep phase's log q of dreamt latents, summed and scaled, nats."""
        nesting = self.max_plate_nesting or 0
        return -dream_log_q(
            model, guide, args, kwargs, max_plate_nesting=nesting, arguments=self.arguments
        )
