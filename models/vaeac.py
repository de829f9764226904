"""VAE with arbitrary conditioning: any entries given any others, from one network."""

from __future__ import annotations

from math import nan
from typing import Any

import pyro
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_lvm.distributions import Likelihood, PartlyKnown
from pyro_lvm.distributions.likelihoods import as_likelihood
from pyro_lvm.nn import (
    MLP,
    ResidualMLP,
    RowReader,
    SkipEncoder,
    as_batch,
    check_num_data,
    check_size,
    conditions,
    data_plate,
    diagonal_normal,
    positive_scale,
)

__all__ = ["VAEAC"]


class VAEAC(PyroModule):
    r"""Any entries of a datum given any others: a VAE whose networks all see what is observed.

    .. math:: z \mid x_o, o \sim N(m(x_o, o), \mathrm{diag}(s(x_o, o)^2)), \qquad
        x_t \mid z, x_o, o \sim \prod_{j \in t} p(x_j; f_j(z, x_o, o))

    where :math:`o` are the entries that are observed and :math:`t` those to be predicted, so a
    bound is one on :math:`\log p(x_t \mid x_o)`. The generator f reads the activations of the
    prior network, the first line's, at every layer.

    The mask ``observed`` is an argument of model and guide, **True = observed** (the paper's b is
    the opposite). Draw it outside of both, in training anew for each batch, by
    :class:`~pyro_lvm.missing.RandomMasks`. An entry that is NaN is neither observed nor
    predicted, whatever the mask says. Without a mask all that is known is observed:
    ``impute(model, model.prior_guide, x)`` draws what is NaN by the prior network, and
    ``fit`` without masks learns nothing. A row with nothing to be predicted has the bound
    :math:`-KL(q \| p)`.

    The latent site is "z". The observed site "x" is the whole row, its observed entries certain:
    drawn as they are, with log-probability 0.

    References:
        Ivanov, Figurnov, Vetrov (2019), *Variational autoencoder with arbitrary conditioning*,
        arXiv:1806.02382. Scales of real entries are learned here: with the unit scale of the
        published code for tables the latent is not used.

    Args:
        in_features: size of a datum, D.
        latent_features: size of z.
        likelihood: "bernoulli", "gaussian", "negative_binomial" or "poisson", or a
            :class:`~pyro_lvm.distributions.Likelihood` of D columns, such as
            ``schema.likelihood()`` of a mixed table.
        noise: scale of "gaussian": "network", an output of the generator as the scale depends
            on what is observed, or "feature", one parameter a feature.
        width: of the layers of both networks, and
        depth: number of their residual blocks.
        encoder: prior network in place of those: takes ``(B, 2 F)``, data with zeros for what is
            not observed, then their mask; its mirror is the generator. As
            ``UNet(28, in_channels=2)`` for pictures.
        features: what the networks read of a row, ``TableFeatures(schema.columns)``; the row
            itself if left out. See :class:`~pyro_lvm.nn.RowReader`.
        hyperprior: :math:`(\sigma_\mu, \sigma_\sigma)` of the regulariser
            :math:`-\sum m^2 / 2 \sigma_\mu^2 + \sigma_\sigma \sum (\log s - s)`, nats a datum, in
            the site "hyperprior". It is never above 0, so bounds remain bounds. None leaves it
            out.
        num_data: N, if batches are parts of the data; the plate then scales by N/B.

    Raises:
        ProgramError: an unknown choice, a size below 1, a likelihood of another size.
        DataError: ``x`` has another number of features, or no rows; a mask of another dtype or
            shape.

    Example:
        >>> from pyro_lvm import fit, impute
        >>> from pyro_lvm.guides import ConditioningGuide
        >>> from pyro_lvm.missing import RandomMasks, mcar
        >>> from pyro_lvm.objectives import ELBO
        >>> x = torch.randn(64, 1) + 0.1 * torch.randn(64, 3)
        >>> x[0, 0] = torch.nan
        >>> model = VAEAC(3, latent_features=2, width=16, depth=1)
        >>> guide = ConditioningGuide(in_features=3, latent_features=2, width=16, depth=1)
        >>> result = fit(model, guide, x, ELBO(), transform=RandomMasks(mcar, rate=0.5),
        ...              allow_nan=True, max_steps=20, lr=1e-2)
        >>> impute(model, model.prior_guide, x, num_samples=5).values.shape
        torch.Size([5, 64, 3])
    """

    _origin: Tensor

    def __init__(
        self,
        in_features: int = 64,
        latent_features: int = 16,
        likelihood: str | Likelihood = "gaussian",
        *,
        noise: str = "network",
        width: int = 128,
        depth: int = 3,
        encoder: SkipEncoder | None = None,
        features: nn.Module | None = None,
        hyperprior: tuple[float, float] | None = (1e4, 1e-4),
        num_data: int | None = None,
    ) -> None:
        super().__init__(name=type(self).__name__)
        self.reader = RowReader(in_features, features)
        self.latent_features = check_size("latent_features", latent_features)
        self.likelihood = as_likelihood(likelihood, in_features, noise)
        self.hyperprior = hyperprior
        self.num_data = check_num_data(num_data)
        self.encoder = encoder or ResidualMLP(2 * self.reader.out_features, width, depth)
        self.head = MLP(self.encoder.out_features, 2 * latent_features, hidden=())
        self.decoder = self.encoder.mirrored(latent_features, self.likelihood.num_outputs)
        self.register_buffer("_origin", torch.zeros(in_features), persistent=False)

    def forward(self, x: Any = None, observed: Any = None, *, size: int = 1) -> Tensor:
        """The sites "z", "hyperprior" and "x", inside plate "data".

        Args:
            x: ``(B, in_features)`` data, NaN where missing; None draws ``size`` data given
                nothing.
            observed: bool ``(B, in_features)``, True = observed; None for all that is not NaN.
            size: number of data to draw where ``x`` is None.
        """
        rows = self._origin.new_full((size, len(self._origin)), nan) if x is None else self._rows(x)
        plate = data_plate(size) if x is None else data_plate(len(rows), self.num_data, like=rows)
        given = conditions(rows, observed)
        with plate:
            loc, scale, memory = self._prior(rows, given)
            z = pyro.sample("z", diagonal_normal(loc, scale))
            if self.hyperprior is not None:
                pyro.factor("hyperprior", _log_hyperprior(loc, scale, *self.hyperprior))
            row: Any = self.likelihood(self.decoder(z, memory))
            if x is not None:
                row = PartlyKnown(row, rows, given)
                row = row.mask(~rows.isnan())
            drawn: Tensor = pyro.sample("x", row.to_event(1), obs=None if x is None else rows)
        return drawn

    def prior_guide(self, x: Any, observed: Any = None) -> dict[str, Tensor]:
        """The prior network as a guide: one draw of "z" given the observed entries alone."""
        rows = self._rows(x)
        loc, scale, _ = self._prior(rows, conditions(rows, observed))
        with data_plate(len(rows), self.num_data, like=rows):
            return {"z": pyro.sample("z", diagonal_normal(loc, scale))}

    def _rows(self, x: Any) -> Tensor:
        return as_batch(x, len(self._origin), like=self._origin)

    def _prior(self, rows: Tensor, given: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Location and scale of z, ``(B, latent)``, and what the generator reads."""
        seen = self.reader(torch.where(given, rows, nan))
        memory = self.encoder.memory(torch.cat(seen, 1))
        loc, raw = self.head(memory[-1].flatten(1)).chunk(2, -1)
        return loc, positive_scale(raw), memory


def _log_hyperprior(loc: Tensor, scale: Tensor, of_loc: float, of_scale: float) -> Tensor:
    """Nearly flat: it keeps the outputs of the prior network from diverging, (B,) nats."""
    terms = of_scale * (scale.log() - scale) - loc.square() / (2 * of_loc**2)
    return terms.sum(-1)
