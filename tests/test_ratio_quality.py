"""The judgement of a discriminator: exact, ignorant and saturated ones are told apart."""

from math import log

import pyro
import pyro.distributions as dist
import pytest
import torch
from explained import explained
from torch import Tensor, nn

from pyro_lvm.diagnostics import (
    AIS,
    log_evidence,
    pareto_khat,
    plot_calibration,
    ratio_quality,
    to_inference_data,
)
from pyro_lvm.distributions import Implicit
from pyro_lvm.errors import DensityError, ProgramError
from pyro_lvm.objectives import AAE, ALI, AVB, ELBO, IWAVB
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


def log_loss(factor: float, num_draws: int) -> tuple[Tensor, Tensor]:  # (3,), (3,)
    """Exact log-loss of ``Logit(factor)`` by quadrature, and its standard error by draws."""
    z = torch.linspace(-9.0, 9.0, 20_001).double().unsqueeze(-1)
    q, p = dist.Normal(X / 2, SCALE).log_prob(z).exp(), dist.Normal(0.0, 1.0).log_prob(z).exp()
    logit = factor * (q.log() - p.log())
    softplus = nn.functional.softplus
    of_q, of_p = softplus(-logit), softplus(logit)

    def mean(density: Tensor, value: Tensor) -> Tensor:
        return (density * value).sum(0) * (z[1] - z[0])

    first, second = mean(q, of_q), mean(p, of_p)
    variance = mean(q, of_q**2) - first**2 + mean(p, of_p**2) - second**2
    return (first + second) / 2, (variance / num_draws).sqrt() / 2


def test_exact_discriminator_is_calibrated() -> None:
    torch.manual_seed(0)
    quality = ratio_quality(AVB(Logit(1.0)), model, guide, X, num_samples=20_000)
    assert quality.log_loss.shape == quality.accuracy.shape == quality.largest_logit.shape == (3,)
    assert quality.count.sum() == 2 * 3 * 20_000
    assert quality.calibration_error < 2 * quality.calibration_noise
    exact, error = log_loss(1.0, 20_000)
    assert ((quality.log_loss - exact).abs() < 4 * error).all()
    assert (quality.log_loss < quality.best_constant).all()
    assert not quality.is_saturated


@pytest.mark.parametrize("factor", [0.3, 3.0])
def test_timid_and_overconfident_ones_are_not(factor: float) -> None:
    torch.manual_seed(0)
    quality = ratio_quality(AVB(Logit(factor)), model, guide, X, num_samples=20_000)
    assert quality.calibration_error > 10 * quality.calibration_noise
    exact, error = log_loss(factor, 20_000)
    assert ((quality.log_loss - exact).abs() < 4 * error).all()


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


@pytest.mark.parametrize("factor", [1.0, 100.0])
def test_plot(factor: float) -> None:
    quality = ratio_quality(AVB(Logit(factor)), model, guide, X)
    axes, below = plot_calibration(quality).axes
    assert "calibration error" in axes.get_title()
    assert ("saturated" in axes.get_title()) == (factor > 1)
    assert below.get_xlabel()


def test_recorded_for_arviz() -> None:
    objective = AVB(Logit(1.0))
    attrs = to_inference_data(model, guide, X, num_samples=100, objective=objective, seed=1).attrs
    assert 0 < attrs["discriminator_log_loss"] < log(2.0)
    assert attrs["discriminator_log_loss_of_constant"] == log(2.0)
    assert 0.5 < attrs["discriminator_accuracy"] < 1
    assert 0 <= attrs["discriminator_calibration_error"] < 0.2
    assert attrs["discriminator_is_saturated"] == 0
    assert not [n for n in to_inference_data(model, guide, X, num_samples=9).attrs if "disc" in n]


# Weights of a guide without density.


class Seeded:
    """The same noise for the n-th run of any such guide, whoever else draws in between."""

    def __init__(self, explicit: bool) -> None:
        self.explicit, self.runs = explicit, 0

    def __call__(self, x: Tensor) -> None:
        self.runs += 1
        torch.manual_seed(self.runs)
        if not self.explicit:
            return guide(x)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x.unsqueeze(-1) / 2, SCALE).to_event(1))


EXACT_EVIDENCE = dist.Normal(0.0, 2**0.5).log_prob(X)


@pytest.mark.parametrize("objective", [AVB(Logit(1.0)), IWAVB(Logit(1.0), 7)], ids=["AVB", "IWAVB"])
def test_exact_discriminator_gives_the_evidence_of_the_density(objective: AVB) -> None:
    """Draw by draw, in several chunks: all that follows from the weights agrees to rounding."""
    how = {"num_samples": 500, "chunk_size": 150}
    explicit = log_evidence(model, Seeded(explicit=True), X, **how)
    implicit = log_evidence(model, Seeded(explicit=False), X, objective=objective, **how)
    for name in ("value", "standard_error", "effective_sample_size", "khat"):
        torch.testing.assert_close(getattr(implicit, name), getattr(explicit, name))
    assert ((implicit.value - EXACT_EVIDENCE).abs() < 4 * implicit.standard_error).all()
    assert (implicit.standard_error < 0.05).all()
    assert explicit.is_bound
    assert not implicit.is_bound


def test_a_wrong_discriminator_moves_the_estimate_above_the_evidence() -> None:
    """Hence no bound: here it takes 0.5 nats from the log-ratio, and k-hat sees nothing."""

    class Low(Logit):
        def forward(self, z: Tensor, x: Tensor) -> Tensor:
            return super().forward(z, x) - 0.5

    estimate = log_evidence(model, guide, X, objective=AVB(Low(1.0)), num_samples=2000)
    assert not estimate.is_bound
    assert ((estimate.value - EXACT_EVIDENCE - 0.5).abs() < 4 * estimate.standard_error).all()
    assert (estimate.khat < 0.7).all()


def test_densities_count_where_there_are_any() -> None:
    """An adversarial objective whose guide has a density: exact weights, whatever it learned."""
    ignorant = AVB(Logit(0.0))
    estimate = log_evidence(model, Seeded(True), X, objective=ignorant, num_samples=2000)
    assert estimate.is_bound
    assert ((estimate.value - EXACT_EVIDENCE).abs() < 4 * estimate.standard_error).all()
    container = to_inference_data(model, Seeded(True), X, num_samples=9, objective=ignorant)
    assert container.attrs["log_weight_is_exact"] == 1
    exact = to_inference_data(model, Seeded(True), X, num_samples=9)
    weights = (c["sample_stats"]["log_weight"].values for c in (container, exact))
    assert next(weights) == pytest.approx(next(weights))


def test_evidence_by_ais_is_a_bound_and_needs_no_objective() -> None:
    for objective in (None, AVB(Logit(0.0))):
        estimate = log_evidence(
            model, guide, X, num_samples=500, method=AIS(25, 4), objective=objective
        )
        assert estimate.is_bound
        assert ((estimate.value - EXACT_EVIDENCE).abs() < 4 * estimate.standard_error).all()


def test_a_prior_known_by_draws() -> None:
    """The guide's density is known, the prior's is not: the ratio is all there is."""

    def by_draws(x: Tensor) -> None:
        def draw(shape: torch.Size) -> Tensor:
            return torch.randn((*shape, len(x), 1)).to(x)

        with pyro.plate("data", len(x)):
            z = pyro.sample("z", Implicit(draw, event_dim=1))
            pyro.sample("x", dist.Normal(z[..., 0], 1.0), obs=x)

    estimate = log_evidence(
        by_draws, Seeded(explicit=True), X, objective=AVB(Logit(1.0)), num_samples=2000
    )
    assert not estimate.is_bound
    assert ((estimate.value - EXACT_EVIDENCE).abs() < 4 * estimate.standard_error).all()


@pytest.mark.parametrize("objective", [None, ELBO(2)], ids=["none", "ELBO"])
def test_no_density_and_no_discriminator(objective: ELBO | None) -> None:
    with explained(DensityError, "site 'z'", "to weigh draws by", "Implicit", "method='ais'"):
        log_evidence(model, guide, X, objective=objective)


def test_weights_for_arviz() -> None:
    objective = AAE(Logit(1.0), context=lambda x: x)
    container = to_inference_data(model, guide, X, num_samples=500, objective=objective)
    assert container.attrs["log_weight_is_exact"] == 0
    assert container.attrs["objective"] == "AAE"
    log_weights = torch.tensor(container["sample_stats"]["log_weight"].values[0])
    assert log_weights.shape == (500, 3)
    assert (pareto_khat(log_weights) < 0.7).all()
    assert to_inference_data(model, guide, X, num_samples=9).attrs["log_weight_is_exact"] == 0


def test_objective_without_a_discriminator() -> None:
    with explained(ProgramError, "objective", "discriminator", "ELBO", "Pass AVB"):
        ratio_quality(ELBO(1), model, guide, X)
    with explained(ProgramError, "objective", "ratio of guide to prior", "ALI, a game", "ais"):
        ratio_quality(ALI(Logit(1.0)), model, guide, X)


# The warning in training.


def test_warns_once_of_a_saturated_discriminator() -> None:
    objective, far = AVB(Logit(1.0), 4), X + 20.0
    objective.ratio.critic.watch.num_steps = 498
    objective.differentiable_loss(model, guide, far)
    text = r"discriminator Logit: expected at most 99% .*, got 100\.0% .*saturated.*\nTry: Use"
    with pytest.warns(UserWarning, match=text):
        objective.differentiable_loss(model, guide, far)
    objective.ratio.critic.watch.num_steps = 999
    objective.differentiable_loss(model, guide, far)


def test_reads_the_means_rarely() -> None:
    """No tensor is turned into a number between the checks, which an accelerator would wait for."""

    class Refusing(torch.Tensor):
        def tolist(self) -> list[float]:
            raise AssertionError

    watch, logits = Watch("T", "Wait."), torch.zeros(4)
    for _ in range(499):
        watch(logits, logits)
    assert watch.means is not None
    watch.means = watch.means.as_subclass(Refusing)
    with pytest.raises(AssertionError):
        watch(logits, logits)


def test_silent_where_all_is_well() -> None:
    watch = Watch("T", "Wait.")
    for _ in range(1000):
        watch(torch.randn(50), torch.randn(50))
