"""Discrete guides against enumeration: densities, bounds, gradients, and a trained posterior."""

from collections.abc import Callable
from itertools import product
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_lvm.distributions import StraightThroughBernoulli, StraightThroughOneHotCategorical
from pyro_lvm.errors import ProgramError
from pyro_lvm.guides import AmortizedBernoulli, AmortizedCategorical
from pyro_lvm.objectives import ELBO, IWAE, Renyi, ReweightedWakeSleep
from pyro_lvm.testing import ContractError, check_guide

STRAIGHT = {
    "bernoulli": lambda logits: StraightThroughBernoulli(0.5, logits),
    "categorical": lambda logits: StraightThroughOneHotCategorical(0.5, logits),
}
PLAIN = {
    "bernoulli": lambda logits: dist.Bernoulli(logits=logits),
    "categorical": lambda logits: dist.OneHotCategorical(logits=logits),
}
each_family = pytest.mark.parametrize("family", STRAIGHT)
PRIOR = torch.tensor([0.5, -1.0, 0.3, 0.0])  # log-odds of the four latents
MAX_Z = 5.5


def corners(size: int) -> Tensor:
    """All vectors of ``size`` bits, ``(2^size, size)``."""
    return torch.tensor(list(product([0.0, 1.0], repeat=size)))


# The straight-through distributions.


@each_family
def test_straight_through_has_the_exact_mass_and_values(family: str, float64: Any) -> None:
    logits = torch.randn(5, 4)
    ours, exact = STRAIGHT[family](logits), PLAIN[family](logits)
    z = ours((20000,))
    torch.testing.assert_close(ours.log_prob(z), exact.log_prob(z), rtol=1e-12, atol=1e-12)
    assert z.unique().tolist() == [0.0, 1.0]
    error = (z.mean(0) - exact.mean).abs() / (exact.variance / 20000).sqrt()
    assert error.max() < MAX_Z


@each_family
def test_straight_through_gradients(family: str, float64: Any) -> None:
    """Of a draw: the relaxed draw's, by hand from the same noise. Of log-mass: its slope."""
    logits = torch.randn(5, 4, requires_grad=True)
    fn, weights = STRAIGHT[family](logits), torch.randn(5, 4)
    torch.manual_seed(1)
    (found,) = torch.autograd.grad((weights * fn.rsample()).sum(), logits)
    torch.manual_seed(1)
    shape = (2, 5, 4) if family == "bernoulli" else (1, 5, 4)
    noise = -torch.stack([torch.empty(5, 4).exponential_() for _ in range(shape[0])]).log()
    normalised = logits if family == "bernoulli" else logits.log_softmax(-1)
    scores = (normalised + noise[0] - (noise[1] if len(noise) == 2 else 0.0)) / 0.5
    relaxed = torch.sigmoid(scores) if family == "bernoulli" else torch.softmax(scores, -1)
    (expected,) = torch.autograd.grad((weights * relaxed).sum(), logits)
    torch.testing.assert_close(found, expected)

    z = fn.sample().requires_grad_()
    (slope,) = torch.autograd.grad(fn.log_prob(z).sum(), z)
    torch.testing.assert_close(slope, normalised.detach())


@each_family
def test_straight_through_expands_and_masks(family: str) -> None:
    fn = STRAIGHT[family](torch.randn(5, 4, requires_grad=True))
    wide = fn.expand((3, *fn.batch_shape))
    assert wide.has_rsample
    assert wide.temperature == 0.5
    assert wide.batch_shape == (3, *fn.batch_shape)
    assert wide.rsample((2,)).shape == (2, 3, 5, 4)
    assert wide.rsample().requires_grad
    event = fn.to_event(len(fn.batch_shape))
    assert event.has_rsample
    assert event.expand((7,)).rsample().shape == (7, 5, 4)
    assert not fn.mask(False).log_prob(fn.sample()).any()


def test_pyros_straight_through_scores_a_density() -> None:
    """Its bound at the exact posterior is no constant, and is not on the discrete evidence."""
    logits = torch.zeros(3)
    z = torch.tensor([0.0, 1.0, 0.0])
    ours = StraightThroughOneHotCategorical(0.5, logits)
    torch.testing.assert_close(ours.log_prob(z), -torch.tensor(3.0).log())
    theirs = dist.RelaxedOneHotCategoricalStraightThrough(torch.tensor(0.5), logits=logits)
    draws = theirs.rsample((200,))
    scores = torch.stack([theirs.log_prob(theirs.rsample()) for _ in range(200)])
    assert draws.unique().tolist() == [0.0, 1.0]
    assert scores.std() > 0.3


# Bounds where the posterior is known.


def independent_bits(x: Tensor) -> None:
    """Each latent bit has a datum of its own, so the posterior is a product."""
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Bernoulli(logits=PRIOR.to(x)).to_event(1))
        pyro.sample("x", dist.Normal(2 * z, 1.0).to_event(1), obs=x)


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


def set_linear(guide: Any, weight: Tensor, bias: Tensor) -> None:
    layer = guide.encoding.head.layers[0]
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)


def exact_bits(draw: str) -> AmortizedBernoulli:
    guide = AmortizedBernoulli(in_features=4, latent_features=4, hidden=(), draw=draw)
    set_linear(guide, 2 * torch.eye(4), PRIOR.to(torch.float64) - 2)
    return guide


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


# Gradients.


class Explaining(PyroModule):
    """Four bits that explain three numbers together: the posterior is not a product.

    Made from a seed, which what is drawn next follows from too.
    """

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.loading = nn.Parameter(1.5 * torch.randn(4, 3))

    def forward(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Bernoulli(logits=PRIOR.to(x)).to_event(1))
            pyro.sample("x", dist.Normal(z @ self.loading, 1.0).to_event(1), obs=x)

    def log_joint(self, x: Tensor, z: Tensor) -> Tensor:
        prior = dist.Bernoulli(logits=PRIOR.to(x)).log_prob(z).sum(-1)
        return prior + dist.Normal(z @ self.loading, 1.0).log_prob(x).sum(-1)

    def log_evidence(self, x: Tensor) -> Tensor:  # (B,)
        return self.log_joint(x, corners(4)[:, None]).logsumexp(0)


def expected_iwae(model: Explaining, guide: AmortizedBernoulli, x: Tensor) -> Tensor:
    """The mean of the bound of two draws, summed over data, over all 256 pairs of values."""
    fn, z = guide.posterior(x)["z"], corners(4)[:, None]  # (16, 1, 4)
    log_q = fn.log_prob(z)  # (16, B)
    log_w = model.log_joint(x, z) - log_q
    bound = torch.logaddexp(log_w[:, None], log_w) - torch.tensor(2.0).log()
    return ((log_q[:, None] + log_q).exp() * bound).sum()


@pytest.mark.parametrize("gradient", ["score", "vimco"])
def test_mean_gradient_is_that_of_enumeration(gradient: str, float64: torch.dtype) -> None:
    """A plate of 1000 copies of one datum a replicate, for model and guide alike."""
    model = Explaining()
    guide = AmortizedBernoulli(in_features=3, latent_features=4, hidden=())
    x = torch.tensor([[1.0, -0.5, 2.0]])
    leaves = [model.loading, *guide.parameters()]
    exact = torch.autograd.grad(expected_iwae(model, guide, x), leaves)
    objective, rows, draws = IWAE(2, gradient), x.expand(1000, 3), []
    for _ in range(100):
        loss = objective.differentiable_loss(model, guide, rows) / -len(rows)
        draws.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, leaves)]))
    found, error = torch.stack(draws).mean(0), torch.stack(draws).std(0) / 10
    wanted = torch.cat([g.flatten() for g in exact])
    assert error.max() < 0.035 * wanted.norm()
    assert ((found - wanted).abs() / error).max() < MAX_Z


def guide_gradients(draw: str, objective: Any, replicates: int = 60) -> Tensor:
    """Gradients of the guide's bias at one datum, one row a replicate of 1000 copies."""
    model = Explaining()
    guide = AmortizedBernoulli(in_features=3, latent_features=4, hidden=(), draw=draw)
    x = torch.tensor([[1.0, -0.5, 2.0]]).expand(1000, 3)
    bias = guide.encoding.head.bias
    return torch.stack(
        [
            torch.autograd.grad(objective.differentiable_loss(model, guide, x) / -1000, bias)[0]
            for _ in range(replicates)
        ]
    )


def z_score(first: Tensor, second: Tensor) -> float:
    error = (first.var(0) / len(first) + second.var(0) / len(second)).sqrt()
    return float(((first.mean(0) - second.mean(0)).abs() / error).max())


def test_straight_through_gradients_are_biased_as_documented(float64: torch.dtype) -> None:
    """stl has reparam's mean for the ELBO; dreg has another; none is the exact gradient."""
    exact = guide_gradients("exact", ELBO(2, "score"))
    reparam = guide_gradients("straight_through", ELBO(1, "reparam"))
    stl = guide_gradients("straight_through", ELBO(1, "stl"))
    assert z_score(reparam, stl) < MAX_Z
    assert z_score(reparam, exact) > 10
    cosine = torch.cosine_similarity(reparam.mean(0), exact.mean(0), dim=0)
    print(f"straight-through ELBO gradient: {reparam.mean(0)}, exact {exact.mean(0)}, {cosine}")
    assert cosine > 0.9
    plain = guide_gradients("straight_through", IWAE(5, "reparam"))
    dreg = guide_gradients("straight_through", IWAE(5, "dreg"))
    assert z_score(plain, dreg) > 10


def test_a_one_hot_prior_pulls_only_if_it_is_straight_through(float64: torch.dtype) -> None:
    """Both give one bound; Pyro's scores by argmax, which has no derivative."""
    logits = torch.tensor([[2.0, 0.0, -1.0]])
    guide = AmortizedCategorical(
        in_features=4, latent_features=1, num_categories=3, hidden=(), draw="straight_through"
    )
    values, slopes = [], []
    for prior in (
        dist.OneHotCategorical(logits=logits),
        StraightThroughOneHotCategorical(0.5, logits),
    ):

        def model(x: Tensor, prior: Any = prior) -> None:
            with pyro.plate("data", len(x)):
                pyro.sample("z", prior.to_event(1))

        torch.manual_seed(1)
        loss = ELBO().differentiable_loss(model, guide, torch.ones(50, 4))
        values.append(loss.detach())
        slopes.append(torch.autograd.grad(loss, guide.encoding.head.bias)[0])
    torch.testing.assert_close(values[0], values[1])
    assert (slopes[0] - slopes[1]).norm() > 0.1 * slopes[1].norm()


@pytest.mark.parametrize("gradient", ["reparam", "stl", "dreg"])
def test_exact_draws_refuse_path_gradients(gradient: str) -> None:
    objective = ELBO(1, gradient)
    with pytest.raises(ProgramError, match=r"(?s)site 'z'.*score"):
        objective.differentiable_loss(
            independent_bits, exact_bits("exact").float(), torch.ones(2, 4)
        )


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
