"""Evidence of simulated data from both sides: how near an estimate of it is, certified."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from pyro_lvm.checks import record_checked
from pyro_lvm.diagnostics.ais import AIS
from pyro_lvm.diagnostics.annealed_chains import Chains
from pyro_lvm.diagnostics.chunks import Replicate
from pyro_lvm.diagnostics.running_weights import RunningWeights
from pyro_lvm.diagnostics.thresholds import MAX_SANDWICH
from pyro_lvm.diagnostics.verdict import Status, Verdict
from pyro_lvm.dreams import Arguments, check_generative, dreamt_arguments
from pyro_lvm.shared_plates import OneMinibatch
from pyro_lvm.tracing import Recorder

__all__ = ["EvidenceSandwich", "bidirectional"]

Program = Callable[..., Any]

_ANY = 1_000_000
_ADVICE = "Raise num_temperatures, or num_samples: more of either brings both sides nearer."
_GIVEN = "Pass data and the latents= that made them."
_CROSSED = "Pass latents= that made these very data, or leave them out to have both simulated."


@dataclass(frozen=True)
class EvidenceSandwich:
    r"""Log p(x) of each simulated datum from below and from above.

    Both sides are log-means of weights, so they hold in expectation, and each fails by more than
    b nats with a probability of at most :math:`e^{-b}`.

    Attributes:
        lower: ``(*batch,)`` nats, in expectation at most log p(x).
        lower_error: ``(*batch,)`` nats, its Monte Carlo standard error.
        upper: ``(*batch,)`` nats, in expectation at least log p(x).
        upper_error: ``(*batch,)`` nats, of the chains; not of the one exact draw of each datum
            that all of its chains start from, which means over data show alone.
        num_samples: weights per datum and side.

    Example:
        >>> error = torch.full((2,), 0.02)
        >>> lower, upper = torch.tensor([-1.25, -2.0]), torch.tensor([-1.0, -1.5])
        >>> sandwich = EvidenceSandwich(lower, error, upper, error, num_samples=32)
        >>> sandwich.gap
        tensor([0.2500, 0.5000])
        >>> print(sandwich.verdict())
        [warn] evidence: log p(x) of simulated data is between -1.625 and -1.250 nats per datum,
        a gap of 0.38 ± 0.1. Raise num_temperatures, or num_samples: more of either brings both
        sides nearer.
    """

    lower: Tensor
    lower_error: Tensor
    upper: Tensor
    upper_error: Tensor
    num_samples: int

    @property
    def gap(self) -> Tensor:
        """``(*batch,)`` nats between the two sides: in expectation at least that from either
        side to log p(x).
        """
        return self.upper - self.lower

    @property
    def gap_error(self) -> Tensor:
        """Standard error of the mean gap over data, scalar nats, by their spread."""
        error: Tensor = self.gap.std() / self.gap.numel() ** 0.5
        return error

    def summary(self) -> dict[str, float]:
        """Means over data, nats, by name."""
        return {
            "log_evidence_lower": self.lower.mean().item(),
            "log_evidence_upper": self.upper.mean().item(),
            "sandwich": self.gap.mean().item(),
            "sandwich_error": self.gap_error.item(),
            "sandwich_max": self.gap.max().item(),
        }

    def verdict(self) -> Verdict:
        """Whether the two sides are close, and in order."""
        told = self.summary()
        size, error = told["sandwich"], told["sandwich_error"]
        finding = (
            f"log p(x) of simulated data is between {told['log_evidence_lower']:.3f} and "
            f"{told['log_evidence_upper']:.3f} nats per datum, a gap of {size:.2g} ± {error:.1g}."
        )
        if size < -3 * error:
            return Verdict("evidence", Status.FAIL, f"The sides are crossed: {finding}", _CROSSED)
        if size <= MAX_SANDWICH:
            return Verdict("evidence", Status.PASS, finding)
        return Verdict("evidence", Status.WARN, finding, _ADVICE)


def bidirectional(
    model: Program,
    guide: Program | None,
    *args: Any,
    num_samples: int = 32,
    chunk_size: int | None = None,
    method: AIS | None = None,
    latents: Mapping[str, Tensor] | None = None,
    arguments: Arguments | None = None,
    **kwargs: Any,
) -> EvidenceSandwich:
    r"""Bound log p(x) of data simulated from the model, on both sides, without gradient.

    Chains annealed from the start distribution to the posterior give weights with mean p(x).
    The latents that made a datum are an exact draw of its posterior: chains from there back to
    the start distribution give weights with mean 1 / p(x). The logs of both means are a
    stochastic lower and upper bound, and the gap between them certifies either, without any
    trust in mixing. On real data only the lower one exists: simulate from the fitted model to
    learn what gap :func:`log_evidence` with the same settings leaves on data like them.

    Args:
        model: generative program, called as ``model(*args, **kwargs)``.
        guide: its guide; None where the chains start at the prior.
        num_samples: weights per datum and side: chains, or populations of SMC.
        chunk_size: chains at a time; by default as many as bound the memory.
        method: :class:`~pyro_lvm.diagnostics.AIS`, by default, or
            :class:`~pyro_lvm.diagnostics.SMC`, with options.
        latents: what made the data in ``args``, by site ``(*plates, *event)``. Left out, both
            are simulated, in the shape of the data in ``args``.
        arguments: makes the programs' arguments, one or a tuple, from simulated data by site; by
            default these take the place of the argument that the site observes.

    Raises:
        ProgramError: a model that cannot be annealed or simulated from, or latents left out.
        PlateError: a latent outside a subsampled plate.
        ValueError: a count below 1.

    References:
        Grosse, Ghahramani, Adams (2015), *Sandwiching the marginal likelihood using
        bidirectional Monte Carlo*, arXiv:1511.02543, section 3.
        Grosse, Ancha, Roy (2016), *Measuring the reliability of MCMC inference with
        bidirectional Monte Carlo*, arXiv:1606.02275.

    Example:
        >>> import pyro, pyro.distributions as dist
        >>> def model(x):
        ...     with pyro.plate("data", len(x)):
        ...         z = pyro.sample("z", dist.Normal(0.0, 1.0))
        ...         pyro.sample("x", dist.Normal(z, 0.5), obs=x)
        >>> sandwich = bidirectional(model, None, torch.zeros(50), method=AIS(num_temperatures=20))
        >>> sandwich.verdict().status
        <Status.PASS: 'pass'>
    """
    with OneMinibatch():  # one minibatch in all that follows
        if latents is None:
            args, kwargs, latents = _simulated(model, args, kwargs, arguments)
        chains = Chains(method or AIS(), model, guide, args, kwargs, num_samples, chunk_size)
        below = _joined(chains, num_samples)
        above = _joined(chains.backwards(latents), num_samples)
    return EvidenceSandwich(
        below.log_mean, below.log_mean_error, -above.log_mean, above.log_mean_error, num_samples
    )


def _joined(chunks: Any, num_samples: int) -> RunningWeights:
    parts = (RunningWeights.of(log_weights, num_samples) for log_weights in chunks)
    return reduce(RunningWeights.joined, parts)


@torch.no_grad()
def _simulated(
    model: Program, args: Any, kwargs: Any, arguments: Arguments | None
) -> tuple[tuple[Any, ...], dict[str, Any], dict[str, Tensor]]:
    """Arguments that hold data drawn from the model, and the latents that made these."""
    sites = record_checked(Replicate()(model), args, kwargs, Recorder(None, _ANY)).sites
    check_generative(sites, "to simulate them", _GIVEN)
    data = {n: s for n, s in sites.items() if "was_observed" in s.infer}
    made_args, made_kwargs = dreamt_arguments(data, args, kwargs, arguments)
    latents = {n: s.value for n, s in sites.items() if n not in data}
    return tuple(made_args), made_kwargs, latents
