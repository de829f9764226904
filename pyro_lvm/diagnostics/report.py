"""All checks of a posterior in one call, and the page they make."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from inspect import cleandoc
from pathlib import Path
from typing import Any

from torch import Tensor
from tqdm.auto import tqdm  # type: ignore[import-untyped, unused-ignore]

from pyro_lvm.diagnostics.report_case import Case, Check, DoesNotApply, Finding
from pyro_lvm.diagnostics.report_checks import DEFAULT_CHECKS, chosen
from pyro_lvm.diagnostics.report_page import Section, page, png
from pyro_lvm.diagnostics.verdict import Status, Verdict
from pyro_lvm.errors import DensityError, NotAmortizedError
from pyro_lvm.objective import Objective
from pyro_lvm.training.programs import Programs
from pyro_lvm.training.rng import seeded

__all__ = ["Report", "report"]

Program = Callable[..., Any]


@dataclass(frozen=True)
class Report:
    """What all checks found.

    Attributes:
        findings: by name of the check, in the order they were asked for.
        texts: what each check looks at, for the page.
        subject: what was looked at, in words.

    Example:
        >>> from pyro_lvm.diagnostics import Status
        >>> verdict = Verdict("weights", Status.PASS, "k-hat is 0.3.")
        >>> found = Report({"weights": Finding(verdict, {"khat_max": 0.3})}, {"weights": ""}, {})
        >>> print(found)
        [pass] weights: k-hat is 0.3.
        >>> found.summary()
        {'weights.khat_max': 0.3}
    """

    findings: Mapping[str, Finding]
    texts: Mapping[str, str]
    subject: Mapping[str, str]

    def __str__(self) -> str:
        return "\n".join(str(verdict) for verdict in self.verdicts)

    @property
    def verdicts(self) -> list[Verdict]:
        """One of each check."""
        return [finding.verdict for finding in self.findings.values()]

    def summary(self) -> dict[str, float]:
        """The numbers of all checks, by the check's name and their own, as in ``gap.elbo``."""
        return {
            f"{check}.{name}": value
            for check, finding in self.findings.items()
            for name, value in finding.numbers.items()
        }

    def to_html(self, path: str | Path | None = None) -> str:
        """One page with pictures inside it, as text; written to ``path`` if that is given."""
        sections = [Section(n, f, self.texts[n]) for n, f in self.findings.items()]
        text = page(sections, self.subject)
        if path is not None:
            Path(path).write_text(text, encoding="utf-8")
        return text

    def save(self, folder: str | Path) -> Path:
        """Write ``report.html``, and each picture to ``figures``; returns the page's path."""
        figures = Path(folder) / "figures"
        figures.mkdir(parents=True, exist_ok=True)
        for check, finding in self.findings.items():
            for number, figure in enumerate(finding.figures.values()):
                name = f"check_{check}_{number}.png" if number else f"check_{check}.png"
                (figures / name).write_bytes(png(figure))
        path = Path(folder) / "report.html"
        self.to_html(path)
        return path


def report(
    model: Program,
    guide: Program,
    *args: Any,
    objective: Objective | None = None,
    checks: Sequence[str | Check] = DEFAULT_CHECKS,
    num_samples: int = 2500,
    seed: int = 0,
    folder: str | Path | None = None,
    progress: bool | None = None,
    **kwargs: Any,
) -> Report:
    """Run all checks of a fitted model and guide that apply, and say what to do next.

    A check that does not apply says so, and one that fails to run does not lose the others.
    Use data that the programs were not trained on: after ``result = fit(...)`` it is
    ``report(result.model, result.guide, x_test, objective=result.objective)``. Modules are in
    evaluation mode meanwhile.

    Args:
        model: generative program, called as ``model(*args, **kwargs)``.
        guide: its guide.
        args: of both programs; ``kwargs`` too.
        objective: what they were trained by, as trained.
        checks: names of :data:`~pyro_lvm.diagnostics.CHECKS`, or functions of your own from a
            :class:`~pyro_lvm.diagnostics.Case` to a :class:`~pyro_lvm.diagnostics.Finding`.
            By default those that take seconds.
        num_samples: draws per datum.
        seed: makes the report repeatable; the global random state is left as it was.
        folder: where to write ``report.html`` and ``figures``, if anywhere.
        progress: show a progress bar; None for only on a terminal.

    Returns:
        The report: ``print`` it, or see ``to_html``.

    Raises:
        ValueError: an unknown check.

    Example:
        >>> import pyro, torch, pyro.distributions as dist
        >>> def model(x):
        ...     with pyro.plate("data", len(x)):
        ...         z = pyro.sample("z", dist.Normal(0.0, 1.0))
        ...         pyro.sample("x", dist.Normal(z, 1.0), obs=x)
        >>> def guide(x):
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("z", dist.Normal(x / 2, 0.25))  # the posterior has 0.71
        >>> found = report(model, guide, torch.linspace(-2, 2, 20), checks=["weights"])
        >>> print(str(found)[:70])
        [fail] weights: k-hat is above 0.7 for 60 % of the data (at worst 0.98
    """
    case = Case(model, guide, args, kwargs, objective, num_samples, seed)
    wanted = chosen(checks)
    findings = {}
    with (
        Programs(model, guide).evaluating(),
        tqdm(wanted.items(), disable=None if progress is None else not progress) as bar,
    ):
        for name, check in bar:
            bar.set_description(name)
            with seeded(seed, name):
                findings[name] = _run(name, check, case)
    texts = {name: _text(check) for name, check in wanted.items()}
    made = Report(findings, texts, _subject(case))
    if folder is not None:
        made.save(folder)
    return made


def _run(name: str, check: Check, case: Case) -> Finding:
    try:
        return check(case)
    except (DoesNotApply, DensityError, NotAmortizedError) as reason:
        status, told = Status.SKIP, str(reason)
    except Exception as error:  # one broken check must not lose the others
        status, told = Status.ERROR, f"could not be run: {type(error).__name__}: {error}"
    finding, _, hint = told.partition("\nTry: ")
    return Finding(Verdict(name, status, " ".join(finding.split()), hint))


def _text(check: Check) -> str:
    return cleandoc(check.__doc__ or "").partition("\nExample:")[0].strip()


def _subject(case: Case) -> dict[str, str]:
    packages = ("pyro-lvm", "pyro-ppl", "torch", "arviz")
    return {
        "Model": _name(case.model),
        "Guide": _name(case.guide),
        "Objective": "not given" if case.objective is None else repr(case.objective),
        "Data": ", ".join(_shape(value) for value in (*case.args, *case.kwargs.values())),
        "Draws": f"{case.num_samples} per datum, seed {case.seed}",
        "Made by": ", ".join(f"{name} {version(name)}" for name in packages),
    }


def _name(program: Program) -> str:
    return getattr(program, "__qualname__", type(program).__name__)


def _shape(value: Any) -> str:
    return " x ".join(map(str, value.shape)) if isinstance(value, Tensor) else repr(value)[:40]
