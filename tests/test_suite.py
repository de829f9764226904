"""The command line of the benchmarks that are made of named runs."""

import importlib
import json
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pyro
import pytest
from matplotlib.figure import Figure

from benchmarks import suite
from benchmarks.suite import Suite
from benchmarks.tables import markdown, mean_and_deviation

SUITES = [
    file.stem
    for file in sorted(Path(suite.__file__).parent.glob("*.py"))
    if file.stem != "suite" and "SUITE = " in file.read_text()
]


@pytest.fixture(autouse=True)
def _settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(suite, "RESULTS", tmp_path)
    with pyro.settings.context(module_local_params=True), pyro.validation_enabled(False):
        yield


def made(seen: list[tuple[str, int, int | None]]) -> Suite:
    def run(name: str, seed: int, steps: int | None) -> dict[str, float]:
        seen.append((name, seed, steps))
        return {"NLL": seed + 0.5}

    drawn = SimpleNamespace(RUNS=["a", "b"], run=run, picture=lambda steps: Figure())
    plain = SimpleNamespace(RUNS=["c"], run=run)
    tables = {"plain one": partial(markdown, cell=mean_and_deviation)}
    return Suite("made", "What it is.", {"drawn": drawn, "plain one": plain}, tables)


def test_all_parts_are_run_once_and_printed(capsys, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int | None]] = []
    made(seen).main(["--seeds", "2"])
    drawn = [(name, seed, None) for seed in (0, 1) for name in ("a", "b")]
    assert seen == [*drawn, ("c", 0, None), ("c", 1, None)]
    printed = capsys.readouterr().out
    assert "## drawn\n\n| | NLL |\n| --- | --- |\n| a | 0.500, 1.500 |" in printed
    assert "## plain one\n\n| | NLL |\n| --- | --- |\n| c | 1.000 ± 0.707 |" in printed
    assert len(json.loads((tmp_path / "made.json").read_text())) == 6
    made(seen).main(["--seeds", "2"])
    assert len(seen) == 6
    assert capsys.readouterr().out == printed


def test_some_of_the_runs_elsewhere(tmp_path: Path) -> None:
    seen: list[tuple[str, int, int | None]] = []
    chosen = ["drawn", "--runs", "b", "--first-seed", "10", "--seeds", "1", "--steps", "7"]
    made(seen).main([*chosen, "--no-save", "--picture"])
    assert seen == [("b", 10, 7)]
    assert [path.name for path in tmp_path.iterdir()] == ["made_drawn.png"]


def test_pictures_alone(capsys, tmp_path: Path) -> None:
    made([]).main(["--seeds", "0", "--picture"])
    assert capsys.readouterr().out == ""
    assert [path.name for path in tmp_path.iterdir()] == ["made_drawn.png"]


def test_an_unknown_part_is_told(capsys) -> None:
    with pytest.raises(SystemExit):
        made([]).main(["dawn"])
    assert "unknown part 'dawn'; there are 'drawn', 'plain one'" in capsys.readouterr().err


@pytest.mark.parametrize("name", SUITES)
def test_every_suite_has_the_name_of_its_file_and_parts_that_run(name: str) -> None:
    found: Suite = importlib.import_module(f"benchmarks.{name}").SUITE
    assert found.name == name
    assert found.tables.keys() <= found.parts.keys()
    for part in found.parts.values():
        assert len(list(part.RUNS)) == len(set(part.RUNS))
        assert callable(part.run)
