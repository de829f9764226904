"""Programs that do not fit each other, and what Pyro makes of them."""

from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from explained import X, explained, guide, model
from pyro import poutine
from pyro.infer import Trace_ELBO
from torch import Tensor, nn

from pyro_lvm.errors import (
    ProgramError,
    PyroLVMError,
)
from pyro_lvm.objectives import ELBO, IWAE


def misnamed(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        pyro.sample("zz", dist.Normal(torch.zeros(()), 1.0))


def test_site_names_differ() -> None:
    """Pyro trains with warnings only; ours names both lists and the nearest match."""
    with pytest.warns(UserWarning, match="vars in"):
        Trace_ELBO().loss(model, misnamed, X)
    with explained(
        ProgramError,
        "site 'z'",
        "the same latent sites",
        "['z'] in the model only (nearest there: 'zz'); model has ['z'], guide has ['zz']",
        "Rename 'zz' there, or add 'z' to the guide",
    ):
        ELBO().loss(model, misnamed, X)


def test_site_in_guide_only() -> None:
    def wider(x: Tensor) -> None:
        guide(x)
        pyro.sample("extra", dist.Normal(torch.zeros(()), 1.0))

    with explained(
        ProgramError, "site 'extra'", "same latent", "['extra'] in the guide only", "is_auxiliary"
    ):
        ELBO().loss(model, wider, X)


def test_latent_site_with_a_value_in_the_guide() -> None:
    """The model would draw another one from its prior, and weigh that."""
    held = poutine.condition(guide, {"z": X})
    with pytest.raises(RuntimeError, match="must be sampled in trace"):
        Trace_ELBO().loss(model, held, X)
    with explained(
        ProgramError, "site 'z'", "a draw in the guide", "obs= or poutine.condition", "Draw 'z'"
    ):
        ELBO().loss(model, held, X)


def test_latent_site_masked_in_one_program() -> None:
    """Its weight would be a density, of the model or of the guide, and no ratio."""
    mask = torch.arange(8) < 5
    for masked in ((model, poutine.mask(guide, mask)), (poutine.mask(model, mask), guide)):
        with explained(
            ProgramError, "site 'z'", "one poutine.mask", "another one in the guide", "ImproperUn"
        ):
            IWAE(2).loss(*masked, X)
    both = [poutine.mask(program, mask) for program in (model, guide)]
    assert IWAE(2).bound(*both, X)[5:].eq(0).all()


def test_dropout_between_the_latents_of_a_guide() -> None:
    """A path gradient runs a two-level guide twice; dropout would differ between the runs."""

    class Guide(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.noise = nn.Dropout(0.5)

        def forward(self) -> None:
            with pyro.plate("data", 4):
                z = pyro.sample("z", dist.Normal(torch.zeros(4), 1.0))
                pyro.sample("y", dist.Normal(self.noise(z), 1.0))

    def two_levels() -> None:
        with pyro.plate("data", 4):
            y = pyro.sample("y", dist.Normal(torch.zeros(()), 1.0))
            z = pyro.sample("z", dist.Normal(y, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=torch.zeros(4))

    guide = Guide()
    assert IWAE(3).differentiable_loss(two_levels, guide).isfinite()
    with explained(ProgramError, "module 'noise'", "one density twice", "Dropout(p=0.5", "reparam"):
        IWAE(3, "dreg").differentiable_loss(two_levels, guide)
    assert IWAE(3, "dreg").differentiable_loss(two_levels, guide.eval()).isfinite()


def test_model_and_guide_swapped() -> None:
    def bare(x: Tensor) -> None:
        guide(x)

    with explained(
        ProgramError, "site 'x'", "observed in the model", "in the guide only", "Check the order"
    ):
        ELBO().loss(bare, model, X)


def test_a_latent_with_a_value_in_the_model() -> None:
    """Conditioned, say: renaming it would not help, and what the message advises does."""
    given = {"z": torch.zeros(8)}
    conditioned = pyro.poutine.condition(model, given)
    with explained(
        ProgramError,
        "site 'z'",
        "a latent in both",
        "a value in the model, by obs= or poutine.condition",
        "poutine.block(guide, hide=['z'])",
    ):
        ELBO().loss(conditioned, guide, X)
    expected = pyro.poutine.trace(conditioned).get_trace(X).log_prob_sum()
    for other in (pyro.poutine.condition(guide, given), pyro.poutine.block(guide, hide=["z"])):
        assert -ELBO().loss(conditioned, other, X) == pytest.approx(expected.item())


def test_names_are_checked_on_later_programs_too() -> None:
    objective = ELBO()
    objective.loss(model, guide, X)
    with explained(ProgramError, "site 'z'", "same latent", "in the model only", "Rename"):
        objective.loss(model, misnamed, X)


def test_the_first_look_checks_without_validation_too() -> None:
    fits = explained(ProgramError, "site 'z'", "same latent", "in the model only", "Rename")
    with pyro.validation_enabled(False), fits:
        ELBO().loss(model, misnamed, X)


def test_mixing_variable() -> None:
    def mixed(x: Tensor) -> None:
        psi = pyro.sample("psi", dist.Normal(torch.zeros(()), 1.0), infer={"is_auxiliary": True})
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(psi, 1.0))

    with explained(
        ProgramError,
        "auxiliary site 'psi'",
        "an explicit density for 'z'",
        "a mixing variable",
        "marginalises mixing variables",
    ):
        IWAE(3).loss(model, mixed, X)


@pytest.mark.parametrize(
    "objective", [ELBO(2), ELBO(2, "stl"), IWAE(2, "dreg")], ids=lambda o: o.gradient
)
def test_discrete_site(objective: Any) -> None:
    def coin_model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Bernoulli(torch.tensor(0.5)))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def coin_guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Bernoulli(torch.tensor(0.4)))

    with explained(
        ProgramError,
        "site 'z'",
        f"gradient='{objective.gradient}'",
        "one without rsample (all such sites: ['z'])",
        "gradient='score' (leave-one-out REINFORCE), 'vimco' or 'ovis'",
    ):
        objective.loss_and_grads(coin_model, coin_guide, X)
    assert torch.isfinite(objective.bound(coin_model, coin_guide, X)).all()


def test_twice_the_same_site() -> None:
    def twice(x: Tensor) -> None:
        guide(x)
        guide(x)

    with explained(ProgramError, "site 'z'", "one sample statement", "two", "its own name"):
        ELBO().loss(model, twice, X)


def test_programs_without_sites() -> None:
    def nothing(x: Tensor) -> None:
        pass

    with explained(ProgramError, "model", "sample", "none", "pyro.sample"):
        ELBO().loss(nothing, nothing, X)


def test_value_outside_the_support() -> None:
    def positive(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            pyro.sample("x", dist.LogNormal(z, 1.0), obs=x)

    with explained(PyroLVMError, "site 'x'", "LogNormal", "support", "coding and shape"):
        ELBO().loss(positive, guide, X)
