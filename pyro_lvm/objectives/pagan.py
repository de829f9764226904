"""Pairwise augmented GAN: reconstructions before a critic, beside augmented data."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from pyro_lvm.annealing import Schedule
from pyro_lvm.critic import MakeOptimizer, Side
from pyro_lvm.encounter import Encounter
from pyro_lvm.game import GameObjective, Sides

__all__ = ["PAGAN"]


class PAGAN(GameObjective):
    r"""Pairwise augmented GAN: an autoencoder whose reconstruction error is a critic's.

    ========  =======================================  =====================================
    critic    a                                        b
    ========  =======================================  =====================================
    latents   z of the guide                           z of the prior
    data      x of the model's dreams                  the data
    pairs     reconstructions y of x, beside x         augmented data :math:`r(y \mid x)`,
                                                       beside x
    ========  =======================================  =====================================

    The pairs have the same x on both sides, so their log-ratio is that of the conditionals,
    :math:`\log p(y \mid x) - \log r(y \mid x)` with :math:`p(y \mid x) = E_{q(z \mid x)} p(y
    \mid z)`. A good reconstruction is one that could be an augmentation: it is as far from x as
    these are, so its squared error is not to be made small. Without an augmentation, r is a
    point and the critic always wins.

    The value, in nats per datum, estimates minus the sum of KL(a || b) over the critics; it is
    *no bound*, and says nothing of log p(x). Both programs need reparameterised draws, and no
    density. The paper's programs are a generator without noise (a Delta site) and a Normal
    encoder.

    References:
        Alanov, Kochurov, Yashkov, Vetrov (2018), *Pairwise augmented GANs with
        adversarial reconstruction loss*, arXiv:1810.04920.

    Args:
        latent_discriminator: module called as ``discriminator(z, None)``.
        data_discriminator: called as ``discriminator(x, None)``.
        pair_discriminator: called as ``discriminator(y, x)``.
        augment: from data ``(*plates, features)`` to fresh augmented ones of the same shape, at
            random, with their content kept.
        num_particles: draws per datum, K >= 1, beside one dream.
        divergence: what the programs descend, "non_saturating" in the paper.
        max_weight: weights of the logits' gradients are kept from 1 / max_weight to max_weight.
        data: the observed site that critics see; by default the only one.
        num_discriminator_steps: for each step of the programs.
        discriminator_lr: the critics' learning rate, a number or a function of the step.
        discriminator_optimizer: from parameters to an optimiser, see
            :class:`~pyro_lvm.game.GameObjective`.
        max_plate_nesting: dims the plates may take.

    Raises:
        ValueError: an argument out of range.

    Example:
        >>> import torch
        >>> from pyro_lvm.guides import AmortizedNormal
        >>> from pyro_lvm.models import VAE
        >>> from pyro_lvm.nn import Discriminator
        >>> model = VAE(4, 2, hidden=(8,), likelihood="gaussian")
        >>> guide = AmortizedNormal(in_features=4, latent_features=2, hidden=(8,))
        >>> objective = PAGAN(
        ...     Discriminator(2),
        ...     Discriminator(4),
        ...     Discriminator(4, context_features=4),
        ...     augment=lambda x: x + 0.1 * torch.randn_like(x),
        ... )
        >>> objective.bound(model, guide, torch.zeros(5, 4)).shape
        torch.Size([5])
    """

    def __init__(
        self,
        latent_discriminator: nn.Module,
        data_discriminator: nn.Module,
        pair_discriminator: nn.Module,
        augment: Callable[[Tensor], Tensor],
        num_particles: int = 1,
        *,
        divergence: str = "non_saturating",
        max_weight: float = float("inf"),
        data: str | None = None,
        num_discriminator_steps: int = 1,
        discriminator_lr: Schedule = 3e-4,
        discriminator_optimizer: MakeOptimizer | None = None,
        max_plate_nesting: int | None = None,
    ) -> None:
        critics = {
            "latents": latent_discriminator,
            "data": data_discriminator,
            "pairs": pair_discriminator,
        }
        super().__init__(
            critics,
            num_particles,
            divergence=divergence,
            max_weight=max_weight,
            data=data,
            num_discriminator_steps=num_discriminator_steps,
            discriminator_lr=discriminator_lr,
            discriminator_optimizer=discriminator_optimizer,
            max_plate_nesting=max_plate_nesting,
        )
        self.augment = augment

    def sides(self, met: Encounter) -> Sides:
        return {
            "latents": (Side(met.z), Side(met.dreamt_z)),
            "data": (Side(met.dreamt_x), Side(met.x)),
            "pairs": (Side(met.copied_x, met.x), Side(self.augment(met.x), met.x)),
        }
