"""Digits with 100 labels: error of deep generative models and of a classifier on the labels alone.

Digits, 8 by 8 or MNIST's, binarised anew for each step; ten labels a class, all of them in every
step beside 100 unlabelled digits. Errors are those of test digits, read as grey values. M2 is
written and trained as in Pyro's example of semi-supervised VAEs: TraceEnum_ELBO, labels
enumerated in the guide, the classifier's loss in a second step.

A deep generative model says in two ways which digit it is: by the classifier in its guide,
q(y|x), and by Bayes' rule, from the bounds on log p(x, y) of all ten labels.

References:
    Kingma, Rezende, Mohamed, Welling (2014), *Semi-supervised learning with deep generative
    models*, arXiv:1406.5298.
    Maaløe, Sønderby, Sønderby, Winther (2016), *Auxiliary deep generative models*,
    arXiv:1602.05473.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import TraceEnum_ELBO
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

from benchmarks.training import train
from pyro_lvm.data import DataSplits, digits
from pyro_lvm.guides import AuxiliaryNormal
from pyro_lvm.models import ADGM, SDGM
from pyro_lvm.nn import MLP, ConditionalNormal, data_plate, diagonal_normal, joined
from pyro_lvm.objectives import ELBO, IWAE

__all__ = ["RUNS", "run"]

CLASSES, NUM_LABELS, BATCH, DRAWS = 10, 100, 100, 5


@dataclass(frozen=True)
class Digits:
    """Pictures and what is made for them.

    Attributes:
        data: reads them.
        pixels: of one.
        latents: features of each latent site.
        width: of hidden layers.
        weight: of the classifier's log-probability of a known label: 0.1 * data / labels.
        steps: of training.
        rate: of Adam.
        every: of the test digits each so-manieth is used.
    """

    data: Callable[[], DataSplits]
    pixels: int
    latents: int
    width: int
    weight: float
    steps: int
    rate: float
    every: int = 1


SMALL = Digits(partial(digits, num_validation=0), 64, 4, 100, 1.4, 2000, 3e-3)
"""143 passes over the unlabelled digits."""

Batch = Callable[[], tuple[Tensor, Tensor]]
Predict = Callable[[Tensor], Tensor]
"""From test digits to scores of the classes."""

Readings = dict[str, Predict]
"""One or more ways to ask a trained model."""


def classifier(sizes: Digits, batch: Batch, steps: int) -> Readings:
    """A network of the labels alone."""
    network = MLP(sizes.pixels, CLASSES, (sizes.width, sizes.width))

    class Loss(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return cross_entropy(network(x)[y >= 0], y[y >= 0])

    train(Loss(), network.parameters(), batch, steps, sizes.rate)
    return {"classifier": network}


def auxiliary(make: Callable[..., Any], sizes: Digits, batch: Batch, steps: int) -> Readings:
    """ADGM or SDGM, unknown labels drawn by the guide."""
    shared: dict[str, Any] = {
        "latent_features": sizes.latents,
        "auxiliary_features": sizes.latents,
        "hidden": (sizes.width,),
        "num_classes": CLASSES,
    }
    guide = AuxiliaryNormal(
        in_features=sizes.pixels,
        classifier_weight=sizes.weight,
        context_features=sizes.width,
        conditional_hidden=(sizes.width,),
        **shared,
    )
    model = make(sizes.pixels, **shared)
    module = ELBO(DRAWS, "score")(model, guide)
    train(module, module.parameters(), batch, steps, sizes.rate, per=BATCH)
    guide.eval()
    return {"classifier": guide.classify, "Bayes' rule": partial(by_bounds, model, guide)}


def by_bounds(model: Any, guide: Any, x: Tensor) -> Tensor:  # (B, C)
    """A bound on log p(x, y) of each label, by 50 draws."""
    labels = [torch.full((len(x),), c) for c in range(CLASSES)]
    return torch.stack([IWAE(50).bound(model, guide, x, y) for y in labels], -1)


class M2(nn.Module):
    """Model and guide of Pyro's example, and the sum of its three losses."""

    def __init__(self, sizes: Digits) -> None:
        super().__init__()
        self.sizes = sizes
        self.classifier = MLP(sizes.pixels, CLASSES, (sizes.width, sizes.width))
        self.encoder = ConditionalNormal(sizes.pixels + CLASSES, sizes.latents, (sizes.width,))
        self.decoder = MLP(sizes.latents + CLASSES, sizes.pixels, (sizes.width,))
        self.elbo = TraceEnum_ELBO(max_plate_nesting=1)

    def model(self, x: Tensor, y: Tensor | None) -> None:
        with data_plate(len(x)):
            y = pyro.sample("y", dist.OneHotCategorical(x.new_ones(CLASSES)), obs=y)
            z = pyro.sample("z", diagonal_normal(x.new_zeros(self.sizes.latents), 1.0))
            logits = self.decoder(joined([z, y]))
            pyro.sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=x)

    def guide(self, x: Tensor, y: Tensor | None) -> None:
        with data_plate(len(x)):
            if y is None:
                q = dist.OneHotCategorical(logits=self.classifier(x))
                y = pyro.sample("y", q, infer={"enumerate": "parallel"})
            pyro.sample("z", self.encoder(joined([x, y])))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        known = y >= 0
        labels = one_hot(y[known], CLASSES).to(x)
        unlabelled = self.elbo.differentiable_loss(self.model, self.guide, x[~known], None)
        labelled = self.elbo.differentiable_loss(self.model, self.guide, x[known], labels)
        log_q = cross_entropy(self.classifier(x[known]), y[known], reduction="sum")
        total: Tensor = unlabelled + labelled + self.sizes.weight * log_q
        return total


def m2(sizes: Digits, batch: Batch, steps: int) -> Readings:
    programs = M2(sizes)
    train(programs, programs.parameters(), batch, steps, sizes.rate, per=BATCH)

    def by_rule(x: Tensor) -> Tensor:
        labels = one_hot(torch.arange(CLASSES), CLASSES).to(x).unsqueeze(1)
        pairs = [(x, y.expand(len(x), -1)) for y in labels]
        bounds = [IWAE(50).bound(programs.model, programs.guide, *pair) for pair in pairs]
        return torch.stack(bounds, -1)

    return {"classifier": programs.classifier, "Bayes' rule": by_rule}


RUNS: dict[str, Callable[[Digits, Batch, int], Readings]] = {
    "classifier of the labels": classifier,
    "M2, as in Pyro's example": m2,
    "ADGM": partial(auxiliary, ADGM),
    "SDGM": partial(auxiliary, SDGM),
}


def run(name: str, seed: int, steps: int | None = None, sizes: Digits = SMALL) -> dict[str, float]:
    """Test error of one trained model, percent; the seed chooses the labels too."""
    pyro.set_rng_seed(seed)
    data = sizes.data()
    x, truth = data.train.flatten(1), data.labels["train"]
    known = torch.cat([_some(truth == c, NUM_LABELS // CLASSES) for c in range(CLASSES)])
    generator = torch.Generator().manual_seed(seed)

    def batch() -> tuple[Tensor, Tensor]:
        rows = torch.cat([known, torch.randint(len(x), (BATCH,), generator=generator)])
        unknown = torch.full((BATCH,), -1)
        return data.transform(x[rows], generator), torch.cat([truth[known], unknown])

    readings = RUNS[name](sizes, batch, steps or sizes.steps)
    test, right = data.test.flatten(1)[:: sizes.every], data.labels["test"][:: sizes.every]
    return {
        f"test error by {how}, %": _error(predict, test, right) for how, predict in readings.items()
    }


@torch.no_grad()
def _error(predict: Predict, x: Tensor, labels: Tensor) -> float:
    wrong = torch.cat([predict(part) for part in x.split(400)]).argmax(-1) != labels
    return 100 * wrong.float().mean().item()


def _some(mask: Tensor, count: int) -> Tensor:
    """Places of ``count`` True entries, at random."""
    places = mask.nonzero()[:, 0]
    return places[torch.randperm(len(places))[:count]]
