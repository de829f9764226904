"""What variational Gibbs inference refuses, and how it says so."""

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn
from vgi_parts import NAN, Pair

from pyro_lvm.errors import CheckpointError, DataError, ProgramError
from pyro_lvm.guides import AmortizedNormal, GibbsConditionals, GibbsGuide
from pyro_lvm.kept_chains import Chains
from pyro_lvm.missing import Completed
from pyro_lvm.models import VAE
from pyro_lvm.objectives import VGI, AlphaDivergence, ReweightedWakeSleep

pytestmark = pytest.mark.usefixtures("float64")
X = torch.tensor([[0.1, NAN, 2.0], [0.3, 0.2, 1.0]])
WRONG: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: Chains(X[0]), DataError, r"x: expected shape \(rows, columns\), got \(3,\)"),
    (lambda: Chains(X[:0]), DataError, r"x: expected shape \(rows, columns\), got \(0, 3\)"),
    (lambda: Chains(X / 0), DataError, r"x: expected finite numbers and NaN, got infinite .* \[0"),
    (lambda: Chains(X[:1]), DataError, r"column 1 of x: expected observed entries, got none"),
    (lambda: Chains(X, 0), ProgramError, r"num_chains: expected an integer >= 1, got 0"),
    (lambda: VGI(Chains(X), num_targets=0), ProgramError, "num_targets: .* got 0"),
    (lambda: VGI(Chains(X), block_size=0), ProgramError, "block_size: .* got 0"),
    (lambda: VGI(Chains(X), inner=ReweightedWakeSleep()), ProgramError, "inner: expected a lower"),
    (lambda: VGI(Chains(X), inner=AlphaDivergence(2)), ProgramError, "inner: expected a lower"),
    (lambda: VGI(Chains(X), inner=VGI(Chains(X))), ProgramError, "inner: expected a lower"),
    (lambda: VGI(Chains(X, 2)).chains.load_state_dict({"values": torch.zeros(2, 5, 3)}),
     CheckpointError, r"saved chains: .* \(2, 2, 3\), got \(2, 5, 3\)"),
    (lambda: Completed(VAE(3), exact=True), ProgramError, "model: expected one with log_evidence"),
    (lambda: GibbsConditionals(3, num_classes=(2,)), ProgramError, "num_classes: expected 3 num"),
    (lambda: GibbsConditionals(3, separate=True, encoder=nn.Linear(3, 3)), ProgramError,
     "encoder: expected None where columns share nothing, got separate=True beside a Linear"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "error", "message"), WRONG)
def test_wrong_arguments(make: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


CALLS: list[tuple[tuple[Any, ...], str]] = [
    ((X,), "index: expected the number of each row, beside rows with missing entries, got none"),
    ((X, torch.tensor([0, 2])), "index: expected rows 0 to 1, got 2"),
    ((X, torch.tensor([0, -1])), "index: expected rows 0 to 1, got -1"),
    ((X, torch.tensor([1, 0])), "index: expected row 1 of the chains, got other observed .* row 0"),
    ((X, torch.tensor([0.0, 1.0])), r"index: expected 2 row numbers, integers, got torch.float32"),
    ((X, torch.tensor([0])), r"index: expected 2 row numbers, integers, got .* shape \(1,\)"),
    ((X[:, :2], torch.arange(2)), r"x: expected shape \(batch, 3\)"),
    ((torch.tensor([[0.1, NAN, 7.0]]), [0]), "column 2 of x: expected classes 0 to 3, .* got 7 in"),
    ((torch.tensor([[0.1, NAN, 0.5]]), [0]), "column 2 of x: expected classes 0 to 3, .* got 0.5"),
    (
        (torch.tensor([[torch.inf, NAN, 0.0]]), [0]),
        "column 0 of x: expected finite numbers, .* inf",
    ),
]


@pytest.mark.parametrize(("args", "message"), CALLS)
def test_wrong_data(args: tuple[Any, ...], message: str) -> None:
    guide = GibbsGuide(GibbsConditionals(3, num_classes=(0, 0, 4)))
    with pytest.raises(DataError, match=message):
        VGI(Chains(X, 2)).bound(Pair(), guide, *args)


def test_programs_that_do_not_fit() -> None:
    x = torch.tensor([[0.1, NAN, 2.0], [0.3, 0.2, 1.0]])
    objective, index = VGI(Chains(x, 2)), torch.arange(2)
    with pytest.raises(ProgramError, match="guide: expected one with conditionals, got a Amort"):
        objective.bound(VAE(3), AmortizedNormal(in_features=3), x, index)
    guide = GibbsGuide(GibbsConditionals(3), AmortizedNormal(in_features=3, num_data=20))
    with pytest.raises(ProgramError, match=r"model: .* got a scale of .*\nTry: Leave num_data out"):
        objective.bound(VAE(3, likelihood="gaussian", num_data=20), guide, x, index)

    def pooled(x: Tensor) -> None:
        z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("x", dist.Normal(z, torch.ones(3)).to_event(1), obs=x)

    class Latent(PyroModule):
        def forward(self, x: Tensor) -> None:
            pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))

    with pytest.raises(ProgramError, match="model: expected independent rows, a bound each, got"):
        objective.bound(pooled, GibbsGuide(GibbsConditionals(3), Latent()), x, index)
