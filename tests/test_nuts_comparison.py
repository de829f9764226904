"""A guide beside NUTS, where the posterior is known."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from pyro_lvm.diagnostics import NutsComparison, compare_with_nuts, plot_nuts_comparison
from pyro_lvm.diagnostics.nuts_differences import Difference, compared
from pyro_lvm.diagnostics.verdict import Status
from pyro_lvm.errors import ProgramError, PyroLVMError

pytestmark = pytest.mark.usefixtures("float64")

X = torch.tensor([1.0, -0.5])


def model(x: Tensor, size: int = 2) -> None:
    with pyro.plate("data", size, subsample=torch.arange(len(x))):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def guide_off(shift: float, factor: float) -> Callable[..., None]:
    """The posterior N(x / 2, 1 / 2), off by these."""

    def guide(x: Tensor, size: int = 2) -> None:
        with pyro.plate("data", size, subsample=torch.arange(len(x))):
            pyro.sample("z", dist.Normal(x / 2 + shift, factor * 0.5**0.5))

    return guide


@pytest.mark.parametrize(
    ("shift", "factor", "status"),
    [
        pytest.param(0.0, 1.0, Status.PASS, marks=pytest.mark.slow),
        pytest.param(0.25, 1.0, Status.WARN, marks=pytest.mark.slow),
        (0.0, 0.3, Status.FAIL),
    ],
)
def test_differences_are_those_known(shift: float, factor: float, status: Status) -> None:
    """As a minibatch of 10: the posterior of a datum does not know of that."""
    found = compare_with_nuts(
        model, guide_off(shift, factor), X, 10, num_samples=200, num_warmup=100
    )
    assert found.names == ("z[0]", "z[1]")
    assert found.rhat.max() < 1.1
    assert (found.ess > 50).all()
    mean = found.mean.value - shift * 2**0.5
    assert (mean.abs() < 4 * found.mean.error).all()
    log_sd = found.log_sd.value - torch.tensor(factor).log()
    assert (log_sd.abs() < 4 * found.log_sd.error).all()
    assert found.mean.error.max() < 0.2
    assert found.verdict().status is status, found.verdict()


@pytest.mark.parametrize(
    "shape", [dist.Normal(0.0, 1.0), dist.Uniform(0.0, 1.0), dist.Laplace(0.0, 1.0)]
)
def test_errors_are_honest(shape: Any) -> None:
    """Independent draws of both: 400 z-scores of each kind have a mean square of 1."""
    own, exact = shape.sample((1000, 400)), shape.sample((2, 200, 400))
    found = compared(tuple(map(str, range(400))), own, exact, 0)
    for difference in (found.mean, found.log_sd, *found.quantiles.values()):
        square = (difference.value / difference.error).square().mean()
        assert 0.7 < square < 1.4, "a standard error of 7 %, beside what the ESS adds"


def test_scalars_without_spread() -> None:
    """What is one value everywhere is left out; NUTS that stands still, or NaN, does not pass."""
    own, exact = torch.randn(1000, 2), torch.randn(2, 500, 2)
    own[:, 1] = exact[..., 1] = 1.0
    assert compared(("z", "corner"), own, exact, 0).names == ("z",)
    stuck = compared(("z", "y"), torch.randn(1000, 2), exact, 0).verdict()
    assert stuck.status is Status.WARN
    assert "NUTS has not converged" in stuck.finding
    moving = torch.randn(2, 500, 2)
    assert compared(("z", "y"), own * torch.nan, moving, 0).verdict().status is Status.FAIL


def test_constrained_latents_and_labels() -> None:
    def positive(x: Tensor) -> None:
        scale = pyro.sample("scale", dist.Gamma(3.0, 3.0))
        with pyro.plate("data", 2):
            on = pyro.sample("on", dist.Bernoulli(0.5), infer={"enumerate": "parallel"})
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z.sum(-1) + on, scale), obs=x)

    def guide(x: Tensor) -> None:
        pyro.sample("scale", dist.Gamma(3.0, 3.0))
        with pyro.plate("data", 2):
            pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))

    found = compare_with_nuts(positive, guide, X, num_samples=20, num_warmup=20, num_chains=1)
    assert found.names == ("scale", "z[0, 0]", "z[0, 1]", "z[1, 0]", "z[1, 1]")
    table = found.to_dataframe()
    assert list(table.index) == list(found.names)
    assert {"mean", "mean_error", "log_sd", "q5", "q95", "rhat", "ess"} <= set(table.columns)


def by_hand(value: float, rhat: float = 1.0) -> NutsComparison:
    one = torch.ones(1)
    off = Difference(value * one, 0.01 * one)
    return NutsComparison(("z",), off, off, {0.5: off}, rhat * one, 500 * one, 0)


def test_verdict_and_figure(tmp_path: Path) -> None:
    assert by_hand(0.03).summary()["mean_off"] == 0.0, "within the noise"
    assert by_hand(0.1).summary()["mean_off"] == pytest.approx(0.1)
    statuses = [by_hand(value).verdict().status for value in (0.1, 0.5, -2.0)]
    assert statuses == [Status.PASS, Status.WARN, Status.FAIL]
    stuck = by_hand(0.0, rhat=1.5).verdict()
    assert stuck.status is Status.WARN
    assert "num_warmup" in stuck.advice
    plot_nuts_comparison(by_hand(0.5)).savefig(tmp_path / "nuts.png")


def test_refusals() -> None:
    def discrete(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Bernoulli(0.5))
            pyro.sample("x", dist.Normal(c, 1.0), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("c", dist.Bernoulli(torch.full_like(x, 0.5)))

    with pytest.raises(ProgramError, match="site 'c': expected continuous latents"):
        compare_with_nuts(discrete, guide, X)
    with pytest.raises(PyroLVMError, match="num_chains: expected an integer >= 1, got 0"):
        compare_with_nuts(model, guide_off(0, 1), X, num_chains=0)
