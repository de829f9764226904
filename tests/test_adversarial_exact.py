"""Adversarial objectives with an exact discriminator: those of an explicit density."""

import pytest
import torch
from adversarial_programs import Exact, Guide, X, model, value_and_gradient
from torch import Tensor, nn

from pyro_lvm.diagnostics import sample_posterior, to_inference_data
from pyro_lvm.objectives import AAE, AVB, ELBO, IWAAE, IWAE, IWAVB
from pyro_lvm.weights import pareto_khat

pytestmark = pytest.mark.usefixtures("float64")


@pytest.mark.parametrize(
    ("adversarial", "explicit"),
    [
        (lambda: AVB(Exact()), lambda: ELBO(1, "stl")),
        (lambda: AVB(Exact(), 5), lambda: ELBO(5, "stl")),
        (lambda: IWAVB(Exact(), 5), lambda: IWAE(5, "dreg")),
        (lambda: AAE(Exact(), 5, context=lambda x: x), lambda: ELBO(5, "stl")),
        (lambda: IWAAE(Exact(), 5, context=lambda x: x), lambda: IWAE(5, "dreg")),
    ],
    ids=["AVB-1", "AVB-5", "IWAVB-5", "AAE", "IWAAE"],
)
def test_exact_discriminator_gives_the_explicit_value_and_gradient(adversarial, explicit) -> None:
    """To rounding, draw by draw: then expectations agree too."""
    value, gradient = value_and_gradient(adversarial(), Guide())
    expected, its_gradient = value_and_gradient(explicit(), Guide(implicit=False))
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(gradient, its_gradient)


@pytest.mark.parametrize("classes", [(IWAVB, AVB), (IWAAE, AAE)])
def test_one_particle_is_the_unweighted_objective_to_the_digit(classes) -> None:
    weighted, plain = (cls(Exact(), context=lambda x: x) for cls in classes)
    first, second = value_and_gradient(weighted, Guide()), value_and_gradient(plain, Guide())
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])


def test_plain_weights_are_an_option_and_another_gradient() -> None:
    """dreg against stl weights at the same draws: same value, other gradient (and biased)."""
    squared = value_and_gradient(IWAVB(Exact(), 5), Guide())
    plain = value_and_gradient(IWAVB(Exact(), 5, "stl"), Guide())
    assert torch.equal(squared[0], plain[0])
    assert not torch.allclose(squared[1], plain[1])


@pytest.mark.parametrize("objective", [AVB(Exact(), 4), IWAVB(Exact(), 4)], ids=["AVB", "IWAVB"])
def test_an_explicit_guide_can_be_covered_too(objective) -> None:
    """With the densities covered by their exact ratio nothing changes."""
    torch.manual_seed(1)
    covered = objective.bound(model, Guide(implicit=False), X)
    torch.manual_seed(1)
    explicit = {AVB: ELBO, IWAVB: IWAE}[type(objective)]
    torch.testing.assert_close(covered, explicit(4).bound(model, Guide(implicit=False), X))


def test_exact_standardised_ratio_under_adaptive_contrast() -> None:
    """T is 0 where guide and contrast are both Gaussian; the moments' error is of order 1/J."""

    class Zero(nn.Module):
        def forward(self, z: Tensor, x: Tensor) -> Tensor:
            return z.new_zeros(z.shape[:-1])

    objective = AVB(Zero(), 500, contrast="adaptive")
    draws = torch.stack([objective.bound(model, Guide(), X) for _ in range(40)])
    exact = ELBO(20_000).bound(model, Guide(implicit=False), X)
    assert ((draws.mean(0) - exact).abs() < 0.05).all()  # moments of 500 draws: 1 / 500 and noise


def test_weights_and_diagnostics_use_the_ratio() -> None:
    objective, guide = IWAVB(Exact(), 400), Guide()
    log_weights = objective.log_weights(model, guide, X)
    assert log_weights.shape == (400, 4)
    assert pareto_khat(log_weights).shape == (4,)
    container = to_inference_data(model, guide, X, num_samples=20, objective=objective)
    assert container["sample_stats"]["log_weight"].notnull().all()
    unknown = to_inference_data(model, guide, X, num_samples=20)
    assert unknown["sample_stats"]["log_weight"].isnull().all()
    assert unknown["posterior"]["z"].shape == (1, 20, 4, 1)
    assert sample_posterior(model, guide, X, num_samples=7)["z"].shape == (7, 4, 1)
