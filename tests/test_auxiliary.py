"""Auxiliary variables against closed forms of a linear model, labels against brute force."""

from math import expm1, log, pi

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

from pyro_lvm.errors import DataError, ProgramError, PyroLVMError
from pyro_lvm.guides import AuxiliaryNormal
from pyro_lvm.models import ADGM, SDGM
from pyro_lvm.nn.labels import as_labels
from pyro_lvm.objectives import ELBO, IWAE, Renyi
from pyro_lvm.testing import check_guide, check_model

EPSILON = 1e-6  # the floor of scales
NOISE = torch.tensor([0.6, 0.9], dtype=torch.float64)
W, SHIFT = torch.tensor([[1.2], [-0.7]], dtype=torch.float64), 0.3  # x = W z + SHIFT + noise
R_X, R_Z, R_A = torch.tensor([[0.5, -0.4]], dtype=torch.float64), 0.8, 0.7  # a | x, z
POSTERIOR = 1 / (1 + (W[:, 0] ** 2 / NOISE**2).sum())  # variance of z | x


def set_linear(layer: nn.Linear, weight: Tensor, bias: Tensor, scale: float | None = None) -> None:
    """The mean of a Normal, and its scale if it has one."""
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.zero_()
        layer.weight[: len(weight)] = weight
        layer.bias[: len(weight)] = bias
        if scale is not None:
            layer.bias[len(weight) :] = log(expm1(scale - EPSILON))


def linear_model() -> ADGM:
    model = ADGM(2, 1, 1, (), "gaussian").double()
    model.likelihood.noise_scale = NOISE
    set_linear(model.decoder.layers[0], W, torch.full((2,), SHIFT))
    weight = torch.cat([R_X, torch.tensor([[R_Z]])], 1)
    set_linear(model.auxiliary.network.layers[0], weight, torch.zeros(1), R_A)
    return model


def linear_guide(a_x: Tensor, a_0: float, a_s: float, z: Tensor, z_0: float, z_s: float):
    """q(a | x) = N(a_x x + a_0, a_s^2), q(z | a, x) = N(z (x, a) + z_0, z_s^2)."""
    guide = AuxiliaryNormal(
        in_features=2,
        latent_features=1,
        auxiliary_features=1,
        hidden=(),
        context_features=2,
        conditional_hidden=(),
    ).double()
    set_linear(guide.encoding.head.layers[0], torch.eye(2), torch.zeros(2))
    set_linear(guide.auxiliary.network.layers[0], a_x, torch.tensor([a_0]), a_s)
    set_linear(guide.latent.network.layers[0], z, torch.tensor([z_0]), z_s)
    return guide


def exact_guide() -> AuxiliaryNormal:
    """p(a, z | x) = p(z | x) r(a | x, z) in the order of the guide: a first."""
    gain = POSTERIOR * W[:, 0] / NOISE**2  # z | x has mean gain (x - SHIFT)
    offset = -SHIFT * gain.sum()
    a_variance = R_A**2 + R_Z**2 * POSTERIOR
    a_x, a_0 = R_X + R_Z * gain, R_Z * offset
    k = POSTERIOR * R_Z / a_variance  # of z given a beyond its mean
    z_x = gain - k * a_x[0]
    return linear_guide(
        a_x,
        a_0.item(),
        a_variance.sqrt().item(),
        torch.cat([z_x, k[None]])[None],
        (offset - k * a_0).item(),
        (POSTERIOR - k**2 * a_variance).sqrt().item(),
    )


def log_evidence(x: Tensor) -> Tensor:
    covariance = W @ W.T + torch.diag(NOISE**2)
    return dist.MultivariateNormal(torch.full((2,), SHIFT), covariance).log_prob(x)


A_X = torch.tensor([[0.3, 0.2]], dtype=torch.float64)
Z_XA = torch.tensor([[0.4, -0.2, 0.3]], dtype=torch.float64)
ROUGH = (A_X, 0.1, 0.8, Z_XA, -0.1, 0.6)


def closed_form(x: Tensor, a_x, a_0, a_s, z, z_0, z_s) -> Tensor:
    """The ELBO: expected log-densities of Normals under a Normal, and two entropies."""
    mean_a = (x @ a_x.T)[:, 0] + a_0
    mean_z = x @ z[0, :2] + z[0, 2] * mean_a + z_0
    mean = torch.stack([mean_a, mean_z], -1)  # of (a, z)
    cross = z[0, 2] * a_s**2
    row = torch.stack([torch.as_tensor(a_s**2), cross])
    covariance = torch.stack([row, torch.stack([cross, z[0, 2] * cross + z_s**2])])

    def expected(target: Tensor, weight: Tensor, scale: float) -> Tensor:
        """E log N(target; weight (a, z), scale^2)."""
        square = (target - mean @ weight) ** 2 + weight @ covariance @ weight
        return -0.5 * log(2 * pi * scale**2) - 0.5 * square / scale**2

    zero = torch.zeros(len(x))
    total = expected(zero, torch.tensor([0.0, 1.0]), 1.0)
    for d in range(2):
        weight = torch.tensor([0.0, W[d, 0]])
        total = total + expected(x[:, d] - SHIFT, weight, NOISE[d].item())
    # a - R_Z z against R_X x, the same residual as a against its mean.
    total = total + expected((x @ R_X.T)[:, 0], torch.tensor([1.0, -R_Z]), R_A)
    return total + sum(0.5 * log(2 * pi * s**2) + 0.5 for s in (a_s, z_s))


@pytest.fixture
def x(float64) -> Tensor:
    return linear_model()(size=8).detach()


@pytest.mark.parametrize("objective", [ELBO(1), IWAE(5, "dreg"), Renyi(5, alpha=0.5)])
def test_exact_guide_gives_the_evidence(objective, x) -> None:
    """a given x depends on z, and z on a: nothing of the two factorises."""
    bound = objective.bound(linear_model(), exact_guide(), x)
    torch.testing.assert_close(bound, log_evidence(x), rtol=0, atol=1e-9)


def test_closed_form_of_the_exact_guide_is_the_evidence(x) -> None:
    guide = exact_guide()
    layers = [part.network.layers[0] for part in (guide.auxiliary, guide.latent)]
    weights = [layer.weight[:1].detach() for layer in layers]
    shifts = [layer.bias[0].item() for layer in layers]
    scales = [nn.functional.softplus(layer.bias[1]).item() + EPSILON for layer in layers]
    arguments = [part for trio in zip(weights, shifts, scales) for part in trio]
    torch.testing.assert_close(closed_form(x, *arguments), log_evidence(x), rtol=0, atol=1e-9)


def test_bound_is_its_closed_form_and_never_above_the_evidence(x) -> None:
    """Within four standard errors of 40,000 draws, a small part of the gap."""
    draws = ELBO(40_000).log_weights(linear_model(), linear_guide(*ROUGH), x)
    exact = closed_form(x, *ROUGH)
    error = draws.std(0) / len(draws) ** 0.5
    assert ((draws.mean(0) - exact).abs() < 4 * error).all()
    assert (exact < log_evidence(x)).all()
    assert (error < 0.03 * (log_evidence(x) - exact)).all()


def test_gradient_of_the_coupling_is_that_of_the_closed_form(x) -> None:
    """A bound with analytic KL terms, which takes z to be drawn before a, gets this one wrong."""
    model, guide = linear_model(), linear_guide(*ROUGH)
    z = ROUGH[3].clone().requires_grad_()
    closed_form(x, *ROUGH[:3], z, *ROUGH[4:]).sum().backward()
    weight = guide.latent.network.layers[0].weight
    found = []
    for _ in range(50):
        weight.grad = None
        (-ELBO(200).differentiable_loss(model, guide, x)).backward()
        found.append(weight.grad[0].clone())
    gradient = torch.stack(found)
    error = gradient.std(0) / len(found) ** 0.5
    assert ((gradient.mean(0) - z.grad[0]).abs() < 4 * error).all()
    assert (error < 0.02 * z.grad[0].abs().max()).all()


LABELLED = {"num_classes": 3}
SIZES = {"in_features": 4, "latent_features": 2, "auxiliary_features": 2, "hidden": (7,)}
both_models = pytest.mark.parametrize("make", [ADGM, SDGM])


def labelled_guide(**options) -> AuxiliaryNormal:
    return AuxiliaryNormal(**SIZES, context_features=5, conditional_hidden=(6,), **options)


def seeded_weights(objective, model, guide, *args) -> Tensor:
    pyro.set_rng_seed(1)
    return objective.log_weights(model, guide, *args)


@both_models
@pytest.mark.parametrize("options", [{}, LABELLED])
def test_contract_with_each_other(make, options) -> None:
    model, guide = make(**SIZES, **options), labelled_guide(**options)
    check_model(model)
    check_guide(guide, model(size=4).detach(), model)


@both_models
@pytest.mark.parametrize("objective", [ELBO(3), IWAE(3)])
def test_summed_labels_are_a_brute_force_sum(make, objective, float64) -> None:
    """At the same draws of a and z: p(x, z, a) = sum over y of p(x, z, a, y)."""
    model, guide = make(**SIZES, **LABELLED, enumerate_labels=True), labelled_guide()
    x = (torch.rand(5, 4) < 0.5).double()
    known = [torch.full((5,), c) for c in range(3)]
    by_class = torch.stack([seeded_weights(objective, model, guide, x, y) for y in known])
    summed = by_class.logsumexp(0)
    torch.testing.assert_close(seeded_weights(objective, model, guide, x), summed)
    mixed = torch.tensor([2, -1, 0, -1, -1])
    expected = torch.where(mixed < 0, summed, by_class[mixed.clamp(min=0), :, range(5)].T)
    torch.testing.assert_close(seeded_weights(objective, model, guide, x, mixed), expected)


@both_models
def test_known_labels_are_not_charged(make, float64) -> None:
    """A row's weight is the same whatever is known of the others."""
    model, guide = make(**SIZES, **LABELLED), labelled_guide(**LABELLED)
    x = (torch.rand(2, 4) < 0.5).double()
    objective = IWAE(3)
    mixed = seeded_weights(objective, model, guide, x, [1, -1])
    known = seeded_weights(objective, model, guide, x, [1, 2])
    unknown = seeded_weights(objective, model, guide, x, [-1, -1])
    torch.testing.assert_close(mixed[:, 0], known[:, 0])
    torch.testing.assert_close(mixed[:, 1], unknown[:, 1])
    torch.testing.assert_close(unknown, seeded_weights(objective, model, guide, x))


@both_models
def test_sampled_labels_have_the_mean_of_a_sum(make, float64) -> None:
    """U(x) = E_a sum_y q(y | a) [L(x, y) - log q(y | a)], both sides from 20,000 draws."""
    model, guide = make(**SIZES, **LABELLED), labelled_guide(**LABELLED)
    x = (torch.rand(2, 4) < 0.5).double()
    count = 20_000
    sampled = ELBO(count).log_weights(model, guide, x)
    terms = torch.zeros(count, 2)
    h = guide.encoding(x)
    a = guide.auxiliary(h).sample((count,))
    for c in range(3):
        held = pyro.poutine.condition(guide, {"a": a})
        labels = torch.full((2,), c)
        pyro.set_rng_seed(c)
        with torch.no_grad():
            weights = _weights_given_a(model, held, x, labels, a, h, guide)
            log_q = guide.classifier(torch.cat([h.expand(count, 2, -1), a], -1))
            log_q = log_q.log_softmax(-1)[..., c]
        terms += log_q.exp() * (weights - log_q)
    (left, right) = (draws.mean(0) for draws in (sampled, terms))
    error = (sampled.var(0) / count + terms.var(0) / count).sqrt()
    assert ((left - right).abs() < 4 * error).all()
    assert (error < 0.2).all(), "a term of the label left out would be a nat"


def _weights_given_a(model, held, x, labels, a, h, guide) -> Tensor:
    q = pyro.poutine.trace(held).get_trace(x, labels)
    draws = {"a": a, "z": q.nodes["z"]["value"]}
    p = pyro.poutine.trace(pyro.poutine.condition(model, draws)).get_trace(x, labels)
    terms = [p.nodes[n] for n in ("x", "a", "z", "y_observed")]
    log_p = sum(site["fn"].log_prob(site["value"]) for site in terms)
    log_q = guide.auxiliary(h).log_prob(a) + q.nodes["z"]["fn"].log_prob(draws["z"])
    return log_p - log_q


def test_classifier_term_is_in_the_weights_of_known_labels_in_training_alone(float64) -> None:
    model, guide = ADGM(**SIZES, **LABELLED), labelled_guide(**LABELLED, classifier_weight=2.5)
    x, y = (torch.rand(3, 4) < 0.5).double(), torch.tensor([0, -1, 2])
    objective = IWAE(4)
    training = seeded_weights(objective, model, guide, x, y)
    evaluated = seeded_weights(objective, model, guide.eval(), x, y)
    pyro.set_rng_seed(1)
    a = objective.particles(model, guide, x, y).values["a"]
    logits = guide.classifier(torch.cat([guide.encoding(x).expand(4, -1, -1), a], -1))
    log_q = logits.log_softmax(-1)[..., range(3), y]
    expected = 2.5 * torch.where(y >= 0, log_q, 0.0)
    torch.testing.assert_close(training - evaluated, expected)
    without = seeded_weights(objective, model, guide.train(), x)
    assert torch.equal(without, seeded_weights(objective, model, guide.eval(), x))


@both_models
@pytest.mark.parametrize("objective", [ELBO(4, "score"), IWAE(4, "vimco"), IWAE(4, "ovis")])
def test_every_parameter_learns_from_a_mixed_batch(make, objective) -> None:
    model = make(**SIZES, **LABELLED)
    module = objective(model, labelled_guide(**LABELLED, classifier_weight=1.0))
    module((torch.rand(6, 4) < 0.5).float(), torch.tensor([0, 1, 2, -1, -1, -1])).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters())


def test_classifier_learns_labels_of_clusters() -> None:
    """Three far clusters, two labels each: the rest follow."""
    pyro.set_rng_seed(0)
    centres = torch.tensor([[3.0, 0, 0, 0], [0, 3.0, 0, 0], [0, 0, 3.0, 0]])
    truth = torch.arange(3).repeat(20)
    x = centres[truth] + 0.5 * torch.randn(60, 4)
    y = torch.where(torch.arange(60) < 6, truth, -1)
    model = ADGM(**SIZES, **LABELLED, likelihood="gaussian")
    guide = labelled_guide(**LABELLED, classifier_weight=5.0)
    module = ELBO(4, "score")(model, guide)
    adam = torch.optim.Adam(module.parameters(), 0.03)
    for _ in range(80):
        adam.zero_grad()
        module(x, y).backward()
        adam.step()
    assert (guide.eval().classify(x).argmax(-1) == truth).float().mean() > 0.95


@pytest.mark.parametrize("labels", [[0, 1], [0.0, 0.5, 1.0], torch.eye(3)])
def test_wrong_labels(labels) -> None:
    message = r"labels y: expected integers of shape \(3,\), one a datum, got torch"
    with pytest.raises(DataError, match=message):
        as_labels(labels, like=torch.zeros(3, 4))


def test_labels_of_no_class() -> None:
    model, guide = ADGM(**SIZES, **LABELLED), labelled_guide(**LABELLED)
    with pytest.raises(PyroLVMError, match="site 'y_observed': expected a value that Categorical"):
        ELBO(1, "score").loss(model, guide, torch.ones(2, 4), [0, 3])


@both_models
def test_starts_at_the_mean_of_the_data(make) -> None:
    pixels = torch.tensor([0.1, 0.5, 0.9])
    model = make(3, 2, 2, (), num_classes=4, data_mean=pixels)
    nothing = torch.zeros(1, model.decoder.in_features)
    torch.testing.assert_close(model.decode(nothing).mean, pixels[None])


def test_wrong_arguments() -> None:
    with pytest.raises(ProgramError, match="num_classes: expected an integer >= 1, got 0"):
        ADGM(num_classes=0)
    with pytest.raises(ProgramError, match="classifier_weight: expected 0 or more, got -1"):
        AuxiliaryNormal(classifier_weight=-1)
    with pytest.raises(ProgramError, match="num_classes: expected a number of classes, got None"):
        AuxiliaryNormal().classify(torch.zeros(2, 64))
    with pytest.raises(ProgramError, match="site 'y'"):
        ELBO().loss(ADGM(num_classes=3), AuxiliaryNormal(), torch.zeros(2, 64))
