"""Ladder guide: what the data say of each layer, merged with what the layer above says."""

from __future__ import annotations

from typing import Any

import pyro
import pyro.distributions as dist
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_lvm.errors import ProgramError, explain
from pyro_lvm.nn import (
    MLP,
    Dense,
    Hidden,
    TopDown,
    as_batch,
    check_num_data,
    check_size,
    data_plate,
    diagonal_normal,
    hidden_by_layer,
    positive_scale,
)

__all__ = ["LadderNormal", "precision_weighted"]


class LadderNormal(PyroModule):
    r"""Top-down Normals that merge an upward pass with the model's own conditionals.

    A deterministic pass :math:`d_l = f_l(d_{l-1})`, from :math:`d_0 = x`, gives a mean
    :math:`\hat\mu_l(d_l)` and a scale :math:`\hat\sigma_l(d_l)` for each layer. The top layer
    is drawn from them; each other one is drawn from the product of that Normal and the model's
    :math:`p(z_l \mid z_{l+1}) = N(\mu_p, \sigma_p^2)`:

    .. math:: q(z_l \mid z_{l+1}, x) = N\!\left(\frac{\hat\mu_l \hat\sigma_l^{-2}
        + \mu_p \sigma_p^{-2}}{\hat\sigma_l^{-2} + \sigma_p^{-2}},
        \frac{1}{\hat\sigma_l^{-2} + \sigma_p^{-2}}\right)

    This is the exact conditional where :math:`N(z_l; \hat\mu_l, \hat\sigma_l^2)` is
    proportional to the likelihood :math:`p(x \mid z_l)`. The upward pass runs once a datum,
    the model's conditionals once a particle.

    Deep ladders need ``batch_norm=True`` in both programs, KL warm-up and free bits, as in
    ``ELBO(beta=LinearWarmup(1000), free_bits=0.5)``: without these layers lose their KL, see
    :func:`~pyro_lvm.diagnostics.collapse_report`.

    The model's conditionals are a part of the guide: one module in two programs, whose
    parameters have the gradient of both. Copy the two programs at once, as in
    ``copy.deepcopy((model, guide))``, to keep them tied.

    References:
        Sønderby, Raiko, Maaløe, Sønderby, Winther (2016), *Ladder variational autoencoders*,
        arXiv:1602.02282, eqs. 9-15.

    Args:
        top_down: the model's conditionals, ``model.top_down``; they name the sites.
        in_features: size of a datum.
        hidden: hidden sizes of every step of the upward pass, or one tuple for each layer.
        batch_norm: normalise each hidden layer over the batch.
        num_data: N, the model's own ``num_data``.

    Raises:
        ProgramError: no :class:`~pyro_lvm.nn.TopDown`, a size below 1, another number of tuples
            than of layers.
        DataError: ``x`` has another number of features, or no rows.

    Example:
        >>> import torch
        >>> top_down = TopDown((8, 4, 2), hidden=(20,))
        >>> guide = LadderNormal(top_down, in_features=6, hidden=(20,))
        >>> {name: z.shape for name, z in guide(torch.zeros(5, 6)).items()}
        {'z3': torch.Size([5, 2]), 'z2': torch.Size([5, 4]), 'z1': torch.Size([5, 8])}
    """

    def __init__(
        self,
        top_down: TopDown,
        *,
        in_features: int = 64,
        hidden: Hidden = (200, 200),
        batch_norm: bool = False,
        num_data: int | None = None,
    ) -> None:
        super().__init__(name=type(self).__name__)
        self.in_features = check_size("in_features", in_features)
        self.num_data = check_num_data(num_data)
        self.top_down = _check_shared(top_down)
        self.latent_features = top_down.latent_features
        sizes = list(self.latent_features.values())
        width = in_features
        self.upward, self.heads = nn.ModuleList(), nn.ModuleList()
        for size, layers in zip(sizes, hidden_by_layer(hidden, len(sizes)), strict=True):
            step = Dense(width, layers, batch_norm=batch_norm)
            width = step.out_features
            self.upward.append(step)
            self.heads.append(MLP(width, 2 * size, hidden=()))

    def forward(self, x: Any) -> dict[str, Tensor]:
        """One draw of each site, ``(B, size)``, top first, inside plate "data"."""
        evidence = self.evidence(x)
        top = self.top_down.top
        with data_plate(len(x), self.num_data, like=next(self.heads.parameters())):
            z = pyro.sample(top, evidence[top])
            draws = {top: z}
            for name, layer in self.top_down.downwards():
                z = pyro.sample(name, precision_weighted(evidence[name], layer(z)))
                draws[name] = z
        return draws

    def evidence(self, x: Any) -> dict[str, dist.TorchDistribution]:
        """What the upward pass says of each layer: Normals of batch ``(B,)``, data first."""
        d = as_batch(x, self.in_features, like=next(self.heads.parameters()))
        normals = {}
        for name, step, head in zip(self.latent_features, self.upward, self.heads, strict=True):
            d = step(d)
            loc, raw = head(d).chunk(2, -1)
            normals[name] = diagonal_normal(loc, positive_scale(raw))
        return normals


def _check_shared(top_down: Any) -> TopDown:
    if isinstance(top_down, TopDown):
        return top_down
    expected, found = "the conditionals of a hierarchy", f"a {type(top_down).__name__}"
    hint = "Pass model.top_down of a HierarchicalVAE."
    raise ProgramError(explain("top_down", expected, found, hint))


def precision_weighted(
    first: dist.TorchDistribution, second: dist.TorchDistribution
) -> dist.TorchDistribution:
    r"""The Normal proportional to the product of two diagonal ones, any batches that broadcast.

    .. math:: \sigma^{-2} = \sigma_1^{-2} + \sigma_2^{-2}, \qquad
        \mu = \sigma^2 (\mu_1 \sigma_1^{-2} + \mu_2 \sigma_2^{-2})

    Example:
        >>> import torch
        >>> ones = torch.ones(2)
        >>> merged = precision_weighted(diagonal_normal(0 * ones, 1.0), diagonal_normal(ones, 1.0))
        >>> merged.mean, merged.variance
        (tensor([0.5000, 0.5000]), tensor([0.5000, 0.5000]))
    """
    total = first.variance + second.variance
    loc = (first.mean * second.variance + second.mean * first.variance) / total
    return diagonal_normal(loc, first.stddev * second.stddev / total.sqrt())
