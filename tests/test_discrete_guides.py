"""Discrete guides against enumeration: bounds, a trained posterior, the contract."""

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from bits import PRIOR, Explaining, corners, exact_bits, independent_bits, set_linear
from torch import Tensor, nn

from pyro_lvm.errors import ProgramError
from pyro_lvm.guides import AmortizedBernoulli, AmortizedCategorical
from pyro_lvm.objectives import ELBO, IWAE, Renyi, ReweightedWakeSleep
from pyro_lvm.testing import ContractError, check_guide

# Bounds where the posterior is known.


def independent_categories(one_hot: bool) -> Callable[[Tensor], None]:
    """Each of four latents shifts a datum by 0, 1 or 2."""

    def model(x: Tensor) -> None:
        family = dist.OneHotCategorical if one_hot else dist.Categorical
        logits = x.new_zeros(4, 3)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", family(logits=logits).to_event(1))
            shift = z @ x.new_tensor([0.0, 1.0, 2.0]) if one_hot else z
            pyro.sample("x", dist.Normal(shift, 1.0).to_event(1), obs=x)

    return model


def evidence_of_categories(x: Tensor) -> Tensor:
    each = dist.Normal(x.new_tensor([0.0, 1.0, 2.0]), 1.0).log_prob(x[..., None])
    return (each.logsumexp(-1) - x.new_tensor(3.0).log()).sum(-1)


def evidence_of_bits(x: Tensor) -> Tensor:
    each = dist.Normal(x.new_tensor([0.0, 2.0]), 1.0).log_prob(x[..., None])
    prior = dist.Bernoulli(logits=PRIOR.to(x)[:, None]).log_prob(x.new_tensor([0.0, 1.0]))
    return (each + prior).logsumexp(-1).sum(-1)


def exact_categories(draw: str, one_hot: bool = True) -> AmortizedCategorical:
    sizes: Any = {"in_features": 4, "latent_features": 4, "num_categories": 3, "hidden": ()}
    guide = AmortizedCategorical(**sizes, draw=draw, one_hot=one_hot)
    shift = torch.tensor([0.0, 1.0, 2.0])
    set_linear(guide, torch.kron(torch.eye(4), shift[:, None]), (-(shift**2) / 2).repeat(4))
    return guide


@pytest.mark.parametrize("objective", [ELBO(), IWAE(5), Renyi(3, alpha=0.5)], ids=str)
@pytest.mark.parametrize("draw", ["exact", "straight_through"])
def test_bounds_are_the_evidence_at_the_exact_posterior(
    objective: Any, draw: str, float64: torch.dtype
) -> None:
    x = 2 * torch.randn(6, 4)
    pairs = [(independent_bits, exact_bits(draw), evidence_of_bits)]
    pairs += [(independent_categories(True), exact_categories(draw), evidence_of_categories)]
    if draw == "exact":
        integers = exact_categories(draw, one_hot=False)
        pairs += [(independent_categories(False), integers, evidence_of_categories)]
    for model, guide, evidence in pairs:
        bound = objective.bound(model, guide, x)
        torch.testing.assert_close(bound, evidence(x), rtol=0, atol=1e-6)


# Training.


def train(guide: nn.Module, model: Any, objective: Any, x: Tensor, steps: int = 400) -> None:
    optimizer = torch.optim.Adam(guide.parameters(), lr=0.02)
    for _ in range(steps):
        optimizer.zero_grad()
        objective.loss_and_grads(model, guide, x)
        optimizer.step()


@pytest.mark.parametrize(
    ("draw", "objective", "nats"),
    [
        ("exact", IWAE(5, "vimco"), 0.12),
        ("exact", IWAE(5, "score"), 0.12),
        ("exact", ReweightedWakeSleep(5), 0.15),
        ("straight_through", IWAE(5, "dreg"), 0.15),
        ("straight_through", IWAE(5, "reparam"), 0.5),
    ],
    ids=str,
)
def test_training_closes_the_gap(draw: str, objective: Any, nats: float, float64: Any) -> None:
    """To log p(x) by enumeration, of five draws; straight-through gradients are biased."""
    model = Explaining()
    x = corners(4)[torch.randint(16, (30,))] @ model.loading.detach() + torch.randn(30, 3)
    guide = AmortizedBernoulli(in_features=3, latent_features=4, hidden=(30,), draw=draw)

    def gap() -> Tensor:
        bound = IWAE(5).bound(model, guide, x.repeat(100, 1)).unflatten(0, (100, 30))
        return (model.log_evidence(x) - bound).mean()

    before = gap()
    train(guide, model, objective, x)
    print(f"{draw}, {objective}: gap {before:.3f} before, {gap():.4f} nats after")
    assert 0.0 < gap() < nats < before


@pytest.mark.parametrize("objective", [ELBO(), ELBO(1, "stl"), IWAE(5), IWAE(5, "dreg")], ids=str)
def test_relaxed_draws_train_the_relaxed_model(objective: Any, float64: Any) -> None:
    def model(x: Tensor) -> None:
        logits, temperature = x.new_zeros(4), x.new_tensor(0.5)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.RelaxedBernoulli(temperature, logits=logits).to_event(1))
            pyro.sample("x", dist.Normal(2 * z, 1.0).to_event(1), obs=x)

    guide = AmortizedBernoulli(in_features=4, latent_features=4, hidden=(), draw="relaxed")
    x = torch.tensor([[2.0, 0.0, 2.0, 0.0]]).expand(50, 4)
    before = objective.bound(model, guide, x).mean()
    train(guide, model, objective, x, steps=60)
    assert objective.bound(model, guide, x).mean() > before + 0.1


# The contract.

VARIANTS: dict[str, Callable[..., Any]] = {
    "bernoulli-relaxed": lambda: AmortizedBernoulli(latent_features=3, draw="relaxed"),
    "bernoulli-straight": lambda: AmortizedBernoulli(draw="straight_through"),
    "bernoulli-two-sites": lambda: AmortizedBernoulli(latent_features={"a": 2, "b": 1}),
    "integers": lambda: AmortizedCategorical(one_hot=False),
    "one-hot-straight": lambda: AmortizedCategorical(draw="straight_through"),
    "own-encoder": lambda: AmortizedCategorical(nn.Linear(64, 7), encoder_features=7),
}


@pytest.mark.parametrize("make", VARIANTS.values(), ids=VARIANTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_contract(make: Callable[..., Any], dtype: torch.dtype) -> None:
    check_guide(make().to(dtype), torch.rand(4, 64, dtype=dtype))


def test_contract_of_relaxed_vectors() -> None:
    """In double precision: in single, the check's coordinates of a corner are at infinity."""
    guide = AmortizedCategorical(latent_features=2, num_categories=3, draw="relaxed")
    check_guide(guide.double(), torch.rand(4, 64, dtype=torch.float64))


def test_a_site_that_is_one_variable() -> None:
    """The guide of a mixture: one integer a datum, with no dim for it; and one bit."""
    guide = AmortizedCategorical(
        in_features=3, latent_features={"c": None}, num_categories=5, one_hot=False
    )
    x = torch.randn(4, 3)
    assert guide(x)["c"].shape == (4,)
    assert guide.posterior(x)["c"].event_shape == ()
    check_guide(guide, x)
    check_guide(AmortizedBernoulli(in_features=3, latent_features=None), x)


class Stuck(dist.Bernoulli):  # type: ignore[misc]
    """Draws 1 less often than it says."""

    def sample(self, sample_shape: Any = ()) -> Tensor:
        return super().sample(sample_shape) * (torch.rand(self._extended_shape(sample_shape)) > 0.3)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        return super().expand(batch_shape, self._get_checked_instance(Stuck, _instance))


def test_a_planted_fault_in_the_frequencies_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    guide = AmortizedBernoulli(in_features=3, latent_features=2)
    monkeypatch.setattr(guide, "variables", lambda logits: Stuck(logits=logits))
    with pytest.raises(ContractError, match="frequency of draws of site 'z': expected its prob"):
        check_guide(guide, torch.randn(4, 3))


WRONG: list[tuple[Callable[[], Any], str]] = [
    (lambda: AmortizedBernoulli(draw="hard"), r"draw: expected one of .* got 'hard'"),
    (lambda: AmortizedBernoulli(temperature=0.0), r"temperature: expected .* above 0, got 0.0"),
    (lambda: AmortizedBernoulli(latent_features=0), r"latent_features of 'z': .* got 0"),
    (lambda: AmortizedCategorical(num_categories=0), r"num_categories: .* got 0"),
    (
        lambda: AmortizedCategorical(draw="relaxed", one_hot=False),
        r"one_hot: expected True with draw='relaxed', got False",
    ),
]


@pytest.mark.parametrize(("make", "message"), WRONG)
def test_wrong_arguments(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ProgramError, match=message):
        make()
