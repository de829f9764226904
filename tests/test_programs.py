"""Pyro's idioms under our objectives: dtypes, kinds of program, SVI and torch optimisers."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from conjugate_programs import X, log_evidence
from pyro import poutine
from pyro.infer import SVI
from pyro.nn import PyroModule, PyroParam
from torch import Tensor

from pyro_lvm.errors import ParameterError
from pyro_lvm.objectives import ELBO, IWAE

pytestmark = pytest.mark.usefixtures("float64")


# Data types.

CODED: dict[str, tuple[Callable[[Tensor], Any], torch.dtype]] = {
    "int64 Poisson": (lambda z: dist.Poisson(z.exp()), torch.int64),
    "int32 Poisson": (lambda z: dist.Poisson(z.exp()), torch.int32),
    "int64 Categorical": (
        lambda z: dist.Categorical(logits=torch.stack([z, -z, 0 * z], -1)),
        torch.int64,
    ),
    "float32 Bernoulli": (lambda z: dist.Bernoulli(logits=z), torch.float32),
    "bool Bernoulli": (lambda z: dist.Bernoulli(logits=z), torch.bool),
    "int64 Bernoulli": (lambda z: dist.Bernoulli(logits=z), torch.int64),
    "float32 Normal": (lambda z: dist.Normal(z, 1.0), torch.float32),
    "int64 Normal": (lambda z: dist.Normal(z, 1.0), torch.int64),
}


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("kind", CODED)
def test_data_of_any_dtype(kind: str, masked: bool) -> None:
    """As the same data in float64, masked or not; parameters stay what they are."""
    make, dtype = CODED[kind]

    def coded_model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            with poutine.mask(mask=torch.tensor([True, False, True]) if masked else True):
                pyro.sample("x", make(z), obs=x)

    def blind_guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.tensor(0.3), 1.0))

    x = torch.tensor([0, 1, 1])
    losses = []
    for data in (x.to(dtype), x.to(torch.float64)):
        pyro.set_rng_seed(3)
        losses.append(IWAE(4).loss_and_grads(coded_model, blind_guide, data))
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


# Kinds of program.


class Model(PyroModule):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.bias = PyroParam(torch.tensor(0.0))

    def forward(self, x: Tensor, noise: float = 1.0) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            pyro.sample("x", dist.Normal(z + self.bias, noise), obs=x)


class Guide(PyroModule):  # type: ignore[misc]
    """The posterior family of :class:`Model`, away from the posterior at the start."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = torch.nn.Parameter(torch.tensor(0.1))
        self.scale = PyroParam(torch.tensor(0.3), dist.constraints.positive)

    def forward(self, x: Tensor, noise: float = 1.0) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.slope * x, self.scale))


class Methods:
    def model(self, x: Tensor, noise: float = 1.0) -> None:
        Model()(x, noise)

    def guide(self, x: Tensor, noise: float = 1.0) -> None:
        Guide()(x, noise)


PROGRAMS: dict[str, Callable[[], tuple[Any, Any]]] = {
    "modules": lambda: (Model(), Guide()),
    "bound methods": lambda: (Methods().model, Methods().guide),
    "partials": lambda: (partial(Model(), noise=1.0), partial(Guide(), noise=1.0)),
    "lambdas": lambda: (lambda x, **kw: Model()(x, **kw), lambda x, **kw: Guide()(x, **kw)),
}


@pytest.mark.parametrize("kind", PROGRAMS)
def test_kinds_of_program(kind: str) -> None:
    losses = []
    for programs in (PROGRAMS["modules"](), PROGRAMS[kind]()):
        pyro.clear_param_store()
        pyro.set_rng_seed(4)
        losses.append(IWAE(5).loss_and_grads(*programs, X, noise=1.0))
    assert losses[0] == losses[1]


def test_keyword_arguments() -> None:
    by_position = IWAE(5, max_plate_nesting=1)
    pyro.set_rng_seed(0)
    expected = by_position.bound(Model(), Guide(), X, 0.5)
    pyro.set_rng_seed(0)
    torch.testing.assert_close(by_position.bound(Model(), Guide(), x=X, noise=0.5), expected)


# Training.


def assert_learned(guide: Guide) -> None:
    """The posterior of z is N(x / 2, 1 / 2); over seeds Adam ends with a deviation of 0.015."""
    assert abs(guide.slope.item() - 0.5) < 4 * 0.015
    assert abs(guide.scale.item() - 0.5**0.5) < 4 * 0.015


OBJECTIVES = {
    "elbo-stl": lambda: ELBO(4, "stl"),
    "iwae-dreg": lambda: IWAE(4, "dreg"),
    "iwae-reparam": lambda: IWAE(2),
}


class FixedModel(Model):
    def __init__(self) -> None:
        super().__init__()
        self.bias = torch.tensor(0.0)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_svi_learns_a_conjugate_posterior(name: str) -> None:
    x, guide = 2**0.5 * torch.randn(64), Guide()
    svi = SVI(
        FixedModel(), guide, pyro.optim.ClippedAdam({"lr": 0.05, "lrd": 0.99}), OBJECTIVES[name]()
    )
    losses = [svi.step(x) for _ in range(250)]
    assert_learned(guide)
    exact = -log_evidence(x).sum()
    assert losses[0] > losses[-1]
    assert svi.evaluate_loss(x) == pytest.approx(exact.item(), rel=0.02)


@pytest.mark.parametrize("is_local", [False, True])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_torch_optimiser_learns_a_conjugate_posterior(name: str, is_local: bool) -> None:
    with pyro.settings.context(module_local_params=is_local):
        x, guide = 2**0.5 * torch.randn(64), Guide()
        loss = OBJECTIVES[name]()(FixedModel(), guide)
        optimiser = torch.optim.Adam(loss.parameters(), lr=0.05)
        schedule = torch.optim.lr_scheduler.ExponentialLR(optimiser, 0.99)
        for _ in range(250):
            optimiser.zero_grad()
            loss(x).backward()
            optimiser.step()
            schedule.step()
        assert_learned(guide)
        assert (len(pyro.get_param_store()) == 0) == is_local


def test_svi_refuses_module_local_parameters() -> None:
    with pyro.settings.context(module_local_params=True):
        svi = SVI(Model(), Guide(), pyro.optim.Adam({"lr": 0.1}), IWAE(2))
        with pytest.raises(ParameterError, match=r"(?s)is on.*pyro_lvm\.fit"):
            svi.step(X)
