"""What the checks of the report say of right and wrong guides."""

from functools import partial
from math import log

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoNormal
from report_cases import APPLY, OF_GUIDES, Normals, model, statuses
from torch import Tensor, nn

from pyro_lvm import diagnostics
from pyro_lvm.diagnostics import AIS, DEFAULT_CHECKS, Case, Status, report, to_inference_data
from pyro_lvm.diagnostics.chain_quality import chain_quality
from pyro_lvm.diagnostics.check_gap import gap
from pyro_lvm.diagnostics.thresholds import max_khat, total_variation
from pyro_lvm.distributions import Implicit
from pyro_lvm.nn import Discriminator
from pyro_lvm.objectives import AVB, DSIVI, IWAE

pytestmark = pytest.mark.usefixtures("float64")


@pytest.fixture
def x() -> Tensor:
    return 2**0.5 * torch.randn(20, 2, dtype=torch.float64)


def test_the_exact_posterior_passes(x: Tensor) -> None:
    found = report(model, Normals(), x, objective=IWAE(5))
    passed = dict.fromkeys(APPLY, "pass")
    assert statuses(found) == passed | {"discriminator": "skip", "mixing": "skip"}
    assert tuple(found.findings) == DEFAULT_CHECKS
    assert not any(verdict.advice for verdict in found.verdicts)
    numbers = found.summary()
    assert numbers["weights.khat_max"] == 0
    assert abs(numbers["gap.gap"]) < 1e-9
    assert numbers["chains.acceptance_min"] == 1
    assert "Nothing speaks against it: all 9 checks that apply passed." in found.to_html()


@pytest.mark.parametrize(
    ("guide", "told"),
    [
        (Normals(0.2), "fail warn fail fail fail fail"),
        (Normals(shift=1.5), "fail warn fail fail fail fail"),
        (Normals(1.0), "pass warn pass fail fail fail"),
    ],
    ids=["narrow", "biased", "wide"],
)
def test_wrong_guides_are_told(x: Tensor, guide: Normals, told: str) -> None:
    """A wide guide has bounded weights: all is well once its draws are weighted."""
    found = report(model, guide, x, checks=OF_GUIDES)
    assert statuses(found) == dict(zip(OF_GUIDES, told.split(), strict=True))
    for verdict in found.verdicts:
        assert bool(verdict.advice) == (verdict.status != Status.PASS), str(verdict)


def test_a_collapsed_latent_is_told(x: Tensor) -> None:
    def collapsed(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros_like(x), 1.0).to_event(1))

    assert statuses(report(model, collapsed, x, checks=["collapse"])) == {"collapse": "fail"}


def test_gap_is_the_divergence_from_the_posterior(x: Tensor) -> None:
    """KL(N(m, s) || N(m, t)) = log t/s + (s^2 / t^2 - 1) / 2 for each of two latents."""
    spread = 0.5
    found = gap(Case(model, Normals(spread), (x,), num_samples=4000)).numbers
    exact = 2 * (log(0.5**0.5 / spread) + (spread**2 / 0.5 - 1) / 2)
    assert abs(found["gap"] - exact) < 4 * found["gap_error"]
    assert found["gap_error"] < 0.1 * exact


def test_an_estimate_above_the_evidence_fails(x: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    """A discriminator that says 2 nats too little makes AVB's value 2 nats too good."""
    monkeypatch.setattr("pyro_lvm.diagnostics.report_case._ANNEALING", AIS(10, initial="guide"))

    class Flattering(nn.Module):
        def forward(self, z: Tensor, x: Tensor) -> Tensor:
            posterior = dist.Normal(x / 2, 0.5**0.5).to_event(1)
            return posterior.log_prob(z) - dist.Normal(0, 1).log_prob(z).sum(-1) - 2.0

    def implicit(x: Tensor) -> None:
        def draw(shape: torch.Size) -> Tensor:
            return x / 2 + 0.5**0.5 * torch.randn(shape + x.shape)

        with pyro.plate("data", len(x)):
            pyro.sample("z", Implicit(draw, event_dim=1, shape=x.shape))

    checks = ["weights", "gap", "chains", "discriminator"]
    found = report(
        model, implicit, x[:5], objective=AVB(Flattering()), num_samples=400, checks=checks
    )
    assert statuses(found)["gap"] == "fail"
    assert statuses(found)["chains"] == "skip"
    assert statuses(found)["discriminator"] == "fail"
    assert abs(found.summary()["gap.gap"] + 2.0) < 0.3
    assert "above log p(x)" in found.findings["gap"].verdict.finding
    untold = report(model, implicit, x[:5], checks=["weights", "gap", "chains"], num_samples=100)
    assert set(statuses(untold).values()) == {"skip"}
    assert "No check could judge it." in untold.to_html()


def test_an_untrained_discriminator_is_told(x: Tensor) -> None:
    objective = AVB(Discriminator(2, context_features=2).double())
    found = report(model, Normals(0.05), x, objective=objective, checks=["discriminator"])
    assert statuses(found)["discriminator"] in ("warn", "fail")
    assert found.findings["discriminator"].verdict.advice


def test_a_guide_of_one_data_set_has_no_ranks(x: Tensor) -> None:
    """Pyro's AutoGuides would have to be fitted again to each simulation."""
    guide = AutoNormal(model)
    guide(x)
    found = report(model, guide, x, checks=["sbc", "coverage", "tarp"])
    assert set(statuses(found).values()) == {"skip"}
    assert "reads the data" in str(found)


def test_mixing_variables_are_told_apart_by_their_number(x: Tensor) -> None:
    def mixture(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            hidden = dist.Normal(x / 2, 0.5).to_event(1)
            psi = pyro.sample("psi", hidden, infer={"is_auxiliary": True})
            pyro.sample("z", dist.Normal(psi, 0.5).to_event(1))

    found = report(model, mixture, x[:5], objective=DSIVI(4), checks=["mixing"])
    assert statuses(found) == {"mixing": "pass"}
    numbers = found.summary()
    assert numbers["mixing.elbo_at_least"] < numbers["mixing.elbo_at_most"]


def test_mixing_variables_of_the_model_have_no_sandwich(x: Tensor) -> None:
    def mixed(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            hidden = dist.Normal(torch.zeros(2), 0.5).to_event(1)
            zeta = pyro.sample("zeta", hidden, infer={"is_auxiliary": True})
            z = pyro.sample("z", dist.Normal(zeta, 0.5).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    found = report(mixed, Normals(), x[:5], objective=DSIVI(2), checks=["mixing"])
    assert statuses(found) == {"mixing": "skip"}
    assert "explicit prior" in str(found)


def test_chains_of_one_joint_posterior(x: Tensor) -> None:
    """A latent of all data: one chain for it, no plate to look for the slowest in."""

    def shared(x: Tensor) -> None:
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def of_all(x: Tensor) -> None:
        pyro.sample("z", dist.Normal(x.sum() / (len(x) + 1), (len(x) + 1) ** -0.5))

    container = to_inference_data(shared, of_all, x[:, 0], correct="mh", num_samples=400)
    quality = chain_quality(container)
    assert quality.acceptance.shape == ()
    assert quality.log_weight.shape == (4, 100)
    assert quality.rhat.shape == quality.ess.shape == (1,)
    assert quality.summary()["acceptance_mean"] == pytest.approx(1.0)
    found = report(shared, of_all, x[:, 0], checks=["weights", "collapse"])
    assert statuses(found) == {"weights": "pass", "collapse": "skip"}


def test_chains_are_looked_at_from_slow_to_fast(x: Tensor) -> None:
    """One datum in four has a guide that its chains cannot correct."""

    def guide(x: Tensor) -> None:
        spread = torch.where(torch.arange(len(x)) % 4 == 0, 0.1, 0.7)[:, None]
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 2, spread).to_event(1))

    with pytest.warns(UserWarning, match="k-hat"):
        container = to_inference_data(model, guide, x, correct="mh", num_samples=400)
    quality = chain_quality(container, max_data=10)
    assert quality.acceptance.shape == (20,)
    assert quality.rhat.shape == quality.ess.shape == (10,)
    assert (quality.rhat[:2] > 1.1).all(), "5 of 20 are slow, so 2 or 3 of the 10 looked at"
    assert quality.stuck == (quality.rhat > 1.1).mean() < 0.5
    assert quality.verdict().status == Status.FAIL


def test_thresholds() -> None:
    assert max_khat(100) == 0.5
    assert max_khat(2500) == 0.7
    assert max_khat(5) == 0.0, "so few draws bear nothing"
    assert total_variation(-0.1) == 0
    assert total_variation(100.0) == 1


@pytest.mark.parametrize("check", ["amortization", "evidence", "nuts"])
def test_dear_checks_are_there_by_name(
    x: Tensor, check: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With little work for each: what they find is tested elsewhere."""
    work = {"amortization": ("amortization_gap", {"num_steps": 50})}
    work["evidence"] = ("bidirectional", {"num_samples": 2, "method": AIS(10)})
    work["nuts"] = ("compare_with_nuts", {"num_samples": 20, "num_warmup": 10})
    name, less = work[check]
    module = f"pyro_lvm.diagnostics.check_{check}"
    monkeypatch.setattr(f"{module}.{name}", partial(getattr(diagnostics, name), **less))
    (finding,) = report(model, Normals(0.5), x[:4], checks=[check]).findings.values()
    assert finding.verdict.status != Status.ERROR, finding.verdict
    assert finding.numbers
    assert len(finding.figures) == 1
    assert check not in DEFAULT_CHECKS
