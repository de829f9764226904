"""What a run says of itself: metrics.csv, metrics.jsonl, TensorBoard and a progress bar."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm  # type: ignore[import-untyped, unused-ignore]

from pyro_lvm.errors import PyroLVMError, explain
from pyro_lvm.training.files import explained_writing
from pyro_lvm.training.state import COLUMNS, Row

__all__ = ["MetricLog", "Progress"]


class MetricLog:
    """Metrics as they come, in ``metrics.csv`` and ``metrics.jsonl`` (nothing without a folder).

    The files start with the given rows: after a resume they hold no row from beyond the
    checkpoint. Values that are not finite are left empty, as JSON has none.

    Args:
        folder: where the files go, or None.
        rows: the history so far.
        tensorboard: write event files too.
    """

    def __init__(self, folder: Path | None, rows: list[Row], *, tensorboard: bool = False) -> None:
        self.folder = folder
        self._events: Any = None
        if tensorboard:
            self._events = _summary_writer(folder, int(rows[-1]["step"] or 0) + 1 if rows else 0)
        self.rewrite(rows)

    def rewrite(self, rows: list[Row]) -> None:
        """Start the files anew with ``rows``."""
        if self.folder is None:
            return
        with explained_writing(self.folder / "metrics.csv"):
            self.folder.mkdir(parents=True, exist_ok=True)
            with (self.folder / "metrics.csv").open("w", newline="") as file:
                csv.writer(file).writerow(COLUMNS)
            (self.folder / "metrics.jsonl").write_text("")
        self._append(rows)

    def write(self, row: Row) -> None:
        """Append one row."""
        self._append([row])
        if self._events is not None:
            for name, value in row.items():
                if value is not None and name != "step":
                    self._events.add_scalar(name, value, row["step"])

    def close(self) -> None:
        if self._events is not None:
            self._events.close()

    def _append(self, rows: list[Row]) -> None:
        if self.folder is None or not rows:
            return
        finite = [{name: _finite(row.get(name)) for name in COLUMNS} for row in rows]
        with explained_writing(self.folder / "metrics.csv"):
            with (self.folder / "metrics.csv").open("a", newline="") as file:
                csv.DictWriter(file, COLUMNS).writerows(finite)
            with (self.folder / "metrics.jsonl").open("a") as file:
                file.writelines(json.dumps(row) + "\n" for row in finite)


class Progress:
    """A progress bar over steps with the latest metrics.

    Args:
        total: steps of the whole run.
        done: steps already done.
        shown: True or False, or None to show it on a terminal only.
    """

    def __init__(self, total: int, done: int, shown: bool | None) -> None:
        disable = None if shown is None else not shown
        self._bar = tqdm(total=total, initial=done, disable=disable, unit="step")
        self._latest: dict[str, str] = {}

    def update(self, row: Row | None) -> None:
        """Count one step; show ``row`` if there is one."""
        self._bar.update()
        if row is not None and not self._bar.disable:
            shown = {n: row.get(n) for n in ("loss", "bound", "ess", "khat")}
            self._latest |= {n: f"{v:.4g}" for n, v in shown.items() if v is not None}
            self._bar.set_postfix(self._latest)

    def close(self) -> None:
        self._bar.close()


def _finite(value: float | int | None) -> float | int | None:
    return value if value is not None and math.isfinite(value) else None


def _summary_writer(folder: Path | None, first_step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise PyroLVMError(
            explain(
                "tensorboard",
                "the tensorboard package",
                "none installed",
                "Run pip install 'pyro-lvm[tensorboard]', or leave the flag out.",
            )
        ) from error
    if folder is None:
        raise PyroLVMError(explain("tensorboard", "a run_dir", "None", "Pass run_dir=."))
    return SummaryWriter(folder / "tensorboard", purge_step=first_step)
