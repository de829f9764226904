"""Guide of convolution kernels: mean-field Normals, and the reverse models of learned priors."""

from __future__ import annotations

from collections.abc import Sequence
from math import log
from typing import Any

import pyro
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_lvm.errors import ProgramError, explain
from pyro_lvm.nn import check_positive, diagonal_normal, positive_scale

__all__ = ["KernelPosterior"]


class KernelPosterior(PyroModule):
    r"""Independent Normals of all weights, then each kernel's latent given the kernel.

    .. math:: q(w, h) = \prod_i N(w_i; m_i, \mathrm{diag}(s_i^2)) \, r(h_i \mid w_i)

    For :class:`~pyro_lvm.models.BayesianConvNet`, with its sites and plates. Under a prior
    :math:`p(w) = \int p(w \mid h) p(h) dh` the ELBO then has, in place of KL(q(w) || p(w)),

    .. math:: \mathbb E_{q(w)} \left[ \log q(w) +
        \mathbb E_{r(h \mid w)} \log \frac{r(h \mid w)}{p(w, h)} \right]

    which exceeds it by the mean of :math:`KL(r(h \mid w) \| p(h \mid w))`: nothing, if r is the
    posterior of h. No site is auxiliary, so any ELBO will do. How much more draws of h would
    give is ``IWAE(100).bound(vae, encoder, w) - ELBO(100).bound(vae, encoder, w)``, nats for
    each kernel of a draw of w, which is a datum of its VAE. (Auxiliary sites would be averaged
    for all kernels at once, as they share one density: much looser.)

    References:
        Atanov, Ashukha, Struminsky, Vetrov, Welling (2019), *The deep weight prior*,
        arXiv:1810.06943.

    Args:
        start: means of the kernels of each layer to start at, ``(kernels, k * k)``.
        reverse: of each layer: from ``(*, k * k)`` to a distribution of batch ``(*,)``, such as
            ``reverse`` of a trained :class:`~pyro_lvm.guides.KernelEncoder`; None where the prior
            has no latent.
        start_scale: of all Normals; so small that the first draws are like the means.

    Raises:
        ProgramError: ``start`` not of matrices; another number of ``reverse`` than of them.

    Example:
        >>> from pyro_lvm.nn import ConditionalNormal
        >>> encoder = ConditionalNormal(9, 2, hidden=(20,))
        >>> guide = KernelPosterior([torch.randn(4, 9), torch.randn(8, 9)], [encoder, None])
        >>> {name: value.shape for name, value in guide().items()}
        {'w1': torch.Size([4, 9]), 'h1': torch.Size([4, 2]), 'w2': torch.Size([8, 9])}
    """

    def __init__(
        self,
        start: Sequence[Tensor],
        reverse: Sequence[nn.Module | None] | None = None,
        *,
        start_scale: float = 0.007,
    ) -> None:
        super().__init__(name=type(self).__name__)
        _check_start(start)
        self.loc = nn.ParameterList(w.detach().clone() for w in start)
        raw = log(check_positive("start_scale", start_scale, "0.007"))
        self.raw_scale = nn.ParameterList(torch.full_like(w, raw) for w in start)
        given: list[Any] = [None] * len(start) if reverse is None else list(reverse)
        if len(given) != len(start):
            hint = "Pass None for a layer whose prior has no latent."
            expected = f"one for each of {len(start)} layers"
            raise ProgramError(explain("reverse", expected, str(len(given)), hint))
        self.reverse = nn.ModuleList(given)

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """One draw of each site: "w1" ``(kernels, k * k)``, "h1", and so on."""
        drawn = {}
        layers = zip(self.loc, self.raw_scale, self.reverse, strict=True)
        for number, (loc, raw, reverse) in enumerate(layers, start=1):
            with pyro.plate(f"kernels{number}", len(loc), dim=-1):
                w, h = f"w{number}", f"h{number}"
                normal = diagonal_normal(loc, positive_scale(raw, "exp"))
                drawn[w] = pyro.sample(w, normal)
                if reverse is not None:
                    drawn[h] = pyro.sample(h, reverse(drawn[w]))
        return drawn


def _check_start(start: Sequence[Tensor]) -> None:
    shapes = [tuple(w.shape) for w in start]
    if not shapes or any(len(shape) != 2 for shape in shapes):
        hint = "Pass one matrix of flattened kernels for each layer."
        expected = "matrices (kernels, k * k)"
        raise ProgramError(explain("start", expected, f"shapes {shapes}", hint))
