"""Batches of a data set, a short one at the end among them: no bias in losses or bounds."""

from itertools import combinations
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from explained import explained
from torch import Tensor, nn

import pyro_lvm
from pyro_lvm.errors import PlateError
from pyro_lvm.guides import NormalWeights
from pyro_lvm.models import VAE, BayesianLogisticRegression
from pyro_lvm.nn import data_plate
from pyro_lvm.objectives import ELBO, IWAE

ROWS, HELD_OUT = 5, 7

pytestmark = pytest.mark.usefixtures("float64")


def rows(count: int = ROWS) -> tuple[Tensor, Tensor]:
    return torch.randn(count, 2), torch.randint(2, (count,)).double()


class Points(nn.Module):
    """A point for each datum."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor([[0.5], [-0.2]]))

    def forward(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Delta(x @ self.slope, event_dim=1))


class Point(nn.Module):
    """A point for the weights of all data."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.tensor([0.3, -1.0]))

    def forward(self, x: Tensor, y: Tensor) -> None:
        pyro.sample("weights", dist.Delta(self.weights, event_dim=1))


def of_all_data() -> tuple[nn.Module, nn.Module, tuple[Tensor, ...], Any]:
    """One latent for all data: a draw by a seed is the same in every batch."""
    model = BayesianLogisticRegression(2, num_data=ROWS)
    return model, NormalWeights({"weights": torch.zeros(2)}, start_scale=0.5), rows(), ELBO(3)


class Items(nn.Module):
    """Answers of people to three items: difficulties of all, abilities of each."""

    num_data = ROWS

    def forward(self, y: Tensor) -> None:
        difficulty = pyro.sample("difficulty", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        with data_plate(len(y), self.num_data, like=y):
            ability = pyro.sample("ability", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            answers = dist.Bernoulli(logits=ability - difficulty).to_event(1)
            pyro.sample("y", answers, obs=y)


class ItemsGuide(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.loc = nn.Parameter(torch.tensor([0.1, -0.4, 0.9]))
        self.slope = nn.Parameter(torch.tensor([[0.5], [-0.2], [0.3]]))

    def forward(self, y: Tensor) -> None:
        pyro.sample("difficulty", dist.Normal(self.loc, 0.3).to_event(1))
        with data_plate(len(y), ROWS, like=y):
            pyro.sample("ability", dist.Delta(y @ self.slope, event_dim=1))


def of_both() -> tuple[nn.Module, nn.Module, tuple[Tensor, ...], Any]:
    return Items(), ItemsGuide(), (torch.randint(2, (ROWS, 3)).double(),), ELBO()


def of_each_datum() -> tuple[nn.Module, nn.Module, tuple[Tensor, ...], Any]:
    return VAE(2, 1, (3,), "gaussian"), Points(), rows()[:1], IWAE(3)


def loss_and_slopes(
    model: nn.Module, guide: nn.Module, batch: tuple[Tensor, ...], objective: Any
) -> tuple[Tensor, ...]:
    """Of a step of ``fit``: by the number of data that the loss speaks for."""
    pyro.set_rng_seed(0)
    count = getattr(model, "num_data", None) or len(batch[0])
    loss = objective.differentiable_loss(model, guide, *batch) / count
    parameters = [*model.parameters(), *guide.parameters()]
    return (loss, *torch.autograd.grad(loss, parameters))


@pytest.mark.parametrize("make", [of_all_data, of_both, of_each_datum])
@pytest.mark.parametrize("size", [1, 2, 4])
def test_batches_of_any_size_have_the_mean_of_all_data(make: Any, size: int) -> None:
    """So has each step of an epoch in random order, the short last one too."""
    with pyro.settings.context(module_local_params=True):
        model, guide, data, objective = make()
        whole = loss_and_slopes(model, guide, data, objective)
        parts = [
            loss_and_slopes(model, guide, tuple(d[list(chosen)] for d in data), objective)
            for chosen in combinations(range(ROWS), size)
        ]
    for exact, *found in zip(whole, *parts, strict=True):
        torch.testing.assert_close(torch.stack(found).mean(0), exact)


@pytest.mark.parametrize("batch_size", [3, 5, 100])
def test_held_out_bound_of_a_latent_of_all_data(batch_size: int) -> None:
    """By a point: mean log-likelihood of the rows held out, and a share of the prior."""
    model, guide, held_out = BayesianLogisticRegression(2, num_data=9), Point(), rows(HELD_OUT)
    result = pyro_lvm.fit(
        model,
        guide,
        rows(9),
        ELBO(),
        validation=held_out,
        batch_size=batch_size,
        max_epochs=1,
        lr=1e-30,
        diagnostic_particles=0,
        progress=False,
    )
    weights = guide.weights.detach()
    outcome = dist.Bernoulli(logits=held_out[0] @ weights)
    prior = dist.Normal(0.0, 1.0).log_prob(weights).sum()
    expected = outcome.log_prob(held_out[1]).mean() + prior / 9
    bounds = [bound for bound in result.history["bound"] if bound is not None]
    assert bounds == pytest.approx([expected.item()] * len(bounds), abs=1e-10)


def test_batches_beside_a_latent_of_all_data_need_to_know_how_many() -> None:
    """Else each batch counts the prior in full: a posterior of few data, without a word."""
    options: dict[str, Any] = {"max_steps": 2, "diagnostic_particles": 0, "progress": False}
    model, data = BayesianLogisticRegression(2), rows(9)
    with explained(PlateError, "plates of the data", "all the data", "4, the share", "num_data=N"):
        pyro_lvm.fit(model, Point(), data, ELBO(), batch_size=4, **options)
    pyro_lvm.fit(model, Point(), data, ELBO(), batch_size=None, **options)
    model.num_data = 9
    pyro_lvm.fit(model, Point(), data, ELBO(), batch_size=4, **options)
