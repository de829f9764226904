"""Likelihoods: the distribution of a row's columns given a decoder's output."""

from __future__ import annotations

from collections.abc import Callable

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from pyro.nn import PyroModule, PyroParam
from torch import Tensor, nn

from pyro_lvm.distributions.negative_binomial import (
    PreciseNegativeBinomial,
    inverse_dispersion_of,
)
from pyro_lvm.distributions.poisson import PrecisePoisson
from pyro_lvm.errors import ProgramError, explain
from pyro_lvm.nn import check_choice, check_size, positive_scale, widen

__all__ = [
    "LIKELIHOODS",
    "NOISE",
    "BernoulliLikelihood",
    "GaussianLikelihood",
    "Likelihood",
    "NegativeBinomialLikelihood",
    "PoissonLikelihood",
    "as_likelihood",
]

_LEAST = 1e-3  # a mean to start at is no nearer to the edge of what is possible
_LEAST_DISPERSION = 1e-8  # counts below 1e8 do not tell it from none


class Likelihood(PyroModule):
    """Base: from ``(*, num_outputs)`` numbers to univariate distributions of batch ``(*, D)``.

    A subclass writes ``forward`` and ``start``; an entry in ``LIKELIHOODS`` gives it a name. The
    columns are a batch dim: :meth:`row` makes them one datum, and
    ``.mask(observed).to_event(1)`` one with missing entries.

    Args:
        features: number of columns, D.
        outputs_per_feature: how many numbers each column takes.

    Example:
        One of your own, for waiting times.

        >>> from pyro_lvm.models import VAE
        >>> class ExponentialLikelihood(Likelihood):
        ...     def forward(self, output):
        ...         return dist.Exponential(output.exp())
        ...     def start(self, mean):
        ...         return -mean.log()
        >>> model = VAE(in_features=3, latent_features=2, likelihood=ExponentialLikelihood(3))
        >>> bool((model(size=5) > 0).all())
        True
    """

    def __init__(self, features: int, outputs_per_feature: int = 1) -> None:
        super().__init__(name=type(self).__name__)
        self.features = check_size("features", features)
        self.num_outputs = outputs_per_feature * features

    def row(self, output: Tensor) -> dist.TorchDistribution:
        """All columns as one datum, batch ``(*,)``: of float32 or wider, whatever autocast made."""
        datum: dist.TorchDistribution = self(widen(output)).to_event(1)
        return datum

    def start(self, mean: Tensor) -> Tensor:  # (num_outputs,)
        """Outputs to start training at, given the mean ``(D,)`` of the data."""
        raise NotImplementedError


class BernoulliLikelihood(Likelihood):
    """Columns in {0, 1}; the outputs are logits.

    Example:
        >>> BernoulliLikelihood(2)(torch.zeros(5, 2)).mean[0]
        tensor([0.5000, 0.5000])
    """

    def forward(self, output: Tensor) -> dist.TorchDistribution:
        bernoulli: dist.TorchDistribution = dist.Bernoulli(logits=output)
        return bernoulli

    def start(self, mean: Tensor) -> Tensor:
        return torch.logit(mean, eps=_LEAST)


class GaussianLikelihood(Likelihood):
    """Real columns; the outputs are means, or means and then unconstrained scales.

    Args:
        features: number of columns, D.
        noise: scale of the noise: "feature", one parameter a column, or "network", a second
            output a column.

    Raises:
        ProgramError: an unknown ``noise``, a size below 1.

    Example:
        >>> GaussianLikelihood(2, noise="network")(torch.zeros(5, 4)).batch_shape
        torch.Size([5, 2])
    """

    noise_scale: Tensor

    def __init__(self, features: int, noise: str = "feature") -> None:
        check_choice("noise", noise, NOISE)
        super().__init__(features, outputs_per_feature=2 if noise == "network" else 1)
        self.noise = noise
        if noise == "feature":
            self.noise_scale = PyroParam(  # type: ignore[assignment]
                torch.ones(features), constraint=constraints.positive
            )

    def forward(self, output: Tensor) -> dist.TorchDistribution:
        if self.noise == "feature":
            return dist.Normal(output, self.noise_scale)
        loc, raw = output.chunk(2, -1)
        return dist.Normal(loc, positive_scale(raw))

    def start(self, mean: Tensor) -> Tensor:
        return torch.cat([mean, mean.new_zeros(self.num_outputs - self.features)])


class PoissonLikelihood(Likelihood):
    """Counts; the outputs are log-rates.

    Example:
        >>> PoissonLikelihood(2)(torch.zeros(5, 2)).mean[0]
        tensor([1.0000, 1.0000])
    """

    def forward(self, output: Tensor) -> dist.TorchDistribution:
        rate = positive_scale(output, "exp")  # one of 0 has no gradient
        return PrecisePoisson(rate)  # type: ignore[no-untyped-call]

    def start(self, mean: Tensor) -> Tensor:
        return mean.clamp(min=_LEAST).log()


class NegativeBinomialLikelihood(Likelihood):
    r"""Counts that vary more than Poisson ones; the outputs are the logarithms of the means.

    In the parameters of single-cell models, mean :math:`\mu` and inverse dispersion
    :math:`\theta`, the variance is :math:`\mu + \mu^2 / \theta`: that of Poisson counts whose
    rates vary by a factor of mean 1 and standard deviation :math:`\theta^{-1/2}`. This deviation
    is the parameter, ``spread`` ``(D,)``: steps of a learning rate reach 0, Poisson counts, sooner
    than a large :math:`\theta` or its logarithm. :meth:`of` starts near the data.

    References:
        Lopez, Regier, Cole, Jordan, Yosef (2018), *Deep generative modeling for single-cell
        transcriptomics*, Nature Methods 15.

    Args:
        features: number of columns, D.
        inverse_dispersion: what to start at, one number or ``(D,)`` of them.

    Example:
        >>> counts = NegativeBinomialLikelihood(2)(torch.zeros(5, 2))
        >>> counts.mean[0], counts.variance[0]
        (tensor([1., 1.], grad_fn=...), tensor([2., 2.], grad_fn=...))
    """

    def __init__(self, features: int, inverse_dispersion: Tensor | float = 1.0) -> None:
        super().__init__(features)
        theta = torch.as_tensor(inverse_dispersion, dtype=torch.get_default_dtype())
        squares = (1 / theta - _LEAST_DISPERSION).clamp(min=_LEAST_DISPERSION)
        self.spread = nn.Parameter(squares.sqrt().expand(features).clone())

    @property
    def inverse_dispersion(self) -> Tensor:
        r""":math:`\theta`, ``(D,)``."""
        return 1 / (self.spread.square() + _LEAST_DISPERSION)

    @classmethod
    def of(cls, x: Tensor) -> NegativeBinomialLikelihood:
        """With the dispersion of counts ``(N, D)``, NaN where missing, to start at.

        Example:
            >>> steady = torch.tensor([[9.0, 0.0], [11.0, 7.0], [10.0, torch.nan]])
            >>> NegativeBinomialLikelihood.of(steady).inverse_dispersion
            tensor([12.2474,  1.4000], grad_fn=...)
        """
        return cls(x.shape[1], inverse_dispersion_of(x))

    def forward(self, output: Tensor) -> dist.TorchDistribution:
        theta = self.inverse_dispersion
        logits = output - theta.log()
        counts: dist.TorchDistribution = PreciseNegativeBinomial(theta, logits=logits)
        return counts

    def start(self, mean: Tensor) -> Tensor:
        return mean.clamp(min=_LEAST).log()


def as_likelihood(
    likelihood: str | Likelihood, features: int, noise: str = "feature"
) -> Likelihood:
    """A likelihood of ``features`` columns: the one given, or one by name.

    Args:
        likelihood: one, or a name in ``LIKELIHOODS``.
        features: number of columns, D.
        noise: of the Gaussian by name, see :class:`GaussianLikelihood`.

    Raises:
        ProgramError: an unknown name, or a likelihood of another number of columns.

    Example:
        >>> as_likelihood("poisson", 3).num_outputs
        3
    """
    check_choice("noise", noise, NOISE)
    if isinstance(likelihood, str):
        if likelihood not in LIKELIHOODS:
            hint = "Pass likelihood='bernoulli', or CategoricalLikelihood(...) and the like."
            known = f"one of {list(LIKELIHOODS)}, or a Likelihood"
            raise ProgramError(explain("likelihood", known, repr(likelihood), hint))
        return LIKELIHOODS[likelihood](features, noise)
    if likelihood.features != features:
        found = f"a {type(likelihood).__name__} of {likelihood.features}"
        hint = "Make it for as many columns as the data have."
        raise ProgramError(explain("likelihood", f"one of {features} columns", found, hint))
    return likelihood


NOISE = ("feature", "network")
"""Where the scale of Gaussian noise comes from."""

LIKELIHOODS: dict[str, Callable[[int, str], Likelihood]] = {
    "bernoulli": lambda features, noise: BernoulliLikelihood(features),
    "gaussian": GaussianLikelihood,
    "negative_binomial": lambda features, noise: NegativeBinomialLikelihood(features),
    "poisson": lambda features, noise: PoissonLikelihood(features),
}
"""By name: those that need no more than a number of columns, and the Gaussian's noise."""
