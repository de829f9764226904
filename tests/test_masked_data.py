"""NaN hidden by a mask: Pyro's gradients turn NaN, ours are those of the observed data alone."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO
from torch import Tensor

from pyro_lvm.errors import ProgramError
from pyro_lvm.objectives import IWAE

pytestmark = pytest.mark.usefixtures("float64")

N = 4
OBSERVED = torch.tensor([True, False, True, False])
KINDS = ["poutine.mask", "obs_mask", "dist.mask"]


@dataclass(frozen=True)
class Family:
    """A distribution of one datum given (w, z), and some data."""

    make: Callable[[Tensor, Tensor], Any]
    value: Tensor


def tril(scale: Tensor) -> Tensor:
    return scale[..., None, None] * torch.tensor([[1.0, 0.0], [0.5, 1.0]])


FAMILIES = {
    "Normal": Family(lambda w, z: dist.Normal(w + z, w.exp()), torch.tensor([0.1, 1, -2, 3])),
    "Bernoulli": Family(lambda w, z: dist.Bernoulli(logits=w * z), torch.tensor([0.0, 1, 1, 0])),
    "Poisson": Family(lambda w, z: dist.Poisson((w + z).exp()), torch.tensor([0.0, 2, 5, 1])),
    "Gamma": Family(lambda w, z: dist.Gamma(w.exp(), z.exp()), torch.tensor([0.5, 2.0, 1.5, 1.0])),
    "Categorical": Family(
        lambda w, z: dist.Categorical(logits=torch.stack([w * z, z, w + 0 * z], -1)),
        torch.tensor([0.0, 2, 1, 1]),
    ),
    "Beta": Family(lambda w, z: dist.Beta(w.exp(), z.exp()), torch.tensor([0.5, 0.2, 0.9, 0.1])),
    "MultivariateNormal": Family(
        lambda w, z: dist.MultivariateNormal(
            torch.stack([z, w + z], -1), scale_tril=tril(w.exp() + 0 * z)
        ),
        torch.tensor([[0.1, 1], [2, 3], [-1, 0], [0, 0]]),
    ),
    "Dirichlet": Family(
        lambda w, z: dist.Dirichlet(torch.stack([w.exp() + 0 * z, z.exp()], -1)),
        torch.tensor([[0.1, 0.9], [0.5, 0.5], [0.3, 0.7], [0.8, 0.2]]),
    ),
}
DISCRETE = {"Bernoulli", "Poisson", "Categorical"}


def hide(value: Tensor) -> Tensor:
    """NaN where the data are not observed."""
    mask = OBSERVED.reshape(OBSERVED.shape + (1,) * (value.dim() - 1))
    return torch.where(mask, value, torch.nan)


def program(family: Family, kind: str) -> Callable[[Tensor, Tensor], None]:
    """A model of ``family``, its mask written in one of three ways."""

    def model(value: Tensor, mask: Tensor) -> None:
        w = pyro.param("w", torch.tensor(0.3))
        with pyro.plate("data", len(value)):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            fn = family.make(w, z)
            if kind == "poutine.mask":
                with poutine.mask(mask=mask):
                    pyro.sample("x", fn, obs=value)
            elif kind == "obs_mask":
                pyro.sample("x", fn, obs=value, obs_mask=mask)
            else:
                pyro.sample("x", fn.mask(mask), obs=value)

    return model


def guide(value: Tensor, mask: Tensor) -> None:
    loc = pyro.param("loc", torch.tensor(0.2))
    with pyro.plate("data", len(value)):
        pyro.sample("z", dist.Normal(loc, 1.0))


def loss_and_grads(objective: Any, model: Any, *data: Tensor) -> tuple[float, list[Tensor]]:
    pyro.clear_param_store()
    pyro.set_rng_seed(1)
    loss = objective.loss_and_grads(model, guide, *data)
    return loss, [p.unconstrained().grad for _, p in pyro.get_param_store().items()]


CASES = [(name, kind) for name in FAMILIES for kind in KINDS]


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_pyro_loses_all_gradients(name: str, kind: str) -> None:
    """With validation off the loss is finite and every gradient NaN, or an index runs wild."""
    model, value = program(FAMILIES[name], kind), hide(FAMILIES[name].value)
    with pyro.validation_enabled(False):
        if name == "Categorical":
            with pytest.raises(RuntimeError, match="out of bounds"):
                loss_and_grads(Trace_ELBO(), model, value, OBSERVED)
            return
        loss, grads = loss_and_grads(Trace_ELBO(), model, value, OBSERVED)
    assert torch.isfinite(torch.tensor(loss))
    assert all(bool(torch.isnan(grad)) for grad in grads)


@pytest.mark.parametrize("validation", [True, False])
@pytest.mark.parametrize(("name", "kind"), CASES)
def test_hidden_nan_changes_nothing(name: str, kind: str, validation: bool) -> None:
    """Loss and gradients equal those with any legal number in the masked places."""
    family = FAMILIES[name]
    gradient = "score" if kind == "obs_mask" and name in DISCRETE else "reparam"
    objective = IWAE(3, gradient)
    model = program(family, kind)
    with pyro.validation_enabled(validation):
        loss, grads = loss_and_grads(objective, model, hide(family.value), OBSERVED)
        full_loss, full_grads = loss_and_grads(objective, model, family.value, OBSERVED)
    assert loss == pytest.approx(full_loss, rel=1e-12)
    torch.testing.assert_close(grads, full_grads)
    assert all(bool(torch.isfinite(grad)) for grad in grads)


@pytest.mark.parametrize("kind", KINDS)
def test_bound_counts_observed_data_only(kind: str) -> None:
    """Where nothing is observed, the weight is prior over guide."""
    family = FAMILIES["Normal"]
    pyro.get_param_store().setdefault("loc", torch.tensor(0.0))
    bound = IWAE(3).bound(program(family, kind), guide, hide(family.value), OBSERVED)
    assert bool((bound[~OBSERVED] == 0.0).all())
    assert bool((bound[OBSERVED] != 0.0).all())


def test_nan_within_an_event() -> None:
    """A mask below ``to_event`` hides single features of a datum."""
    observed = torch.tensor([[True, False], [True, True]])
    x = torch.tensor([[0.5, 1.0], [-1.0, 2.0]])

    def model(x: Tensor, observed: Tensor) -> None:
        w = pyro.param("w", torch.tensor([0.3, -0.3]))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            fn = dist.Normal(z.unsqueeze(-1) * w, 1.0).mask(observed).to_event(1)
            pyro.sample("x", fn, obs=x)

    hidden = torch.where(observed, x, torch.nan)
    loss, grads = loss_and_grads(IWAE(3, "dreg"), model, hidden, observed)
    full_loss, full_grads = loss_and_grads(IWAE(3, "dreg"), model, x, observed)
    assert loss == pytest.approx(full_loss, rel=1e-12)
    torch.testing.assert_close(grads, full_grads)


def test_mask_over_both_programs() -> None:
    """Rows masked in model and guide have bound 0 and take no part in any gradient."""
    family = FAMILIES["Gamma"]

    def masked(program: Any) -> Any:
        return lambda value, mask: poutine.mask(program, mask=OBSERVED)(value, mask)

    model = masked(program(family, "dist.mask"))
    bound = IWAE(4).bound(model, masked(guide), hide(family.value), OBSERVED)
    assert bool((bound[~OBSERVED] == 0.0).all())


@pytest.mark.parametrize("name", sorted(DISCRETE))
def test_imputed_discrete_data_need_a_score(name: str) -> None:
    """``obs_mask`` draws the hidden data, which have no path derivative; a mask does not."""
    family = FAMILIES[name]
    data = hide(family.value), OBSERVED
    with pytest.raises(ProgramError, match="site 'x_unobserved': expected a reparameterised"):
        IWAE(3).loss_and_grads(program(family, "obs_mask"), guide, *data)
    assert IWAE(3).loss_and_grads(program(family, "poutine.mask"), guide, *data) > 0


def test_dreg_of_draws_without_density_that_feed_data() -> None:
    """One row's draw is masked in both programs, its datum counts: the path keeps its weight.

    The mean gradient of many rows alike is that of ``"reparam"``.
    """
    copies, x, is_counted = 50_000, torch.tensor([0.7, -1.2]), torch.tensor([False, True])

    class Rows(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.slope = torch.nn.Parameter(torch.full((copies, 2), 0.3))

        def forward(self) -> None:
            with plates(), poutine.mask(mask=is_counted.expand(copies, 2)):
                pyro.sample("z", dist.Normal(self.slope * x, 0.8))

    def plates() -> Any:
        return pyro.plate_stack("rows", (copies, 2))

    def model() -> None:
        with plates():
            with poutine.mask(mask=is_counted.expand(copies, 2)):
                z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 0.5), obs=x.expand(copies, 2))

    slopes = {}
    for gradient in ("reparam", "dreg"):
        guide = Rows()
        with pyro.settings.context(module_local_params=True):
            IWAE(3, gradient).differentiable_loss(model, guide).backward()
        assert guide.slope.grad is not None
        slopes[gradient] = guide.slope.grad
    variance = sum(slope.var(0) for slope in slopes.values()) / copies
    difference = slopes["dreg"].mean(0) - slopes["reparam"].mean(0)
    assert (difference.abs() < 5 * variance.sqrt()).all()
