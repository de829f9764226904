"""The report: what its checks may do, and that nothing spoils the page."""

from html.parser import HTMLParser
from pathlib import Path

import pyro
import pyro.distributions as dist
import pytest
import torch
from explained import explained
from matplotlib.figure import Figure
from pandas import DataFrame
from report_cases import APPLY, Normals, model, statuses
from torch import Tensor

from pyro_lvm.diagnostics import Case, DoesNotApply, Finding, Status, Verdict, report
from pyro_lvm.errors import PyroLVMError
from pyro_lvm.objectives import ELBO

pytestmark = pytest.mark.usefixtures("float64")


@pytest.fixture
def x() -> Tensor:
    return 2**0.5 * torch.randn(20, 2, dtype=torch.float64)


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
