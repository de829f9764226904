"""``pyro-lvm diagnose``: how far the posterior of a run can be trusted, as a page to read."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from pyro_lvm.cli.configs import check_least
from pyro_lvm.cli.restored import restore
from pyro_lvm.diagnostics import DEFAULT_CHECKS, report

__all__ = ["DiagnoseConfig", "diagnose"]


@dataclass(frozen=True, kw_only=True)
class DiagnoseConfig:
    """Say how far the posterior of a run can be trusted, and what to do next.

    Prints one line a check and writes report.html, a page with pictures and tables that needs
    nothing else, and the pictures to figures/. Checks are made on the run's test data.

    Args:
        run: folder that `pyro-lvm fit` or `compare` wrote; may come first, without its name
        objective: which run of a comparison; the best log p(x) if left out
        seed: which run of it; its first if left out
        checks: which checks, in this order
        num_samples: draws per datum
        max_data: test data used, from the first; 0 for all that the run was judged on
        num_threads: of the CPU
    """

    run: str
    objective: str | None = None
    seed: int | None = None
    checks: list[str] = field(default_factory=lambda: list(DEFAULT_CHECKS))
    num_samples: int = 2500
    max_data: int = 0
    num_threads: int = 1

    def __post_init__(self) -> None:
        check_least("", self, {"num_samples": 1, "max_data": 0, "num_threads": 1})


def diagnose(config: DiagnoseConfig) -> None:
    """Bring the run back, check it, and write the report to its folder."""
    folder = Path(config.run)
    run = restore(folder, config.objective, config.seed)
    print(f"{folder}: {run.label}", flush=True)
    found = report(
        run.model,
        run.guide,
        run.test[: config.max_data or None],
        objective=run.objective,
        checks=config.checks,
        num_samples=config.num_samples,
        folder=folder,
    )
    print(f"\n{found}\n\nWritten to {folder / 'report.html'}")
