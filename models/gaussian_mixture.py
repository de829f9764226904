"""Mixture of diagonal Gaussians, with its exact evidence and posterior."""

from __future__ import annotations

from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from pyro.poutine.runtime import InferDict
from torch import Tensor, nn

from pyro_lvm.models.emissions import GaussianEmission
from pyro_lvm.nn import as_batch, check_num_data, check_size, data_plate

__all__ = ["GaussianMixture"]


class GaussianMixture(PyroModule):
    r"""Each datum is of one of C components, a Gaussian with independent features each.

    .. math:: c \sim \mathrm{Categorical}(\pi), \qquad
        x \mid c \sim N(\mu_c, \mathrm{diag}(\sigma_c^2))

    ``log_evidence(x)`` and ``posterior(x)`` are exact and differentiable: gradient ascent on
    the first is maximum likelihood, and :meth:`exact_guide` makes every bound tight.
    Parameters: ``logits`` ``(C,)`` of the weights, ``components.loc`` and
    ``components.raw_scale`` ``(C, D)``.

    References:
        Bishop (2006), *Pattern recognition and machine learning*, section 9.2.

    Args:
        in_features: size of a datum, D.
        num_components: C.
        num_data: N, if batches are parts of the data; the plate then scales by N/B.
        enumerate_latents: mark site "c" to be summed out by any objective, where the guide
            does not draw it.

    Raises:
        ProgramError: a size below 1.
        DataError: ``x`` has another number of features, or no rows.

    Example:
        >>> model = GaussianMixture(in_features=2, num_components=3)
        >>> x = model(size=5).detach()
        >>> x.shape, model.log_evidence(x).shape, model.responsibilities(x).shape
        (torch.Size([5, 2]), torch.Size([5]), torch.Size([5, 3]))
    """

    def __init__(
        self,
        in_features: int = 64,
        num_components: int = 8,
        *,
        num_data: int | None = None,
        enumerate_latents: bool = False,
    ) -> None:
        super().__init__(name=type(self).__name__)
        self.in_features = check_size("in_features", in_features)
        self.num_components = check_size("num_components", num_components)
        self.num_data = check_num_data(num_data)
        self.infer: InferDict = {"enumerate": "parallel"} if enumerate_latents else {}
        self.logits = nn.Parameter(torch.zeros(num_components))
        self.components = GaussianEmission(num_components, in_features)

    def forward(self, x: Any = None, *, size: int = 1) -> Tensor:
        """Sites "c" and "x" inside plate "data".

        Args:
            x: ``(B, in_features)`` data; None draws ``size`` data from the prior predictive.
            size: number of data to draw where ``x`` is None.
        """
        x = None if x is None else as_batch(x, self.in_features, like=self.logits)
        plate = data_plate(size) if x is None else data_plate(len(x), self.num_data, like=x)
        with plate:
            c = pyro.sample("c", dist.Categorical(logits=self.logits), infer=self.infer)
            drawn: Tensor = pyro.sample("x", self.components(c), obs=x)
        return drawn

    def exact_guide(self, x: Any) -> dict[str, Tensor]:
        """The guide that is the posterior: one draw of site "c", ``(B,)``, in plate "data"."""
        posterior = self.posterior(x)
        with data_plate(len(x), self.num_data, like=self.logits):
            return {"c": pyro.sample("c", posterior)}

    def posterior(self, x: Any) -> dist.Categorical:
        """The exact distribution of ``c`` given each row of ``x``, batch ``(B,)``."""
        return dist.Categorical(logits=self._log_joint(x))

    def responsibilities(self, x: Any) -> Tensor:  # (B, C)
        """The exact probability of each component given each row of ``x``."""
        return torch.softmax(self._log_joint(x), -1)

    def log_evidence(self, x: Any) -> Tensor:  # (B,)
        """The exact log p(x) of each row, in nats per datum."""
        return self._log_joint(x).logsumexp(-1)

    def _log_joint(self, x: Any) -> Tensor:  # (B, C)
        rows = as_batch(x, self.in_features, like=self.logits).unsqueeze(1)
        every = torch.arange(self.num_components, device=rows.device)
        log_prob: Tensor = self.components(every).log_prob(rows)
        return torch.log_softmax(self.logits, -1) + log_prob
