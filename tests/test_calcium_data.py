"""Traces of calcium fluorescence: what is read, resampled and refused."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from calcium_files import write_neurons
from explained import explained
from torch import Tensor

from pyro_lvm.data import (
    Traces,
    calcium,
    delta_f,
    frame_counts,
    noise_level,
    read_traces,
    rebin,
    resample,
    snippets,
    split_cells,
)
from pyro_lvm.errors import DataError

NAN = math.nan
TABLE = np.array([[1.0, 10.0], [2.0, 12.0], [4.0, 11.0], [3.0, 10.0]])  # (frames, cells)


@pytest.fixture(autouse=True)
def no_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYRO_LVM_DATA", raising=False)


# Traces.


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.zeros(3)}, ("traces", "shape (cells, frames)", "shape (3,)", "one row a")),
        ({"x": torch.zeros(2, 1)}, ("traces", "(cells, frames)", "(2, 1)", "at least two frames")),
        ({"x": torch.zeros(0, 5)}, ("traces", "(cells, frames)", "(0, 5)", "one row a cell")),
        ({"x": torch.tensor([[1.0, math.inf]])}, ("traces", "finite", "1 infinite", "NaN")),
        ({"rate": 0.0}, ("rate", "above 0", "0.0", "rate=30.0")),
        ({"rate": NAN}, ("rate", "above 0", "nan", "rate=30.0")),
        ({"names": ["a"]}, ("names", "2 names", "1", "one name a cell")),
        ({"spikes": torch.zeros(2, 3)}, ("spikes", "(2, 4)", "(2, 3)", "Count the spikes")),
        (
            {"x": torch.tensor([[1.0, 2.0], [5.0, 5.0]]), "names": ["a", "b"]},
            ("cell 'b'", "a trace that varies", "one value throughout", "drop_dead=True"),
        ),
        (
            {"x": torch.tensor([[1.0, 2.0], [NAN, NAN], [3.0, NAN]])},
            ("cell 'cell1', 'cell2'", "varies", "no observed frame (of 2 such cells)", "drop_dead"),
        ),
    ],
)
def test_unusable_traces_are_explained(change: dict[str, Any], message: Any) -> None:
    good = {"x": torch.tensor(TABLE).T, "rate": 30.0}
    with explained(DataError, *message):
        Traces(**{**good, **change})


def test_selected_cells_keep_what_is_theirs() -> None:
    traces = Traces(torch.tensor(TABLE).T, 2.0, ["a", "b"], torch.eye(2, 4), start=5.0)
    chosen = traces.select([1])
    assert chosen.names == ("b",)
    assert chosen.x.tolist() == [TABLE[:, 1].tolist()]
    assert chosen.spikes is not None
    assert chosen.spikes.tolist() == [[0, 1, 0, 0]]
    assert chosen.times.tolist() == [5.25, 5.75, 6.25, 6.75]


# Files.


def _csv(text: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / "traces.csv").write_text(text)
        return folder / "traces.csv"

    return write


def _npy(array: Any) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        np.save(folder / "traces.npy", array)
        return folder / "traces.npy"

    return write


def _npz(**arrays: Any) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        np.savez(folder / "traces.npz", **arrays)
        return folder / "traces.npz"

    return write


ROWS = "\n".join(",".join(map(str, row)) for row in TABLE.tolist())
TIMED = "\n".join(f"{t},{row}" for t, row in zip((0.5, 0.53, 0.57, 0.60), ROWS.split("\n")))


@pytest.mark.parametrize(
    ("write", "rate", "names"),
    [
        (_csv(ROWS), 30.0, ("cell0", "cell1")),
        (_csv(f"a,b\n{ROWS}\n\n"), 30.0, ("a", "b")),
        (_csv(f"\ufeffTime (s),a,b\n{TIMED}"), None, ("a", "b")),
        (_csv(f"t,a,b\n{TIMED}"), 30.0, ("a", "b")),
        (_npy(TABLE), 30.0, ("cell0", "cell1")),
        (_npz(x=TABLE, rate=30.0, names=["a", "b"]), None, ("a", "b")),
        (_npz(x=TABLE, time=np.arange(4) / 30), None, ("cell0", "cell1")),
    ],
)
def test_files(
    write: Callable[[Path], Path], rate: float | None, names: tuple[str, ...], tmp_path: Path
) -> None:
    traces = read_traces(write(tmp_path), rate)
    assert traces.x.T.tolist() == TABLE.tolist()
    assert traces.names == names
    assert traces.rate == pytest.approx(30.0)


def test_times_tell_when_a_recording_starts(tmp_path: Path) -> None:
    traces = read_traces(_csv(f"t,a,b\n{TIMED}")(tmp_path))
    assert traces.times[0].item() == pytest.approx(0.5 + 0.5 / 30)


def test_frames_are_told_apart_by_a_clock_that_counts_from_1970(tmp_path: Path) -> None:
    rows = "\n".join(f"{1.7e9 + t / 32:.5f},{t % 3}" for t in range(6))
    traces = read_traces(_csv(f"t,a\n{rows}")(tmp_path))
    assert traces.times.diff().tolist() == [1 / 32] * 5


@pytest.mark.parametrize(("index", "names"), [(False, ("0", "1")), (True, ("", "0", "1"))])
def test_numbers_of_columns_are_no_frame(
    index: bool, names: tuple[str, ...], tmp_path: Path
) -> None:
    """As ``DataFrame(x).to_csv()`` writes them."""
    header, *rows = pd.DataFrame(TABLE).to_csv(index=index).splitlines()
    traces = read_traces(_csv("\n".join([header, *rows]))(tmp_path), 30.0)
    assert traces.names == names
    assert traces.x[index:].T.tolist() == TABLE.tolist()


@pytest.mark.parametrize("name", ["", "Time [s]"])
def test_a_clock_is_no_cell(name: str, tmp_path: Path) -> None:
    rows = "\n".join(f"{t / 10},{t % 3}" for t in range(20))
    file = _csv(f"{name},a\n{rows}")(tmp_path)
    with explained(DataError, f"column {name!r} of {file}", "fluor", "a rise", "Call it 'time'"):
        read_traces(file, 10.0)


def test_empty_cells_of_a_table_are_unobserved(tmp_path: Path) -> None:
    traces = read_traces(_csv("a,b\n1,nan\n2,5\n,6\n")(tmp_path), 10.0)
    assert traces.num_unobserved == 2
    assert traces.x.isnan().tolist() == [[False, False, True], [True, False, False]]


def test_spikes_come_along(tmp_path: Path) -> None:
    counts = (TABLE > 3).astype(int)
    traces = read_traces(_npz(x=TABLE, spikes=counts)(tmp_path), 30.0)
    assert traces.spikes is not None
    assert traces.spikes.T.tolist() == counts.tolist()


def test_one_trace_is_one_cell(tmp_path: Path) -> None:
    assert read_traces(_npy(TABLE[:, 0])(tmp_path), 30.0).x.shape == (1, 4)


@pytest.mark.parametrize(("cells_in", "shape"), [("rows", (2, 4)), ("columns", (4, 2))])
def test_more_cells_than_frames_must_be_meant(
    cells_in: Any, shape: tuple[int, int], tmp_path: Path
) -> None:
    file = _npy(TABLE.T)(tmp_path)
    with explained(DataError, str(file), "more frames", "2 frames of 4 cells", "cells_in='rows'"):
        read_traces(file, 30.0)
    assert read_traces(file, 30.0, cells_in=cells_in).x.shape == shape


def test_dead_cells_can_be_dropped(tmp_path: Path) -> None:
    dead = np.column_stack([TABLE[:, 0], np.ones(4), np.full(4, NAN), TABLE[:, 1]])
    file = _npz(x=dead, names=list("abcd"), spikes=np.tile(np.arange(4), (4, 1)))(tmp_path)
    with explained(DataError, "cell 'b', 'c'", "varies", "of 2 such cells", "drop_dead=True"):
        read_traces(file, 30.0)
    traces = read_traces(file, 30.0, drop_dead=True)
    assert traces.names == ("a", "d")
    assert traces.spikes is not None
    assert traces.spikes[:, 0].tolist() == [0, 3]
    assert traces.x.T.tolist() == TABLE.tolist()


UNEVEN = TIMED.replace("0.57", "0.58")


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda folder: folder / "gone.csv", ("gone.csv", ".csv, .npy, .npz", "no such", "Save")),
        (lambda folder: folder, ("", "a file in .csv", "no such file", "Save the traces as CSV")),
        (_csv(""), ("traces.csv", "a table of numbers", "ValueError: an empty file", "Save an")),
        (_csv("a,b\n1,2\n3"), ("traces.csv, row 3", "2 values", "1", "empty")),
        (_csv("a,b\n1,2\n3,x"), ("traces.csv, row 3", "numbers", "'x'", "nothing where")),
        (_csv(ROWS), ("rate of ", "frames a second", "none", "rate=30.0")),
        (_csv(f"t,a,b\n{UNEVEN}"), ("times of ", "even steps", "0.02 to 0.05", "dropped")),
        (_csv("t,a\n0,1\n33,2\n66,4"), ("times of ", "seconds", "steps of 33", "in Hz")),
        (_csv("t,a\n0.2,1\n0.1,2\n0,4"), ("times of ", "even steps", "-0.1 to -0.1", "Put NaN")),
        (_npy(np.zeros((2, 2, 2))), ("traces.npy", "two dims", "(2, 2, 2)", "one row a frame")),
        (_npy(np.array(["a"])), ("traces.npy", "a table of numbers", "ValueError", "call it x")),
        (_npz(y=TABLE), ("traces.npz", "a table of numbers", "KeyError: 'x'", "call it x")),
    ],
)
def test_files_that_cannot_be_used(
    write: Callable[[Path], Path], message: Any, tmp_path: Path
) -> None:
    rate = None if "rate" in message[0] or "times" in message[0] else 30.0
    with explained(DataError, *message):
        read_traces(write(tmp_path), rate)


# Another grid.


def test_rebin_by_hand(float64: torch.dtype) -> None:
    values = torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0], [NAN, 2.0, 3.0, NAN, NAN]])
    torch.testing.assert_close(rebin(values, 1.0), values, equal_nan=True)
    expected = torch.tensor([[4.5, 10.5], [NAN, NAN]])
    torch.testing.assert_close(rebin(values, 2.5), expected, equal_nan=True)
    means = torch.tensor([[1.8, 4.2], [3.5 / 1.5, NAN]])
    torch.testing.assert_close(rebin(values, 2.5, mean=True), means, equal_nan=True)


@pytest.mark.parametrize("ratio", [0.5, 5.5])
def test_bins_must_fit(ratio: float) -> None:
    with explained(DataError, "bin width", "bins of 1 to 5 frames", f"{ratio:g} frames", "wider"):
        rebin(torch.zeros(5), ratio)


def test_rebin_keeps_the_total(float64: torch.dtype) -> None:
    values = torch.rand(3, 1200)
    for ratio in (1.5, 2.4, 100 / 3, 1200 / 7):
        torch.testing.assert_close(rebin(values, ratio).sum(1), values.sum(1))


@pytest.mark.parametrize("rate", [7.5, 25.0, 60.0, 160.0])
def test_resampling_keeps_spikes_and_time(rate: float, float64: torch.dtype) -> None:
    """A step in time stays at its place, and no spike is lost but in the part cut off."""
    frames = 480
    x = (torch.arange(frames) >= 240).double()[None]  # at 4 s
    spikes = torch.zeros(1, frames)
    spikes[0, ::7] = 2
    new = resample(Traces(x, 60.0, spikes=spikes), rate)
    assert new.rate == rate
    assert new.x.shape == (1, 8 * rate)
    assert new.spikes is not None
    assert new.spikes.sum() == spikes.sum()
    observed = ~new.x[0].isnan()
    assert ((new.x[0] >= 0.5) == (new.times >= 4))[observed].all()
    assert observed.sum() == min(frames, 8 * rate)


def test_slower_frames_average_the_noise(float64: torch.dtype) -> None:
    """The variance falls by the ratio; 4 standard errors of a variance of 4000 draws are 9 %."""
    x = torch.randn(1, 40_000)
    slow = resample(Traces(x, 100.0), 10.0).x
    assert slow.var().item() == pytest.approx(0.1, rel=0.09)


def test_spikes_are_counted_in_their_frames() -> None:
    times = torch.tensor([-0.1, 0.0, 0.49, 0.5, 1.6])
    assert frame_counts(times, 2.0, 3).tolist() == [2, 1, 0]


# dF/F.


def test_delta_f_takes_out_a_drifting_baseline(float64: torch.dtype) -> None:
    seconds = torch.arange(6000) / 30
    drift = 100 + 0.3 * seconds
    transients = torch.zeros(6000)
    transients[torch.arange(0, 6000, 200)] = 0.5
    transients[300:320] = NAN
    traces = delta_f(Traces((drift * (1 + transients))[None], 30.0), percentile=50, window=20.0)
    error = (traces.x[0] - transients)[300:-300]  # baselines lag at the ends
    assert error.nan_to_num().abs().max() < 2e-3
    assert traces.num_unobserved == 20


def test_delta_f_knows_a_gap(float64: torch.dtype) -> None:
    x = torch.full((1, 100), 50.0)
    x[0, 0], x[0, 20:60] = 75.0, NAN
    changed = delta_f(Traces(x, 1.0), window=8.0).x
    assert changed[0, 0] == 0.5
    assert changed[0, 1:].nan_to_num().abs().max() == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"percentile": 120.0}, ("percentile", "from 0 to 100", "120", "percentile=8")),
        ({}, ("baseline", "above 0", "-0.932 in cell 'a'", "leave dF/F as it is")),
    ],
)
def test_delta_f_of_what_is_none(options: dict[str, float], message: Any) -> None:
    with explained(DataError, *message):
        delta_f(Traces(torch.tensor([[-1.1, 1.0]]), 1.0, ["a"]), **options)


def test_noise_level_of_white_noise(float64: torch.dtype) -> None:
    """nu = 100 * 0.6745 * sqrt(2) * s / sqrt(rate), whatever the rate."""
    x = 0.2 * torch.randn(2, 100_000)
    x[:, ::10] = NAN
    expected = 100 * 0.6745 * math.sqrt(2) * 0.2 / math.sqrt(30)
    for level in noise_level(Traces(x, 30.0)).tolist():
        assert level == pytest.approx(expected, rel=0.02)


# Real recordings, as they are stored.


def test_recordings_with_true_spikes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ramps in time of 4 s and 2 s, with a spike a second."""
    ramps = [(np.arange(100 * seconds) + 0.5) / 100 for seconds in (4, 2)]
    write_neurons(tmp_path, ramps, [np.arange(seconds) + 0.21 for seconds in (4, 2)])
    traces = calcium("gcamp6f", tmp_path, rate=25.0)
    assert traces.names == ("mouse_0", "mouse_1")
    assert traces.x.shape == (2, 100)
    assert traces.x[1, 50:].isnan().all()
    torch.testing.assert_close(traces.x[0].double(), traces.times, rtol=1e-6, atol=1e-6)
    spikes: Tensor | None = traces.spikes
    assert spikes is not None
    assert spikes[0].nonzero().flatten().tolist() == [5, 30, 55, 80]
    assert spikes[1].isnan().sum() == 50
    assert spikes[1].nansum() == 2
    monkeypatch.setenv("PYRO_LVM_DATA", str(tmp_path))
    assert torch.equal(calcium(rate=25.0).x[0], traces.x[0])


def test_recordings_that_are_not_there(tmp_path: Path) -> None:
    with explained(DataError, "calcium gcamp6s", "calcium_gcamp6s_v1.npz", "none in", "DS12"):
        calcium("gcamp6s", tmp_path)
    with explained(DataError, "indicator", "['gcamp6f', 'gcamp6s']", "'gcamp6'", "Pass 'gcamp6"):
        calcium("gcamp6")
    np.savez(tmp_path / "calcium_gcamp6s_v1.npz", n=1)
    with explained(DataError, "gcamp6s_v1.npz", "a whole", "KeyError: 'no 000_dff'", "DS12"):
        calcium("gcamp6s", tmp_path)


# Parts.


def test_cells_are_in_one_part_each() -> None:
    traces = Traces(torch.randn(23, 5), 30.0)
    parts = split_cells(traces)
    assert [len(part) for part in parts] == [13, 3, 7]
    names = [name for part in parts for name in part.names]
    assert sorted(names) == sorted(traces.names)
    assert split_cells(traces).test.names == parts.test.names
    assert split_cells(traces, seed=1).test.names != parts.test.names


def test_three_parts_need_cells() -> None:
    with explained(DataError, "cells", "three parts", "2, of which 2", "pool recordings"):
        split_cells(Traces(torch.randn(2, 5), 30.0))


def test_snippets_are_windows_of_their_cell() -> None:
    x = torch.arange(40.0).reshape(2, 20)
    x[1, 9:] = NAN
    parts = snippets(Traces(x, 30.0), 8, stride=6)
    assert parts.start.tolist() == [0, 6, 12, 0]
    assert parts.cell.tolist() == [0, 0, 0, 1]
    for window, cell, start in zip(*parts):
        torch.testing.assert_close(window, x[cell, start : start + 8], equal_nan=True)


@pytest.mark.parametrize("length", [0, 21])
def test_snippets_of_no_length(length: int) -> None:
    with explained(DataError, "length", "from 1 to 20 frames", str(length), "shorter windows"):
        snippets(Traces(torch.randn(2, 20), 30.0), length)


def test_snippets_that_are_hardly_observed() -> None:
    x = torch.full((1, 20), NAN)
    x[0, ::5] = torch.arange(4.0)
    with explained(DataError, "snippets", "half observed", "none", "shorter windows"):
        snippets(Traces(x, 30.0), 10)
