"""Auxiliary and skip deep generative models: a second latent that makes the guide a mixture."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor

from pyro_lvm.distributions.likelihoods import Likelihood, as_likelihood
from pyro_lvm.distributions.start import start_at_mean
from pyro_lvm.nn import (
    MLP,
    ConditionalNormal,
    as_batch,
    check_num_data,
    check_size,
    data_plate,
    diagonal_normal,
    joined,
)
from pyro_lvm.nn.labels import as_labels, one_hot_labels, sampled_labels

__all__ = ["ADGM", "SDGM"]


class _WithAuxiliary(PyroModule):
    """Base: z from its prior, perhaps a label, and two networks, of "x" and of "a"."""

    _origin: Tensor

    def __init__(
        self,
        in_features: int = 64,
        latent_features: int = 16,
        auxiliary_features: int = 16,
        hidden: Sequence[int] = (200, 200),
        likelihood: str | Likelihood = "bernoulli",
        *,
        noise: str = "feature",
        num_classes: int | None = None,
        enumerate_labels: bool = False,
        data_mean: Tensor | None = None,
        num_data: int | None = None,
    ) -> None:
        super().__init__(name=type(self).__name__)
        self.in_features = check_size("in_features", in_features)
        self.latent_features = check_size("latent_features", latent_features)
        self.auxiliary_features = check_size("auxiliary_features", auxiliary_features)
        self.num_classes = None if num_classes is None else check_size("num_classes", num_classes)
        self.num_data = check_num_data(num_data)
        self.enumerate_labels = enumerate_labels
        self.likelihood = as_likelihood(likelihood, in_features, noise)
        of_x, of_a = (size + (num_classes or 0) for size in self._num_inputs())
        self.decoder = MLP(of_x, self.likelihood.num_outputs, hidden)
        if data_mean is not None:
            start_at_mean(self.decoder, self.likelihood, data_mean, in_features)
        self.auxiliary = ConditionalNormal(of_a, auxiliary_features, hidden)
        self.register_buffer("_origin", torch.zeros(latent_features), persistent=False)

    @abstractmethod
    def _num_inputs(self) -> tuple[int, int]:
        """Sizes of what the networks of "x" and of "a" read beside the label."""

    @abstractmethod
    def _sample_rest(self, z: list[Tensor], x: Tensor | None) -> Tensor:
        """Sites "x" and "a" given z and perhaps the label; returns x."""

    def forward(self, x: Any = None, y: Any = None, *, size: int = 1) -> Tensor:
        """Sites "z", "x", "a", and "y" where there are classes, inside plate "data".

        Args:
            x: ``(B, in_features)`` data; None draws ``size`` data from the prior predictive.
            y: ``(B,)`` labels from 0, below 0 where unknown; None where all are.
            size: number of data to draw where ``x`` is None.
        """
        x = None if x is None else as_batch(x, self.in_features, like=self._origin)
        plate = data_plate(size) if x is None else data_plate(len(x), self.num_data, like=x)
        with plate:
            label = self._label(x, y)
            z = pyro.sample("z", diagonal_normal(self._origin, 1.0))
            return self._sample_rest([z, *label], x)

    def decode(self, *inputs: Tensor) -> dist.TorchDistribution:
        """The distribution of ``x`` given what the decoder reads, ``(*, size)`` each."""
        return self.likelihood.row(self.decoder(joined(inputs)))

    def _label(self, x: Tensor | None, y: Any) -> list[Tensor]:
        """The label's indicator ``(*, C)``, if there are classes."""
        if self.num_classes is None:
            return []
        labels = None if x is None or y is None else as_labels(y, like=x)
        prior = dist.Categorical(logits=self._origin.new_zeros(self.num_classes))
        label = sampled_labels(prior, labels, sum_out=self.enumerate_labels)
        return [one_hot_labels(label, self.num_classes, like=self._origin)]


class ADGM(_WithAuxiliary):
    r"""Auxiliary deep generative model: a VAE with a reverse model of its guide's auxiliary.

    .. math:: z \sim N(0, I), \quad x \mid z, y \sim p(\cdot; f(z, y)), \quad
        a \mid x, z, y \sim N(m(x, z, y), \mathrm{diag}(s(x, z, y)^2))

    p(x) is that of the model without a, for a is drawn last. A guide that draws a first and z
    given a, :class:`~pyro_lvm.guides.AuxiliaryNormal`, is a mixture of infinitely many
    Normals; what every bound pays for that is
    :math:`E\,\mathrm{KL}(q(a \mid z, x) \,\|\, p(a \mid x, z))`. Sites "z", "x", "a"; with
    ``num_classes`` also "y", a uniform prior on its classes.

    **Labels.** ``model(x, y)`` takes labelled and unlabelled data in one batch: y is -1 where
    it is unknown. The unknown ones are drawn by the guide (``gradient="score"``, "vimco" or
    "ovis"), or summed out of every bound with ``enumerate_labels=True``; the guide then has no
    classes.

    References:
        Maaløe, Sønderby, Sønderby, Winther (2016), *Auxiliary deep generative models*,
        arXiv:1602.05473, eqs. 3 and 7.
        Ranganath, Tran, Blei (2016), *Hierarchical variational models*, arXiv:1511.02386.

    Args:
        in_features: size of a datum, D.
        latent_features: size of z.
        auxiliary_features: size of a.
        hidden: hidden sizes of both networks.
        likelihood: "bernoulli", "gaussian", "negative_binomial" or "poisson", or a
            :class:`~pyro_lvm.distributions.Likelihood` of D columns.
        noise: scale of "gaussian": "feature", one parameter a feature, or "network", a second
            output of the decoder.
        num_classes: C; None for no labels.
        enumerate_labels: mark unknown labels to be summed out by any objective.
        data_mean: ``(D,)`` mean of the training data, for the start of the output bias.
        num_data: N, if batches are parts of the data; the plate then scales by N/B.

    Raises:
        ProgramError: an unknown choice, a size below 1, a likelihood or
            ``data_mean`` of another size.
        DataError: ``x`` has another number of features, or no rows; ``y`` another
            shape.

    Example:
        >>> model = ADGM(in_features=6, latent_features=3, auxiliary_features=2, num_classes=4)
        >>> x = model(size=5)
        >>> x.shape, torch.equal(model(x, [0, 3, -1, -1, -1]), x)
        (torch.Size([5, 6]), True)
    """

    def _num_inputs(self) -> tuple[int, int]:
        return self.latent_features, self.in_features + self.latent_features

    def _sample_rest(self, z: list[Tensor], x: Tensor | None) -> Tensor:
        drawn: Tensor = pyro.sample("x", self.decode(*z), obs=x)
        pyro.sample("a", self.auxiliary(joined([drawn, *z])))
        return drawn


class SDGM(_WithAuxiliary):
    r"""Skip deep generative model: two stochastic layers, both of which the data read.

    .. math:: z \sim N(0, I), \quad
        a \mid z, y \sim N(m(z, y), \mathrm{diag}(s(z, y)^2)), \quad
        x \mid a, z, y \sim p(\cdot; f(a, z, y))

    The sites, labels and arguments of :class:`ADGM`, whose guide serves it too. Here a is a
    latent of the data, and p(x) is an integral over a and z.

    References:
        Maaløe, Sønderby, Sønderby, Winther (2016), *Auxiliary deep generative models*,
        arXiv:1602.05473, section 2.4.

    Args:
        in_features: size of a datum, D.
        latent_features: size of z.
        auxiliary_features: size of a.
        hidden: hidden sizes of both networks.
        likelihood: as of :class:`ADGM`.
        noise: scale of "gaussian": "feature" or "network".
        num_classes: C; None for no labels.
        enumerate_labels: mark unknown labels to be summed out by any objective.
        data_mean: ``(D,)`` mean of the training data, for the start of the output bias.
        num_data: N, if batches are parts of the data; the plate then scales by N/B.

    Raises:
        ProgramError: an unknown choice, a size below 1, a likelihood or
            ``data_mean`` of another size.
        DataError: ``x`` has another number of features, or no rows; ``y`` another
            shape.

    Example:
        >>> SDGM(in_features=6, latent_features=3, auxiliary_features=2)(size=5).shape
        torch.Size([5, 6])
    """

    def _num_inputs(self) -> tuple[int, int]:
        return self.auxiliary_features + self.latent_features, self.latent_features

    def _sample_rest(self, z: list[Tensor], x: Tensor | None) -> Tensor:
        a = pyro.sample("a", self.auxiliary(joined(z)))
        drawn: Tensor = pyro.sample("x", self.decode(a, *z), obs=x)
        return drawn
