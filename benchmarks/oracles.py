"""How close trained guides come to exact evidence, on the models that have it.

Each model keeps the parameters it was drawn with, makes its own data, and a guide is trained
on them. The gaps are exact log evidence less the ELBO and less the importance-weighted bound
of 1000 draws, in nats per datum (of all data for the regressions), over several seeds.

    python -m benchmarks.oracles --steps 1500 --seeds 3
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import pyro
import torch
from pyro.infer.autoguide import AutoMultivariateNormal
from torch import Tensor
from tqdm.auto import tqdm

from benchmarks.command_line import parser_of
from pyro_lvm import fit
from pyro_lvm.guides import (
    AmortizedCategorical,
    AmortizedFlow,
    AmortizedNormal,
    AutoregressiveGuide,
)
from pyro_lvm.models import (
    BayesianLinearRegression,
    BayesianLogisticRegression,
    FactorAnalysis,
    GaussianMixture,
    HiddenMarkov,
    LinearGaussianSSM,
)
from pyro_lvm.objective import Objective
from pyro_lvm.objectives import ELBO, IWAE, ReweightedWakeSleep, WakeSleep

__all__ = ["CASES", "Case", "main"]

RESULTS = Path(__file__).parent / "results"
NUM_DATA = 200


@dataclass(frozen=True)
class Case:
    """One model and guide, and what the guide is trained by."""

    model: Callable[[], Any]
    guide: Callable[[Any], Any]
    objectives: dict[str, Callable[[], Objective]]
    lr: float = 1e-2


PATH = {"ELBO stl": lambda: ELBO(5, "stl"), "IWAE dreg, K=5": lambda: IWAE(5, "dreg")}
SCORE = {
    "ELBO score, K=5": lambda: ELBO(5, "score"),
    "IWAE vimco, K=5": lambda: IWAE(5, "vimco"),
    "ReweightedWakeSleep, K=5": lambda: ReweightedWakeSleep(5),
    "WakeSleep": lambda: WakeSleep(5),
}
SMALL: dict[str, Any] = {"hidden": (32,)}
STEPS: dict[str, Any] = {"num_steps": None, "state_features": 32}
CASES = {
    "FactorAnalysis, diagonal Normal": Case(
        lambda: FactorAnalysis(8, 3),
        lambda m: AmortizedNormal(in_features=8, latent_features=3, **SMALL),
        PATH,
    ),
    "FactorAnalysis, full Normal": Case(
        lambda: FactorAnalysis(8, 3),
        lambda m: AmortizedNormal(in_features=8, latent_features=3, covariance="full", **SMALL),
        PATH,
    ),
    "FactorAnalysis, AmortizedFlow": Case(
        lambda: FactorAnalysis(8, 3),
        lambda m: AmortizedFlow(in_features=8, latent_features=3, **SMALL),
        {"ELBO": lambda: ELBO(5)},
    ),
    "GaussianMixture, AmortizedCategorical": Case(
        lambda: GaussianMixture(2, 4),
        lambda m: AmortizedCategorical(
            in_features=2, latent_features={"c": None}, num_categories=4, one_hot=False, **SMALL
        ),
        SCORE,
    ),
    "HiddenMarkov, AutoregressiveGuide": Case(
        lambda: HiddenMarkov(3, in_features=2, num_steps=8),
        lambda m: AutoregressiveGuide(
            in_features=2, site="z_{}", family="categorical", num_categories=3, **STEPS
        ),
        SCORE,
    ),
    "LinearGaussianSSM, AutoregressiveGuide": Case(
        lambda: LinearGaussianSSM(3, 2, num_steps=8),
        lambda m: AutoregressiveGuide(in_features=3, latent_features=2, **STEPS),
        PATH,
    ),
    "BayesianLinearRegression, AutoMultivariateNormal": Case(
        lambda: BayesianLinearRegression(3),
        AutoMultivariateNormal,
        {"ELBO, K=5": lambda: ELBO(5)},
        lr=0.1,
    ),
    "BayesianLogisticRegression, AutoMultivariateNormal": Case(
        lambda: BayesianLogisticRegression(3),
        AutoMultivariateNormal,
        {"ELBO, K=5": lambda: ELBO(5)},
    ),
}


def run(name: str, objective: str, seed: int, steps: int) -> tuple[float, float]:
    """Exact log evidence less the two bounds, nats per datum or of all data."""
    pyro.set_rng_seed(seed)
    case = CASES[name]
    model = case.model().requires_grad_(False).eval()
    for parameter in model.parameters():
        parameter.add_(0.7 * torch.randn_like(parameter))
    data = _data(model)
    guide = case.guide(model)
    rates = {"lr": case.lr, "lr_scheduler": "cosine"}
    quiet = {"diagnostic_particles": 0, "progress": False, "accelerator": "cpu"}
    trained = case.objectives[objective]()
    fit(model, guide, data, trained, batch_size=None, max_steps=steps, seed=seed, **rates, **quiet)
    exact = model.log_evidence(*data).mean()
    elbo = ELBO(1000).bound(model, guide, *data).mean()
    return (exact - elbo).item(), (exact - IWAE(1000).bound(model, guide, *data).mean()).item()


def _data(model: Any) -> tuple[Tensor, ...]:
    if isinstance(model, BayesianLinearRegression | BayesianLogisticRegression):
        x = torch.randn(NUM_DATA, model.in_features)
        return x, model(x)
    return (model(size=NUM_DATA),)


def line(name: str, objective: str, gaps: Sequence[tuple[float, float]]) -> str:
    """One row: means over seeds with their standard errors."""
    cells = [f"{mean(gap):.4f} ± {stdev(gap) / len(gap) ** 0.5:.4f}" for gap in zip(*gaps)]
    return f"| {name} | {objective} | {' | '.join(cells)} |"


def main(arguments: Sequence[str] | None = None) -> None:
    """Train each guide, print the table and write it beside the script."""
    parser = parser_of(__doc__)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    pyro.settings.set(module_local_params=True)
    lines = [
        "| model, guide | objective | log p - ELBO | log p - IWAE, 1000 draws |",
        "| --- | --- | --- | --- |",
    ]
    jobs = [(name, objective) for name, case in CASES.items() for objective in case.objectives]
    for job in tqdm(jobs):
        gaps = [run(*job, seed, options.steps) for seed in range(options.seeds)]
        lines.append(line(*job, gaps))
    text = "\n".join(lines)
    print(text)
    title = f"# Gap to exact log evidence, {NUM_DATA} data, {options.steps} steps\n\n"
    note = f"\n\n`python -m benchmarks.oracles --steps {options.steps} --seeds {options.seeds}`\n"
    (RESULTS / "oracles.md").write_text(title + text + note)


if __name__ == "__main__":
    main()
