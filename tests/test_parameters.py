"""Modules run without stating their parameters mean the same, and state them to who listens."""

from collections.abc import Callable, Iterator

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.distributions import constraints
from pyro.infer.autoguide import AutoNormal
from pyro.nn import PyroModule, PyroParam, PyroSample
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn

from pyro_lvm.errors import MixingError
from pyro_lvm.objective import Objective
from pyro_lvm.objectives import ELBO, IWAE

X = torch.linspace(-1.0, 1.0, 12).reshape(4, 3)


class Model(PyroModule):
    """A decoder, and a scale of the noise that a subclass gives."""

    def __init__(self) -> None:
        super().__init__()
        self.decoder = nn.Linear(2, 3)

    def noise(self) -> Tensor:
        return torch.ones(())

    def forward(self, x: Tensor) -> None:
        noise = self.noise()
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.decoder(z), noise).to_event(1), obs=x)


class WithParameter(Model):
    def __init__(self) -> None:
        super().__init__()
        self.scale = PyroParam(torch.tensor(0.5), constraints.positive)

    def noise(self) -> Tensor:
        scale: Tensor = self.scale
        return scale


class WithStatement(Model):
    def noise(self) -> Tensor:
        scale: Tensor = pyro.param("scale", torch.tensor(0.5), constraints.positive)
        return scale


class WithInnerModule(Model):
    def __init__(self) -> None:
        super().__init__()
        self.decoder = PyroModule[nn.Linear](2, 3)


class Guide(PyroModule):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.encoder(x), 0.3).to_event(1))


class Listener(Messenger):
    """Hears every statement of a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def _pyro_param(self, msg: dict[str, str]) -> None:
        self.names.append(msg["name"])


@pytest.fixture(autouse=True)
def without_checks() -> Iterator[None]:
    with pyro.settings.context(module_local_params=True), pyro.validation_enabled(False):
        yield


def loss_and_gradients(model: PyroModule, guide: PyroModule) -> tuple[Tensor, list[Tensor]]:
    pyro.set_rng_seed(0)
    loss = ELBO(num_particles=3).differentiable_loss(model, guide, X)
    parameters = [*model.parameters(), *guide.parameters()]
    return loss, list(torch.autograd.grad(loss, parameters))


@pytest.mark.parametrize("build", [Model, WithParameter, WithStatement, WithInnerModule])
def test_nothing_changes_where_nobody_listens(build: Callable[[], Model]) -> None:
    model, guide = build(), Guide()
    quiet, quiet_gradients = loss_and_gradients(model, guide)
    with Listener() as listener:
        stated, stated_gradients = loss_and_gradients(model, guide)
    assert any("encoder" in name for name in listener.names)
    assert torch.equal(quiet, stated)
    assert all(map(torch.equal, quiet_gradients, stated_gradients))


def test_nothing_is_stated_where_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    stated: list[str] = []
    effectful = pyro.poutine.runtime.effectful

    def counted(*args: object, **kwargs: object) -> object:
        stated.append("param")
        return effectful(*args, **kwargs)  # type: ignore[call-overload]

    monkeypatch.setattr(pyro.poutine.runtime, "effectful", counted)
    loss_and_gradients(Model(), Guide())
    assert not stated
    with pyro.validation_enabled():
        loss_and_gradients(Model(), Guide())
    assert stated


def test_a_statement_of_the_users_stays_in_the_scope_of_its_module() -> None:
    model = WithStatement()
    loss_and_gradients(model, Guide())
    assert "scale" in model._pyro_context.param_state["params"]
    assert "scale" not in pyro.get_param_store()


def test_random_attributes_are_drawn_once_a_call() -> None:
    class Random(Model):
        def __init__(self) -> None:
            super().__init__()
            self.scale = PyroSample(dist.Uniform(0.5, 1.5))

        def noise(self) -> Tensor:
            first, again = self.scale, self.scale
            assert torch.equal(first, again)
            scale: Tensor = first.unsqueeze(-1)
            return scale

    model = Random()
    assert torch.isfinite(loss_and_gradients(model, AutoNormal(model))[0])


def test_parameters_of_a_plate_are_subsampled() -> None:
    class PerDatum(PyroModule):
        def __init__(self) -> None:
            super().__init__()
            self.loc = PyroParam(torch.arange(8.0).reshape(4, 2), event_dim=1)

        def forward(self, x: Tensor) -> None:
            with pyro.plate("data", 4, subsample=torch.tensor([3, 1])):
                pyro.sample("z", dist.Normal(self.loc, 1e-6).to_event(1))

    def model(x: Tensor) -> None:
        with pyro.plate("data", 4, subsample=torch.tensor([3, 1])):
            pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))

    values = ELBO().particles(model, PerDatum(), X).values["z"]
    torch.testing.assert_close(values[0], torch.tensor([[6.0, 7.0], [2.0, 3.0]]), atol=1e-4, rtol=0)


@pytest.mark.parametrize("objective", [ELBO(), ELBO(gradient="stl"), IWAE(3, "dreg")], ids=repr)
def test_a_factor_of_the_guide_keeps_its_gradient(objective: Objective) -> None:
    """It is a term of the loss that its author wrote, not the density of a draw."""
    penalty = torch.tensor(0.7, requires_grad=True)

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 2, 0.5**0.5))
            pyro.factor("penalty", 2.0 * penalty, has_rsample=True)

    loss = objective.differentiable_loss(model, guide, X[:, 0])
    (slope,) = torch.autograd.grad(loss, penalty)
    torch.testing.assert_close(slope, torch.tensor(2.0 * len(X)))


def test_a_mixing_variable_is_refused_without_checks_too() -> None:
    """What it would report is no bound: Pyro's validation does not switch that off."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            noise = dist.Normal(torch.zeros(len(x)), 1.0)
            psi = pyro.sample("psi", noise, infer={"is_auxiliary": True})
            pyro.sample("z", dist.Normal(psi, 0.5))

    with pytest.raises(MixingError, match="auxiliary site 'psi'"):
        ELBO(max_plate_nesting=1).loss(model, guide, X[:, 0])
