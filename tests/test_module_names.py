"""Networks of one name in model and guide, and modules left in Pyro's store by earlier ones."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from explained import explained
from pyro.infer import SVI, Trace_ELBO
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_lvm import fit
from pyro_lvm.errors import ParameterError
from pyro_lvm.objectives import IWAE

X = torch.linspace(-1.0, 1.0, 24).reshape(8, 3)


class Model(PyroModule):
    def __init__(self, features: int = 2) -> None:
        super().__init__()
        self.net = nn.Linear(features, 3)
        self.features = features

    def forward(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(self.features), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.net(z), 1.0).to_event(1), obs=x)


class Guide(PyroModule):
    """Its network has the name of the model's, and another use."""

    def __init__(self, features: int = 2) -> None:
        super().__init__()
        self.net = nn.Linear(3, features)

    def forward(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.net(x), 0.5).to_event(1))


@pytest.mark.parametrize("features", [2, 3])
def test_modules_have_their_own_under_a_torch_optimiser(features: int) -> None:
    """Whether their shapes are equal or not, and whatever the store holds."""
    for _ in range(2):
        model, guide = Model(features), Guide(features)
        IWAE(3)(model, guide)(X).backward()
        assert all(p.grad is not None for p in [*model.parameters(), *guide.parameters()])
    fit(model, guide, X, IWAE(3), max_steps=1)


@pytest.mark.parametrize("features", [2, 3])
def test_svi_would_train_one_for_both(features: int) -> None:
    model, guide, adam = Model(features), Guide(features), pyro.optim.Adam({"lr": 0.1})
    before = model.net.weight.clone()
    SVI(model, guide, adam, Trace_ELBO()).step(X)
    assert torch.equal(model.net.weight, before)
    with explained(ParameterError, "'net$$$weight'", "in use", "another module", "different names"):
        SVI(model, guide, adam, IWAE(2, "dreg")).step(X)


def test_svi_would_train_what_the_store_has() -> None:
    """A second run of a script's cell: a new module, and the old one's parameters."""

    class Other(Guide):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.net = self.net, None

        def forward(self, x: Tensor) -> None:
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(self.encoder(x), 0.5).to_event(1))

    def run() -> None:
        SVI(Model(), Other(), pyro.optim.Adam({"lr": 0.1}), IWAE(2)).step(X)

    run()
    with explained(ParameterError, "'encoder$$$weight'", "in use", "another", "clear_param_store"):
        run()
    pyro.clear_param_store()
    run()


def test_a_parameter_of_a_site_s_name() -> None:
    """Pyro's traces hold one thing of a name; nothing here needs them to."""

    class Mean(PyroModule):
        def __init__(self) -> None:
            super().__init__()
            self.z = nn.Parameter(torch.zeros(2))

        def forward(self, x: Tensor) -> None:
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(self.z, 1.0).to_event(1))

    guide = Mean()
    fit(Model(), guide, X, IWAE(2), max_steps=3)
    assert (guide.z != 0).all()
