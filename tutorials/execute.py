"""Runs each tutorial's text from top to bottom and writes the notebook that belongs to it.

    python tutorials/execute.py [tutorials/01_swap_objectives.py ...]

A notebook keeps nothing of the machine: no times, no paths, and nothing that libraries say
on stderr. Cells are numbered, so that a changed text changes few lines.
"""

from __future__ import annotations

import sys
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient

__all__ = ["execute", "texts"]

FOLDER = Path(__file__).parent


def texts() -> list[Path]:
    """The tutorials, in order."""
    return sorted(FOLDER.glob("[0-9]*.py"))


def execute(text: Path) -> Path:
    """Run one tutorial and return the path of its notebook.

    Raises:
        CellExecutionError: a cell failed; the notebook is left as it was.
    """
    notebook = jupytext.read(text)
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number:02}"
    resources = {"metadata": {"path": FOLDER}}
    NotebookClient(notebook, resources=resources, record_timing=False).execute()
    for cell in notebook.cells:
        cell.metadata = {}
        if cell.cell_type == "code":
            cell.outputs = [out for out in cell.outputs if out.get("name") != "stderr"]
    notebook.metadata = {"kernelspec": notebook.metadata["kernelspec"]}
    path = text.with_suffix(".ipynb")
    nbformat.write(notebook, path)
    return path


if __name__ == "__main__":
    for tutorial in [Path(name) for name in sys.argv[1:]] or texts():
        print(execute(tutorial))
