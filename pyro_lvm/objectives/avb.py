"""Adversarial variational Bayes, and its importance-weighted form."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from pyro_lvm.adversarial import AdversarialObjective
from pyro_lvm.weights import log_mean_exp

__all__ = ["AVB", "IWAVB"]


class AVB(AdversarialObjective):
    r"""Adversarial variational Bayes: the ELBO of a guide without a density.

    .. math:: \mathbb E_q [\log p(x \mid z) - T(x, z)], \qquad
        T \approx \log q(z \mid x) - \log p(z)

    in nats per datum. The guide's gradient is that through the draws; the rest has mean zero
    where T is exact. The value is an *estimate* of the ELBO, not a bound.

    References:
        Mescheder, Nowozin, Geiger (2017), *Adversarial variational Bayes*, arXiv:1701.04722,
        eq. 3.6 and 3.7, and section 3.3 for ``contrast="adaptive"``.

    Args:
        discriminator: module called as ``discriminator(z, context)``.
        num_particles: draws per datum, K >= 1.
        gradient: "stl", the one there is.
        **options: those of :class:`~pyro_lvm.adversarial.AdversarialObjective`: contrast,
            context, the discriminator's training, beta.

    Raises:
        ValueError: an argument out of range.

    Example:
        >>> from pyro_lvm.nn import Discriminator
        >>> objective = AVB(Discriminator(latent_features=2, context_features=4))
        >>> objective.is_bound
        False
        >>> objective.bound_per_datum(torch.tensor([[1.0], [3.0]]))  # (K=2, batch=1)
        tensor([2.])
    """

    is_linear: ClassVar[bool] = True

    def bound_per_datum(self, log_weights: Tensor) -> Tensor:
        return log_weights.mean(0)


class IWAVB(AdversarialObjective):
    r"""Importance-weighted adversarial variational Bayes.

    .. math:: \log \tfrac1K \sum_k \exp(\log p(x \mid z_k) - T(x, z_k)), \qquad
        T \approx \log q(z \mid x) - \log p(z)

    in nats per datum. With weights, what T leaves out of the guide's gradient has a mean;
    ``gradient="dreg"`` has the right one without a density, by the squares of the normalised
    weights. ``"stl"`` takes the plain weights, which is biased for K > 1. The value is an
    *estimate* of the importance-weighted bound, not a bound. At K = 1 it is
    :class:`~pyro_lvm.objectives.AVB`.

    References:
        Im, Prakhya, Yan, Turaga, Branson (2019), *Importance weighted adversarial variational
        autoencoders for spike inference from calcium imaging data*, arXiv:1906.03214.
        Tucker et al. (2019), arXiv:1810.04152, for "dreg".

    Args:
        discriminator: module called as ``discriminator(z, context)``.
        num_particles: draws per datum, K >= 1.
        gradient: "dreg", or "stl" for the plain weights.
        **options: those of :class:`~pyro_lvm.adversarial.AdversarialObjective`: contrast,
            context, the discriminator's training, beta.

    Raises:
        ValueError: an argument out of range.

    Example:
        >>> from pyro_lvm.nn import Discriminator
        >>> objective = IWAVB(Discriminator(latent_features=2, context_features=4), 2)
        >>> objective.bound_per_datum(torch.tensor([[1.0], [3.0]]).log())  # (K=2, batch=1)
        tensor([0.6931])
    """

    takes: ClassVar[tuple[str, ...]] = ("dreg", "stl")
    takes_biased: ClassVar[tuple[str, ...]] = ("stl",)

    def bound_per_datum(self, log_weights: Tensor) -> Tensor:
        return log_mean_exp(log_weights)

    def elasticity(self, log_weights: Tensor) -> Tensor:
        return 1.0 - torch.softmax(log_weights, 0)
