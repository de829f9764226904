"""Supervised VAE: labels that are predicted from the latent of any model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.nn import PyroModule
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn

from pyro_lvm.distributions.categorical import CategoricalLikelihood
from pyro_lvm.distributions.likelihoods import Likelihood
from pyro_lvm.errors import DataError, ProgramError, explain
from pyro_lvm.models.vae import VAE
from pyro_lvm.nn import MLP, check_positive, data_plate, widen

__all__ = ["SupervisedVAE"]


class SupervisedVAE(PyroModule):
    r"""A model of data whose latent also predicts labels, where these are known.

    .. math:: z, x \sim p(z) \, p(x \mid z), \qquad y \mid z \sim p(\cdot; g(z))

    Sites of the model, and "y" beside them; an unknown label is no site, or masked out. The
    guide :math:`q(z \mid x)` must not see labels if it is to predict them:
    :class:`~pyro_lvm.guides.WithoutLabels` makes one of any guide of data.

    **Which objective.** Under :class:`~pyro_lvm.objectives.ELBO` this is the supervised VAE: the
    labels train the encoder too, which then departs from the posterior :math:`p(z \mid x)` of
    its own model, the further the larger the weight :math:`\lambda`. Under
    :class:`~pyro_lvm.objectives.SecondOrderELBO` they move the model, and the encoder stays an
    approximation of its posterior.

    References:
        Tu, Talbot, Gallagher, Carlson (2021), *Supervising the decoder of variational
        autoencoders to improve scientific utility*, arXiv:2109.04561.

    Args:
        model: of data, ``model(x=None, *, size=1)`` with all sites in plate "data", such as
            :class:`~pyro_lvm.models.FactorAnalysis`; a :class:`~pyro_lvm.models.VAE` if left
            out.
        labels: the :class:`~pyro_lvm.distributions.Likelihood` of T label columns, such as
            ``GaussianLikelihood(T)``; one column of ten classes if left out.
        site: latent site of the model that predicts.
        latent_features: size of that site.
        hidden: hidden sizes of the predicting network g; none at all makes it linear.
        label_weight: :math:`\lambda`, factor of :math:`\log p(y \mid z)` in training mode.

    Raises:
        ProgramError: a size or weight out of range, or a model without the site.
        DataError: labels of another shape.

    Example:
        >>> from pyro_lvm.distributions import GaussianLikelihood
        >>> from pyro_lvm.models import FactorAnalysis
        >>> model = SupervisedVAE(FactorAnalysis(6, 2), GaussianLikelihood(1), latent_features=2)
        >>> x = model(size=5).detach()
        >>> model(x, [0.3, float("nan"), -0.1, 1.0, float("nan")]).shape
        torch.Size([5, 6])
        >>> model.predict(torch.zeros(5, 2)).mean.shape
        torch.Size([5, 1])
    """

    def __init__(
        self,
        model: nn.Module | None = None,
        labels: Likelihood | None = None,
        *,
        site: str = "z",
        latent_features: int = 16,
        hidden: Sequence[int] = (),
        label_weight: float = 1.0,
    ) -> None:
        super().__init__(name=type(self).__name__)
        self.model = model or VAE(latent_features=latent_features)
        self.labels = labels or CategoricalLikelihood(1, num_classes=10)
        self.site = site
        self.predictor = MLP(latent_features, self.labels.num_outputs, hidden)
        self.label_weight = check_positive("label_weight", label_weight, "1.0")

    def forward(self, x: Any = None, y: Any = None, *, size: int = 1) -> Tensor:
        """Sites of the model and "y"; returns ``x``.

        Args:
            x: ``(B, in_features)`` data; None draws ``size`` data with their labels.
            y: ``(B, T)`` labels, or ``(B,)`` for one column. Unknown are NaN, and numbers below
                0 among integers. None where none are known.
            size: number of data to draw where ``x`` is None.
        """
        with _Watched(self.site) as watched:
            drawn: Tensor = self.model(size=size) if x is None else self.model(x)
        columns = self._columns(watched.drawn())
        with poutine.block(hide=["data"]):  # the model's own plate again, no second site
            count = size if x is None else len(x)  # particles are left of the data
            plate = data_plate(count, getattr(self.model, "num_data", None), like=drawn)
        if x is None:
            with plate:
                pyro.sample("y", columns.to_event(1))
        elif y is not None:
            labels, known = self._labels(y, count, drawn)
            with plate, poutine.scale(scale=self.label_weight if self.training else 1.0):
                pyro.sample("y", columns.mask(known).to_event(1), obs=labels)
        return drawn

    def predict(self, z: Tensor) -> dist.TorchDistribution:
        """The distribution of the labels given the latent ``(*, latent)``: batch ``(*,)``."""
        row: dist.TorchDistribution = self._columns(z).to_event(1)
        return row

    def _columns(self, z: Tensor) -> dist.TorchDistribution:
        columns: dist.TorchDistribution = self.labels(widen(self.predictor(z)))
        return columns

    def _labels(self, y: Any, size: int, like: Tensor) -> tuple[Tensor, Tensor]:  # (B, T) each
        """Labels, 0 where unknown, and whether they are known."""
        labels = torch.as_tensor(y, device=like.device)
        labels = labels.unsqueeze(-1) if labels.dim() == 1 else labels
        expected = (size, self.labels.features)
        if labels.shape != expected:
            hint = "Pass a row for each datum, with NaN or -1 for what is unknown."
            found = f"shape {tuple(labels.shape)}"
            raise DataError(explain("labels y", f"shape {expected}", found, hint))
        known = ~labels.isnan() if labels.is_floating_point() else labels >= 0
        return torch.where(known, labels, 0).to(like.dtype), known


class _Watched(Messenger):
    """Remembers the value of one site."""

    def __init__(self, site: str) -> None:
        super().__init__()
        self.site = site
        self.value: Tensor | None = None

    def _pyro_post_sample(self, msg: dict[str, Any]) -> None:
        if msg["name"] == self.site:
            self.value = msg["value"]

    def drawn(self) -> Tensor:
        if self.value is None:
            hint = "Pass site='z1', or another latent site of the model."
            found = "a model without it"
            raise ProgramError(explain("site", f"a sample site '{self.site}'", found, hint))
        return self.value
