"""The README's example runs and gives what it says; pages link to what is there."""

import doctest
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [
    page
    for folder in ("", "tutorials", "benchmarks", "benchmarks/results", "pyro_lvm/data/embedded")
    for page in sorted((ROOT / folder).glob("*.md"))
]


def test_example_runs() -> None:
    failed, attempted = doctest.testfile(str(ROOT / "README.md"), module_relative=False)
    assert attempted > 5
    assert failed == 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!http)([^)#]+)", text)
    assert [link for link in links if not (page.parent / link).exists()] == []
    own = set(re.findall(r"\]\(#([^)]+)", text))
    heads = {head.lower().replace(" ", "-") for head in re.findall(r"^#+ (.+)$", text, re.M)}
    assert own <= heads
