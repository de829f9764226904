"""Guides made exact by Metropolis-Hastings, on real posteriors, against reference draws.

Five posteriors of posteriordb, whose means and standard deviations are known from 10000 draws of
long runs of Stan. The guide is a Normal of full covariance over all unknowns, started at the mode
and its curvature and trained by the ELBO, the acceptance rate or the importance-weighted bound.
Errors of its draws, and of the chains they feed, are given in standard deviations of the
reference, and as z: divided by the Monte Carlo error of both.
Finished runs are kept in a file in ``results``.

    PYRO_LVM_DATA=folder python -m benchmarks.posteriordb --seeds 3
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from functools import partial
from time import process_time
from typing import Any

import arviz as az
import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro.infer import Trace_ELBO
from pyro.infer.autoguide import AutoContinuous, AutoLaplaceApproximation, init_to_value
from torch import Tensor, nn

from benchmarks.posteriors import POSTERIORS, Posterior, reference
from benchmarks.suite import Suite
from benchmarks.training import train
from pyro_lvm.diagnostics import to_inference_data
from pyro_lvm.objective import Objective
from pyro_lvm.objectives import ELBO, IWAE, MHAcceptance

__all__ = ["RUNS", "SUITE", "errors", "fitted", "run"]

STEPS, RATE, DRAWS = 1000, 1e-2, 64
NUM_SAMPLES, NUM_CHAINS = 40_000, 4

OBJECTIVES: dict[str, Callable[[], Objective]] = {
    "ELBO": partial(ELBO, DRAWS),
    "acceptance": partial(MHAcceptance, DRAWS),
    "IWAE": partial(IWAE, DRAWS, gradient="dreg"),
}
RUNS = [f"{name}, {objective}" for name in POSTERIORS for objective in OBJECTIVES]


class Proposal(AutoContinuous):
    """A Normal in the units of another at the mode."""

    def __init__(self, program: Any, mode: Tensor, tril: Tensor, init: Any) -> None:
        super().__init__(program, init_loc_fn=init)
        self.mode, self.curvature = mode, tril
        self.shift = nn.Parameter(torch.zeros_like(mode))
        self.log_scale = nn.Parameter(torch.zeros_like(mode))
        self.lower = nn.Parameter(torch.zeros_like(tril))

    def get_posterior(self, *args: Any, **kwargs: Any) -> dist.MultivariateNormal:
        change = self.lower.tril(-1) + self.log_scale.exp().diag()
        loc = self.mode + self.curvature @ self.shift
        return dist.MultivariateNormal(loc, scale_tril=self.curvature @ change)


def started(posterior: Posterior) -> Proposal:
    """At the mode of the posterior on the real numbers, with its curvature."""
    init = init_to_value(values=posterior.start)
    laplace = AutoLaplaceApproximation(posterior.program, init_loc_fn=init)
    loss = Trace_ELBO()(posterior.program, laplace)
    loss()
    optimiser = torch.optim.LBFGS(laplace.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        value: Tensor = loss()
        value.backward()
        return value

    optimiser.step(closure)
    tril = laplace.laplace_approximation().get_posterior().scale_tril
    proposal = Proposal(posterior.program, laplace.loc.detach(), tril.detach(), init)
    proposal()  # lets it find the sites
    return proposal


def fitted(posterior: Posterior, objective: str, steps: int) -> Proposal:
    guide = started(posterior)
    module = OBJECTIVES[objective]()(posterior.program, guide)
    train(module, [guide.shift, guide.log_scale, guide.lower], tuple, steps, RATE)
    return guide


def run(name: str, seed: int, steps: int | None = None) -> dict[str, float]:
    """Errors of the guide's draws and of its chains."""
    torch.set_default_dtype(torch.float64)
    pyro.set_rng_seed(seed)
    of, objective = name.split(", ")
    known = reference()[of]
    posterior = POSTERIORS[of](known["data"])
    began = process_time()
    guide = fitted(posterior, objective, steps or STEPS)
    seconds = process_time() - began
    found: dict[str, float] = {}
    for correct in (None, "mh"):
        container = drawn(posterior, guide, correct, seed)
        named = posterior.named(sampled(container))
        of_kind = errors(known["summary"], named)
        label = "chains" if correct else "guide"
        found |= {f"{label}: {key}": value for key, value in of_kind.items()}
    effective = min(float(az.ess(draws.numpy())) for draws in named.values())
    return {
        "acceptance": container.attrs["acceptance_mean"],
        "k-hat": container.attrs["khat_max"],
        "ESS per 1000": 1000 * effective / NUM_SAMPLES,
        **found,
        "training, seconds": seconds,
    }


def drawn(posterior: Posterior, guide: Proposal, correct: str | None, seed: int) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of k-hat, which is told
        return to_inference_data(
            posterior.program,
            guide,
            num_samples=NUM_SAMPLES,
            num_chains=NUM_CHAINS,
            correct=correct,
            prior=False,
            posterior_predictive=False,
            log_likelihood=False,
            seed=seed,
        )


def sampled(container: Any) -> dict[str, Tensor]:
    """Draws ``(chains, draws, *event)`` by site."""
    group = container["posterior"]
    return {name: torch.as_tensor(group[name].values) for name in group.data_vars}


def errors(known: dict[str, dict[str, float]], named: dict[str, Tensor]) -> dict[str, float]:
    """Largest errors over the parameters: in standard deviations, and in Monte Carlo errors."""
    rows = np.array([_errors(known[name], draws.numpy()) for name, draws in named.items()])
    columns = ("mean, sd", "sd, ratio - 1", "mean, z", "sd, z")
    return dict(zip(columns, rows.max(0).tolist(), strict=True))


def _errors(known: dict[str, float], draws: Any) -> tuple[float, float, float, float]:
    """Of one parameter, draws ``(chains, draws)``.

    The error of the reference's sd is that of 10000 independent draws of this kurtosis.
    """
    off, ratio = abs(draws.mean() - known["mean"]), draws.std() / known["sd"]
    standardised = (draws - draws.mean()) / draws.std()
    of_sd = known["sd"] * (((standardised**4).mean() - 1) / 4 / 10_000) ** 0.5
    mean_error = float(np.hypot(az.mcse(draws), known["mcse_mean"]))
    sd_error = float(np.hypot(az.mcse(draws, method="sd"), of_sd))
    off_sd = abs(draws.std() - known["sd"])
    return off / known["sd"], abs(ratio - 1), off / mean_error, off_sd / sd_error


SUITE = Suite("posteriordb", __doc__, {"posteriordb": sys.modules[__name__]})


if __name__ == "__main__":
    SUITE.main()
