"""A run brought back from its folder: programs, objective and test data, as they were trained."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from jsonargparse import ArgumentError, ArgumentParser
from torch import Tensor

from pyro_lvm.cli.catalog import read_data
from pyro_lvm.cli.configs import CompareConfig, FitConfig, ObjectiveConfig
from pyro_lvm.cli.runs import Plan
from pyro_lvm.errors import CheckpointError, PyroLVMError, explain
from pyro_lvm.objective import Objective
from pyro_lvm.training.checkpoint import CheckpointFolder
from pyro_lvm.training.programs import Programs

__all__ = ["Restored", "restore"]

_SWITCHES = {"resume", "overwrite"}
_HINT = "Pass what was given as --out, for instance runs/demo."
_OTHERS = {
    "table": (
        "one of pyro-lvm impute",
        "Look at its figures/, and at khat in the group constant_data of its imputations.nc.",
    ),
    "traces": (
        "one of pyro-lvm spikes",
        "Look at its figures/, and at posterior.nc; with true spikes in the file it tells how many "
        "were found.",
    ),
}
"""Runs of commands that judge themselves, by a setting that they alone have."""


@dataclass(frozen=True)
class Restored:
    """What a run trained, and what it is judged on.

    Attributes:
        label: of the objective, the seed, and how far it came if it was interrupted.
        test: ``(N, D)``.
    """

    label: str
    model: Any
    guide: Any
    objective: Objective
    test: Tensor


def restore(folder: Path, objective: str | None = None, seed: int | None = None) -> Restored:
    """Build and load what ``pyro-lvm fit`` or ``pyro-lvm compare`` left in ``folder``.

    Args:
        folder: the run directory.
        objective: which run of a comparison, by its name in the table; the best log p(x) if
            left out.
        seed: which run of it; its first if left out.

    Raises:
        PyroLVMError: no run directory of these commands, or no such run in it.
        CheckpointError: no whole checkpoint.
    """
    config = _config(folder)
    choice, seed, place = _chosen(config, folder, objective, seed)
    plan = Plan(config, read_data(config.data.name, config.data.options))
    model, guide = plan.programs(seed)
    bound = plan.objective(choice, model)
    content = CheckpointFolder(place / "checkpoints").latest()
    if content is None:
        hint = "Finish the run with --resume."
        raise CheckpointError(explain(f"run {place}", "a checkpoint", "none", hint))
    Programs(model, guide).load_state_dict(content["programs"])
    bound.load_state_dict(content["objective"])
    label = f"{choice.label}, seed {seed}{_how_far(content, config.train.steps)}"
    return Restored(label, model, guide, bound, plan.test)


def _how_far(content: Mapping[str, Any], steps: int) -> str:
    step = content["state"]["step"]
    return "" if step >= steps else f", stopped at step {step} of {steps}: --resume goes on"


def _config(folder: Path) -> FitConfig | CompareConfig:
    settings = _settings(folder)
    kind = CompareConfig if "objectives" in settings else FitConfig
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(kind, as_group=False, skip=_SWITCHES)
    try:
        given = vars(parser.instantiate(parser.parse_object(settings)))
    except ArgumentError as error:
        raise _no_run(folder, f"a config.yaml of something else: {error}") from error
    return kind(**given)


def _settings(folder: Path) -> dict[str, Any]:
    path = folder / "config.yaml"
    if not path.is_file():
        raise _no_run(folder, "no config.yaml in it" if folder.is_dir() else "no such folder")
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise _no_run(folder, "a config.yaml that is no YAML") from error
    if not isinstance(settings, Mapping):
        raise _no_run(folder, "a config.yaml of something else")
    for name, (found, hint) in _OTHERS.items():
        if name in settings:
            raise _no_run(folder, found, hint)
    if not {"objective", "objectives"} & set(settings):
        raise _no_run(folder, "a config.yaml of something else")
    return dict(settings)


def _no_run(folder: Path, found: str, hint: str = _HINT) -> PyroLVMError:
    expected = "a folder that pyro-lvm fit or pyro-lvm compare wrote"
    return PyroLVMError(explain(f"run {folder}", expected, " ".join(found.split()), hint))


def _chosen(
    config: FitConfig | CompareConfig, folder: Path, objective: str | None, seed: int | None
) -> tuple[ObjectiveConfig, int, Path]:
    """Which run of the folder, and where it is."""
    if isinstance(config, FitConfig):
        _one_of("objective", objective, [config.objective.label])
        _one_of("seed", seed, [config.seed])
        return config.objective, config.seed, folder
    known = {choice.label: choice for choice in config.objectives}
    label = _one_of("objective", objective, list(known)) or _best(folder, list(known))
    seed = _one_of("seed", seed, config.seeds)
    seed = config.seeds[0] if seed is None else seed
    return known[label], seed, folder / "runs" / label / f"seed{seed}"


def _one_of(name: str, given: Any, known: Sequence[Any]) -> Any:
    if given is not None and given not in known:
        hint = f"Pass --{name} {known[0]}, or leave it out."
        raise PyroLVMError(explain(name, f"one of {list(known)}", repr(given), hint))
    return given


def _best(folder: Path, labels: Sequence[str]) -> str:
    """The best log p(x) of the table; the first objective where there is none yet."""
    table = folder / "table.csv"
    if not table.is_file():
        return labels[0]
    with table.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return max(rows, key=lambda row: float(row["log_evidence"]))["objective"]
