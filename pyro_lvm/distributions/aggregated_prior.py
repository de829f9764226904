"""The aggregated posterior as a prior: the guide's posteriors at data drawn at random."""

from __future__ import annotations

import pyro
from pyro.distributions import TorchDistribution, Uniform
from torch import Tensor, nn

from pyro_lvm.distributions.guide_posterior import GuidePosterior
from pyro_lvm.distributions.vamp_prior import check_rows

__all__ = ["AggregatedPrior"]


class AggregatedPrior(nn.Module):
    r"""Mixture of the posteriors of N rows of data, by a few rows drawn at random.

    .. math:: p(z) = \frac1N \sum_{n=1}^N q(z \mid x_n)
        \approx \frac1{J'} \sum_{j=1}^{J'} q(z \mid x_{\lfloor N \zeta_j \rfloor}), \qquad
        \zeta_j \sim U(0, 1)

    For ``VAE(prior=...)`` under :class:`~pyro_lvm.objectives.DSIVI`, which averages out the
    auxiliary site "zeta". The mean of q over the data is the prior that no other one beats at
    a given guide; a step encodes J' of the rows.

    Rows are drawn with replacement and without regard to the data of the step: that alone
    makes the bound one, for this mixture of N, minibatch or not. A minibatch that is its own
    set of pseudo-inputs counts each datum's posterior 1/J' in place of 1/N and overestimates.
    With the data trained on among the rows, the bound of these data is one under a prior that
    has seen them. Where it should mean as much as that of new data keep the two apart, as
    :func:`pyro_lvm.data.pseudo_inputs` does.

    References:
        Molchanov, Kharitonov, Sobolev, Vetrov (2019), *Doubly semi-implicit variational
        inference*, arXiv:1810.02789, section 5.3.
        Hoffman, Johnson (2016), *ELBO surgery*, for the best prior.

    Args:
        guide: with ``posterior(x)``, such as :class:`~pyro_lvm.guides.AmortizedNormal`.
        rows: ``(N, D)`` data; in float32 N is at most 2 ** 24.
        site: the guide's site that has this prior: the top latent layer's.

    Raises:
        DataError: ``rows`` are not ``(N, D)``.
        ProgramError: the guide has no ``posterior``, or not this site.

    Example:
        >>> import torch
        >>> from pyro_lvm.guides import AmortizedNormal
        >>> from pyro_lvm.models import VAE
        >>> from pyro_lvm.objectives import DSIVI
        >>> x = torch.rand(100, 6).round()
        >>> guide = AmortizedNormal(in_features=6, latent_features=2)
        >>> model = VAE(6, 2, prior=AggregatedPrior(guide, x[:50]))
        >>> DSIVI(num_prior_mixing=20).bound(model, guide, x[50:]).shape
        torch.Size([50])
    """

    rows: Tensor

    def __init__(self, guide: nn.Module, rows: Tensor, *, site: str = "z") -> None:
        super().__init__()
        self.posterior = GuidePosterior(guide, site)
        self.register_buffer("rows", check_rows(rows), persistent=False)

    def forward(self) -> TorchDistribution:
        """The posterior at a row drawn at random."""
        law = Uniform(self.rows.new_zeros(()), 1.0)
        zeta = pyro.sample("zeta", law, infer={"is_auxiliary": True})
        row = (zeta * len(self.rows)).long().clamp(max=len(self.rows) - 1)
        given: TorchDistribution = self.posterior(self.rows[row])
        return given
