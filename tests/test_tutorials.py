"""Every tutorial runs from top to bottom, and its notebook holds the same text and its pictures."""

import re
import runpy
from pathlib import Path

import jupytext
import matplotlib.pyplot as plt
import nbformat
import pytest

TUTORIALS = Path(__file__).parents[1] / "tutorials"
TEXTS = sorted(TUTORIALS.glob("[0-9]*.py"))
MAX_BYTES = 500_000
MACHINE_PATH = re.compile(
    r"(?<![\w.])/(?:home|root|tmp|usr|opt|work|Users)/|site-packages|[A-Z]:\\"
)


@pytest.fixture(params=TEXTS, ids=lambda path: path.stem)
def text(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


@pytest.fixture
def notebook(text: Path) -> nbformat.NotebookNode:
    return nbformat.read(text.with_suffix(".ipynb"), as_version=4)


def test_every_notebook_has_a_text() -> None:
    assert TEXTS
    assert [p.with_suffix(".py") for p in sorted(TUTORIALS.glob("*.ipynb"))] == TEXTS


def test_runs_in_smoke_mode(text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYRO_LVM_SMOKE", "1")
    with plt.rc_context({"backend": "Agg"}):
        runpy.run_path(str(text), run_name="__main__")
        assert plt.get_fignums(), "a tutorial draws pictures"
        plt.close("all")


def test_notebook_has_the_cells_of_the_text(text: Path, notebook: nbformat.NotebookNode) -> None:
    """`make tutorials` brings them together again."""
    wanted = [(cell.cell_type, cell.source) for cell in jupytext.read(text).cells]
    assert [(cell.cell_type, cell.source) for cell in notebook.cells] == wanted


def test_notebook_is_valid_and_was_run_in_order(notebook: nbformat.NotebookNode) -> None:
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    kinds = {output.output_type for cell in code for output in cell.outputs}
    assert "error" not in kinds
    assert any("image/png" in output.get("data", {}) for cell in code for output in cell.outputs)


def test_notebook_is_small_and_keeps_nothing_of_the_machine(
    text: Path, notebook: nbformat.NotebookNode
) -> None:
    assert text.with_suffix(".ipynb").stat().st_size < MAX_BYTES
    assert set(notebook.metadata) == {"kernelspec"}
    assert not any(cell.metadata for cell in notebook.cells)
    words = [
        output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", [])
    ]
    data = [output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", [])]
    words += [value for entry in data for kind, value in entry.items() if kind.startswith("text/")]
    assert not [found.group() for word in words if (found := MACHINE_PATH.search(word))]
