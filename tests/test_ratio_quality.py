"""The judgement of a discriminator: exact, ignorant and saturated ones are told apart."""

from math import log

import pyro
import pyro.distributions as dist
import pytest
import torch
from explained import explained
from torch import Tensor, nn

from pyro_lvm.diagnostics import plot_calibration, ratio_quality, to_inference_data
from pyro_lvm.distributions import Implicit
from pyro_lvm.errors import ProgramError
from pyro_lvm.objectives import AVB, ELBO, IWAVB
from pyro_lvm.saturation import Watch

pytestmark = pytest.mark.usefixtures("float64")

X = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)
SCALE = 0.7


class Logit(nn.Module):
    """``factor`` times the exact log-ratio of Normal(x / 2, 0.7) to the prior."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor, dtype=torch.float64))

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        z = z[..., 0]
        exact = dist.Normal(x / 2, SCALE).log_prob(z) - dist.Normal(0.0, 1.0).log_prob(z)
        return self.factor * exact


def model(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(x.new_zeros(1), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z[..., 0], 1.0), obs=x)


def guide(x: Tensor) -> None:
    def draw(shape: torch.Size) -> Tensor:
        return (x / 2 + SCALE * torch.randn(shape + x.shape).to(x)).unsqueeze(-1)

    with pyro.plate("data", len(x)):
        pyro.sample("z", Implicit(draw, event_dim=1, shape=(len(x), 1)))


def log_loss(factor: float) -> Tensor:  # (3,)
    """Exact log-loss of ``Logit(factor)`` by quadrature."""
    z = torch.linspace(-9.0, 9.0, 20_001).double().unsqueeze(-1)
    q, p = dist.Normal(X / 2, SCALE).log_prob(z).exp(), dist.Normal(0.0, 1.0).log_prob(z).exp()
    logit = factor * (q.log() - p.log())
    softplus = nn.functional.softplus
    return 0.5 * (q * softplus(-logit) + p * softplus(logit)).sum(0) * (z[1] - z[0])


def test_exact_discriminator_is_calibrated() -> None:
    torch.manual_seed(0)
    quality = ratio_quality(AVB(Logit(1.0)), model, guide, X, num_samples=20_000)
    assert quality.log_loss.shape == quality.accuracy.shape == quality.largest_logit.shape == (3,)
    assert quality.count.sum() == 2 * 3 * 20_000
    assert quality.calibration_error < 2 * quality.calibration_noise
    torch.testing.assert_close(quality.log_loss, log_loss(1.0), atol=0.01, rtol=0)  # 3 s.e.
    assert (quality.log_loss < quality.best_constant).all()
    assert not quality.is_saturated


@pytest.mark.parametrize("factor", [0.3, 3.0])
def test_timid_and_overconfident_ones_are_not(factor: float) -> None:
    torch.manual_seed(0)
    quality = ratio_quality(AVB(Logit(factor)), model, guide, X, num_samples=20_000)
    assert quality.calibration_error > 10 * quality.calibration_noise
    torch.testing.assert_close(quality.log_loss, log_loss(factor), atol=0.02, rtol=0)


def test_noise_is_the_error_of_a_calibrated_one() -> None:
    """In the mean over repetitions, of the exact discriminator on few draws."""
    torch.manual_seed(0)
    objective = AVB(Logit(1.0))
    runs = [ratio_quality(objective, model, guide, X, num_samples=200) for _ in range(40)]
    found = torch.stack([quality.calibration_error for quality in runs])
    expected = torch.stack([quality.calibration_noise for quality in runs]).mean()
    assert abs(found.mean() - expected) < 0.15 * expected


def test_zero_logits_have_the_log_loss_of_a_constant() -> None:
    quality = ratio_quality(AVB(Logit(0.0)), model, guide, X, num_samples=50)
    torch.testing.assert_close(quality.log_loss, torch.full((3,), log(2.0), dtype=torch.float64))
    assert quality.best_constant == log(2.0)
    assert quality.calibration_error < 1e-12, "as many draws of one kind as of the other"
    assert (quality.largest_logit == 0).all()


def test_chunks_change_nothing_but_the_draws() -> None:
    quality = ratio_quality(IWAVB(Logit(1.0), 3), model, guide, X, num_samples=50, chunk_size=7)
    assert quality.count.sum() == 2 * 3 * 50


@pytest.mark.parametrize("factor", [1e-9, 100.0])
def test_saturated(factor: float) -> None:
    """By accuracy: a guide far from the prior; by logits: 100 times the right ones."""
    far = X + 20.0 if factor < 1 else X
    quality = ratio_quality(AVB(Logit(factor)), model, guide, far, num_samples=100)
    assert quality.is_saturated
    assert (quality.accuracy.mean() > 0.99) == (factor < 1)


def test_average_of_the_weights_is_judged() -> None:
    objective = AVB(Logit(1.0), ema=0.9)
    with torch.no_grad():
        objective.discriminator.factor.zero_()
    assert (ratio_quality(objective, model, guide, X).largest_logit > 0).all()


def test_plot() -> None:
    quality = ratio_quality(AVB(Logit(1.0)), model, guide, X)
    axes, below = plot_calibration(quality).axes
    assert "calibration error" in axes.get_title()
    assert below.get_xlabel()


def test_recorded_for_arviz() -> None:
    objective = AVB(Logit(1.0))
    attrs = to_inference_data(model, guide, X, num_samples=100, objective=objective, seed=1).attrs
    assert 0 < attrs["discriminator_log_loss"] < log(2.0)
    assert 0.5 < attrs["discriminator_accuracy"] < 1
    assert 0 <= attrs["discriminator_calibration_error"] < 0.2
    assert attrs["discriminator_is_saturated"] == 0
    assert not [n for n in to_inference_data(model, guide, X, num_samples=9).attrs if "disc" in n]


def test_objective_without_a_discriminator() -> None:
    with explained(ProgramError, "objective", "discriminator", "ELBO", "Pass AVB"):
        ratio_quality(ELBO(1), model, guide, X)


# The warning in training.


def test_warns_once_of_a_saturated_discriminator() -> None:
    objective, far = AVB(Logit(1.0), 4), X + 20.0
    objective.ratio.watch.num_steps = 498
    objective.differentiable_loss(model, guide, far)
    text = r"discriminator Logit: expected at most 99% .*, got 100\.0% .*saturated.*\nTry: Use"
    with pytest.warns(UserWarning, match=text):
        objective.differentiable_loss(model, guide, far)
    objective.ratio.watch.num_steps = 999
    objective.differentiable_loss(model, guide, far)


def test_reads_the_means_rarely() -> None:
    """No tensor is turned into a number between the checks, which an accelerator would wait for."""

    class Refusing(torch.Tensor):
        def tolist(self) -> list[float]:
            raise AssertionError

    watch, logits = Watch("T"), torch.zeros(4)
    for _ in range(499):
        watch(logits, logits)
    assert watch.means is not None
    watch.means = watch.means.as_subclass(Refusing)
    with pytest.raises(AssertionError):
        watch(logits, logits)


def test_silent_where_all_is_well() -> None:
    watch = Watch("T")
    for _ in range(1000):
        watch(torch.randn(50), torch.randn(50))
