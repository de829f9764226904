"""Both joints before one critic: with an exact critic the gradients are those of divergences."""

import pickle
from copy import deepcopy
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from linear_pairs import (
    AREA,
    GRID,
    ExactRatio,
    Guide,
    Model,
    Quadratic,
    data,
    divergence,
    exact_ratio,
    log_joints,
    mean_gradient,
)
from pyro.infer import SVI
from torch import Tensor, nn

from pyro_lvm import fit
from pyro_lvm.objectives import ALI

pytestmark = pytest.mark.usefixtures("float64")

# With the exact log-ratio.


@pytest.mark.parametrize(
    ("name", "of_guide", "of_model"),
    [
        ("kl", "kl", "kl"),
        ("reverse_kl", "reverse_kl", "reverse_kl"),
        ("jensen_shannon", "jensen_shannon", "jensen_shannon"),
        ("non_saturating", "mixture to b", "mixture to a"),
    ],
)
def test_gradient_is_that_of_the_divergence(name: str, of_guide: str, of_model: str) -> None:
    """To 4.5 standard errors, against the derivative of a quadrature, for both programs."""
    model, guide = Model(), Guide()
    log_q, log_p = log_joints(model, guide, GRID[:, None], GRID)
    expected = torch.stack(
        [
            *torch.autograd.grad(
                divergence(of_guide, log_q, log_p), [*guide.parameters()], retain_graph=True
            ),
            *torch.autograd.grad(divergence(of_model, log_q, log_p), [*model.parameters()]),
        ]
    )
    objective = ALI(exact_ratio(model, guide), 2, divergence=name, num_discriminator_steps=0)

    def loss() -> Tensor:
        return objective.differentiable_loss(model, guide, data(10_000)) / 10_000

    found, error = mean_gradient(loss, [*guide.parameters(), *model.parameters()])
    assert ((found - expected).abs() < 4.5 * error).all(), (found, expected, error)
    assert (expected.abs() > 10 * error).all()  # it could have been told apart from 0


def test_value_is_minus_the_divergence_of_the_joints() -> None:
    model, guide = Model(), Guide()
    expected = -divergence("kl", *log_joints(model, guide, GRID[:, None], GRID))
    for name in ("kl", "non_saturating"):
        found = ALI(exact_ratio(model, guide), 4, divergence=name).bound(
            model, guide, data(100_000)
        )
        assert abs(found.mean() - expected) < 4.5 * found.std() / len(found) ** 0.5


def test_no_gradient_at_the_exact_posterior_of_the_exact_model() -> None:
    """Then the logit is 0 at every draw, but for rounding."""
    model, guide = Model(slope=1.0, scale=1.0), Guide(slope=0.5, scale=0.5**0.5)
    objective = ALI(exact_ratio(model, guide), divergence="kl", num_discriminator_steps=0)
    x = data(50)
    assert objective.bound(model, guide, x).abs().max() < 1e-12
    gradients = torch.autograd.grad(
        objective.differentiable_loss(model, guide, x), [*guide.parameters()]
    )
    assert max(g.abs() for g in gradients) < 1e-10


@pytest.mark.parametrize(
    ("options", "sign"),
    [({}, 1.0), ({"divergence": "jensen_shannon"}, -1.0), ({"max_weight": 1.0}, 0.0)],
    ids=["non_saturating", "jensen_shannon", "equal weights"],
)
def test_what_errors_of_the_critic_add_at_the_optimum(options: dict[str, Any], sign: float) -> None:
    """By delta and -delta alike: (E_a + E_b) log cosh(delta / 2), by quadrature, is descended."""
    model, guide = Model(slope=1.0, scale=1.0), Guide(slope=0.5, scale=0.5**0.5)
    parameters = [*guide.parameters(), *model.parameters()]

    def delta(z: Tensor, x: Tensor) -> Tensor:
        return (z * z + x * x) / 4

    both = sum(log.exp() for log in log_joints(model, guide, GRID[:, None], GRID))
    added = (both * (delta(GRID[:, None], GRID) / 2).cosh().log()).sum() * AREA
    narrowing = torch.stack(torch.autograd.grad(added, parameters))
    objectives = [
        ALI(ExactRatio(error), 2, num_discriminator_steps=0, **options)
        for error in (delta, lambda z, x: -delta(z, x))
    ]

    def loss() -> Tensor:
        x = data(10_000)
        return sum(o.differentiable_loss(model, guide, x) for o in objectives) / 2 / len(x)

    found, error = mean_gradient(loss, parameters)
    assert ((found - sign * narrowing).abs() < 4.5 * error).all(), (found, narrowing, error)
    assert (narrowing.abs() > 10 * error).all()


def test_weights_are_kept_within_bounds() -> None:
    """DEAR's: e^T from 1/2 to 2. A logit of z alone, so x does not matter."""

    class Steep(nn.Module):
        def forward(self, z: Tensor, x: Tensor) -> Tensor:
            return 3.0 + z[..., 0]  # e^T is far above 2

    prior = nn.Parameter(torch.zeros(1))

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(prior, 0.01).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    objective = ALI(Steep(), divergence="kl", max_weight=2.0, num_discriminator_steps=0)
    (gradient,) = torch.autograd.grad(
        objective.differentiable_loss(model, Guide(), data(7)), [prior]
    )
    torch.testing.assert_close(gradient, torch.tensor([-2.0 * 7]))


# As the critic learns.


def test_critic_learns_the_log_ratio() -> None:
    """Programs at rest: its five coefficients tend to those of log q(x, z) / p(x, z)."""
    torch.manual_seed(0)
    model, guide = Model(), Guide()
    objective = ALI(Quadratic(), 2, discriminator_lr=lambda step: 0.05 * (1 - step / 300))
    for _ in range(300):
        objective.differentiable_loss(model, guide, data(2000))
    z, x = torch.randn(1000, 1), data(1000)
    found, expected = objective.critics["only"].discriminator(z, x), exact_ratio(model, guide)(z, x)
    assert torch.corrcoef(torch.stack([found, expected]))[0, 1] > 0.995
    assert (found - expected).abs().mean() < 0.04  # over seeds 0.015


@pytest.mark.slow
def test_training_finds_model_and_posterior() -> None:
    """The model has the variance of the data, and the guide is its posterior."""
    torch.manual_seed(0)
    model, guide, x = Model(), Guide(), data(1000)
    objective = ALI(Quadratic(), 2, discriminator_lr=0.05, num_discriminator_steps=2)
    # The critic must keep up: at lr=0.02 the programs circle, and 600 steps leave 0.25 to -0.05.
    fit(model, guide, x, objective, batch_size=None, max_steps=1200, lr=0.005,
        lr_scheduler="cosine", diagnostic_particles=0, progress=False)  # fmt: skip
    w, s = model.slope.item(), model.log_scale.exp().item()
    assert abs(w**2 + s**2 - x.var().item()) < 0.03  # over nine seeds 0.000 to 0.011
    assert abs(guide.slope.item() - w / (w**2 + s**2)) < 0.01  # 0.002, and below
    assert abs(guide.log_scale.exp().item() - s / (w**2 + s**2) ** 0.5) < 0.01


def stepped(objective: ALI, steps: int) -> tuple[Tensor, Model, Guide]:
    """The critic's weights and the programs after plain torch steps."""
    model, guide = Model(), Guide()
    module = objective(model, guide)
    optimiser = torch.optim.Adam([*model.parameters(), *guide.parameters()], 0.01)
    for _ in range(steps):
        optimiser.zero_grad()
        module(data(8)).backward()
        optimiser.step()
    critic = objective.critics["only"].discriminator
    return torch.cat([p.flatten() for p in critic.parameters()]), model, guide


@pytest.mark.parametrize("options", [{}, {"num_discriminator_steps": 3, "divergence": "kl"}])
def test_state_goes_on_exactly(options: dict[str, Any]) -> None:
    first = ALI(Quadratic(), 2, **options)
    _, model, guide = stepped(first, 3)
    second = ALI(Quadratic(), 2, **options)
    second.load_state_dict(pickle.loads(pickle.dumps(first.state_dict())))
    losses = []
    for objective in (first, second, deepcopy(first)):
        torch.manual_seed(5)
        programs = deepcopy((model, guide))
        losses.append([objective.differentiable_loss(*programs, data(8)).item() for _ in range(3)])
    assert losses[0] == losses[1] == losses[2]


def test_training_steps_alone_train_the_critic() -> None:
    weights, *programs = stepped(objective := ALI(Quadratic(), 2), 3)
    assert weights.any()
    state = str(objective.state_dict())
    objective.loss(*programs, data(8))
    objective.bound(*programs, data(8))
    assert str(objective.state_dict()) == state
    objective.differentiable_loss(*programs, data(8)).backward()
    critic = objective.critics["only"].discriminator
    assert str(objective.state_dict()) != state
    assert not any(p.requires_grad for p in critic.parameters())


def test_under_svi() -> None:
    model, guide, objective = Model(), Guide(), ALI(Quadratic())

    def named_model(x: Tensor) -> None:
        pyro.module("model", model)(x)

    def named_guide(x: Tensor) -> None:
        pyro.module("guide", guide)(x)

    svi = SVI(named_model, named_guide, pyro.optim.Adam({"lr": 0.01}), objective)
    before = [p.item() for p in (*model.parameters(), *guide.parameters())]
    losses = [svi.step(data(20)) for _ in range(3)]
    assert all(isinstance(loss, float) for loss in losses)
    after = [p.item() for p in (*model.parameters(), *guide.parameters())]
    assert all(a != b for a, b in zip(after, before, strict=True))
