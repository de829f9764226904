"""More particles, better models: test NLL of a VAE trained under several bounds.

Pictures are binarised anew for each batch; one tanh network is trained for the same number of
Adam steps under each objective, and compared by the log evidence of test pictures (IWAE
bound), over several seeds. "digits" is 8 by 8, 64-100-100-16; "mnist" is the one-layer network
of Burda et al. (2016), 784-200-200-50, with Adam's epsilon as theirs, batches of 20 and a far
shorter schedule. Finished runs are kept in a file beside the results: started again, it goes
on with the others.

    python -m benchmarks.importance_weighting digits --steps 6000 --seeds 3
    python -m benchmarks.importance_weighting mnist --steps 10000 --seeds 3
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import pyro
import torch
from torch import Tensor
from tqdm.auto import tqdm

from benchmarks.command_line import parser_of
from pyro_lvm import fit
from pyro_lvm.data import digits, mnist
from pyro_lvm.diagnostics import log_evidence
from pyro_lvm.guides import AmortizedNormal
from pyro_lvm.models import VAE
from pyro_lvm.objective import Objective
from pyro_lvm.objectives import ELBO, IWAE, MIWAE

__all__ = ["EXPERIMENTS", "Experiment", "Outcome", "main", "table"]

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Experiment:
    """What is trained, on what, and how it is judged.

    Attributes:
        data: makes the data splits.
        latents: size of z.
        hidden: hidden sizes of both networks.
        training: options of ``fit``.
        every: of the test pictures, each so-manieth is used.
        num_samples: draws per test picture.
        objectives: by name.
    """

    data: Callable[[], Any]
    latents: int
    hidden: tuple[int, ...]
    training: Mapping[str, Any]
    every: int
    num_samples: int
    objectives: Mapping[str, Callable[[], Objective]]


EXPERIMENTS = {
    "digits": Experiment(
        data=partial(digits, num_validation=0),
        latents=16,
        hidden=(100, 100),
        training={"batch_size": 100},
        every=1,
        num_samples=2000,
        objectives={
            "ELBO, K=1": lambda: ELBO(1),
            "ELBO stl, K=1": lambda: ELBO(1, "stl"),
            "ELBO, K=5": lambda: ELBO(5),
            "IWAE, K=5": lambda: IWAE(5),
            "IWAE dreg, K=5": lambda: IWAE(5, "dreg"),
            "IWAE, K=50": lambda: IWAE(50),
            "IWAE dreg, K=50": lambda: IWAE(50, "dreg"),
        },
    ),
    "mnist": Experiment(
        data=mnist,
        latents=50,
        hidden=(200, 200),
        training={
            "batch_size": 20,
            "optimizer": partial(torch.optim.Adam, lr=1e-3, eps=1e-4),
            "lr_scheduler": "cosine",
        },
        every=20,
        num_samples=5000,
        objectives={
            "VAE, K=1": lambda: ELBO(1),
            "IWAE, K=5": lambda: IWAE(5),
            "IWAE, K=50": lambda: IWAE(50),
            "IWAE dreg, K=50": lambda: IWAE(50, "dreg"),
            "MIWAE (8, 8)": lambda: MIWAE(64, num_groups=8),
        },
    ),
}


@dataclass(frozen=True)
class Outcome:
    """One trained model on the test set; nats per picture."""

    nll: float
    negative_elbo: float
    ess: float
    high_khat: float
    active_units: int


def run(experiment: str, name: str, seed: int, steps: int) -> Outcome:
    """Train one model and evaluate it; the seed decides every number."""
    torch.set_num_threads(1)
    pyro.set_rng_seed(seed)
    chosen = EXPERIMENTS[experiment]
    data = chosen.data()
    train = data.train.flatten(1)
    test = data.transform(data.test[:: chosen.every].flatten(1), torch.Generator().manual_seed(0))
    features = train.shape[1]
    model = VAE(features, chosen.latents, hidden=chosen.hidden, data_mean=train.mean(0))
    guide = AmortizedNormal(
        in_features=features, latent_features=chosen.latents, hidden=chosen.hidden
    )
    fit(
        model,
        guide,
        train,
        chosen.objectives[name](),
        max_steps=steps,
        transform=data.transform,
        seed=seed,
        accelerator="cpu",
        diagnostic_particles=0,
        progress=False,
        **chosen.training,
    )
    return evaluate(model, guide, test, chosen.num_samples)


def evaluate(model: VAE, guide: AmortizedNormal, test: Tensor, num_samples: int) -> Outcome:
    pyro.set_rng_seed(0)
    evidence = log_evidence(model, guide, test, num_samples=num_samples)
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


def table(outcomes: Mapping[str, Sequence[Outcome]], num_samples: int) -> str:
    """A Markdown table: mean over seeds, and the standard error of the NLL."""
    lines = [
        f"| objective | test NLL | s.e. over seeds | by seed | -ELBO | ESS of {num_samples} "
        "| k-hat > 0.7 | active units |",
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
    parser = parser_of(__doc__)
    parser.add_argument("experiment", choices=list(EXPERIMENTS))
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=1, help="processes at a time")
    options = parser.parse_args(arguments)
    chosen = EXPERIMENTS[options.experiment]
    outcomes = _outcomes(options)
    by_name = {
        name: [outcomes[f"{name} seed {seed}"] for seed in range(options.seeds)]
        for name in chosen.objectives
    }
    text = table(by_name, chosen.num_samples)
    print(text)
    command = f"importance_weighting {options.experiment} --steps {options.steps}"
    title = f"# Test NLL of {options.experiment}, {options.steps} steps, {options.seeds} seeds\n\n"
    note = f"\n\n`python -m benchmarks.{command} --seeds {options.seeds}`\n"
    (RESULTS / f"importance_weighting_{options.experiment}.md").write_text(title + text + note)


def _outcomes(options: argparse.Namespace) -> dict[str, Outcome]:
    """What each run gave, from the file of finished runs or by running it."""
    path = RESULTS / f"importance_weighting_{options.experiment}_{options.steps}.json"
    kept = json.loads(path.read_text()) if path.is_file() else {}
    outcomes = {label: Outcome(**numbers) for label, numbers in kept.items()}
    names = EXPERIMENTS[options.experiment].objectives
    jobs = {f"{name} seed {seed}": (name, seed) for seed in range(options.seeds) for name in names}
    with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as pool:
        futures = {
            pool.submit(run, options.experiment, *job, options.steps): label
            for label, job in jobs.items()
            if label not in outcomes
        }
        for done in tqdm(as_completed(futures), total=len(futures)):
            outcomes[futures[done]] = done.result()
            rows = {label: asdict(outcome) for label, outcome in outcomes.items()}
            path.write_text(json.dumps(rows, indent=1) + "\n")
    return outcomes


if __name__ == "__main__":
    main()
