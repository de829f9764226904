"""Which checkpoint a run starts from, and whether it fits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pyro_lvm.errors import CheckpointError, explain
from pyro_lvm.training.checkpoint import CheckpointFolder, read
from pyro_lvm.training.rule import differences

__all__ = ["check_same_run", "checkpoint_folder", "starting_point"]

_FIXED = (
    *("seed", "batch_size", "num_data", "data_checksum"),
    *("world_size", "max_grad_norm", "precision"),
)


def checkpoint_folder(run_dir: Path | None) -> CheckpointFolder | None:
    """Where a run keeps its checkpoints."""
    return None if run_dir is None else CheckpointFolder(run_dir / "checkpoints")


def starting_point(
    resume: bool | str | Path, folder: CheckpointFolder | None
) -> dict[str, Any] | None:
    """Content of the checkpoint to go on from, or None for a new run.

    Args:
        resume: False for a new run; True for the latest of ``folder``, or a new run if it has
            none; a checkpoint file or a run directory to start from.
        folder: the run's own checkpoints.

    Raises:
        CheckpointError: a new run would overwrite an old one, or nothing can be resumed.
    """
    if resume is False:
        _refuse_earlier_run(folder)
        return None
    if resume is True:
        if folder is None:
            raise CheckpointError(
                explain("resume=True", "a run_dir", "None", "Pass the run_dir of the earlier run.")
            )
        return folder.latest()
    path = Path(resume)
    if not path.is_dir():
        return read(path, "training")
    content = CheckpointFolder(path / "checkpoints").latest()
    if content is None:
        raise CheckpointError(
            explain(f"resume={str(path)!r}", "a run directory", "no checkpoints in it", "Check it.")
        )
    return content


def check_same_run(saved: dict[str, Any], config: dict[str, Any]) -> None:
    """Refuse settings with which the order of the data or the updates would not be the saved ones.

    Raises:
        CheckpointError: naming each of them.
    """
    before, now = _deciding(saved["config"]), _deciding(config)
    if different := differences(before, now):
        raise CheckpointError(
            explain(
                "resume",
                ", ".join(f"{name}={before[name]}" for name in different),
                ", ".join(f"{name}={now[name]}" for name in different),
                "Pass the same data and settings (a cosine schedule falls over T_max steps, those "
                "of the whole run), or start a new run_dir: fit goes on from the parameters that "
                "the programs have, such as those that FitResult.load put into them.",
            )
        )


def _deciding(config: dict[str, Any]) -> dict[str, Any]:
    rule: dict[str, Any] = config.get("rule", {})
    return {name: config[name] for name in _FIXED if name in config} | rule


def _refuse_earlier_run(folder: CheckpointFolder | None) -> None:
    if folder is not None and folder.all():
        raise CheckpointError(
            explain(
                f"run_dir {folder.folder.parent}",
                "an empty or new directory",
                f"an earlier run, saved at {folder.all()[-1].name}",
                "Pass resume=True to go on with it, or another run_dir.",
            )
        )
