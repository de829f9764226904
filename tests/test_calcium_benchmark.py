"""The calcium benchmark: its scores are right, and the script prints and keeps its tables."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from calcium_files import write_neurons

from benchmarks import calcium, calcium_oasis, calcium_speed, spike_heights
from benchmarks.calcium import by_seed, main, markdown, runs_of
from benchmarks.calcium_cells import Cells, cells_of
from benchmarks.calcium_scores import Found, scores
from pyro_lvm.data import Traces


@pytest.fixture
def neurons(tmp_path: Path) -> Path:
    """Four neurons of 20 s whose spikes are seen at once and decay in 0.4 s."""
    random = np.random.RandomState(0)
    kernel = 0.19 * np.exp(-np.arange(300) / 40)
    spikes = random.rand(4, 2000) < 0.01
    noise = 0.02 * random.randn(4, 2000)
    traces = [np.convolve(s, kernel)[:2000] + n for s, n in zip(spikes, noise)]
    write_neurons(tmp_path, traces, [(s.nonzero()[0] + 0.5) / 100 for s in spikes])
    return tmp_path


def cells(traces: Traces) -> Cells:
    number = len(traces)
    ones = torch.ones(number)
    return Cells(traces, 0.19 * ones, 0.4 * ones, None, [number - 1], "gcamp6f", 0.2, False)


def test_scores_of_the_truth() -> None:
    spikes = torch.bernoulli(torch.full((2, 1200), 0.05))
    x = torch.randn(2, 1200)
    x[1, 900:] = torch.nan
    late = Found(spikes.roll(2, 1), spikes.expand(30, -1, -1), -torch.ones(2), 1.5)
    found = scores(late, cells(Traces(x, 60.0, spikes=spikes)))
    perfect = ("r 40 ms, lag", "90 % counts cover", "F1 50 ms")
    assert all(value > 0.99 for column in perfect for value in found[column])
    assert (found["lag (frames)"], found["seconds"]) == ([2.0], [1.5])
    assert found["log q(true)"] == [-1.0, -1.0]
    assert max(found["r 17 ms"]) < 0.3
    assert found["nats a second"] == pytest.approx([60 * np.log(1 - 1e-4)] * 2, abs=1e-3)


def test_simulated_cells_have_their_own_kernel() -> None:
    linear = cells_of("linear")
    assert linear.traces.x.shape == (20, 2000)
    assert linear.test == list(range(10, 20))
    assert ((linear.amplitude > 0.25) & (linear.amplitude < 0.5)).all()
    assert ((linear.decay > 0.25) & (linear.decay < 1.7)).all()


@pytest.mark.parametrize(
    "method",
    [
        "simulated with both, factorised",
        "wake-sleep, autoregressive",
        "ELBO, factorised",
        "VIMCO from the usual height, factorised",
        "AVB",
    ],
)
def test_guides_train(method: str, neurons: Path) -> None:
    small = cells_of("gcamp6f", neurons)
    found = calcium.METHODS[method](small, 0, 1)
    assert found.draws is not None
    assert found.draws.shape == (100, 4, 1200)
    assert found.draws.unique().tolist() == [0, 1]
    assert (found.log_q is None) == (method == "AVB")
    assert found.training > 0


def test_markdown_is_over_cells_and_seeds() -> None:
    runs = [{"r": [0.1, 0.3, 0.5], "s": [1.0]}, {"r": [0.3, 0.5, 0.7], "s": [3.0]}]
    text = markdown({"one": runs, "other": [{"s": [4.0]}], "none": []})
    assert text.splitlines()[2:] == [
        "| one | 0.40 (0.30 to 0.50) | 2 | 2 |",
        "| other |  | 4 | 1 |",
    ]
    assert "0.50 (0.45 to 0.55)" in markdown({"one": runs}, [1, 2])


def test_ranges_are_over_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calcium, "OVER_SEEDS", ("r",))
    runs = [{"r": [0.1, 0.3, 0.5], "s": [1.0]}, {"r": [0.4, float("nan"), 0.7]}]
    assert "| one | 0.30 to 0.40 | 2 |" in by_seed({"one": runs, "other": runs[:1]})


def test_runs_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, neurons: Path) -> None:
    small = cells_of("gcamp6f", neurons)
    found = Found(torch.rand_like(small.traces.x))
    monkeypatch.setattr(calcium, "METHODS", {"ours": lambda *_: found})
    path = tmp_path / "kept.json"
    assert runs_of(path, "gcamp6f", small, "ours", 2, run=False) == []
    first = runs_of(path, "gcamp6f", small, "ours", 2)
    monkeypatch.setattr(calcium, "METHODS", {})
    assert runs_of(path, "gcamp6f", small, "ours", 2) == first
    assert list(json.loads(path.read_text())) == [f"gcamp6f: ours, seed {i}" for i in range(2)]


def test_oasis_finds_spikes_and_prints_a_table(
    neurons: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("oasis")
    small = cells_of("gcamp6f", neurons)
    found = calcium_oasis.run("OASIS AR(1)", small, 0, None)
    assert min(scores(found, small)["r 100 ms"]) > 0.8
    command = ["calcium", "gcamp6f", "--root", str(neurons), "--no-save", "--methods"]
    monkeypatch.setattr(sys, "argv", [*command, "OASIS AR(1)", "OASIS, kernel given"])
    main()
    shown = capsys.readouterr().out
    assert "## gcamp6f, 4 cells" in shown
    assert shown.count("\n| OASIS") == 4


def test_speed_is_measured_for_each_method(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("oasis")
    monkeypatch.setattr(calcium_speed, "WARM_UP", 1)
    monkeypatch.setattr(calcium_speed, "DRAWS", 1)
    seconds = calcium_speed.measure(traces=2, frames=300, repeats=1)
    assert all(value > 0 for value in seconds.values())
    assert "| NUTS, 1 + 1 draws |" in calcium_speed.markdown(seconds)


def test_heights_are_compared_with_the_usual_one() -> None:
    kinds = {"quiet": spike_heights.Kind("gcamp6f", 30.0, 2000, 0.0, (0.2, 0.3))}
    found = {name: [spike_heights.run(kind, 20, 0)] for name, kind in kinds.items()}
    (start,) = found["quiet"]
    assert start.found > 0.8
    assert start.found_error < start.usual
    assert "| quiet |" in spike_heights.table(found)
