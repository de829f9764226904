"""What networks with latent weights share: sites, outcomes, the plate of the data."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor

from pyro_lvm.errors import DataError, explain
from pyro_lvm.models.weight_priors import WeightPriors
from pyro_lvm.nn import check_num_data, check_positive, data_plate, diagonal_normal, widen

__all__ = ["BayesianNetwork"]

_LOG_NOISE = (-1.0, 1.0)  # mean and scale: a noise of 0.05 to 2.7 standard deviations


class BayesianNetwork(PyroModule):
    """Base of networks from rows ``x`` to outcomes ``y`` whose weights are latent.

    Args:
        shapes: rows and columns of the matrix of weights of each site.
        num_classes: C, of a classifier; None for a regression.
        prior: of the weights, see :class:`~pyro_lvm.models.weight_priors.WeightPriors`.
        prior_scale: its scale.
        noise_scale: of a regression: that of the outcomes, if known. Otherwise its log is the
            latent site "log_noise", N(-1, 1), which suits standardised outcomes.
        num_data: N, if batches are parts of the data; the plate then scales by N/B.

    Attributes:
        latent_features: sizes of the latent sites, by name.
    """

    _origin: Tensor

    def __init__(
        self,
        shapes: Mapping[str, tuple[int, int]],
        num_classes: int | None,
        prior: str,
        prior_scale: float,
        noise_scale: float | None,
        num_data: int | None,
    ) -> None:
        super().__init__(name=type(self).__name__)
        self.num_data = check_num_data(num_data)
        self.num_classes = num_classes
        self.noise_scale = noise_scale
        if noise_scale is not None:
            check_positive("noise_scale", noise_scale, "1.0")
        self.priors = WeightPriors(shapes, prior, prior_scale)
        self.latent_features = {name: rows * columns for name, (rows, columns) in shapes.items()}
        if num_classes is None and noise_scale is None:
            self.latent_features["log_noise"] = 1
        self.register_buffer("_origin", torch.zeros(()), persistent=False)

    @abstractmethod
    def network(self, x: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
        """Outputs ``(*left, B, out)`` by matrices ``(*left, rows, columns)``."""

    @abstractmethod
    def rows(self, x: Any) -> Tensor:
        """``x`` as a checked batch."""

    def forward(self, x: Any, y: Any = None) -> Tensor:
        """The latent sites, then "y" inside plate "data".

        Args:
            x: the rows.
            y: ``(B,)`` outcomes or classes; None draws them from the prior predictive.
        """
        x = self.rows(x)
        y = None if y is None else self._outcomes(y, x)
        draws = {name: _without_plate(value) for name, value in self._draws().items()}
        with data_plate(len(x), self.num_data, like=x):
            drawn: Tensor = pyro.sample("y", self.outcome(x, draws), obs=y)
        return drawn

    def outcome(self, x: Any, draws: Mapping[str, Tensor]) -> dist.TorchDistribution:
        """Of "y" at rows ``x``, given the latents: batch ``(*left, B)``.

        Args:
            x: the rows.
            draws: of each latent site ``(*left, size)``, as
                :func:`~pyro_lvm.sample_posterior` gives them.
        """
        out = widen(self.network(self.rows(x), self.matrices(draws)))
        if self.num_classes is not None:
            classes: dist.TorchDistribution = dist.Categorical(logits=out)
            return classes
        noise = self.noise_scale
        scale = draws["log_noise"].exp() if noise is None else noise
        outcome: dist.TorchDistribution = dist.Normal(out.squeeze(-1), scale)
        return outcome

    def matrices(self, draws: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Each site's weights ``(*left, rows * columns)`` as ``(*left, rows, columns)``."""
        return {name: draws[name].unflatten(-1, s) for name, s in self.priors.shapes.items()}

    def folded(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The matrices that the network multiplies by, of all of :meth:`matrices`."""
        return dict(weights)

    def starts(self) -> dict[str, Tensor]:
        """Random means at which a guide of the sites may start, by the number of inputs.

        References:
            He, Zhang, Ren, Sun (2015), *Delving deep into rectifiers*, arXiv:1502.01852, eq. 10.
        """
        drawn = {
            name: (torch.randn(shape) * (2 / shape[1]) ** 0.5).flatten().to(self._origin)
            for name, shape in self.priors.shapes.items()
        }
        noise = {"log_noise": self._origin.new_full((1,), _LOG_NOISE[0])}
        return drawn | (noise if "log_noise" in self.latent_features else {})

    def _draws(self) -> dict[str, Tensor]:
        draws: dict[str, Tensor] = self.priors()
        if "log_noise" in self.latent_features:
            mean, scale = _LOG_NOISE
            prior = diagonal_normal(self._origin.new_full((1,), mean), scale)
            draws["log_noise"] = pyro.sample("log_noise", prior)
        return draws

    def _outcomes(self, y: Any, x: Tensor) -> Tensor:  # (B,)
        outcomes = torch.as_tensor(y, device=x.device)
        if outcomes.shape != x.shape[:1]:
            found = f"shape {tuple(outcomes.shape)}"
            hint = "Pass one outcome for each row of x; y.squeeze(-1) drops a last dim of 1."
            raise DataError(explain("y", f"shape ({len(x)},)", found, hint))
        return outcomes if self.num_classes is not None else outcomes.to(x)


def _without_plate(value: Tensor) -> Tensor:
    """``(*left, 1, size)``, where the 1 stands for the data's plate, as ``(*left, size)``."""
    return value.squeeze(-2) if value.dim() > 1 else value
