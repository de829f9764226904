"""Priors of the weights of a network: one latent site for each matrix."""

from __future__ import annotations

from collections.abc import Mapping

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyro_lvm.distributions.log_uniform_scale import LogUniformScale
from pyro_lvm.nn import check_choice, check_positive

__all__ = ["KINDS", "WeightPriors"]

KINDS = ("normal", "log_uniform", "ard", "ard_columns")
_SMALLEST = 1e-3  # scale of the log-uniform prior, in units of the largest


class WeightPriors(nn.Module):
    r"""Independent priors of the entries of matrices, each a site with one vector for an event.

    "normal" is :math:`N(0, s^2)`. "log_uniform" is
    :class:`~pyro_lvm.distributions.LogUniformScale` from s / 1000 to s, whose posteriors are
    those of sparse variational dropout; train them by
    :class:`~pyro_lvm.objectives.AnalyticELBO`. "ard", automatic relevance determination, is
    Normal with a scale for each weight that is a parameter, or, "ard_columns", one that all
    weights of an input share: an ELBO ascends them too, and :meth:`maximise` finds the best at
    once.

    Args:
        shapes: rows and columns of the matrix of each site.
        kind: one of :data:`KINDS`.
        scale: s; where the scales of "ard" start.

    Raises:
        ProgramError: an unknown kind, a scale not above 0.

    Example:
        >>> priors = WeightPriors({"w1": (2, 3)}, "ard_columns")
        >>> priors()["w1"].shape, priors.log_scale["w1"].shape
        (torch.Size([6]), torch.Size([1, 3]))
    """

    def __init__(
        self, shapes: Mapping[str, tuple[int, int]], kind: str = "normal", scale: float = 1.0
    ) -> None:
        super().__init__()
        check_choice("prior", kind, KINDS)
        self.shapes, self.kind = dict(shapes), kind
        self.register_buffer("_scale", torch.tensor(check_positive("prior_scale", scale, "1.0")))
        log_scale = self._scale.log()
        self.log_scale = nn.ParameterDict(
            {name: nn.Parameter(log_scale.expand(own).clone()) for name, own in self._own().items()}
        )

    _scale: Tensor

    def forward(self) -> dict[str, Tensor]:
        """A draw of each site, ``(rows * columns,)``, with the dims of plates to its left."""
        return {name: pyro.sample(name, self.prior(name)) for name in self.shapes}

    def prior(self, name: str) -> dist.TorchDistribution:
        """Of one site: event ``(rows * columns,)``."""
        if self.kind == "log_uniform":
            low = _SMALLEST * self._scale
            of_one: dist.TorchDistribution = LogUniformScale(low, self._scale, validate_args=False)
        else:
            of_one = dist.Normal(self._scale.new_zeros(()), self._scales(name))
        rows, columns = self.shapes[name]
        prior: dist.TorchDistribution = of_one.expand([rows * columns]).to_event(1)
        return prior

    @torch.no_grad()
    def maximise(self, moments: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        r"""Give the scales of "ard" those that maximise the ELBO: :math:`s_i^2 = E_q[w_i^2]`.

        Called before each step, the gradient of the others is that of the bound maximised over
        the scales, in which KL(q || p) of a Normal is :math:`\tfrac12 \log(1 + m^2 / s^2)`.

        References:
            Kharitonov, Molchanov, Vetrov (2018), *Variational dropout via empirical Bayes*,
            arXiv:1811.00596, section 3.

        Args:
            moments: mean and standard deviation of each weight under the guide, by site,
                ``(rows * columns,)``, as :meth:`~pyro_lvm.guides.NormalWeights.moments` gives them.
        """
        for name, log_scale in self.log_scale.items():
            mean, scale = moments[name]
            second = (mean.square() + scale.square()).unflatten(-1, self.shapes[name])
            own = second.mean(0, keepdim=True) if self.kind == "ard_columns" else second
            log_scale.copy_(0.5 * own.log())

    def _scales(self, name: str) -> Tensor:
        if name not in self.log_scale:
            return self._scale
        scales: Tensor = self.log_scale[name].exp()
        return scales.expand(self.shapes[name]).flatten()

    def _own(self) -> dict[str, tuple[int, int]]:
        """Shapes of the scales that are parameters, by site."""
        if self.kind == "ard_columns":
            return {name: (1, columns) for name, (_, columns) in self.shapes.items()}
        return self.shapes if self.kind == "ard" else {}
