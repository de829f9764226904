"""How likely the data are under a model: log p(x), datum by datum."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import log, sqrt
from typing import Any

import torch
from torch import Tensor

from pyro_lvm.diagnostics.chunks import Chunks
from pyro_lvm.errors import PyroLVMError, explain
from pyro_lvm.objectives import IWAE
from pyro_lvm.weights import khat_of_tail, tail_length

__all__ = ["LogEvidence", "log_evidence"]

Program = Callable[..., Any]


@dataclass(frozen=True)
class LogEvidence:
    """Estimated log p(x) of each datum, and how far to trust it.

    Attributes:
        value: ``(*batch,)`` nats per datum, not scaled by N/B.
        standard_error: ``(*batch,)`` nats, of the Monte Carlo estimate; NaN for one draw.
        effective_sample_size: ``(*batch,)`` draws.
        khat: ``(*batch,)``, Pareto shape of the weights. Above 0.7 neither the value nor its
            standard error can be trusted: the guide misses where the posterior is.
        scale: N/B of a subsampled plate, broadcastable to ``(*batch,)``.
        num_samples: draws per datum.
    """

    value: Tensor
    standard_error: Tensor
    effective_sample_size: Tensor
    khat: Tensor
    scale: float | Tensor
    num_samples: int

    def mean(self) -> Tensor:
        """Log evidence per datum, scalar nats: the mean over data."""
        return self.value.mean()

    def mean_standard_error(self) -> Tensor:
        """How far :meth:`mean` is from that of all data alike, scalar nats: their spread."""
        return self.value.std() / sqrt(self.value.numel())

    def total(self) -> Tensor:
        """Log evidence of all data, scalar nats: summed over data and scaled by N/B."""
        return (self.scale * self.value).sum()

    def total_standard_error(self) -> Tensor:
        """Monte Carlo error of :meth:`total`, scalar nats; not that of choosing a minibatch."""
        return (self.scale * self.standard_error).square().sum().sqrt()


def log_evidence(
    model: Program,
    guide: Program,
    *args: Any,
    num_samples: int = 5000,
    chunk_size: int | None = None,
    method: str = "iwae",
    **kwargs: Any,
) -> LogEvidence:
    r"""Estimate log p(x) of each datum by importance sampling, nats, without gradient.

    The log of the mean weight of K = ``num_samples`` draws of the guide, which in
    expectation is a *lower bound* on log p(x) and rises to it with K. The shortfall is about
    half the squared standard error while that is small. Draws are made in chunks and only
    running sums and the largest weights are kept, so memory does not grow with K.

    Args:
        model: generative program, called as ``model(*args, **kwargs)``.
        guide: a guide whose density is explicit.
        num_samples: K, draws per datum.
        chunk_size: draws at a time; by default as many as bound the memory. It does not
            change what is estimated.
        method: ``"iwae"``.

    Returns:
        Values per datum with the standard error of the log of a mean by the delta method,
        :math:`\sqrt{(K / \mathrm{ESS} - 1) / (K - 1)}`, and k-hat.

    Raises:
        ValueError: an unknown method, or a count below 1.
        PlateError: a latent outside a subsampled plate, whose evidence needs all the data.

    References:
        Burda, Grosse, Salakhutdinov (2016), *Importance weighted autoencoders*,
        arXiv:1509.00519, section 5 (5000 samples).

    Example:
        For x = z + noise, log p(x) is that of Normal(0, sqrt 2); here with a rough guide.

        >>> import pyro, pyro.distributions as dist
        >>> def model(x):
        ...     with pyro.plate("data", len(x)):
        ...         z = pyro.sample("z", dist.Normal(0.0, 1.0))
        ...         pyro.sample("x", dist.Normal(z, 1.0), obs=x)
        >>> def guide(x):
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("z", dist.Normal(0.5 * x, 1.0))
        >>> x = torch.tensor([-1.0, 2.0])
        >>> estimate = log_evidence(model, guide, x, num_samples=1000)
        >>> exact = dist.Normal(0.0, 2**0.5).log_prob(x)
        >>> bool(((estimate.value - exact).abs() < 5 * estimate.standard_error).all())
        True
    """
    if method != "iwae":
        raise PyroLVMError(explain("method", "'iwae'", repr(method), "Pass method='iwae'."))
    num_kept = tail_length(num_samples) + 1
    draws = iter(Chunks(IWAE, model, guide, args, kwargs, num_samples, chunk_size))
    first = next(draws)
    running = _Running.of(first.log_weights, num_kept)
    for particles in draws:
        running = running.joined(_Running.of(particles.log_weights, num_kept))
    return running.evidence(num_samples, first.scale)


@dataclass(frozen=True)
class _Running:
    """Sums over the draws so far, and the largest weights for the fit of their tail."""

    log_sum: Tensor  # (*batch,), log of the sum of weights
    log_sum_squares: Tensor  # (*batch,)
    largest: Tensor  # (num_kept or fewer, *batch), descending
    num_kept: int

    @classmethod
    def of(cls, log_weights: Tensor, num_kept: int) -> _Running:
        return cls(
            torch.logsumexp(log_weights, 0),
            torch.logsumexp(2 * log_weights, 0),
            _largest(log_weights, num_kept),
            num_kept,
        )

    def joined(self, other: _Running) -> _Running:
        return _Running(
            torch.logaddexp(self.log_sum, other.log_sum),
            torch.logaddexp(self.log_sum_squares, other.log_sum_squares),
            _largest(torch.cat([self.largest, other.largest]), self.num_kept),
            self.num_kept,
        )

    def evidence(self, num_samples: int, scale: float | Tensor) -> LogEvidence:
        size = torch.exp(2 * self.log_sum - self.log_sum_squares)
        relative_variance = (num_samples / size - 1).clamp(min=0) / (num_samples - 1)
        return LogEvidence(
            value=self.log_sum - log(num_samples),
            standard_error=relative_variance.sqrt(),
            effective_sample_size=size,
            khat=khat_of_tail(self.largest),
            scale=scale,
            num_samples=num_samples,
        )


def _largest(log_weights: Tensor, count: int) -> Tensor:
    return log_weights.topk(min(count, len(log_weights)), dim=0).values
