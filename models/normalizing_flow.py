"""Normalising flow of the data themselves: a model without latents, with an exact density."""

from __future__ import annotations

from collections.abc import Sequence

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor

from pyro_lvm.distributions.flow import ConditionalFlow
from pyro_lvm.nn import as_batch, check_num_data, check_size, data_plate

__all__ = ["NormalizingFlow"]


class NormalizingFlow(PyroModule):
    r"""A flow from a standard Normal to the data, :math:`x = f^{-1}(u)`.

    .. math:: \log p(x) = \log N(f(x); 0, I) + \log |\det \partial f / \partial x|

    The site is "x"; there is nothing to infer, so that its guide draws nothing and every
    objective is maximum likelihood. With missing entries it needs what can integrate over them:
    :class:`~pyro_lvm.objectives.VGI`. Give it standardised data.

    References:
        Papamakarios, Nalisnick, Rezende, Mohamed, Lakshminarayanan (2021), *Normalizing flows for
        probabilistic modeling and inference*, arXiv:1912.02762.

    Args:
        in_features: size of a datum, D.
        family: "nsf" (rational-quadratic splines) or "maf", which score in one pass, or their
            inverses "insf" and "iaf", which draw in one.
        num_transforms: number of autoregressive layers.
        hidden: hidden sizes of each layer's network.
        num_data: N, if batches are parts of the data; the plate then scales by N/B.

    Raises:
        ProgramError: an unknown family, a size below 1.
        DataError: ``x`` has another number of features, or no rows.

    Example:
        >>> model = NormalizingFlow(in_features=3)
        >>> x = model(size=5)
        >>> x.shape, model.log_evidence(x).shape
        (torch.Size([5, 3]), torch.Size([5]))
    """

    _like: Tensor

    def __init__(
        self,
        in_features: int = 64,
        family: str = "nsf",
        *,
        num_transforms: int = 3,
        hidden: Sequence[int] = (64, 64),
        num_data: int | None = None,
    ) -> None:
        super().__init__(name=type(self).__name__)
        self.in_features = check_size("in_features", in_features)
        self.num_data = check_num_data(num_data)
        self.flow = ConditionalFlow(
            in_features, family=family, num_transforms=num_transforms, hidden=hidden
        )
        self.register_buffer("_like", torch.zeros(()), persistent=False)

    def forward(self, x: Tensor | None = None, *, size: int = 1) -> Tensor:
        """Site "x" inside plate "data".

        Args:
            x: ``(B, in_features)`` data; None draws ``size`` data.
            size: number of data to draw where ``x`` is None.
        """
        x = None if x is None else as_batch(x, self.in_features, like=self._like)
        plate = data_plate(size) if x is None else data_plate(len(x), self.num_data, like=x)
        with plate:
            drawn: Tensor = pyro.sample("x", self.distribution(), obs=x)
        return drawn

    def log_evidence(self, x: Tensor) -> Tensor:  # (B,)
        """The exact log p(x) of each row, in nats per datum."""
        x = as_batch(x, self.in_features, like=self._like)
        evidence: Tensor = self.distribution().log_prob(x)
        return evidence

    def distribution(self) -> dist.TorchDistribution:
        """Of one datum: batch ``()``, event ``(in_features,)``."""
        q: dist.TorchDistribution = self.flow()
        return q
