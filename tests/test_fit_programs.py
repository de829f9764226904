"""The programs that ``fit`` trains, and those it refuses."""

from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoDiagonalNormal, AutoMultivariateNormal, AutoNormal
from torch import Tensor, nn
from training_job import FEATURES, Guide, data, programs, train

from pyro_lvm.errors import ParameterError, PlateError
from pyro_lvm.objectives import ELBO
from pyro_lvm.training.loader import Batch
from pyro_lvm.training.programs import Programs
from pyro_lvm.training.settings import check_covered


def model_function(x: Tensor) -> None:
    loc = pyro.param("loc", torch.zeros(FEATURES))
    scale = pyro.param("scale", torch.ones(FEATURES), constraint=dist.constraints.positive)
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(FEATURES), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(loc + z, scale).to_event(1), obs=x)


class Pair(nn.Module):
    """Pyro's old style: two methods that register their networks by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(FEATURES, FEATURES)

    def model(self, x: Tensor) -> None:
        model_function(x)

    def guide(self, x: Tensor) -> None:
        pyro.module("encoder", self.encoder)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.encoder(x), 1.0).to_event(1))


def test_functions_and_methods_train() -> None:
    pair = Pair()
    before = pair.encoder.weight.detach().clone()
    result = train(pair.model, pair.guide)
    assert set(pyro.get_param_store()) >= {"loc", "scale"}
    assert not torch.equal(pyro.param("loc"), torch.zeros(FEATURES))
    assert not torch.equal(pyro.param("scale"), torch.ones(FEATURES))
    assert not torch.equal(pair.encoder.weight, before)
    assert result.history["loss"][-1] < result.history["loss"][0]  # type: ignore[operator]


def test_modules_built_with_local_parameters_off_or_on_train_alike() -> None:
    off = train(*programs())
    with pyro.settings.context(module_local_params=True):
        on = train(*programs())
    assert off.history == on.history
    assert not pyro.get_param_store(), "module parameters stay out of the store"


def local_model(x: Tensor) -> None:
    mean = pyro.sample("mean", dist.Normal(0.0, 10.0))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(mean, 1.0))
        pyro.sample("x", dist.Normal(z, 0.5), obs=x)


@pytest.mark.parametrize(
    ("kind", "called_before"),
    [(AutoNormal, False), (AutoDiagonalNormal, True), (AutoMultivariateNormal, False)],
)
def test_autoguides_train(kind: Any, called_before: bool) -> None:
    guide = kind(local_model)
    x = torch.linspace(1, 3, 8)
    if called_before:
        guide(x)
    options = {"batch_size": None, "max_steps": 300, "lr": 0.1, "lr_scheduler": "cosine"}
    result = train(local_model, guide, x, objective=ELBO(20), **options)
    assert result.history["loss"][-1] < result.history["loss"][0]  # type: ignore[operator]
    median = guide.median(x)
    precision = len(x) / (1.0**2 + 0.5**2)
    exact, deviation = 2.0 * precision / (precision + 0.01), (precision + 0.01) ** -0.5
    assert abs(median["mean"].item() - exact) < 0.1 * deviation  # over seeds 0.03 of it
    assert (median["z"].diff() > 0).all(), "each row's own parameter found its row"


# Refusals.


def test_nothing_to_train() -> None:
    def program(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.0, 1.0))

    with pytest.raises(ParameterError, match="at least one trainable parameter"):
        train(program, program)


@pytest.mark.parametrize("shape", [(), (FEATURES + 1,)])
def test_stale_parameter_of_another_shape(shape: tuple[int, ...]) -> None:
    pyro.param("loc", torch.zeros(shape))
    with pytest.raises(ParameterError, match=r"'loc': expected shape \(4,\)") as error:
        train(model_function, Pair().guide)
    assert f"got {shape}" in str(error.value)
    assert "pyro.clear_param_store()" in str(error.value)


def test_stale_module_in_the_store() -> None:
    train(model_function, Pair().guide)
    with pytest.raises(ParameterError, match=r"encoder.*another module"):
        train(model_function, Pair().guide)


def test_parameters_of_the_store_inside_a_pyro_module() -> None:
    class Mixed(Guide):
        def forward(self, x: Tensor) -> None:
            pyro.param("inside", torch.tensor(0.0))
            super().forward(x)

    with pytest.raises(ParameterError, match="PyroParam"):
        train(programs()[0], Mixed())


def test_several_processes_need_modules() -> None:
    model, guide = programs()
    check_covered(ELBO()(model, guide), [*model.parameters(), *guide.parameters()], 2)
    outside = torch.zeros(3, requires_grad=True)
    with pytest.raises(ParameterError, match="1 parameters in Pyro's store"):
        check_covered(ELBO()(model, guide), [outside], 2)
    check_covered(ELBO()(model, guide), [outside], 1)


def test_random_subsampling_is_refused_in_several_processes() -> None:
    def subsampled(x: Tensor) -> None:
        with pyro.plate("data", len(x), subsample_size=5) as rows:
            pyro.sample("z", dist.Normal(pyro.param("a", torch.tensor(0.0)), 1.0))
            assert len(rows) == 5

    batch = Batch.of(data())
    Programs(subsampled, subsampled).discover(batch)
    with pytest.raises(PlateError, match=r"plate 'data'.*5 from 40.*\n.*subsample="):
        Programs(subsampled, subsampled).discover(batch, refuse_subsampling=True)
    Programs(*programs(num_data=100)).discover(batch, refuse_subsampling=True)
