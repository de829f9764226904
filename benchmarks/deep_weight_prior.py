"""What a learned prior of kernels does for a classifier of few digits: the deep weight prior.

Source networks learn the embedded Fashion-MNIST; a VAE for each layer learns their kernels, and
its decoder, frozen, is the prior of the kernels of a Bayesian network of n MNIST digits. A
learned prior comes with kernels to start at, drawn from it, so prior and start are crossed:

- prior "learned"; "N(0, 1)"; "N(0, s)" with s the root mean square of the source kernels.
- start "drawn" from the learned prior; "Xavier", uniform by the numbers of inputs and outputs.

Accuracy and mean log-likelihood, nats, are those of the average of 10 draws, on every tenth
test digit. The reverse models go on being trained with the network; "looseness" is what 100
draws of them in place of one would add to its bound, nats in all. Finished runs are kept in a
file in ``results``: started again, it goes on with the others.

    PYRO_LVM_DATA=folder python -m benchmarks.deep_weight_prior --steps 500 --seeds 3

References:
    Atanov, Ashukha, Struminsky, Vetrov, Welling (2019), *The deep weight prior*,
    arXiv:1810.06943, section 4.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import product
from math import log
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import pyro
import torch
from torch import Tensor
from tqdm.auto import tqdm

from benchmarks import kept
from benchmarks.command_line import parser_of
from benchmarks.kernel_priors import LATENTS, QUIET, SIZES, Learned, learned_priors, xavier
from pyro_lvm import fit
from pyro_lvm.data import DataSplits, mnist
from pyro_lvm.guides import KernelEncoder, KernelPosterior
from pyro_lvm.models import VAE, BayesianConvNet
from pyro_lvm.objectives import ELBO, IWAE

__all__ = ["PRIORS", "STARTS", "draws", "key", "looseness", "main", "markdown", "network", "run"]

RESULTS = Path(__file__).parent / "results"
CHANNELS = (16, 16)
PRIORS = ("learned", "N(0, 1)", "N(0, s)")
STARTS = ("drawn", "Xavier")
NUM_DATA = (10, 20, 50, 100)
NUM_DRAWS = 10
BATCH = 20
RATE = 5e-3


@torch.no_grad()
def draws(learned: Sequence[Learned]) -> list[Tensor]:
    """As many kernels from the learned priors, without the noise of the decoder."""
    counts = [outputs * inputs for inputs, outputs in zip((1, *CHANNELS), CHANNELS, strict=False)]
    pairs = zip(learned, counts, strict=True)
    return [layer.vae.decode(torch.randn(m, LATENTS)).mean for layer, m in pairs]


def network(prior: str, learned: Sequence[Learned], num_data: int) -> BayesianConvNet:
    """The classifier with one of the priors."""
    scale = torch.cat([layer.kernels.flatten() for layer in learned]).square().mean().sqrt()
    return BayesianConvNet(
        channels=CHANNELS,
        kernel_sizes=SIZES,
        priors=[layer.vae for layer in learned] if prior == "learned" else None,
        prior_scale=float(scale) if prior == "N(0, s)" else 1.0,
        num_data=num_data,
    )


def balanced(labels: Tensor, count: int) -> Tensor:
    """Indices of ``count`` random data, as many of each class."""
    order = torch.randperm(len(labels))
    return torch.cat([order[labels[order] == c][: count // 10] for c in range(10)])


def run(
    digits: DataSplits,
    learned: Sequence[Learned],
    chosen: Sequence[Any],
    seed: int,
    steps: int,
) -> dict[str, float]:
    """Train one network, of a chosen prior, start and number of digits, and judge it."""
    prior, start, num_data = chosen
    pyro.set_rng_seed(seed)  # the same digits and starts for all priors
    rows = balanced(digits.labels["train"], num_data)
    means = draws(learned) if start == "drawn" else xavier(CHANNELS)
    encoders = [copy.deepcopy(layer.encoder) for layer in learned] if prior == "learned" else []
    guide = KernelPosterior(means, [encoder.reverse for encoder in encoders] or None)
    model = network(prior, learned, num_data)
    data = digits.train[rows], digits.labels["train"][rows]
    rates = {"lr": RATE, "lr_scheduler": "cosine", "batch_size": BATCH}
    fit(model, guide, data, ELBO(), max_steps=steps, seed=seed, **rates, **QUIET)
    outcome = judged(model, guide, digits.test[::10], digits.labels["test"][::10])
    vaes = [layer.vae for layer in learned]
    return outcome | ({"looseness": looseness(guide, vaes, encoders)} if encoders else {})


@torch.no_grad()
def judged(
    model: BayesianConvNet, guide: KernelPosterior, x: Tensor, y: Tensor
) -> dict[str, float]:
    """Of the average over draws of the kernels."""
    drawn = [guide() for _ in range(NUM_DRAWS)]
    logits = [model.logits(x, [kernels["w1"], kernels["w2"]]) for kernels in drawn]
    log_p = torch.stack(logits).log_softmax(-1).logsumexp(0) - log(NUM_DRAWS)
    accuracy = (log_p.argmax(-1) == y).double().mean()
    return {"accuracy": accuracy.item(), "log p": log_p[torch.arange(len(y)), y].mean().item()}


@torch.no_grad()
def looseness(
    guide: KernelPosterior, vaes: Sequence[VAE], encoders: Sequence[KernelEncoder]
) -> float:
    """What 100 draws of the reverse models add to the bound, nats: a kernel is a datum."""
    drawn = guide()
    gain = [
        IWAE(100).bound(vae, encoder, w) - ELBO(100).bound(vae, encoder, w)
        for vae, encoder, w in zip(vaes, encoders, (drawn["w1"], drawn["w2"]), strict=True)
    ]
    return torch.cat(gain).sum().item()


def key(prior: str, start: str, num_data: int, seed: int, steps: int) -> str:
    return f"{prior}, {start}, n = {num_data}, seed {seed}, {steps} steps"


def markdown(
    runs: Mapping[str, Mapping[str, float]], sizes: Sequence[int], seeds: int, steps: int
) -> str:
    """A table for each column of the runs: prior and start by number of digits."""
    tables = []
    for column in ("accuracy", "log p", "looseness"):
        lines = [f"| {column}: prior, start | " + " | ".join(f"n = {n}" for n in sizes) + " |"]
        lines.append("|" + " --- |" * (len(sizes) + 1))
        for pair in product(PRIORS, STARTS):
            keys = [[key(*pair, n, seed, steps) for seed in range(seeds)] for n in sizes]
            found = [[runs[k][column] for k in row if column in runs.get(k, {})] for row in keys]
            if any(found):
                lines.append(f"| {', '.join(pair)} | {' | '.join(map(cell, found))} |")
        tables.append("\n".join(lines))
    return "\n\n".join(tables)


def cell(values: Sequence[float]) -> str:
    """Over the seeds; the standard deviation is that of one seed."""
    if len(values) < 2:
        return ", ".join(f"{value:.3f}" for value in values)
    return f"{mean(values):.3f} ± {stdev(values):.3f}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Train the priors, run what is not yet done and print the tables."""
    parser = parser_of(__doc__)
    parser.add_argument("--steps", type=int, default=500, help="of each network")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sources", type=int, default=4, help="number of source networks")
    parser.add_argument("--epochs", type=int, default=25, help="of each source network")
    parser.add_argument("--prior-steps", type=int, default=500, help="of each VAE")
    parser.add_argument("--sizes", type=int, nargs="+", default=NUM_DATA, help="values of n")
    parser.add_argument("--save", action=argparse.BooleanOptionalAction, default=True)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    pyro.settings.set(module_local_params=True)
    path = RESULTS / "deep_weight_prior.json" if options.save else None
    runs = kept.finished(path)
    learned = learned_priors(options.sources, options.epochs, options.prior_steps)
    digits = mnist(binarization=None)
    for *chosen, seed in tqdm(list(product(PRIORS, STARTS, options.sizes, range(options.seeds)))):
        name = key(*chosen, seed, options.steps)
        train = partial(run, digits, learned, chosen, seed, options.steps)
        runs[name] = kept.found(path, name, train)
    print(markdown(runs, options.sizes, options.seeds, options.steps))


if __name__ == "__main__":
    main()
