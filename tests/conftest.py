"""What every test gets (a seed, Pyro's checks, an empty parameter store) and what many share."""

import os
import warnings
from collections.abc import Iterator

os.environ.setdefault("MPLBACKEND", "Agg")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import arviz  # noqa: F401  # writes a file on its first import of a day: here, before workers race

import pyro
import pytest
import simulated_device
import torch
from devices import make_tensors_on, train_on

from pyro_lvm.oracles import LinearGaussian


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--device",
        default="cpu",
        help="device on which tests make their tensors; 'second' is a simulated one",
    )


def pytest_configure(config: pytest.Config) -> None:
    torch.set_num_threads(1)
    name = config.getoption("--device")
    if name == simulated_device.NAME:
        simulated_device.register()
    make_tensors_on(name)  # those of test modules too, as they are imported
    train_on(name)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Tests that are not for the device asked for are skipped, with the reason they give."""
    name = item.config.getoption("--device")
    refused = {"cpu": [], simulated_device.NAME: ["cpu_only", "not_simulated"]}
    for marker in refused.get(name, ["cpu_only"]):
        for found in item.iter_markers(marker):
            pytest.skip(found.kwargs["reason"])


@pytest.fixture(autouse=True)
def fresh_state(device: torch.device) -> Iterator[None]:
    """The same start for each test, whatever ran before it, on the device asked for."""
    dtype, where = torch.get_default_dtype(), str(torch.get_default_device())
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    with pyro.settings.context(module_local_params=False), pyro.validation_enabled():
        yield
    torch.set_default_dtype(dtype)
    make_tensors_on(where)
    train_on(str(device))


@pytest.fixture(scope="module")
def no_default_device(device: torch.device) -> Iterator[None]:
    """As in a process of the command line's, which tells none but Lightning of its device."""
    make_tensors_on("cpu")
    yield
    make_tensors_on(str(device))


@pytest.fixture
def float64() -> Iterator[torch.dtype]:
    """Double precision by default, for tests that compare numbers."""
    previous = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield torch.float64
    torch.set_default_dtype(previous)


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> torch.device:
    """The device asked for by ``--device``."""
    return torch.device(request.config.getoption("--device"))


@pytest.fixture
def oracle(float64: torch.dtype) -> LinearGaussian:
    """A model of four numbers and two latents, of which everything is known."""
    return LinearGaussian(torch.randn(4, 2), torch.tensor([0.8, 1.0, 1.2, 0.9]))
