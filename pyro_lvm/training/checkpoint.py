"""Checkpoints of tensors and plain types: whole or refused, and no code in them is run."""

from __future__ import annotations

import os
import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyro_lvm.errors import CheckpointError, explain
from pyro_lvm.training.files import written_whole

__all__ = ["CheckpointFolder", "DamagedCheckpoint", "read", "write"]

VERSION = 1
_SCALARS = (str, int, float, bool, type(None))


class DamagedCheckpoint(CheckpointError):
    """A file that was cut short or changed after it was written."""


def write(path: Path, kind: str, content: dict[str, Any]) -> None:
    """Write ``content`` so that ``path`` is at every moment absent, old or new, never torn.

    Args:
        path: the file; its folder is made.
        kind: what the content is, for instance "training"; :func:`read` asks for it.
        content: tensors and plain types, nested.

    Raises:
        CheckpointError: something in ``content`` is neither.
        WriteError: a full disk, or a folder that cannot be written to.
    """
    _require_plain(content, "content")
    with written_whole(path) as temporary, temporary.open("wb") as file:
        torch.save({"format": f"pyro_lvm.{kind}", "version": VERSION, **content}, file)
        file.flush()
        os.fsync(file.fileno())
    _sync_folder(path.parent)


def read(path: Path, kind: str) -> dict[str, Any]:
    """Content of a checkpoint, on the CPU.

    Raises:
        DamagedCheckpoint: the file is torn or changed.
        CheckpointError: no such file, another kind or version, or objects that are neither
            tensors nor plain types; none of them has been run.
    """
    if not path.is_file():
        raise _refused(path, "a file", "nothing there", "Check the path.")
    _check_whole(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise _refused(
            path,
            "tensors and plain types only",
            "other objects, which were not run",
            "Load only files that pyro_lvm wrote.",
        ) from error
    except (RuntimeError, EOFError, KeyError, ValueError) as error:
        raise _damaged(path) from error
    _check_tag(path, kind, content)
    return content  # type: ignore[no-any-return]


class CheckpointFolder:
    """The checkpoints of a run: the last two, and the best.

    Args:
        folder: where they are; made at the first save.
        keep: how many of the latest to keep.
    """

    def __init__(self, folder: Path, keep: int = 2) -> None:
        self.folder = folder
        self.keep = keep

    @property
    def best(self) -> Path:
        return self.folder / "best.ckpt"

    def path(self, step: int) -> Path:
        return self.folder / f"step-{step:09d}.ckpt"

    def all(self) -> list[Path]:
        """Checkpoints by step, the oldest first."""
        return sorted(self.folder.glob("step-*.ckpt"))

    def save(self, step: int, content: dict[str, Any]) -> Path:
        """Write the checkpoint of ``step`` and remove those that are no longer kept."""
        write(self.path(step), "training", content)
        for old in self.all()[: -self.keep]:
            old.unlink()
        return self.path(step)

    def save_best(self, content: dict[str, Any]) -> None:
        """Write ``content`` as the best so far."""
        write(self.best, "training", content)

    def latest(self) -> dict[str, Any] | None:
        """Content of the last whole checkpoint; a damaged one is named in a warning.

        Raises:
            CheckpointError: there are checkpoints, and none of them is whole.
        """
        paths = self.all()
        for path in reversed(paths):
            try:
                return read(path, "training")
            except DamagedCheckpoint as error:
                warnings.warn(f"skipped a damaged checkpoint. {error}", stacklevel=2)
        if paths:
            raise _damaged(paths[-1])
        return None


def _check_whole(path: Path) -> None:
    """Check the CRC of every entry; ``torch.load`` alone accepts changed tensors."""
    with path.open("rb") as file:
        start = file.read(2)
    if start not in (b"", b"P", b"PK"):
        raise _refused(
            path, "a pyro_lvm checkpoint", "a foreign file, which was not run", "Check the path."
        )
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is not None:
                raise _damaged(path)
    except (zipfile.BadZipFile, EOFError, ValueError, OSError) as error:
        raise error if isinstance(error, CheckpointError) else _damaged(path) from error


def _check_tag(path: Path, kind: str, content: Any) -> None:
    tag = content.get("format") if isinstance(content, dict) else None
    if tag != f"pyro_lvm.{kind}":
        found = f"format {tag!r}" if tag else f"a foreign {type(content).__name__}"
        raise _refused(path, f"format 'pyro_lvm.{kind}'", found, "Pass a file of that kind.")
    if content.get("version") != VERSION:
        raise _refused(
            path,
            f"version {VERSION}",
            f"version {content.get('version')!r}",
            "Load it with the release that wrote it.",
        )


def _require_plain(value: Any, where: str) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            _require_plain(item, f"{where}[{key!r}]")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _require_plain(item, f"{where}[{index}]")
    elif not isinstance(value, Tensor) and type(value) not in _SCALARS:
        raise CheckpointError(
            explain(
                where,
                "a tensor or a plain type",
                f"a {type(value).__name__}",
                "Return only tensors, numbers, strings, lists and dicts from state_dict().",
            )
        )


def _sync_folder(folder: Path) -> None:
    """Make a rename last through a power cut, where the system can."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _damaged(path: Path) -> DamagedCheckpoint:
    return DamagedCheckpoint(
        explain(
            f"checkpoint {path}",
            "a whole file",
            "an incomplete or changed one",
            "Use an earlier checkpoint, or delete this file and train again.",
        )
    )


def _refused(path: Path, expected: str, found: str, hint: str) -> CheckpointError:
    return CheckpointError(explain(f"checkpoint {path}", expected, found, hint))
