"""How many weights of a classifier of MNIST are needed: sparse priors beside a Normal one.

A 784-100-10 network on all training digits; means of weights whose log alpha is at most 3 are
kept, and the network of these is judged on all test digits. The point estimate has no
posterior and keeps everything.
"""

from __future__ import annotations

from functools import cache

import pyro
import torch
from torch import Tensor, nn

from benchmarks.training import train
from pyro_lvm.annealing import LinearWarmup
from pyro_lvm.data import DataSplits, mnist
from pyro_lvm.diagnostics import pruning_report
from pyro_lvm.guides import NormalWeights
from pyro_lvm.models import BayesianMLP
from pyro_lvm.objectives import ELBO

__all__ = ["RUNS", "run"]

RUNS = ["point estimate", "normal", "log_uniform", "ard"]
HIDDEN, BATCH, STEPS = (100,), 200, 2500
RATE, START = 5e-3, 0.02
PIXEL = 0.3081  # the standard deviation of all pixels


@cache
def digits() -> DataSplits:
    return mnist(binarization=None)


def run(name: str, seed: int, steps: int | None = None) -> dict[str, float]:
    """Accuracy in percent, whole and pruned, and what is left."""
    pyro.set_rng_seed(seed)
    x, y = digits().train / PIXEL, digits().labels["train"]
    prior = "normal" if name == "point estimate" else name
    model = BayesianMLP(x.shape[1], HIDDEN, 10, prior=prior, num_data=len(x))
    if name == "point estimate":
        return {"accuracy": accuracy(model, point(model, x, y, steps or STEPS))}
    guide = trained(model, x, y, steps or STEPS)
    moments = {name: (mean.detach(), scale) for name, (mean, scale) in guide.moments().items()}
    means = {name: mean for name, (mean, _) in moments.items()}
    report = pruning_report(moments)
    pruned = {name: mean * report.kept[name] for name, mean in means.items()}
    masks = model.matrices(report.kept)
    return {
        "accuracy": accuracy(model, means),
        "pruned": accuracy(model, pruned),
        **report.summary(),
        "inputs": float(masks["w1"].any(0).sum()),
        "hidden units": float(masks["w2"][:, :-1].any(0).sum()),
    }


def trained(model: BayesianMLP, x: Tensor, y: Tensor, steps: int) -> NormalWeights:
    """Mean-field posterior; the weight of the KL rises over the first quarter of the steps."""
    guide = NormalWeights(model.starts(), start_scale=START)

    def batch() -> tuple[Tensor, Tensor]:
        model.priors.maximise(guide.moments())
        return minibatch(x, y)

    objective = ELBO(gradient="stl", beta=LinearWarmup(steps // 4))
    train(objective(model, guide), guide.parameters(), batch, steps, RATE, per=len(x))
    return guide


def point(model: BayesianMLP, x: Tensor, y: Tensor, steps: int) -> dict[str, Tensor]:
    """Weights of greatest posterior density."""
    weights = nn.ParameterDict(model.starts())
    module = Density(model, weights)
    train(module, weights.parameters(), lambda: minibatch(x, y), steps, RATE, per=len(x))
    return {name: weight.detach() for name, weight in weights.items()}


class Density(nn.Module):
    """Minus the log joint density of a network at given weights, nats."""

    def __init__(self, model: nn.Module, weights: nn.ParameterDict) -> None:
        super().__init__()
        self.model, self.weights = model, weights

    def forward(self, *data: Tensor) -> Tensor:
        fixed = pyro.poutine.condition(self.model, dict(self.weights.items()))
        log_p: Tensor = pyro.poutine.trace(fixed).get_trace(*data).log_prob_sum()
        return -log_p


def minibatch(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    rows = torch.randint(len(x), (BATCH,))
    return x[rows], y[rows]


@torch.no_grad()
def accuracy(model: BayesianMLP, weights: dict[str, Tensor]) -> float:
    logits = model.outcome(digits().test / PIXEL, weights).logits
    return 100 * (logits.argmax(-1) == digits().labels["test"]).double().mean().item()
