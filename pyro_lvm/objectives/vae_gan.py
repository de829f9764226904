"""VAE-GAN: a VAE whose reconstruction error a critic has learned."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from pyro_lvm.annealing import Schedule
from pyro_lvm.critic import MakeOptimizer, Side
from pyro_lvm.densities import guide_sites, log_prob
from pyro_lvm.encounter import Encounter
from pyro_lvm.game import ONLY, GameObjective, Sides
from pyro_lvm.nn import diagonal_normal
from pyro_lvm.particles import folded

__all__ = ["VAEGAN"]

_Features = Callable[[Tensor], Tensor]


class VAEGAN(GameObjective):
    r"""VAE-GAN: reconstructions are compared in what a discriminator has learned to see.

    .. math:: E_q \log N(f(x); f(m(z)), I) - KL(q(z \mid x) \,\|\, p(z)) - \lambda \, T(m)

    Here m(z) is the mean of the model's :math:`p(x \mid z)`, which is what counts of it, and f
    are the features of the discriminator T. It tells dreams and reconstructions (a) from data
    (b). The guide ascends the first two terms; the model all three, :math:`\lambda` being one
    over the paper's :math:`\gamma`; the discriminator only tells apart, so f is no part of what
    it is trained for.

    The value, in nats per datum, is *no bound*: N is a density of features, not of x, and
    another one after each step. The programs train by it; judge them by what they make. The
    guide and the prior need densities.

    References:
        Larsen, Sønderby, Larochelle, Winther (2016), *Autoencoding beyond pixels using a learned
        similarity metric*, arXiv:1512.09300, algorithm 1.

    Args:
        data_discriminator: module called as ``discriminator(x, None)``.
        features: from x ``(K?, *plates, features)`` to what it sees of it, ``(K?, *plates,
            F)``; by default ``data_discriminator.features``.
        num_particles: draws per datum, K >= 1, beside one dream.
        critic_weight: :math:`\lambda`; 0 leaves the game out.
        divergence: what the model's third term descends: "jensen_shannon" in the paper's
            equations, "non_saturating" by default.
        max_weight: weights of the logits' gradients are kept from 1 / max_weight to max_weight.
        data: the observed site that the critic sees; by default the only one.
        num_discriminator_steps: for each step of the programs.
        discriminator_lr: its learning rate, a number or a function of the step.
        discriminator_optimizer: from parameters to an optimiser, see
            :class:`~pyro_lvm.game.GameObjective`.
        max_plate_nesting: dims the plates may take.

    Raises:
        ValueError: an argument out of range.

    Example:
        >>> from pyro_lvm.guides import AmortizedNormal
        >>> from pyro_lvm.models import VAE
        >>> from pyro_lvm.nn import Discriminator
        >>> model, guide = VAE(4, 2, hidden=(8,)), AmortizedNormal(in_features=4, latent_features=2)
        >>> objective = VAEGAN(Discriminator(4, hidden=(8,)))
        >>> objective.bound(model, guide, torch.zeros(5, 4)).shape
        torch.Size([5])
    """

    holds_latents: ClassVar[bool] = True

    def __init__(
        self,
        data_discriminator: nn.Module,
        num_particles: int = 1,
        *,
        features: _Features | None = None,
        critic_weight: float = 1.0,
        divergence: str = "non_saturating",
        max_weight: float = float("inf"),
        data: str | None = None,
        num_discriminator_steps: int = 1,
        discriminator_lr: Schedule = 3e-4,
        discriminator_optimizer: MakeOptimizer | None = None,
        max_plate_nesting: int | None = None,
    ) -> None:
        super().__init__(
            data_discriminator,
            num_particles,
            divergence=divergence,
            max_weight=max_weight,
            data=data,
            num_discriminator_steps=num_discriminator_steps,
            discriminator_lr=discriminator_lr,
            discriminator_optimizer=discriminator_optimizer,
            max_plate_nesting=max_plate_nesting,
        )
        self.critic_weight = critic_weight
        self.features = features

    def sides(self, met: Encounter) -> Sides:
        made = torch.cat([met.mean(met.dream).unsqueeze(0), met.mean(met.held)])
        return {ONLY: (Side(made), Side(met.x))}

    def densities(self, met: Encounter) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        drawn = guide_sites(met.guide.sites, met.model.sites)
        log_p = {name: log_prob(site) for name, site in met.others.items()}
        log_p[met.data] = self._log_likeness(met.x, met.mean(met.model))
        log_q = {name: log_prob(site) for name, site in drawn.items()}
        of_model, of_guide = met.layout.model_scales, met.layout.guide_scales
        return folded(met.layout, log_p, of_model), folded(met.layout, log_q, of_guide)

    def _log_likeness(self, x: Tensor, made: Tensor) -> Tensor:  # (K, *plates)
        discriminator = self.critics[ONLY].discriminator.eval()
        features = self.features or cast(_Features, discriminator.features)
        return diagonal_normal(features(made), 1.0).log_prob(features(x))
