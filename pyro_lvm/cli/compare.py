"""``pyro-lvm compare``: one model under several objectives, same budget, same seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pyro_lvm.cli.configs import CompareConfig
from pyro_lvm.cli.evaluation import Summary, summarize
from pyro_lvm.cli.figures import comparison, save_figure
from pyro_lvm.cli.folders import list_files, open_folder
from pyro_lvm.cli.legend import legend
from pyro_lvm.cli.report import report, write_curves
from pyro_lvm.cli.runs import Plan, Run
from pyro_lvm.cli.table import write_table
from pyro_lvm.errors import PyroLVMError, explain

__all__ = ["compare"]


def compare(config: CompareConfig) -> None:
    """Train under each objective and seed, and write one table to ``config.out``."""
    _check(config)
    plan = Plan.of(config, config.objectives)
    folder = open_folder(config)
    runs = _train_all(plan, config, folder)
    rows = _rows(runs)
    meaning = legend(rows, len(plan.test), config.seeds, config.evaluation)
    table = write_table(rows, meaning, folder)
    best = max(rows, key=lambda row: row.log_evidence).objective
    save_figure(comparison(rows), folder / "figures" / "comparison.png")
    write_curves([trained[0] for trained in runs.values()], folder / "figures")
    report(runs[best][0], plan, folder)
    shown = (
        f"posterior.nc and the pictures are of {best}, the best log p(x), seed {config.seeds[0]}."
    )
    print(f"\n{table}\n\n{shown}\n\n{list_files(folder)}")


def _train_all(plan: Plan, config: CompareConfig, folder: Path) -> dict[str, list[Run]]:
    runs: dict[str, list[Run]] = {objective.label: [] for objective in config.objectives}
    jobs = [(objective, seed) for seed in config.seeds for objective in config.objectives]
    for number, (objective, seed) in enumerate(jobs, 1):
        print(f"[{number}/{len(jobs)}] {objective.label}, seed {seed}", flush=True)
        place = folder / "runs" / objective.label / f"seed{seed}"
        runs[objective.label].append(plan.run(objective, seed, place))
    return runs


def _rows(runs: Mapping[str, Sequence[Run]]) -> list[Summary]:
    evaluations = {label: [run.evaluation for run in trained] for label, trained in runs.items()}
    reference = next(iter(evaluations.values()))
    return [summarize(label, values, reference) for label, values in evaluations.items()]


def _check(config: CompareConfig) -> None:
    labels = [objective.label for objective in config.objectives]
    for name, values in (("objectives", labels), ("seeds", [str(seed) for seed in config.seeds])):
        if not values:
            raise PyroLVMError(explain(name, "at least one", "none", f"Pass --{name}."))
        twice = [value for value in values if values.count(value) > 1]
        if twice:
            raise PyroLVMError(
                explain(name, "each of them once", f"{twice[0]} twice", "Leave one out.")
            )
