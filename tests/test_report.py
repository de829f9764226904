"""The report: what its checks say of right and wrong guides, and that nothing spoils the page."""

from functools import partial
from html.parser import HTMLParser
from math import log
from pathlib import Path

import pyro
import pyro.distributions as dist
import pytest
import torch
from explained import explained
from matplotlib.figure import Figure
from pandas import DataFrame
from pyro.infer.autoguide import AutoNormal
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_lvm import diagnostics
from pyro_lvm.diagnostics import (
    AIS,
    DEFAULT_CHECKS,
    Case,
    DoesNotApply,
    Finding,
    Report,
    Status,
    Verdict,
    report,
    to_inference_data,
)
from pyro_lvm.diagnostics.chain_quality import chain_quality
from pyro_lvm.diagnostics.check_gap import gap
from pyro_lvm.diagnostics.thresholds import max_khat, total_variation
from pyro_lvm.distributions import Implicit
from pyro_lvm.errors import PyroLVMError
from pyro_lvm.nn import Discriminator
from pyro_lvm.objectives import AVB, DSIVI, ELBO, IWAE

pytestmark = pytest.mark.usefixtures("float64")

OF_GUIDES = ("weights", "gap", "chains", "sbc", "coverage", "tarp")
APPLY = (*OF_GUIDES, "predictive", "loo_pit", "collapse")
"""Of the default checks, to a guide with a density and latents of each datum."""


class Normals(PyroModule):
    """A guide Normal(x / 2 + shift, spread): the posterior for shift 0 and spread sqrt 1/2."""

    def __init__(self, spread: float = 0.5**0.5, shift: float = 0.0) -> None:
        super().__init__()
        self.spread = nn.Parameter(torch.tensor(spread))
        self.shift = shift

    def forward(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 2 + self.shift, self.spread).to_event(1))


def model(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)


@pytest.fixture
def x() -> Tensor:
    return 2**0.5 * torch.randn(20, 2, dtype=torch.float64)


def statuses(found: Report) -> dict[str, str]:
    return {name: finding.verdict.status.value for name, finding in found.findings.items()}


# What the checks say.


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


# What checks may do.


def test_a_case_of_fewer_data(x: Tensor) -> None:
    case = Case(model, Normals(), (x, torch.ones(3), 2), {"mask": x > 0, "size": 20}).first(4)
    assert [value.shape for value in (*case.args[:2], case.kwargs["mask"])] == [
        (4, 2),
        (3,),
        (4, 2),
    ]
    assert (case.args[2], case.kwargs["size"]) == (2, 20)


def test_a_broken_check_loses_nothing(x: Tensor) -> None:
    def broken(case: Case) -> Finding:
        raise RuntimeError("no <b>memory</b>")

    def idle(case: Case) -> Finding:
        raise DoesNotApply("there is nothing to look at.")

    found = report(model, Normals(), x, checks=[broken, idle, "collapse"])
    assert statuses(found) == {"broken": "error", "idle": "skip", "collapse": "pass"}
    lines = str(found).splitlines()
    assert lines[0] == "[error] broken: could not be run: RuntimeError: no <b>memory</b>"
    assert lines[1] == "[skip] idle: there is nothing to look at."
    assert "no &lt;b&gt;memory" in found.to_html()


def test_errors_in_three_parts_keep_their_advice(x: Tensor) -> None:
    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal(x, 1.0).to_event(1))

    found = report(model, guide, x, checks=["weights"])
    (verdict,) = found.verdicts
    assert verdict.status == Status.ERROR
    assert verdict.finding.startswith("could not be run: ")
    assert "Try:" not in verdict.finding
    assert verdict.advice
    assert verdict.advice in Page(found.to_html()).text


def test_an_unknown_check_is_named(x: Tensor) -> None:
    with explained(PyroLVMError, "checks", "'weights'", "'weihgts'", "function of your own"):
        report(model, Normals(), x, checks=["weihgts"])


def test_a_report_leaves_no_trace(x: Tensor) -> None:
    """The same numbers each time; the random state and the modes of modules as they were."""
    guide = Normals(0.6)
    guide.train()
    before = torch.get_rng_state()
    first, second = (report(model, guide, x, checks=["weights", "gap"]) for _ in range(2))
    assert first.summary() == second.summary()
    assert torch.equal(torch.get_rng_state(), before)
    assert guide.training


def test_a_check_has_numbers_of_its_own_whatever_came_before(x: Tensor) -> None:
    alone = report(model, Normals(0.6), x, checks=["gap"])
    after = report(model, Normals(0.6), x, checks=["collapse", "weights", "gap"])
    assert alone.summary()["gap.gap"] == after.summary()["gap.gap"]


# The page.


class Page(HTMLParser):
    """Tags with their attributes, and all text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


def awkward(case: Case) -> Finding:
    """Is <this> a question?

    About & more.
    """
    figure = Figure(figsize=(1.0, 1.0))
    verdict = Verdict(
        "a < b", Status.WARN, 'it is "so" & <i>so</i>.', "Try <script>alert(1)</script>."
    )
    table = DataFrame({"<column>": ["<cell>"]})
    return Finding(verdict, {"<number>": 0.5}, {'<caption> "quoted"': figure}, table)


def test_every_text_is_escaped(x: Tensor) -> None:
    found = report(model, Normals(), x, checks=[awkward])
    page = Page(found.to_html())
    assert not page.open, "every tag is closed"
    assert not page.of("script")
    assert not page.of("i")
    for text in ("Is <this> a question?", "About & more.", "a < b", "<script>alert(1)</script>"):
        assert text in page.text
    for text in ("<column>", "<cell>", "<number>", "<caption>"):
        assert text in page.text
    (image,) = page.of("img")
    assert image["alt"] == '<caption> "quoted"'


def test_the_page_needs_nothing_else(x: Tensor) -> None:
    page = Page(report(model, Normals(0.4), x, objective=ELBO(2), num_samples=400).to_html())
    images = page.of("img")
    assert len(images) == len(APPLY)
    assert all(str(image["src"]).startswith("data:image/png;base64,") for image in images)
    assert all(image["alt"] and image["width"] for image in images)
    targets = {attrs["id"] for attrs in page.of("section")}
    links = [str(attrs["href"]) for attrs in page.of("a")]
    assert links
    assert {link.removeprefix("#") for link in links} == targets
    assert [attrs["href"] for attrs in page.of("link")] == ["data:,"]
    assert "http" not in page.text
    assert "ELBO(num_particles=2" in page.text
    assert "20 x 2" in page.text
    assert "skip" not in targets


def test_a_folder_gets_the_page_and_its_pictures(x: Tensor, tmp_path: Path) -> None:
    found = report(
        model, Normals(), x, checks=["weights", "gap", "mixing"], folder=tmp_path / "new"
    )
    assert (tmp_path / "new" / "report.html").read_text(encoding="utf-8") == found.to_html()
    figures = sorted(path.name for path in (tmp_path / "new" / "figures").iterdir())
    assert figures == ["check_gap.png", "check_weights.png"]
