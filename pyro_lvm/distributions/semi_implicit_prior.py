"""Priors with a mixing variable: noise through a network, then a conditional density."""

from __future__ import annotations

import pyro
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from pyro_lvm.nn import check_size, diagonal_normal

__all__ = ["SemiImplicitPrior"]


class SemiImplicitPrior(nn.Module):
    r"""Mixture of infinitely many conditionals.

    .. math:: p(z) = \int p(z \mid \zeta) \, N(\zeta; 0, I) \, d\zeta

    For ``VAE(prior=...)`` under :class:`~pyro_lvm.objectives.DSIVI`, which averages out the
    auxiliary site "zeta"; other objectives refuse it. As J' draws of :math:`\zeta` serve all
    data and particles, the network of :math:`\zeta` runs J' times a step.

    With a generator of pseudo-inputs before the guide's posterior it is the trained prior of
    the paper, a VampPrior of infinitely many pseudo-inputs::

        posterior = GuidePosterior(guide)
        SemiImplicitPrior(nn.Sequential(MLP(40, 784), nn.Sigmoid(), posterior), 40)

    References:
        Molchanov, Kharitonov, Sobolev, Vetrov (2019), *Doubly semi-implicit variational
        inference*, arXiv:1810.02789, sections 3 and 5.

    Args:
        conditional: from ``(*, noise_features)`` to a distribution of batch ``(*,)``, such as
            :class:`~pyro_lvm.nn.ConditionalNormal`.
        noise_features: size of :math:`\zeta`.

    Raises:
        ProgramError: ``noise_features`` below 1.

    Example:
        >>> from pyro_lvm.models import VAE
        >>> from pyro_lvm.nn import ConditionalNormal
        >>> prior = SemiImplicitPrior(ConditionalNormal(10, 2, hidden=(50,)), 10)
        >>> model = VAE(in_features=6, latent_features=2, prior=prior)
        >>> pyro.poutine.trace(model).get_trace(size=5).stochastic_nodes
        ['data', 'zeta', 'z', 'x']
    """

    _origin: Tensor

    def __init__(self, conditional: nn.Module, noise_features: int) -> None:
        super().__init__()
        self.conditional = conditional
        size = check_size("noise_features", noise_features)
        self.register_buffer("_origin", torch.zeros(size), persistent=False)

    def forward(self) -> TorchDistribution:
        """The conditional given a fresh draw of "zeta"."""
        law = diagonal_normal(self._origin, 1.0)
        zeta = pyro.sample("zeta", law, infer={"is_auxiliary": True})
        given: TorchDistribution = self.conditional(zeta)
        return given
