"""How likely the data are under a model: log p(x), datum by datum."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import reduce
from math import sqrt
from typing import Any

from torch import Tensor

from pyro_lvm.diagnostics.ais import AIS
from pyro_lvm.diagnostics.annealed_chains import Chains
from pyro_lvm.diagnostics.chunks import Chunks
from pyro_lvm.diagnostics.missing import NoRatio, mixing_of, ratio_of
from pyro_lvm.diagnostics.running_weights import RunningWeights
from pyro_lvm.diagnostics.smc import SMC
from pyro_lvm.diagnostics.thresholds import MANY_DATA, MAX_SHARE_OF_DATA, max_khat
from pyro_lvm.diagnostics.verdict import Status, Verdict, percent
from pyro_lvm.errors import PyroLVMError, explain
from pyro_lvm.objective import Objective
from pyro_lvm.objectives import DSIVI, IWAE
from pyro_lvm.particles import Particles
from pyro_lvm.weights import khat_of_tail

__all__ = ["LogEvidence", "log_evidence"]

Program = Callable[..., Any]

_MIXING = DSIVI(num_mixing=100, num_prior_mixing=100)
_ADVICE = {
    "iwae": "The guide is too narrow there or misses a mode: try IWAE(50, gradient='dreg'), "
    "ReweightedWakeSleep, AmortizedFlow or AuxiliaryNormal. "
    "to_inference_data(correct='mh') tells what its draws are worth.",
    "ais": "The chains do not follow the path to the posterior: raise AIS(num_temperatures=...).",
    "smc": "The particles do not follow the path to the posterior: raise num_temperatures or "
    "num_particles of SMC.",
}
_ANNEALED = {"ais": AIS(), "smc": SMC()}


@dataclass(frozen=True)
class LogEvidence:
    """Estimated log p(x) of each datum, and how far to trust it.

    Attributes:
        value: ``(*batch,)`` nats per datum, not scaled by N/B.
        standard_error: ``(*batch,)`` nats, of the Monte Carlo estimate; NaN for one draw.
        effective_sample_size: ``(*batch,)`` draws.
        khat: ``(*batch,)``, Pareto shape of the weights. Above 0.7 neither the value nor its
            standard error can be trusted: the guide misses where the posterior is.
        mean_log_weight: ``(*batch,)`` nats, the ELBO where the weights are of a guide's draws.
        mean_log_weight_error: ``(*batch,)`` nats, its standard error; NaN for one draw.
        scale: N/B of a subsampled plate, broadcastable to ``(*batch,)``.
        num_samples: draws per datum, for AIS chains, for SMC populations.
        method: "iwae", "ais" or "smc".
        is_bound: whether the value is in expectation at most log p(x). False where a
            discriminator stands for a density: then the value may be too high as well as too
            low, by what the discriminator gets wrong, of which neither ``standard_error`` nor
            ``khat`` knows anything.

    Example:
        Draws of the posterior: each weight is p(x).

        >>> import torch
        >>> from pyro_lvm.oracles import LinearGaussian
        >>> oracle = LinearGaussian(torch.ones(2, 1), torch.ones(2))
        >>> x = torch.zeros(3, 2)
        >>> found = log_evidence(oracle.model, oracle.exact_guide, x, num_samples=100)
        >>> found.value, found.effective_sample_size
        (tensor([-2.3872, -2.3872, -2.3872]), tensor([100.0000, 100.0000, 100.0000]))
        >>> print(found.verdict())
        [pass] weights: k-hat is above 0.5 for 0 % of the data (at worst 0.00); 100 % of 100
        draws are effective on average.
    """

    value: Tensor
    standard_error: Tensor
    effective_sample_size: Tensor
    khat: Tensor
    mean_log_weight: Tensor
    mean_log_weight_error: Tensor
    scale: float | Tensor
    num_samples: int
    method: str
    is_bound: bool = True

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

    @property
    def khat_share(self) -> float:
        """Share of data whose weights fail: k-hat not below :func:`~.thresholds.max_khat`."""
        return 1 - (self.khat < max_khat(self.num_samples)).double().mean().item()

    def summary(self) -> dict[str, float]:
        """Numbers for the record, by name."""
        return {
            "log_evidence": self.mean().item(),
            "log_evidence_monte_carlo_error": self.standard_error.mean().item(),
            "khat_median": self.khat.median().item(),
            "khat_max": self.khat.max().item(),
            "khat_high": self.khat_share,
            "ess_share": (self.effective_sample_size / self.num_samples).mean().item(),
        }

    def verdict(self) -> Verdict:
        """Whether the weights, and so all that is made of them, can be trusted."""
        share, limit = self.khat_share, max_khat(self.num_samples)
        told = self.summary()
        finding = (
            f"k-hat is above {limit:.2g} for {percent(share)} of the data (at worst "
            f"{told['khat_max']:.2f}); {percent(told['ess_share'])} of {self.num_samples} draws "
            "are effective on average."
        )
        if share <= MAX_SHARE_OF_DATA:
            return Verdict("weights", Status.PASS, finding)
        status = Status.WARN if share <= MANY_DATA else Status.FAIL
        return Verdict("weights", status, finding, _ADVICE[self.method])


def log_evidence(
    model: Program,
    guide: Program | None,
    *args: Any,
    num_samples: int | None = None,
    chunk_size: int | None = None,
    method: str | AIS = "iwae",
    objective: Objective | None = None,
    **kwargs: Any,
) -> LogEvidence:
    r"""Estimate log p(x) of each datum, nats, without gradient.

    All methods give K = ``num_samples`` independent weights whose mean is p(x) in expectation.
    The log of the mean weight is in expectation a *lower bound* on log p(x) that rises to it
    with K. The shortfall is about half the squared standard error while that is small. Memory
    does not grow with K: draws come in chunks, and only running sums and the largest weights
    are kept.

    ``"iwae"`` weighs draws of the guide. ``"ais"`` anneals each draw to the posterior, so it
    also serves a guide without density, or none, and checks ``"iwae"`` where the guide may be
    far from the posterior. It costs ``num_temperatures * num_leapfrog`` gradients of the model
    a draw and needs continuous latents, once those to be summed out are gone. Parameters get
    no gradient. ``"smc"`` anneals populations of 8 chains, in which those with large weights take
    the place of the others: better where few chains find the mass. On simulated data
    :func:`bidirectional` bounds log p(x) from above too.

    Where the guide or the prior has no density, ``"iwae"`` takes the log-ratio from the
    discriminator of ``objective``. Its k-hat and effective sample size are the way to see how
    near such a guide is to the posterior. Its value is *no bound*, only an estimate as good as
    the discriminator (see :func:`~pyro_lvm.diagnostics.ratio_quality`); report the one by AIS.
    Mixing variables are averaged out as by ``objective``, or by 100 draws of each program's;
    the mean weight is p(x) for any number of them, and more make it vary less. The weights by
    ``AAE`` and ``IWAAE`` are against the aggregate of the guide over the data, and say nothing
    of a single posterior.

    Args:
        model: generative program, called as ``model(*args, **kwargs)``.
        guide: its guide; None for AIS or SMC from the prior.
        num_samples: K, draws (chains, populations) per datum; by default 5000, for AIS and SMC
            32.
        chunk_size: draws at a time; by default as many as bound the memory. It does not
            change what is estimated.
        method: ``"iwae"``, ``"ais"``, ``"smc"``, or :class:`~pyro_lvm.diagnostics.AIS` or
            :class:`~pyro_lvm.diagnostics.SMC` with options.
        objective: what the programs were trained by; for ``"iwae"`` without a density, or with
            mixing variables.

    Returns:
        Values per datum with the standard error of the log of a mean by the delta method,
        :math:`\sqrt{(K / \mathrm{ESS} - 1) / (K - 1)}`, and k-hat, which is infinite (not
        known) up to K = 20.

    Raises:
        ValueError: an unknown method, a count below 1, no guide where one is needed, or
            discrete latents under AIS or SMC.
        DensityError: a site without density, and no ``objective`` with a discriminator.
        PyroLVMError: a guide with a point mass on a continuous latent.
        PlateError: a latent outside a subsampled plate, whose evidence needs all the data.

    References:
        Burda, Grosse, Salakhutdinov (2016), *Importance weighted autoencoders*,
        arXiv:1509.00519, section 5 (5000 samples).
        Neal (2001), *Annealed importance sampling*, arXiv:physics/9803008.
        Wu, Burda, Salakhutdinov, Grosse (2017), *On the quantitative analysis of
        decoder-based generative models*, arXiv:1611.04273.

    Example:
        For x = z + noise, log p(x) is that of Normal(0, sqrt 2); here with a rough guide, and
        without one.

        >>> import pyro, torch, pyro.distributions as dist
        >>> def model(x):
        ...     with pyro.plate("data", len(x)):
        ...         z = pyro.sample("z", dist.Normal(0.0, 1.0))
        ...         pyro.sample("x", dist.Normal(z, 1.0), obs=x)
        >>> def guide(x):
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("z", dist.Normal(0.5 * x, 1.0))
        >>> x = torch.tensor([-1.0, 2.0])
        >>> exact = dist.Normal(0.0, 2**0.5).log_prob(x)
        >>> estimate = log_evidence(model, guide, x, num_samples=1000)
        >>> bool(((estimate.value - exact).abs() < 5 * estimate.standard_error).all())
        True
        >>> estimate = log_evidence(model, None, x, method=AIS(num_temperatures=20))
        >>> bool(((estimate.value - exact).abs() < 5 * estimate.standard_error).all())
        True
    """
    options = _ANNEALED.get(method, method) if isinstance(method, str) else method
    if isinstance(options, AIS):
        count = 32 if num_samples is None else num_samples
        chains = Chains(options, model, guide, args, kwargs, count, chunk_size)
        return _evidence(chains, count, chains.scale, type(options).__name__.lower())
    if options != "iwae":
        hint = "Pass method='iwae'."
        raise PyroLVMError(
            explain("method", "'iwae', 'ais', 'smc' or AIS(...)", repr(method), hint)
        )
    if guide is None:
        hint = "Pass the guide, or method='ais', which starts at the prior."
        raise PyroLVMError(explain("guide", "one for method='iwae'", "None", hint))
    count = 5000 if num_samples is None else num_samples
    ratio = ratio_of(objective, otherwise=NoRatio())
    mixing = mixing_of(objective, otherwise=_MIXING)
    draws = Chunks(IWAE, model, guide, args, kwargs, count, chunk_size, ratio, mixing)
    _check_drawn(draws.probe)
    weights = (drawn.log_weights for drawn in draws)
    estimate = _evidence(weights, count, draws.probe.scale, "iwae")
    return replace(estimate, is_bound=not draws.uses_ratio)


def _check_drawn(particles: Particles) -> None:
    """The weight of a point mass on a continuous latent is a density at that point."""
    for name, site in particles.guide.items():
        prior = particles.model.get(name)
        if prior is None or not site.is_delta or site.is_downstream or site.is_observed:
            continue
        if not (prior.is_delta or prior.fn.support.is_discrete):
            raise PyroLVMError(
                explain(
                    f"site '{name}'",
                    "a guide that draws it, for importance sampling",
                    "a point mass, as of AutoDelta",
                    "Train a guide with a spread, such as AutoNormal, or use method='ais', or hold "
                    "the site fixed in the model by poutine.condition.",
                )
            )


def _evidence(
    chunks: Iterable[Tensor], num_samples: int, scale: float | Tensor, method: str
) -> LogEvidence:
    """From log-weights in chunks ``(k, *batch)``, ``num_samples`` in all."""
    parts = (RunningWeights.of(log_weights, num_samples) for log_weights in chunks)
    weights = reduce(RunningWeights.joined, parts)
    return LogEvidence(
        value=weights.log_mean,
        standard_error=weights.log_mean_error,
        effective_sample_size=weights.effective_sample_size,
        khat=khat_of_tail(weights.largest),
        mean_log_weight=weights.moments.mean,
        mean_log_weight_error=weights.moments.standard_error,
        scale=scale,
        num_samples=num_samples,
        method=method,
    )
