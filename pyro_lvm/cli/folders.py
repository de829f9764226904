"""Run directories: made, resumed or overwritten only on request, with their settings inside."""

from __future__ import annotations

import shutil
from pathlib import Path

import yaml  # type: ignore[import-untyped]

from pyro_lvm.cli.configs import CommandConfig
from pyro_lvm.errors import PyroLVMError, explain

__all__ = ["list_files", "open_folder"]


def open_folder(config: CommandConfig) -> Path:
    """The run directory ``config.out``, with the settings in its config.yaml.

    ``pyro-lvm ... --config`` takes that file back.

    Raises:
        PyroLVMError: the directory has something in it that is no run, or an earlier run and
            neither ``resume`` nor ``overwrite`` is set.
    """
    folder = Path(config.out)
    settings = folder / "config.yaml"
    if folder.is_dir() and any(folder.iterdir()):
        if not settings.is_file() or not (config.resume or config.overwrite):
            raise _occupied(folder, is_run=settings.is_file())
        if config.overwrite:
            shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    settings.write_text(yaml.safe_dump(config.settings(), sort_keys=False), encoding="utf-8")
    return folder


def list_files(folder: Path) -> str:
    """The files in ``folder`` and its figures, one a line; checkpoints are left out."""
    files = sorted([*folder.glob("*.*"), *(folder / "figures").glob("*.png")])
    names = [str(path.relative_to(folder)) for path in files if path.is_file()]
    return "\n  ".join([f"Written to {folder}:", *names])


def _occupied(folder: Path, is_run: bool) -> PyroLVMError:
    found = "an earlier run in it" if is_run else "other files in it"
    hint = "Pass --resume, --overwrite or another --out." if is_run else "Pass another --out."
    return PyroLVMError(explain(f"out={folder}", "a new or empty directory", found, hint))
