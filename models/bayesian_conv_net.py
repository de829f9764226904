"""Bayesian convolutional classifier, whose kernels may have a learned prior."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn
from torch.nn.functional import conv2d, leaky_relu, max_pool2d

from pyro_lvm.errors import DataError, ProgramError, explain
from pyro_lvm.nn import (
    as_batch,
    check_num_data,
    check_positive,
    check_size,
    data_plate,
    diagonal_normal,
    widen,
)

__all__ = ["BayesianConvNet"]


class BayesianConvNet(PyroModule):
    r"""Classes of square pictures, by convolutions whose kernels are latent.

    The k by k kernels, one for each pair of an output and an input channel, are independent
    and have the prior of their layer: Normal, or that of a decoder,

    .. math:: p(w) = \int p(w \mid h) \, N(h; 0, I) \, dh

    trained as a VAE of the kernels of other networks (the deep weight prior). A convolution
    has no bias; a leaky ReLU and a maximum over 2 by 2 pixels follow it. The linear layer from
    the last features to the classes is deterministic.

    Called as ``model(x, y)``. Layer l has the sites "h1" (``(L,)``, where its prior is a
    decoder) and "w1" (``(k * k,)``) in the plate "kernels1", from the picture upwards; "y" is
    in the plate "data". All data share the kernels: a bound is one number, and a minibatch is
    for the ELBO. A guide that draws "h1" given "w1", as
    :class:`~pyro_lvm.guides.KernelPosterior` does, makes the ELBO the bound of the paper.

    Priors are used and not owned: they have been trained as models of their own, are no
    submodules, and no optimiser of this one sees them. ``model.to(...)`` moves them too.

    References:
        Atanov, Ashukha, Struminsky, Vetrov, Welling (2019), *The deep weight prior*,
        arXiv:1810.06943.

    Args:
        width: pixels in a row of the picture.
        in_channels: channels of the picture.
        num_classes: C.
        channels: of each layer.
        kernel_sizes: k of each layer.
        priors: of each layer: a model with one latent site and ``decode``, such as
            ``VAE(49, 4, likelihood="gaussian", noise="network")`` or ``FactorAnalysis(25, 4)``;
            None for Normal(0, ``prior_scale``).
        prior_scale: of the Normal priors.
        num_data: N, if batches are parts of the data; the plate then scales by N/B.

    Raises:
        ProgramError: a size below 1, a scale not above 0, layers that leave no pixel; another
            number of ``kernel_sizes`` or ``priors`` than of ``channels``, a prior of kernels of
            another size or of several layers.
        DataError: ``x`` has another number of pixels, or no rows; ``y`` another shape.

    Example:
        >>> from pyro_lvm.models import VAE
        >>> vae = VAE(9, 2, likelihood="gaussian", noise="network")
        >>> model = BayesianConvNet(8, channels=(4,), kernel_sizes=(3,), priors=[vae])
        >>> x = torch.rand(5, 64)
        >>> pyro.poutine.trace(model).get_trace(x).stochastic_nodes
        ['kernels1', 'h1', 'w1', 'data', 'y']
        >>> model.logits(x, [torch.randn(7, 4, 9)]).shape  # of 7 draws of the kernels
        torch.Size([7, 5, 10])
    """

    def __init__(
        self,
        width: int = 28,
        in_channels: int = 1,
        num_classes: int = 10,
        channels: Sequence[int] = (16, 32),
        kernel_sizes: Sequence[int] = (7, 5),
        *,
        priors: Sequence[Any] | None = None,
        prior_scale: float = 1.0,
        num_data: int | None = None,
    ) -> None:
        super().__init__(name=type(self).__name__)
        self.in_features = check_size("in_channels", in_channels) * check_size("width", width) ** 2
        self.width = width
        counts = [in_channels, *(check_size("channels", count) for count in channels)]
        self.channels = list(pairwise(counts))
        self.kernel_sizes = [check_size("kernel_sizes", k) for k in kernel_sizes]
        self._check_number("kernel_sizes", kernel_sizes)
        self.prior_scale = check_positive("prior_scale", prior_scale, "1.0")
        self.num_data = check_num_data(num_data)
        self._priors = tuple([None] * len(channels) if priors is None else priors)
        self._check_priors()
        num_features = counts[-1] * self._last_width() ** 2
        self.head = nn.Linear(num_features, check_size("num_classes", num_classes))

    def forward(self, x: Any, y: Any = None) -> Tensor:
        """The kernels of each layer in its plate, then "y" inside plate "data".

        Args:
            x: ``(B, in_channels * width * width)`` pictures.
            y: ``(B,)`` classes; None draws them from the prior predictive.
        """
        x = as_batch(x, self.in_features, like=self.head.bias)
        y = None if y is None else _labels(y, x)
        weights = [self._kernels(layer) for layer in range(len(self.channels))]
        with data_plate(len(x), self.num_data, like=x):
            classes = dist.Categorical(logits=self.logits(x, weights))
            drawn: Tensor = pyro.sample("y", classes, obs=y)
        return drawn

    def logits(self, x: Tensor, weights: Sequence[Tensor]) -> Tensor:  # (*left, B, C)
        """Of the classes of pictures ``(B, in_features)``, unnormalised.

        Args:
            x: the pictures.
            weights: kernels of each layer ``(*left, outputs * inputs, k * k)``.
        """
        left = torch.broadcast_shapes(*(w.shape[:-2] for w in weights))
        count = left.numel()
        h = x.reshape(len(x), -1, self.width, self.width).repeat(1, count, 1, 1)
        for w, (inputs, outputs), k in zip(weights, self.channels, self.kernel_sizes, strict=True):
            kernels = w.expand(*left, -1, -1).reshape(count * outputs, inputs, k, k)
            h = max_pool2d(leaky_relu(conv2d(h, kernels, groups=count)), 2)
        features = h.reshape(len(x), count, -1).transpose(0, 1)
        return widen(self.head(features)).reshape(*left, len(x), -1)

    def _kernels(self, layer: int) -> Tensor:  # (*left, outputs * inputs, k * k)
        inputs, outputs = self.channels[layer]
        number, prior = layer + 1, self._priors[layer]
        with pyro.plate(f"kernels{number}", outputs * inputs, dim=-1):
            if prior is None:
                law = self._normal(self.kernel_sizes[layer] ** 2, self.prior_scale)
            else:
                (size,) = prior.latent_features.values()
                law = prior.decode(pyro.sample(f"h{number}", self._normal(size, 1.0)))
            drawn: Tensor = pyro.sample(f"w{number}", law)
        return drawn

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> BayesianConvNet:
        """What ``to``, ``cuda`` and ``double`` do: to the priors as well."""
        for prior in self._priors:
            if prior is not None:
                prior._apply(fn, recurse)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def _normal(self, size: int, scale: float) -> dist.TorchDistribution:
        return diagonal_normal(self.head.bias.new_zeros(size), scale)

    def _last_width(self) -> int:
        width = self.width
        for k in self.kernel_sizes:
            width = (width - k + 1) // 2
            if width < 1:
                found = f"none from kernel_sizes={self.kernel_sizes}"
                hint = "Pass smaller kernels, or fewer layers."
                raise ProgramError(explain("width", "pixels left", found, hint))
        return width

    def _check_priors(self) -> None:
        self._check_number("priors", self._priors)
        for prior, k in zip(self._priors, self.kernel_sizes, strict=True):
            _check_prior(prior, k**2)

    def _check_number(self, name: str, given: Sequence[Any]) -> None:
        if len(given) != len(self.channels):
            expected = f"one for each of {len(self.channels)} layers"
            hint = "Pass as many as channels."
            raise ProgramError(explain(name, expected, str(len(given)), hint))


def _check_prior(prior: Any, features: int) -> None:
    if prior is None or (prior.in_features == features and len(prior.latent_features) == 1):
        return
    expected = f"a model of {features} features with one latent site"
    found = f"{prior.in_features} features and latent_features={prior.latent_features}"
    hint = "Pass VAE(k * k, 4, likelihood='gaussian', noise='network')."
    raise ProgramError(explain("priors", expected, found, hint))


def _labels(y: Any, x: Tensor) -> Tensor:  # (B,)
    labels = torch.as_tensor(y, device=x.device)
    if labels.shape != x.shape[:1]:
        hint = "Pass one class for each row of x."
        found = f"shape {tuple(labels.shape)}"
        raise DataError(explain("y", f"shape ({len(x)},)", found, hint))
    return labels
