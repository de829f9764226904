"""``pyro-lvm fit``: one model, one guide, one objective, one run directory."""

from __future__ import annotations

from pyro_lvm.cli.configs import FitConfig
from pyro_lvm.cli.evaluation import summarize
from pyro_lvm.cli.folders import list_files, open_folder
from pyro_lvm.cli.legend import legend
from pyro_lvm.cli.report import report, write_curves
from pyro_lvm.cli.runs import Plan
from pyro_lvm.cli.table import write_table

__all__ = ["fit"]


def fit(config: FitConfig) -> None:
    """Train, judge on test data, and write all of it to ``config.out``."""
    plan = Plan.of(config, [config.objective])
    folder = open_folder(config)
    run = plan.run(config.objective, config.seed, folder)
    rows = [summarize(run.label, [run.evaluation], [run.evaluation])]
    meaning = legend(rows, len(plan.test), [config.seed], config.evaluation)
    table = write_table(rows, meaning, folder)
    write_curves([run], folder / "figures")
    report(run, plan, folder)
    print(f"\n{table}\n\n{list_files(folder)}")
