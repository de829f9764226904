"""Adversarially learned inference: both joint distributions before one critic."""

from __future__ import annotations

from typing import ClassVar

from pyro_lvm.critic import Side
from pyro_lvm.encounter import Encounter
from pyro_lvm.game import ONLY, GameObjective, Sides

__all__ = ["ALI"]


class ALI(GameObjective):
    r"""Adversarially learned inference (BiGAN): guide and model make the same pairs (x, z).

    .. math:: a = q(x) \, q(z \mid x), \qquad b = p(z) \, p(x \mid z), \qquad
        T \approx \log q(x, z) - \log p(x, z)

    with q(x) the data. The critic compares draws of data and guide with dreams of the model;
    neither program needs a density, and both need reparameterised draws. The value, :math:`-E_q
    T` in nats per datum, estimates :math:`-KL(q(x, z) \,\|\, p(x, z))`: the mean ELBO plus the
    entropy of the data. It is *no bound*. ``divergence`` is what the programs descend:
    "non_saturating" (the papers' game), "jensen_shannon", "kl" or "reverse_kl".

    The optimum is that of an exact critic. Programs that run ahead of theirs circle around it, and
    a critic's errors narrow what they draw (see :mod:`pyro_lvm.divergences`): train them at a
    tenth of ``discriminator_lr``, or take ``divergence="jensen_shannon"``.

    Other observed sites are scored by their densities, :math:`E_q \log p(y \mid z)`: labels, for
    instance, that the latents predict. Under ``poutine.scale`` they weigh more.

    ===========  ===============================================================================
    method       programs and options
    ===========  ===============================================================================
    ALI          :class:`~pyro_lvm.models.VAE` with a Gaussian likelihood;
                 :class:`~pyro_lvm.guides.AmortizedNormal` or
                 :class:`~pyro_lvm.guides.ImplicitGuide`
    BiGAN        the same with Delta sites: no noise in encoder and decoder
    DEAR         :class:`~pyro_lvm.models.SupervisedVAE` whose prior is a
                 :class:`~pyro_lvm.distributions.StructuralCausalPrior`, labels predicted by the
                 first latents as they are; ``data="x", divergence="kl", max_weight=2``. (The
                 paper scores labels at the encoder's mean, not at its draws.)
    ===========  ===============================================================================

    References:
        Dumoulin, Belghazi, Poole, Mastropietro, Lamb, Arjovsky, Courville (2017),
        *Adversarially learned inference*, arXiv:1606.00704.
        Donahue, Krähenbühl, Darrell (2017), *Adversarial feature learning*, arXiv:1605.09782.
        Shen, Liu, Dong, Lian, Chen, Zhang (2022), *Weakly supervised disentangled generative
        causal representation learning* (DEAR), arXiv:2010.02637.

    Args:
        discriminator: module called as ``discriminator(z, x)``, both ``(K?, *plates, features)``.
        num_particles: draws per datum, K >= 1, beside one dream.
        gradient: "reparam", the one there is.
        **options: those of :class:`~pyro_lvm.game.GameObjective`: divergence, max_weight, data,
            the discriminator's training.

    Raises:
        ValueError: an argument out of range.

    Example:
        >>> import torch
        >>> from pyro_lvm.guides import AmortizedNormal
        >>> from pyro_lvm.models import VAE
        >>> from pyro_lvm.nn import Discriminator
        >>> model = VAE(4, 2, hidden=(8,), likelihood="gaussian")
        >>> guide = AmortizedNormal(in_features=4, latent_features=2, hidden=(8,))
        >>> objective = ALI(Discriminator(2, context_features=4))
        >>> loss = objective(model, guide)(torch.zeros(5, 4))  # a step of the critic, then this
        >>> objective.is_bound, objective.bound(model, guide, torch.zeros(5, 4)).shape
        (False, torch.Size([5]))
    """

    sees_data: ClassVar[bool] = True

    def sides(self, met: Encounter) -> Sides:
        return {ONLY: (Side(met.z, met.x), Side(met.dreamt_z, met.dreamt_x))}
