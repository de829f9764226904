"""Run directories: made, resumed or overwritten only on request, with their settings inside."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from pyro_lvm.cli.configs import CommandConfig
from pyro_lvm.errors import PyroLVMError, explain
from pyro_lvm.training.files import written_whole

__all__ = ["list_files", "open_folder"]

_FREE = {
    *("out", "evaluation", "objectives", "seeds"),
    *("num_samples", "num_draws", "num_imputations", "num_figures"),
    *("train.evaluate_every", "train.accelerator", "train.num_threads", "train.compile"),
}
"""Settings that a resumed run may change: what is trained stays the same."""
_STEPS = "train.steps"
"""May change too, where the learning rate does not follow from it."""
_INPUTS = ("table", "traces", "guide")
"""Settings that are paths."""


def open_folder(config: CommandConfig) -> Path:
    """The run directory ``config.out``, with the settings in its config.yaml.

    ``pyro-lvm ... --config`` takes that file back.

    Raises:
        PyroLVMError: the directory cannot be written, or has something in it that is no run, or
            an earlier run and neither ``resume`` nor ``overwrite`` is set, or one of other
            settings that would go on as something else.
    """
    folder = Path(config.out)
    if config.resume and config.overwrite:
        found, hint = "both", "--overwrite would delete what --resume goes on with: leave one out."
        raise PyroLVMError(explain(f"out={folder}", "--resume or --overwrite", found, hint))
    try:
        _make_room(folder, config)
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        hint = "Pass another --out, or make room there."
        where = f"out={folder}"
        raise PyroLVMError(explain(where, "a folder to write to", str(error), hint)) from error
    with written_whole(folder / "config.yaml") as path:
        path.write_text(yaml.safe_dump(config.settings(), sort_keys=False), encoding="utf-8")
    return folder


def _make_room(folder: Path, config: CommandConfig) -> None:
    """Nothing is in the way, or an earlier run that goes on or is deleted."""
    if not (folder.is_dir() and any(folder.iterdir())):
        return
    before = _earlier(folder)
    if before is None or not (config.resume or config.overwrite):
        raise _occupied(folder, before is not None)
    if config.overwrite:
        _check_inputs(folder, config)
        shutil.rmtree(folder)
    else:
        _check_same(folder, _flat(before, config), config)


def _earlier(folder: Path) -> Mapping[str, Any] | None:
    """The settings of the run in ``folder``, if it is one: others have a config.yaml too."""
    try:
        settings = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    except (FileNotFoundError, UnicodeDecodeError, yaml.YAMLError):
        return None
    return settings if isinstance(settings, Mapping) and {"train", "out"} <= {*settings} else None


def _check_inputs(folder: Path, config: CommandConfig) -> None:
    for name in _INPUTS:
        given = getattr(config, name, None)
        if isinstance(given, str) and Path(given).resolve().is_relative_to(folder.resolve()):
            expected, found = f"an input outside of {folder}, which --overwrite deletes", given
            hint = "Move it elsewhere, or pass another --out."
            raise PyroLVMError(explain(name, expected, found, hint))


def _check_same(folder: Path, before: Mapping[str, Any], config: CommandConfig) -> None:
    now = _flat(yaml.safe_load(yaml.safe_dump(config.settings())), config)
    different = [key for key in before.keys() | now.keys() if before.get(key) != now.get(key)]
    if different:
        expected = ", ".join(f"{key}={before.get(key)}" for key in sorted(different))
        found = ", ".join(f"{key}={now.get(key)}" for key in sorted(different))
        hint = f"Resume by the arguments of the first time, or by --config {folder / 'config.yaml'}"
        more = "; a cosine falls to 0 over the steps of the first time" if _STEPS in now else ""
        raise PyroLVMError(explain(f"--resume of {folder}", expected, found, f"{hint}{more}."))


def _flat(settings: Any, config: CommandConfig, name: str = "") -> dict[str, Any]:
    """Settings by their dotted names, but those that a resumed run may change."""
    if name in _FREE or (name == _STEPS and config.train.schedule == "constant"):
        return {}
    if not isinstance(settings, Mapping):
        return {name: settings}
    parts = [_flat(value, config, f"{name}.{key}".lstrip(".")) for key, value in settings.items()]
    return {key: value for part in parts for key, value in part.items()}


def list_files(folder: Path) -> str:
    """The files in ``folder`` and its figures, one a line; checkpoints are left out."""
    files = sorted([*folder.glob("*.*"), *(folder / "figures").glob("*.png")])
    names = [str(path.relative_to(folder)) for path in files if path.is_file()]
    return "\n  ".join([f"Written to {folder}:", *names])


def _occupied(folder: Path, is_run: bool) -> PyroLVMError:
    found = "an earlier run in it" if is_run else "other files in it"
    hint = "Pass --resume, --overwrite or another --out." if is_run else "Pass another --out."
    return PyroLVMError(explain(f"out={folder}", "a new or empty directory", found, hint))
