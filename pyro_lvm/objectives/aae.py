"""Adversarial autoencoders, plain and importance-weighted."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from pyro_lvm.adversarial import AdversarialObjective
from pyro_lvm.weights import log_mean_exp

__all__ = ["AAE", "IWAAE"]


class AAE(AdversarialObjective):
    r"""Adversarial autoencoder: the aggregate of the guide against the prior.

    .. math:: \mathbb E_q [\log p(x \mid z) - T(z)], \qquad
        T \approx \log q(z) - \log p(z), \quad q(z) = \mathbb E_x \, q(z \mid x)

    in nats per datum. The discriminator does not see the data. Even with an exact one the
    value is *no bound*: it exceeds the ELBO by the mutual information of x and z under the
    guide, which nothing holds down.

    References:
        Makhzani, Shlens, Jaitly, Goodfellow, Frey (2015), *Adversarial autoencoders*,
        arXiv:1511.05644.

    Args:
        discriminator: module called as ``discriminator(z, None)``.
        num_particles: draws per datum, K >= 1.
        gradient: "stl", the one there is.
        **options: those of :class:`~pyro_lvm.adversarial.AdversarialObjective`: contrast,
            context, the discriminator's training, beta.

    Raises:
        ValueError: an argument out of range.

    Example:
        >>> from pyro_lvm.nn import Discriminator
        >>> objective = AAE(Discriminator(latent_features=2))
        >>> objective.is_bound
        False
        >>> objective.bound_per_datum(torch.tensor([[1.0], [3.0]]))  # (K=2, batch=1)
        tensor([2.])
    """

    sees_data: ClassVar[bool] = False
    is_linear: ClassVar[bool] = True

    def bound_per_datum(self, log_weights: Tensor) -> Tensor:
        return log_weights.mean(0)


class IWAAE(AdversarialObjective):
    r"""Importance-weighted adversarial autoencoder.

    .. math:: \log \tfrac1K \sum_k \exp(\log p(x \mid z_k) - T(z_k)), \qquad
        T \approx \log q(z) - \log p(z), \quad q(z) = \mathbb E_x \, q(z \mid x)

    in nats per datum. The draws are those of q(z | x), the weights those of q(z): a heuristic,
    and *no bound* even with an exact discriminator. At K = 1 it is
    :class:`~pyro_lvm.objectives.AAE`.

    References:
        Im, Prakhya, Yan, Turaga, Branson (2019), *Importance weighted adversarial variational
        autoencoders for spike inference from calcium imaging data*, arXiv:1906.03214.
        Tucker et al. (2019), arXiv:1810.04152, for "dreg".

    Args:
        discriminator: module called as ``discriminator(z, None)``.
        num_particles: draws per datum, K >= 1.
        gradient: "dreg", or "stl" for the plain weights.
        **options: those of :class:`~pyro_lvm.adversarial.AdversarialObjective`: contrast,
            context, the discriminator's training, beta.

    Raises:
        ValueError: an argument out of range.

    Example:
        >>> from pyro_lvm.nn import Discriminator
        >>> objective = IWAAE(Discriminator(latent_features=2), 2)
        >>> objective.bound_per_datum(torch.tensor([[1.0], [3.0]]).log())  # (K=2, batch=1)
        tensor([0.6931])
    """

    sees_data: ClassVar[bool] = False
    takes: ClassVar[tuple[str, ...]] = ("dreg", "stl")
    takes_biased: ClassVar[tuple[str, ...]] = ("stl",)

    def bound_per_datum(self, log_weights: Tensor) -> Tensor:
        return log_mean_exp(log_weights)

    def elasticity(self, log_weights: Tensor) -> Tensor:
        return 1.0 - torch.softmax(log_weights, 0)
