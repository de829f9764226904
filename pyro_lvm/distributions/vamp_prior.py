"""The prior that is a mixture of the guide's own posteriors."""

from __future__ import annotations

import torch
from pyro.distributions import Categorical, MixtureSameFamily, TorchDistribution
from torch import Tensor, nn

from pyro_lvm.distributions.guide_posterior import GuidePosterior
from pyro_lvm.errors import DataError, explain

__all__ = ["VampPrior"]


class VampPrior(nn.Module):
    r"""Mixture of posteriors at pseudo-inputs, which are trained, or are data.

    .. math:: p(z) = \frac1C \sum_{c=1}^C q(z \mid u_c)

    For ``VAE(prior=...)``, under any objective: it has an exact density. Each call runs the
    encoder on the C pseudo-inputs; a score takes C densities. The guide is trained through
    the prior too.

    Pseudo-inputs that are data count 1/C each. Where the data trained on are among them, a
    datum's posterior is part of its own prior: still a bound of log p(x), and one that says
    nothing of other data. :func:`pyro_lvm.data.pseudo_inputs` keeps the two apart.

    References:
        Tomczak, Welling (2018), *VAE with a VampPrior*, arXiv:1705.07120, eq. 9; "VampPrior
        data" is ``learn=False``.

    Args:
        guide: with ``posterior(x)``, such as :class:`~pyro_lvm.guides.AmortizedNormal`.
        inputs: ``(C, D)`` pseudo-inputs :math:`u_c` to start from, best rows of data.
        site: the guide's site that has this prior: the top latent layer's.
        learn: whether the pseudo-inputs are trained.

    Raises:
        DataError: ``inputs`` are not ``(C, D)``.
        ProgramError: the guide has no ``posterior``, or not this site.

    Example:
        >>> from pyro_lvm.guides import AmortizedNormal
        >>> guide = AmortizedNormal(in_features=6, latent_features=2)
        >>> prior = VampPrior(guide, torch.rand(10, 6))
        >>> prior().log_prob(torch.zeros(5, 2)).shape
        torch.Size([5])
    """

    inputs: Tensor

    def __init__(
        self, guide: nn.Module, inputs: Tensor, *, site: str = "z", learn: bool = True
    ) -> None:
        super().__init__()
        self.posterior = GuidePosterior(guide, site)
        start = check_rows(inputs).clone()
        if learn:
            self.inputs = nn.Parameter(start)
        else:
            self.register_buffer("inputs", start)

    def forward(self) -> TorchDistribution:
        """The mixture: batch ``()``, and the site's event shape."""
        components = self.posterior(self.inputs)
        weights = Categorical(logits=self.inputs.new_zeros(len(self.inputs)))
        mixture: TorchDistribution = MixtureSameFamily(weights, components)
        return mixture


def check_rows(inputs: Tensor) -> Tensor:
    """``inputs`` as floating ``(C, D)``.

    Raises:
        DataError: they are not.
    """
    rows = torch.as_tensor(inputs).detach()
    if rows.dim() != 2 or not len(rows):
        hint = "Pass data, one flat row each."
        raise DataError(explain("inputs", "shape (C, D), C >= 1", str(tuple(rows.shape)), hint))
    return rows if rows.is_floating_point() else rows.to(torch.get_default_dtype())
