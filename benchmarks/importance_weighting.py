"""More particles, better models: test NLL of a digits VAE trained with K = 1, 5 and 50.

The 8 by 8 digits are binarised anew for each batch; a 64-100-100-16 tanh VAE is trained for
the same number of Adam steps under each objective, and compared by the log evidence of the
test digits (IWAE bound with 2000 draws, nats per digit), over several seeds.

    python -m benchmarks.importance_weighting --steps 6000 --seeds 3
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from statistics import mean, stdev

import pyro
import torch
from torch import Tensor
from tqdm.auto import tqdm

from pyro_lvm import fit
from pyro_lvm.data import digits
from pyro_lvm.diagnostics import log_evidence
from pyro_lvm.guides import AmortizedNormal
from pyro_lvm.models import VAE
from pyro_lvm.objectives import ELBO, IWAE

__all__ = ["Outcome", "main", "table"]

RESULTS = Path(__file__).parent / "results"
SETTINGS = {
    "ELBO, K=1": lambda: ELBO(1),
    "ELBO stl, K=1": lambda: ELBO(1, "stl"),
    "ELBO, K=5": lambda: ELBO(5),
    "IWAE, K=5": lambda: IWAE(5),
    "IWAE dreg, K=5": lambda: IWAE(5, "dreg"),
    "IWAE, K=50": lambda: IWAE(50),
    "IWAE dreg, K=50": lambda: IWAE(50, "dreg"),
}


@dataclass(frozen=True)
class Outcome:
    """One trained model on the test set; nats per digit."""

    nll: float
    negative_elbo: float
    ess: float
    high_khat: float
    active_units: int


def run(name: str, seed: int, steps: int) -> Outcome:
    """Train one model and evaluate it; the seed decides every number."""
    torch.set_num_threads(1)
    pyro.set_rng_seed(seed)
    data = digits(num_validation=0)
    train = data.train.flatten(1)
    test = data.transform(data.test.flatten(1), torch.Generator().manual_seed(0))
    model = VAE(64, 16, hidden=(100, 100), data_mean=train.mean(0))
    guide = AmortizedNormal(in_features=64, latent_features=16, hidden=(100, 100))
    fit(
        model,
        guide,
        train,
        SETTINGS[name](),
        batch_size=100,
        max_steps=steps,
        transform=data.transform,
        lr=1e-3,
        seed=seed,
        accelerator="cpu",
        diagnostic_particles=0,
        progress=False,
    )
    return evaluate(model, guide, test)


def evaluate(model: VAE, guide: AmortizedNormal, test: Tensor) -> Outcome:
    pyro.set_rng_seed(0)
    evidence = log_evidence(model, guide, test, num_samples=2000)
    elbo = ELBO(100).bound(model, guide, test)
    with torch.no_grad():
        means = guide.posterior(test)["z"].mean
    return Outcome(
        nll=-evidence.value.mean().item(),
        negative_elbo=-elbo.mean().item(),
        ess=evidence.effective_sample_size.mean().item(),
        high_khat=(evidence.khat > 0.7).float().mean().item(),
        active_units=int((means.var(0) > 0.01).sum()),
    )


def table(outcomes: dict[str, list[Outcome]]) -> str:
    """A Markdown table: mean over seeds, and the standard error of the NLL."""
    lines = [
        "| objective | test NLL | s.e. over seeds | by seed | -ELBO | ESS of 2000 | k-hat > 0.7 "
        "| active units |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, runs in outcomes.items():
        nll = [run.nll for run in runs]
        error = stdev(nll) / len(nll) ** 0.5 if len(nll) > 1 else float("nan")
        lines.append(
            f"| {name} | {mean(nll):.2f} | {error:.2f} | {', '.join(f'{v:.2f}' for v in nll)} | "
            f"{mean(r.negative_elbo for r in runs):.2f} | {mean(r.ess for r in runs):.0f} | "
            f"{mean(r.high_khat for r in runs):.2f} | "
            f"{mean(r.active_units for r in runs):.1f} |"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, evaluate, print the table and write it beside the script."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=1, help="processes at a time")
    parser.add_argument("--output", type=Path, default=RESULTS / "importance_weighting.md")
    options = parser.parse_args(arguments)
    jobs = [(name, seed) for name in reversed(SETTINGS) for seed in range(options.seeds)]
    context = get_context("spawn")
    with ProcessPoolExecutor(options.workers, mp_context=context) as pool:
        futures = {pool.submit(run, *job, options.steps): job for job in jobs}
        for done in tqdm(as_completed(futures), total=len(jobs)):
            done.result()
    outcomes: dict[str, list[Outcome]] = {name: [] for name in SETTINGS}
    for future, (name, _) in futures.items():
        outcomes[name].append(future.result())
    text = table(outcomes)
    print(text)
    options.output.parent.mkdir(exist_ok=True)
    title = f"# Test NLL of digits, {options.steps} steps, {options.seeds} seeds\n\n"
    note = f"\n\n`python -m benchmarks.importance_weighting --steps {options.steps} "
    options.output.write_text(f"{title}{text}{note}--seeds {options.seeds}`\n")


if __name__ == "__main__":
    main()
