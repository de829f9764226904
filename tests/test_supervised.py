"""Supervised models and second-order supervision, exact where everything is linear and Normal."""

from copy import deepcopy

import pyro
import pyro.distributions as dist
import pytest
import torch
from moved import moved
from pyro.distributions import constraints
from pyro.nn import PyroModule, PyroParam
from torch import Tensor, nn

from pyro_lvm.distributions import CategoricalLikelihood, GaussianLikelihood
from pyro_lvm.errors import DataError, ProgramError
from pyro_lvm.guides import AmortizedNormal, WithoutLabels
from pyro_lvm.models import VAE, FactorAnalysis, SupervisedVAE
from pyro_lvm.objectives import ELBO, IWAE, SecondOrderELBO
from pyro_lvm.testing import check_model
from pyro_lvm.training import CompiledLoss

SIZE, FEATURES, LATENTS = 5, 4, 2
NAN = float("nan")
pytestmark = pytest.mark.usefixtures("float64")


def linear(label_weight: float = 1.0) -> SupervisedVAE:
    """Data and one label, both linear in z."""
    model = SupervisedVAE(
        FactorAnalysis(FEATURES, LATENTS),
        GaussianLikelihood(1),
        latent_features=LATENTS,
        label_weight=label_weight,
    )
    return moved(model, 0.4)


class LinearGuide(PyroModule):
    """z given x and perhaps y: Normal, of a linear mean and one diagonal scale."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(0.3 * torch.randn(LATENTS, FEATURES))
        self.bias = nn.Parameter(0.3 * torch.randn(LATENTS))
        self.scale = PyroParam(torch.tensor([0.5, 0.9]), constraint=constraints.positive)

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        with pyro.plate("data", len(x)):
            normal = dist.Normal(x @ self.weight.T + self.bias, self.scale)
            pyro.sample("z", normal.to_event(1))


def data(model: SupervisedVAE) -> tuple[Tensor, Tensor]:
    """Rows, and labels of which the last is unknown."""
    y = torch.randn(SIZE)
    y[-1] = NAN
    return model(size=SIZE).detach(), y


# The model.


@pytest.mark.parametrize("labels", [GaussianLikelihood(2), CategoricalLikelihood(1, 3)])
def test_contract(labels) -> None:
    check_model(Labelled(SupervisedVAE(VAE(6, 3, (5,)), labels, latent_features=3)))


class Labelled(PyroModule):
    """A supervised model as one of data alone, with labels that are the same for all."""

    def __init__(self, model: SupervisedVAE) -> None:
        super().__init__()
        self.model = model

    def forward(self, x=None, *, size: int = 1) -> Tensor:
        y = None if x is None else torch.ones(len(x), self.model.labels.features)
        return self.model(x, y, size=size)


@pytest.mark.parametrize("objective", [ELBO(), IWAE(4, "dreg")])
def test_bound_of_the_exact_posterior_is_the_joint_evidence(objective) -> None:
    """x and y side by side are factor analysis; where y is unknown, x alone is."""
    model = linear().eval()
    x, y = data(model)
    joint = FactorAnalysis(FEATURES + 1, LATENTS)
    layer = model.predictor.layers[0]
    joint.loading = nn.Parameter(torch.cat([model.model.loading, layer.weight]))
    joint.mean = nn.Parameter(torch.cat([model.model.mean, layer.bias]))
    joint.noise_scale = torch.cat([model.model.noise_scale, model.labels.noise_scale])
    both, alone = torch.cat([x, y[:, None]], 1)[:-1], x[-1:]

    def guide(x: Tensor, y: Tensor) -> None:
        known, unknown = joint.posterior(both), model.model.posterior(alone)
        loc = torch.cat([known.loc, unknown.loc])
        trils = [p.scale_tril.expand(len(p.loc), -1, -1) for p in (known, unknown)]
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.MultivariateNormal(loc, scale_tril=torch.cat(trils)))

    exact = torch.cat([joint.log_evidence(both), model.model.log_evidence(alone)])
    torch.testing.assert_close(objective.bound(model, guide, x, y), exact, rtol=0, atol=1e-9)


def test_an_unknown_label_says_nothing() -> None:
    model = SupervisedVAE(VAE(6, 3, (5,)), latent_features=3)
    guide = WithoutLabels(AmortizedNormal(in_features=6, latent_features=3))
    x = torch.rand(3, 6).round()

    def bound(*labels: Tensor) -> Tensor:
        pyro.set_rng_seed(1)
        return ELBO().bound(model, guide, x, *labels)

    unlabelled = bound()
    assert torch.equal(bound(torch.full((3,), -1)), unlabelled)
    assert torch.equal(bound(torch.full((3, 1), NAN)), unlabelled)
    found = bound(torch.tensor([-1, 7, -1]))
    assert torch.equal(found == unlabelled, torch.tensor([True, False, True]))


def test_weight_multiplies_the_label_in_training_only() -> None:
    model, guide = linear(), LinearGuide()
    x, y = data(model)

    def bound(label_weight: float, training: bool) -> Tensor:
        pyro.set_rng_seed(1)
        model.label_weight = label_weight
        return ELBO().bound(model.train(training), guide, x, y)

    weighted = bound(1.0, True) + 2.0 * (bound(1.0, True) - bound(1e-9, True))
    torch.testing.assert_close(bound(3.0, True), weighted, rtol=0, atol=1e-6)
    assert torch.equal(bound(3.0, False), bound(1.0, True))


def test_prior_draws_have_labels() -> None:
    model = SupervisedVAE(VAE(6, 3, (5,)), latent_features=3)
    drawn = pyro.poutine.trace(model).get_trace(size=7).nodes["y"]["value"]
    assert drawn.shape == (7, 1)
    assert model.predict(torch.zeros(2, 7, 3)).batch_shape == (2, 7)


def test_wrong_arguments() -> None:
    with pytest.raises(ProgramError, match="label_weight: expected a number above 0, got 0"):
        SupervisedVAE(label_weight=0)
    model = SupervisedVAE(VAE(6, (3, 2), ()), site="z", latent_features=3)
    with pytest.raises(ProgramError, match="site: expected a sample site 'z', got a model without"):
        model(size=2)
    with pytest.raises(DataError, match=r"labels y: expected shape \(5, 1\), got shape \(4, 1\)"):
        linear()(torch.zeros(SIZE, FEATURES), torch.zeros(4))


# Second-order supervision.


def closed_form(model: SupervisedVAE, guide: LinearGuide, step_size: float, x: Tensor, y: Tensor):
    """The loss, its guide's part and its model's, with every expectation done."""
    at = [guide.weight, guide.bias, guide.scale_unconstrained]

    def elbo(weight: Tensor, bias: Tensor, raw: Tensor) -> Tensor:
        factor = model.model
        mean, variance = x @ weight.T + bias, raw.exp().square()
        noise = factor.noise_scale
        square = (x - factor.mean - mean @ factor.loading.T).square()
        spread = factor.loading.square() @ variance
        of_x = dist.Normal(0.0, noise).log_prob(square.sqrt()).sum(1)
        of_x = of_x - 0.5 * (spread / noise**2).sum()
        kl = 0.5 * (mean.square() + variance - 1.0 - 2.0 * raw).sum(1)
        return of_x - kl

    def of_labels(weight: Tensor, bias: Tensor, raw: Tensor) -> Tensor:
        layer, noise = model.predictor.layers[0], model.labels.noise_scale
        mean = (x[:-1] @ weight.T + bias) @ layer.weight[0] + layer.bias
        spread = layer.weight[0].square() @ raw.exp().square()
        log_prob = dist.Normal(mean, noise).log_prob(y[:-1]) - 0.5 * spread / noise**2
        return model.label_weight * log_prob.sum()

    fixed = [p.detach().requires_grad_() for p in at]
    slopes = torch.autograd.grad(elbo(*fixed).mean(), fixed, create_graph=True)
    ahead = [p + step_size * slope for p, slope in zip(fixed, slopes, strict=True)]
    return -elbo(*at).sum() - of_labels(*ahead)


def gradients(loss: Tensor, *modules: nn.Module) -> dict[str, Tensor]:
    named = dict(nn.ModuleList(modules).named_parameters())
    return dict(zip(named, torch.autograd.grad(loss, list(named.values())), strict=True))


@pytest.mark.parametrize("gradient", ["reparam", "stl"])
def test_mean_gradient_is_that_of_the_closed_form(gradient: str) -> None:
    """50 times 1000 draws; the noise of the step moves the mean by less than 1e-3 of it."""
    model, guide = linear(label_weight=3.0), LinearGuide()
    x, y = data(model)
    exact = gradients(closed_form(model, guide, 0.2, x, y), model, guide)
    objective = SecondOrderELBO(1000, gradient, step_size=0.2)
    draws = [
        gradients(objective.differentiable_loss(model, guide, x, y), model, guide)
        for _ in range(50)
    ]
    unsupervised = gradients(ELBO(1000).differentiable_loss(model.model, guide, x), model.model)
    for name, expected in exact.items():
        each = torch.stack([draw[name] for draw in draws])
        error = each.std(0) / len(draws) ** 0.5
        limit = 4.0 * error + 1e-3 * expected.abs()
        assert ((each.mean(0) - expected).abs() <= limit).all(), name
    moved = (exact["0.model.loading"] - unsupervised["0.loading"]).abs().max()
    assert moved > 0.5, "the labels hardly move the model here"


def test_guide_learns_from_the_data_alone() -> None:
    model, guide = linear(label_weight=10.0), LinearGuide()
    x, y = data(model)

    def of_guide(objective, *args) -> dict[str, Tensor]:
        pyro.set_rng_seed(1)
        return gradients(objective.differentiable_loss(*args), guide)

    second = of_guide(SecondOrderELBO(3), model, guide, x, y)
    data_alone = of_guide(ELBO(3), model.model, guide, x)
    for name, found in of_guide(ELBO(3), model, guide, x, y).items():
        assert torch.equal(second[name], data_alone[name])
        assert not torch.allclose(second[name], found)


def test_value_is_a_bound_on_the_data_alone() -> None:
    model, guide = linear(), LinearGuide()
    x, y = data(model)
    values = []
    for program, args in ((model, (x, y)), (model, (x,)), (model.model, (x,))):
        pyro.set_rng_seed(1)
        values.append(SecondOrderELBO(3).bound(program, guide, *args))
    assert torch.equal(values[0], values[1])
    assert torch.equal(values[0], values[2])
    pyro.set_rng_seed(1)
    loss = SecondOrderELBO(3).differentiable_loss(model, guide, x, y)
    torch.testing.assert_close(loss, -values[0].sum())


def test_minibatches_are_scaled() -> None:
    """A batch that stands for ten times as many data counts ten times, the labels' part too."""
    model = linear()
    x, y = data(model)
    whole, guide = deepcopy(model), LinearGuide()
    whole.model.num_data = 10 * SIZE

    class Scaled(LinearGuide):
        def forward(self, x: Tensor, y: Tensor | None = None) -> None:
            with pyro.plate("data", 10 * SIZE, subsample=torch.arange(SIZE)):
                normal = dist.Normal(x @ self.weight.T + self.bias, self.scale)
                pyro.sample("z", normal.to_event(1))

    scaled = Scaled()
    scaled.load_state_dict(guide.state_dict())
    found = []
    for programs in ((model, guide), (whole, scaled)):
        pyro.set_rng_seed(1)
        loss = SecondOrderELBO(2).differentiable_loss(*programs, x, y)
        found.append(gradients(loss, *programs))
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], 10 * gradient)


def test_svi_takes_the_same_step() -> None:
    """Pyro's store must not stand in for the guide's parameters one step on."""
    model, guide = linear(), LinearGuide()
    x, y = data(model)
    pyro.set_rng_seed(1)
    loss = SecondOrderELBO(2).differentiable_loss(model, guide, x, y)
    expected = gradients(loss, model, guide)
    before = deepcopy(nn.ModuleList([model, guide]))
    svi = pyro.infer.SVI(model, guide, pyro.optim.SGD({"lr": 1.0}), SecondOrderELBO(2))
    pyro.set_rng_seed(1)
    assert svi.step(x, y) == loss.item()
    after = dict(nn.ModuleList([model, guide]).named_parameters())
    for name, old in before.named_parameters():
        torch.testing.assert_close(old - after[name], expected[name], msg=name)


def test_steps_can_be_recorded() -> None:
    model, guide = linear(), LinearGuide()
    x, y = data(model)
    pyro.set_rng_seed(1)
    loss = SecondOrderELBO(2).differentiable_loss(model, guide, x, y)
    expected = gradients(loss, model, guide)
    recorded = CompiledLoss(SecondOrderELBO(2), model, guide, backend="graph")
    recorded(x, y)
    pyro.set_rng_seed(1)
    found = gradients(recorded(x, y), model, guide)
    assert recorded.num_graphs == 1
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, msg=name)


def test_what_it_refuses() -> None:
    model, guide = linear(), LinearGuide()
    x, y = data(model)
    with pytest.raises(ProgramError, match="step_size: expected a number above 0, got 0"):
        SecondOrderELBO(step_size=0)
    expected = r"labels: expected a site of the model, 'c', .* got observed sites \['x', 'y'\]"
    with pytest.raises(ProgramError, match=expected):
        SecondOrderELBO(labels="c").differentiable_loss(model, guide, x, y)
    expected = "guide: expected a module with parameters, got a function without any"
    with pytest.raises(ProgramError, match=expected):
        SecondOrderELBO().differentiable_loss(model, lambda *a: guide(*a), x, y)
