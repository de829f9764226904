"""The factor analysis toy of the VGI paper: 6 columns, 2 factors, entries missing at random.

The divergence KL(p* || p) of the learned model from the truth, and the log-likelihood of the
observed entries of its training rows, beside those of EM, which maximises it. All run on columns
standardised by their observed entries, of which the divergence is independent.

References:
    Simkus, Rhodes, Gutmann (2023), *Variational Gibbs inference for statistical model estimation
    from incomplete data*, arXiv:2111.13180.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import kl_divergence

from benchmarks.factor_em import Factors, fit_by_em, observed_log_likelihood
from pyro_lvm.guides import GibbsConditionals, GibbsGuide
from pyro_lvm.kept_chains import Chains
from pyro_lvm.missing import Completed, hide, mcar
from pyro_lvm.models import FactorAnalysis
from pyro_lvm.objectives import VGI

__all__ = ["RUNS", "TRUTH", "Run", "run"]

TRUTH = Factors(
    torch.tensor([3.0, -1.0, 0.0, 2.0, -1.0, 0.0], dtype=torch.float64),
    torch.tensor(
        [[-5.0, -2.0], [4.0, 0.0], [3.0, -1.0], [-3.0, -3.0], [1.0, 5.0], [-1.0, 2.0]],
        dtype=torch.float64,
    ),
    torch.tensor([50.4794, 30.0988, 6.7666, 17.3357, 40.9839, 25.1122], dtype=torch.float64),
)
ROWS, CHAINS, BATCH = 8000, 5, 512
WARMUP = 20
MODEL_RATE, GUIDE_RATE = 0.05, 0.02


class Run(NamedTuple):
    """One way to train: the share of missing entries, and what differs.

    Attributes:
        rate: of missing entries.
        epochs: over the rows.
        num_updates: Gibbs updates a step; 0 freezes the chains.
    """

    rate: float
    epochs: int = 100
    num_updates: int = 3


RUNS = {
    "16.6 %": Run(1 / 6, epochs=80),
    "33.3 %": Run(1 / 3, epochs=80),
    "50 %": Run(0.5),
    "66.6 %": Run(2 / 3, epochs=120),
    "83.3 %": Run(5 / 6, epochs=160),
    "50 %, chains never updated": Run(0.5, num_updates=0),
}


def run(name: str, seed: int, epochs: int | None = None) -> dict[str, float]:
    """Divergences, log-likelihoods a row of observed entries, and errors of the conditionals."""
    how = RUNS[name]
    previous = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    pyro.set_rng_seed(seed)
    try:
        return _run(how._replace(epochs=epochs or how.epochs), seed)
    finally:
        torch.set_default_dtype(previous)


def _run(how: Run, seed: int) -> dict[str, float]:
    complete = TRUTH.normal().sample((ROWS,))
    x = hide(complete, mcar(complete, how.rate, seed=seed + 1))
    loc = x.nanmean(0)
    scale = (x - loc).square().nanmean(0).sqrt()
    x = (x - loc) / scale
    model, guide = _trained(x, how, seed)
    learned = Factors(model.mean, model.loading, model.noise_scale.square()).detached()
    by_em = fit_by_em(x, 2)
    found = {
        "KL, VGI": _divergence(learned.scaled(loc, scale)),
        "KL, EM": _divergence(by_em.scaled(loc, scale)),
        "KL, EM on complete rows": _divergence(fit_by_em(complete, 2)),
        "observed log p, VGI": observed_log_likelihood(learned, x),
        "observed log p, EM": observed_log_likelihood(by_em, x),
    }
    found["gap"] = found["observed log p, EM"] - found["observed log p, VGI"]
    return found | _of_conditionals(guide, learned, (complete - loc) / scale)


def _trained(x: Tensor, how: Run, seed: int) -> tuple[FactorAnalysis, GibbsGuide]:
    model = FactorAnalysis(6, 2)
    guide = GibbsGuide(GibbsConditionals(6, hidden=()))
    batches = -(-len(x) // BATCH)
    chains = Chains(x, CHAINS, seed=seed)
    objective = VGI(chains, num_updates=how.num_updates, warmup=WARMUP * batches)
    loss = objective(Completed(model), guide)
    groups: list[dict[str, Any]] = [
        {"params": model.parameters(), "lr": MODEL_RATE},
        {"params": guide.parameters(), "lr": GUIDE_RATE},
    ]
    optimiser = torch.optim.Adam(groups)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, how.epochs * batches)
    for _ in range(how.epochs):
        for index in torch.randperm(len(x)).split(BATCH):
            optimiser.zero_grad()
            (loss(x[index], index) / len(x)).backward()
            optimiser.step()
            falling.step()
    return model, guide


def _divergence(learned: Factors) -> float:
    return kl_divergence(TRUTH.normal(), learned.normal()).item()


@torch.no_grad()
def _of_conditionals(guide: GibbsGuide, learned: Factors, x: Tensor) -> dict[str, float]:
    """Against the exact ones of the learned model: means in their scales, and scales."""
    precision = learned.normal().precision_matrix
    exact_scale = precision.diagonal() ** -0.5
    slope = (precision / precision.diagonal()[:, None]).fill_diagonal_(0.0)
    exact_mean = learned.mean - (x - learned.mean) @ slope.T
    column = torch.arange(x.shape[1]).expand(len(x), -1)
    q: dist.TorchDistribution = guide.conditionals(x.unsqueeze(1).expand(-1, 6, -1), column)
    error = (q.mean - exact_mean) / exact_scale
    ratio = q.variance.sqrt() / exact_scale
    return {
        "error of means": error.square().mean().sqrt().item(),
        "least ratio of scales": ratio.mean(0).min().item(),
        "greatest": ratio.mean(0).max().item(),
    }
