"""Simulations of programs of every kind: exact guides pass, files go on, bad calls are told."""

from collections.abc import Callable

import pyro
import pyro.distributions as dist
import pytest
import torch
from explained import explained
from pyro.infer.autoguide import AutoNormal
from torch import Tensor

from pyro_lvm.diagnostics import Status, coverage, sbc, simulation_based_calibration, tarp
from pyro_lvm.diagnostics.simulations import Simulations
from pyro_lvm.diagnostics.simulations_rows import ranks
from pyro_lvm.distributions import Implicit
from pyro_lvm.errors import CheckpointError, NotAmortizedError, ProgramError, PyroLVMError
from pyro_lvm.guides import AmortizedNormal
from pyro_lvm.models import (
    VAE,
    BayesianLinearRegression,
    GaussianMixture,
    HiddenMarkov,
    LinearGaussianSSM,
)
from pyro_lvm.oracles import LinearGaussian

ORACLE = LinearGaussian(torch.tensor([[1.0, 0.5], [0.0, 1.0], [-1.0, 1.0]]), torch.ones(3))
X = torch.zeros(50, 3)


def linear_guide(made: Callable[[dist.MultivariateNormal], dist.TorchDistribution]):
    """The guide of ``ORACLE`` that ``made`` makes from the posterior."""

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", made(ORACLE.posterior(x)))

    return guide


def without_density(posterior: dist.MultivariateNormal) -> Implicit:
    return Implicit(posterior.rsample, event_dim=1)


def semi_implicit(x: Tensor) -> None:
    posterior = ORACLE.posterior(x)
    half = posterior.scale_tril / 2**0.5
    with pyro.plate("data", len(x)):
        mixing = dist.MultivariateNormal(posterior.loc, scale_tril=half)
        loc = pyro.sample("mixing", mixing, infer={"is_auxiliary": True})
        pyro.sample("z", dist.MultivariateNormal(loc, scale_tril=half))


def chain(x: Tensor) -> None:
    """A latent of all data, and one of each."""
    mean = pyro.sample("mean", dist.Normal(torch.zeros(()), 1.0))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(mean, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def chain_guide(x: Tensor, width: float = 1.0) -> None:
    precision = torch.tensor(1 + len(x) / 2)
    mean = pyro.sample("mean", dist.Normal(x.sum() / 2 / precision, precision**-0.5))
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal((mean + x) / 2, 0.5**0.5 * width))


def pairs(x: Tensor) -> None:
    """Two latents a datum in a plate inside the data's."""
    with pyro.plate("data", len(x), dim=-1), pyro.plate("place", 2, dim=-2):
        z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x.T)


def pairs_guide(x: Tensor) -> None:
    with pyro.plate("data", len(x), dim=-1), pyro.plate("place", 2, dim=-2):
        pyro.sample("z", dist.Normal(x.T / 2, 0.5**0.5))


def table_of_pairs(x: Tensor) -> None:
    """The same with a latent a datum, so that the places are inside the data."""
    with pyro.plate("data", len(x), dim=-1):
        shift = pyro.sample("shift", dist.Normal(torch.zeros(()), 1.0))
        with pyro.plate("place", 2, dim=-2):
            z = pyro.sample("z", dist.Normal(shift, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x.T)


def table_of_pairs_guide(x: Tensor) -> None:
    with pyro.plate("data", len(x), dim=-1):
        shift = pyro.sample("shift", dist.Normal(x.sum(-1) / 4, 0.5**0.5))
        with pyro.plate("place", 2, dim=-2):
            pyro.sample("z", dist.Normal((shift + x.T) / 2, 0.5**0.5))


def subsampled(x: Tensor) -> None:
    with pyro.plate("data", 100, subsample_size=len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def subsampled_guide(x: Tensor) -> None:
    with pyro.plate("data", 100, subsample_size=len(x)):
        pyro.sample("z", dist.Normal(x / 2, 0.5**0.5))


def summed_out(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        kind = pyro.sample(
            "kind", dist.Bernoulli(torch.tensor(0.3)), infer={"enumerate": "parallel"}
        )
        pyro.sample("x", dist.Normal(2 * kind, 1.0), obs=x)


def nothing(x: Tensor) -> None:
    """The guide of a model whose latents are all summed out."""


REGRESSION = BayesianLinearRegression(in_features=2, concentration=3.0)
COVARIATES = torch.stack([torch.ones(10), torch.linspace(-1, 1, 10)], 1)
MIXTURE = GaussianMixture(2, 3)
MARKOV = HiddenMarkov(2)
SPACE = LinearGaussianSSM(2, 1)

EXACT = {
    "local": (ORACLE.model, ORACLE.exact_guide, X),
    "implicit": (ORACLE.model, linear_guide(without_density), X),
    "semi-implicit": (ORACLE.model, semi_implicit, X),
    "global": (REGRESSION, REGRESSION.exact_guide, COVARIATES, torch.zeros(10)),
    "global and local": (chain, chain_guide, torch.zeros(5)),
    "plates all share": (pairs, pairs_guide, torch.zeros(20, 2)),
    "inner plate": (table_of_pairs, table_of_pairs_guide, torch.zeros(40, 2)),
    "subsampled": (subsampled, subsampled_guide, torch.zeros(30)),
    "discrete": (MIXTURE, MIXTURE.exact_guide, torch.zeros(50, 2)),
    "discrete in time": (MARKOV, MARKOV.exact_guide, torch.zeros(50, 4, 2)),
    "real in time": (SPACE, SPACE.exact_guide, torch.zeros(50, 4, 2)),
    "summed out": (summed_out, nothing, torch.zeros(50)),
}


@pytest.mark.parametrize("case", EXACT)
def test_exact_guides_pass(case) -> None:
    """Each of three checks may be wrong at 0.001."""
    simulations = simulation_based_calibration(*EXACT[case], num_simulations=200, seed=0)
    assert simulations.num_simulations >= 200
    for check in (sbc, coverage, tarp):
        assert check(simulations).curves.adjusted.min() > 0.001, check.__name__


def test_what_is_ranked() -> None:
    found = simulation_based_calibration(*EXACT["global and local"], num_simulations=3)
    assert {name: ranks.shape for name, ranks in found.ranks.items()} == {"mean": (3,), "z": (3,)}
    assert [*found.quantities] == ["log p(x | z)", "log p(x, z)", "log q(z | x)", "distance"]
    found = simulation_based_calibration(*EXACT["inner plate"], num_simulations=41)
    assert {n: r.shape for n, r in found.ranks.items()} == {"shift": (80,), "z": (80,)}
    found = simulation_based_calibration(*EXACT["real in time"], num_simulations=50, num_draws=7)
    assert found.ranks["z"].shape == (50, 4, 1)
    assert found.scalars()[0] == ("z[0, 0]", "z[1, 0]", "z[2, 0]", "z[3, 0]")
    assert found.ranks["z"].max() == 7
    assert found.ranks["z"].min() == 0


@pytest.mark.parametrize(
    ("case", "missing"),
    [
        ("implicit", {"log q(z | x)"}),
        ("semi-implicit", {"log q(z | x)"}),
        ("summed out", {"log q(z | x)"}),
    ],
)
def test_densities_that_do_not_exist_are_left_out(case, missing) -> None:
    found = simulation_based_calibration(*EXACT[case], num_simulations=50)
    assert missing.isdisjoint(found.quantities)
    assert "log p(x | z)" in found.quantities
    assert "log q(z | x)" not in coverage(found).curves.labels


@pytest.mark.parametrize("chunk_size", [1, 7, 40])
def test_chunks_change_no_rule(chunk_size) -> None:
    found = simulation_based_calibration(
        *EXACT["local"], num_simulations=200, num_draws=40, chunk_size=chunk_size, seed=1
    )
    assert sbc(found).curves.adjusted.min() > 0.001
    assert coverage(found).curves.adjusted.min() > 0.001


def test_one_site_of_many_data_is_caught_beside_a_global_one() -> None:
    found = simulation_based_calibration(
        chain, lambda x: chain_guide(x, width=0.4), torch.zeros(5), num_simulations=100, seed=0
    )
    assert "z" in sbc(found).curves.off
    assert "mean" not in sbc(found).curves.off


def test_quantities_of_the_user_are_ranked() -> None:
    """A guide with the right margins and no correlation: the product of two latents is off."""
    margins = linear_guide(lambda p: dist.Normal(p.loc, p.variance.sqrt()).to_event(1))
    found = simulation_based_calibration(
        ORACLE.model,
        margins,
        X,
        num_simulations=2000,
        quantities={
            "product": lambda z, x: (z["z"] - ORACLE.posterior(x["x"]).loc).prod(-1),
        },
        seed=0,
    )
    off = sbc(found).curves.off
    assert "product" in off
    assert not {"z[0]", "z[1]"} & set(off)


def test_seeds_make_simulations_repeatable_and_leave_the_rest_alone() -> None:
    before = torch.get_rng_state()
    first = simulation_based_calibration(*EXACT["local"], num_simulations=50, seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    assert first.equals(simulation_based_calibration(*EXACT["local"], num_simulations=50, seed=3))
    other = simulation_based_calibration(*EXACT["local"], num_simulations=50, seed=4)
    assert not first.equals(other)


class Interrupted(Exception):
    """What stops a run in a test."""


def test_a_run_goes_on_where_it_was_interrupted(tmp_path) -> None:
    """To the same ranks as without; the data sets that were done are not made again."""
    made = 0

    def counted(x: Tensor) -> None:
        nonlocal made
        made += 1
        if made == 40:
            raise Interrupted
        chain(x)

    path = tmp_path / "kept" / "simulations.pt"
    call = (chain_guide, torch.zeros(5))
    whole = simulation_based_calibration(chain, *call, num_simulations=20, seed=5)
    with pytest.raises(Interrupted):
        simulation_based_calibration(counted, *call, num_simulations=20, seed=5, path=path)
    assert path.exists()
    before = made
    found = simulation_based_calibration(counted, *call, num_simulations=20, path=path)
    assert found.equals(whole)
    assert made - before < 70  # 3 runs of the model a data set, and some to look at it
    again = simulation_based_calibration(counted, *call, num_simulations=7, path=path)
    assert again.equals(whole.first(7))


def test_a_file_of_another_call_is_refused(tmp_path) -> None:
    path = tmp_path / "simulations.pt"
    call = (chain_guide, torch.zeros(5))
    simulation_based_calibration(chain, *call, num_simulations=3, seed=0, path=path)
    parts = (CheckpointError, str(path), "of this call")
    with explained(*parts, "seed 0, not 1", "another path"):
        simulation_based_calibration(chain, *call, num_simulations=3, seed=1, path=path)
    with explained(*parts, "another model, guide", "another path"):
        simulation_based_calibration(
            chain, lambda x: chain_guide(x, 2.0), torch.zeros(5), num_simulations=4, path=path
        )


def test_simulations_of_two_processes_are_joined() -> None:
    parts = [
        simulation_based_calibration(*EXACT["local"], num_simulations=50, seed=seed)
        for seed in range(2)
    ]
    both = Simulations.joined(parts)
    assert both.num_simulations == 100
    assert torch.equal(both.ranks["z"][50:], parts[1].ranks["z"])


def test_the_data_set_of_probabilities() -> None:
    found = simulation_based_calibration(*EXACT["local"], num_simulations=50)
    dataset = found.to_dataset()
    assert dict(dataset.sizes) == {"chain": 1, "draw": 50, "z_dim_0": 2}
    exact = (found.ranks["z"].double() + 0.5) / 100
    torch.testing.assert_close(torch.from_numpy(dataset["z"].values[0]), exact)


def factored(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
        pyro.factor("likelihood", -((z - x) ** 2))


def standardised(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x - 1.0)


def plain_guide(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal((x - 1) / 2, 0.5**0.5))


def test_data_that_cannot_be_simulated() -> None:
    with explained(ProgramError, "'likelihood'", "can be drawn", "a factor", "pareto_khat"):
        simulation_based_calibration(factored, plain_guide, torch.zeros(5))
    with explained(ProgramError, "site 'x'", "an argument", "(5,)", "arguments="):
        simulation_based_calibration(standardised, plain_guide, torch.zeros(5))


def test_models_without_data_are_refused() -> None:
    with explained(ProgramError, "model", "one observed site", "none", "obs="):
        simulation_based_calibration(plain_guide, plain_guide, torch.zeros(5))


def test_quantities_of_the_wrong_shape() -> None:
    with explained(ProgramError, "'whole'", "(100, 50)", "(100, 50, 2)", "event dims"):
        simulation_based_calibration(*EXACT["local"], quantities={"whole": lambda z, x: z["z"]})


def test_guides_of_one_data_set_are_refused() -> None:
    with explained(NotAmortizedError, "guide", "reads the data", "AutoNormal", "amortized guide"):
        simulation_based_calibration(chain, AutoNormal(chain), torch.zeros(5))


def test_ties_are_broken_at_random_and_rounding_ties() -> None:
    """Of 5 draws equal to the truth up to rounding, all 6 ranks are as likely."""
    values = torch.full((6, 3000), 784.0)
    values[1:] *= 1 + torch.finfo(values.dtype).eps * torch.randint(-1, 2, (5, 3000))
    shares = torch.bincount(ranks(values, rounding=2), minlength=6) / 3000
    assert ((shares - 1 / 6).abs() < 4 * (5 / 36 / 3000) ** 0.5).all()
    assert set(ranks(torch.tensor([[1.0], [0.5], [2.0], [0.9]])).tolist()) == {2}
    assert ranks(torch.tensor([[1e6], [1e6 - 1], [1e6 + 1], [1e6 - 2]])).item() == 2
    assert 0 <= ranks(torch.tensor([[True], [False], [True]])).item() - 1 <= 1


def test_arguments_made_from_simulated_data() -> None:
    found = simulation_based_calibration(
        standardised,
        plain_guide,
        torch.zeros(100),
        num_simulations=300,
        arguments=lambda data: data["x"] + 1.0,
        seed=0,
    )
    assert sbc(found).curves.adjusted.min() > 0.001


@pytest.mark.parametrize("argument", ["num_simulations", "num_draws"])
def test_counts_below_one(argument) -> None:
    with pytest.raises(PyroLVMError, match="expected an integer >= 1, got 0"):
        simulation_based_calibration(*EXACT["local"], **{argument: 0})


def test_a_network_of_real_size() -> None:
    """An untrained guide of 16 latents fails, and says of which site."""
    model, guide = (
        VAE(in_features=64, latent_features=16),
        AmortizedNormal(in_features=64, latent_features=16),
    )
    found = simulation_based_calibration(
        model, guide, torch.zeros(128, 64), num_simulations=256, seed=0
    )
    assert found.ranks["z"].shape == (256, 16)
    assert sbc(found).verdict().status == Status.FAIL
