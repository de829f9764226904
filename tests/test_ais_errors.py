"""What annealing refuses, and how it says so."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from annealed import FROM_GUIDE, ais, gamma_poisson, two_levels
from explained import explained
from torch import Tensor, nn

from pyro_lvm.diagnostics import AIS, log_evidence
from pyro_lvm.distributions.implicit import Implicit
from pyro_lvm.errors import DataError, DensityError, PlateError, ProgramError, PyroLVMError

pytestmark = pytest.mark.usefixtures("float64")


@pytest.fixture
def x(float64: torch.dtype) -> Tensor:
    return torch.randn(12, 4)


def test_arguments() -> None:
    with explained(PyroLVMError, "num_temperatures", "an integer >= 1", "0", "num_temperatures"):
        AIS(num_temperatures=0)
    with explained(PyroLVMError, "num_leapfrog", "an integer >= 1", "1.5", "num_leapfrog"):
        AIS(num_leapfrog=1.5)  # type: ignore[arg-type]
    with explained(PyroLVMError, "initial", "'prior' or 'guide'", "'posterior'", "initial='prior'"):
        AIS(initial="posterior")
    with explained(PyroLVMError, "guide", "one for method='iwae'", "None", "method='ais'"):
        log_evidence(two_levels, None, torch.zeros(2))
    with explained(PyroLVMError, "guide", "a guide", "None", "initial='prior'"):
        log_evidence(two_levels, None, torch.zeros(2), method=FROM_GUIDE)
    for name in ("num_samples", "chunk_size"):
        with explained(PyroLVMError, name, "an integer >= 1", "0", name):
            log_evidence(two_levels, None, torch.zeros(2), method="ais", **{name: 0})


def test_guides_that_start_nowhere() -> None:
    def point(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("rate", dist.Delta(torch.ones(len(x))))

    counts = torch.tensor([1.0, 2.0])
    with explained(PyroLVMError, "start", "draws that differ", "a point mass", "initial='prior'"):
        ais(gamma_poisson, counts, guide=point, options=FROM_GUIDE)

    def of_another(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", Implicit(lambda shape: torch.randn(*shape, len(x))))

    with pytest.raises(ProgramError, match="rate"):
        ais(gamma_poisson, counts, guide=of_another, options=FROM_GUIDE)


def test_latents_that_cannot_move(x: Tensor) -> None:
    def only_data(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(torch.zeros(4), 1.0).to_event(1), obs=x)

    with explained(ProgramError, "model", "a continuous latent", "none", "method='iwae'"):
        ais(only_data, x)

    def discrete(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Bernoulli(0.5))
            pyro.sample("x", dist.Normal(c, 1.0), obs=x)

    with explained(ProgramError, "site 'c'", "continuous", "Bernoulli", "'enumerate': 'parallel'"):
        ais(discrete, x[:, 0])

    def implicit(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", Implicit(lambda shape: torch.randn(*shape, len(x))))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    with explained(DensityError, "site 'z'", "a prior with a density", "Implicit", "objective="):
        ais(implicit, x[:, 0])


def test_a_minibatch_beside_a_global_latent() -> None:
    def model() -> None:
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
        with pyro.plate("data", 10, subsample_size=2):
            pyro.sample("x", dist.Normal(w, 1.0), obs=torch.zeros(2))

    with explained(PlateError, "plate 'data'", "inside it", "a latent outside it", "full data"):
        ais(model)


def test_densities_that_change() -> None:
    dropout = nn.Dropout(0.5)

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(dropout(z).sum(-1), 1.0), obs=x)

    with explained(ProgramError, "model", "one density", "another one", "model.eval()"):
        ais(model, torch.zeros(4))


def test_data_that_are_not_numbers() -> None:
    with pytest.raises(DataError, match="NaN"):
        ais(two_levels, torch.tensor([0.0, torch.nan]))
