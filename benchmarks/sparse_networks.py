"""How few weights a classifier needs: trained under a prior, pruned by log alpha, judged."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import pyro
import torch
from torch import Tensor, nn

from benchmarks.training import train
from pyro_lvm.annealing import LinearWarmup
from pyro_lvm.diagnostics import pruning_report
from pyro_lvm.guides import NormalWeights
from pyro_lvm.models.bayesian_network import BayesianNetwork
from pyro_lvm.objectives import ELBO, AnalyticELBO

__all__ = ["BY", "Density", "Plan", "accuracy", "compressed", "maximum"]

Pairs = tuple[Tensor, Tensor]
Counts = Callable[[Mapping[str, Tensor]], dict[str, float]]

BY = {"draws": partial(ELBO, gradient="stl"), "closed form": AnalyticELBO}
"""How the divergence from the prior is found."""


class Plan(NamedTuple):
    """Adam at ``rate``, falling to 0 in the second half; the KL rises in the first quarter."""

    steps: int
    batch: int
    rate: float
    start_scale: float = 0.02


def compressed(
    model: BayesianNetwork, data: Pairs, test: Pairs, plan: Plan, by: str, counts: Counts
) -> dict[str, float]:
    """Accuracy in percent, whole and pruned, and what is left.

    Args:
        model: the network.
        data: rows and classes to train on, and
        test: to be judged on.
        plan: how to train.
        by: one of :data:`BY`.
        counts: what to count in the matrices of the pruned network.
    """
    guide = NormalWeights(model.starts(), start_scale=plan.start_scale)
    fit(model, guide, data, plan, by)
    moments = {name: (mean.detach(), scale) for name, (mean, scale) in guide.moments().items()}
    means = {name: mean for name, (mean, _) in moments.items()}
    kept = pruning_report(moments).kept
    pruned = {name: mean * kept[name] for name, mean in means.items()}
    left = model.folded(model.matrices(pruned))
    total, live = (sum(map(count, left.values())) for count in (Tensor.numel, _num_live))
    return {
        "accuracy": accuracy(model, means, test),
        "pruned": accuracy(model, pruned, test),
        "compression": total / max(1, live),
        **counts(left),
    }


def fit(model: BayesianNetwork, guide: NormalWeights, data: Pairs, plan: Plan, by: str) -> None:
    def batch() -> Pairs:
        model.priors.maximise(guide.moments())
        return minibatch(data, plan.batch)

    objective: Any = BY[by](beta=LinearWarmup(max(1, plan.steps // 4)))
    module, size = objective(model, guide), len(data[0])
    train(module, guide.parameters(), batch, plan.steps, plan.rate, per=size)


def maximum(model: BayesianNetwork, data: Pairs, plan: Plan) -> dict[str, Tensor]:
    """Weights of greatest posterior density."""
    weights = nn.ParameterDict(model.starts())
    module = Density(model, weights)
    batch = partial(minibatch, data, plan.batch)
    train(module, weights.parameters(), batch, plan.steps, plan.rate, per=len(data[0]))
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


def minibatch(data: Pairs, size: int) -> Pairs:
    x, y = data
    rows = torch.randint(len(x), (size,))
    return x[rows], y[rows]


@torch.no_grad()
def accuracy(model: BayesianNetwork, weights: dict[str, Tensor], test: Pairs) -> float:
    """In percent, of the network at these weights."""
    logits = model.outcome(test[0], weights).logits
    return 100 * (logits.argmax(-1) == test[1]).double().mean().item()


def _num_live(matrix: Tensor) -> int:
    return int(matrix.count_nonzero())
