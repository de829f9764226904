"""``pyro-lvm compare``: one model under several objectives, same budget, same seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill

from pyro_lvm.cli.configs import CompareConfig
from pyro_lvm.cli.evaluation import Summary, summarize
from pyro_lvm.cli.figures import comparison, save_figure
from pyro_lvm.cli.folders import list_files, open_folder
from pyro_lvm.cli.report import report, write_curves
from pyro_lvm.cli.runs import Plan, Run
from pyro_lvm.cli.table import write_table
from pyro_lvm.errors import PyroLVMError, explain

__all__ = ["compare"]

_LEGEND = (
    "Nats per datum on {num_data} test data, seeds {seeds}. bound is the objective's own; log p(x) "
    "is by importance sampling with {num_samples} draws; gain is over the first row. ± are "
    "standard errors over data, over seeds, and of the gain. k-hat > 0.7 is the share of data "
    "whose importance weights cannot be trusted, ESS the share of draws that are effective. "
    "posterior.nc and the pictures are of {best}, which has the best log p(x), seed {seed}."
)


def compare(config: CompareConfig) -> None:
    """Train under each objective and seed, and write one table to ``config.out``."""
    _check(config)
    plan = Plan.of(config, config.objectives)
    folder = open_folder(config)
    runs = _train_all(plan, config, folder)
    rows = _rows(runs)
    table = write_table(rows, folder)
    best = max(rows, key=lambda row: row.log_evidence).objective
    save_figure(comparison(rows), folder / "figures" / "comparison.png")
    write_curves([trained[0] for trained in runs.values()], folder / "figures")
    report(runs[best][0], plan, folder)
    print(f"\n{table}\n\n{_legend(config, plan, best)}\n\n{list_files(folder)}")


def _legend(config: CompareConfig, plan: Plan, best: str) -> str:
    text = _LEGEND.format(
        num_data=len(plan.test),
        seeds=config.seeds,
        num_samples=config.evaluation.num_samples,
        best=best,
        seed=config.seeds[0],
    )
    return fill(text, width=100, break_on_hyphens=False)


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
