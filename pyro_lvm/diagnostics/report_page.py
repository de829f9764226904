"""The report as one HTML page that needs nothing else."""

from __future__ import annotations

from base64 import b64encode
from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from io import BytesIO
from string import Template
from typing import TYPE_CHECKING, NamedTuple

from pyro_lvm.diagnostics.report_case import Finding
from pyro_lvm.diagnostics.report_style import STYLE
from pyro_lvm.diagnostics.verdict import Status

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame  # type: ignore[import-untyped]

__all__ = ["Section", "page", "png"]

_PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<link rel="icon" href="data:,">
<style>$style</style>
</head>
<body>
<header>
<h1>$title</h1>
<p class="answer">$answer</p>
<dl class="subject">$subject</dl>
</header>
<nav aria-label="Checks">
<h2>Checks</h2>
<ol>$contents</ol>
</nav>
<main>$sections</main>
</body>
</html>
""")

_LINE = Template("""<li class="$status">$badge
<div>$link: $finding$hint</div></li>
""")

_SECTION = Template("""<section id="$name">
<h2>$check $badge</h2>
<p class="question">$question</p>
<p class="finding">$finding</p>
$advice
$figures
$table
$numbers
<div class="about">$about</div>
</section>
""")

_PIXELS_PER_INCH = 96  # of CSS
_TITLE = "Can this posterior be trusted?"
_WORDS = {
    Status.PASS: "pass",
    Status.WARN: "warning",
    Status.FAIL: "fail",
    Status.SKIP: "does not apply",
    Status.ERROR: "not run",
}


class Section(NamedTuple):
    """One check on the page."""

    name: str
    finding: Finding
    text: str

    @property
    def was_run(self) -> bool:
        """Whether it found something, for or against."""
        return self.finding.verdict.status not in (Status.SKIP, Status.ERROR)


def page(sections: Sequence[Section], subject: Mapping[str, str]) -> str:
    """The whole page: pictures are inside it, nothing is fetched, every text is escaped.

    Args:
        sections: the checks, in order.
        subject: what was looked at, by name.
    """
    return _PAGE.substitute(
        title=_TITLE,
        style=STYLE,
        answer=_answer([section.finding.verdict.status for section in sections]),
        subject="".join(f"<dt>{escape(n)}</dt><dd>{escape(v)}</dd>" for n, v in subject.items()),
        contents="".join(_LINE.substitute(_common(section)) for section in sections),
        sections="".join(_section(section) for section in sections if section.was_run),
    )


def png(figure: Figure) -> bytes:
    """The figure as a PNG file."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    return buffer.getvalue()


def _answer(statuses: Sequence[Status]) -> str:
    """One sentence over all checks."""
    count = Counter(statuses)
    judged = count[Status.PASS] + count[Status.WARN] + count[Status.FAIL]
    if not judged:
        return "No check could judge it."
    if count[Status.FAIL]:
        return f"Not as it is: {count[Status.FAIL]} of {judged} checks failed."
    if count[Status.WARN]:
        return f"With care: {count[Status.WARN]} of {judged} checks gave a warning."
    return f"Nothing speaks against it: all {judged} checks that apply passed."


def _common(section: Section) -> dict[str, str]:
    verdict = section.finding.verdict
    name, check = escape(section.name), escape(verdict.check)
    return {
        "name": name,
        "check": check,
        "link": f'<a href="#{name}">{check}</a>' if section.was_run else f"<b>{check}</b>",
        "finding": escape(verdict.finding),
        "hint": "" if section.was_run else escape(f" {verdict.advice}".rstrip()),
        "status": verdict.status,
        "badge": f'<span class="badge {verdict.status}">{_WORDS[verdict.status]}</span>',
    }


def _section(section: Section) -> str:
    finding = section.finding
    advice = escape(finding.verdict.advice)
    question, *about = [escape(text) for text in section.text.split("\n\n")]
    return _SECTION.substitute(
        _common(section),
        question=question,
        advice=f'<p class="advice"><b>What to do:</b> {advice}</p>' if advice else "",
        figures="".join(_figure(caption, figure) for caption, figure in finding.figures.items()),
        table="" if finding.table is None else _table(finding.table),
        numbers=_numbers(finding.numbers),
        about="".join(f"<p>{text}</p>" for text in about),
    )


def _figure(caption: str, figure: Figure) -> str:
    data, text = b64encode(png(figure)).decode(), escape(caption)
    source = f"data:image/png;base64,{data}"
    width, height = (round(_PIXELS_PER_INCH * size) for size in figure.get_size_inches())
    image = f'<img src="{source}" alt="{text}" width="{width}" height="{height}">'
    return f"<figure>{image}<figcaption>{text}</figcaption></figure>"


def _table(table: DataFrame) -> str:
    options = {"index": False, "border": 0, "na_rep": "-"}
    return str(table.to_html(float_format="{:.4g}".format, **options))


def _numbers(numbers: Mapping[str, float]) -> str:
    if not numbers:
        return ""
    rows = "".join(
        f"<tr><th>{escape(name)}</th><td>{value:.4g}</td></tr>" for name, value in numbers.items()
    )
    return f"<details><summary>Numbers</summary><table>{rows}</table></details>"
