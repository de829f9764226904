"""``pyro-lvm spikes``: what it writes, that it finds spikes, and what it says of mistakes."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from explained import explained
from test_cli import refused

from pyro_lvm.cli.main import main
from pyro_lvm.cli.spike_guides import load_guide
from pyro_lvm.cli.spike_report import _rates
from pyro_lvm.cli.spikes import SpikesConfig, _model
from pyro_lvm.data import Traces
from pyro_lvm.distributions import StoppedCounts
from pyro_lvm.errors import ProgramError

pytestmark = [
    pytest.mark.usefixtures("no_default_device"),
    pytest.mark.not_simulated(reason="it takes no parameter that something refers to"),
]

RATE, FRAMES = 30.0, 240
ERROR = 1.4 / FRAMES**0.5  # relative standard error of a noise level by the median step


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two cells, the second silent; five frames were not observed."""
    folder = tmp_path_factory.mktemp("traces")
    random = np.random.RandomState(0)
    kernel = 0.19 * np.exp(-np.arange(90) / (0.4 * RATE))
    spikes = random.rand(FRAMES, 2) < [0.05, 0.0]
    x = np.stack([np.convolve(train, kernel)[:FRAMES] for train in spikes.T], 1)
    x += 0.03 * random.randn(FRAMES, 2)
    x[100:105, 0] = np.nan
    np.savez(folder / "traces.npz", x=x, rate=RATE, names=["left/1", "silent"], spikes=spikes)
    np.savetxt(folder / "traces.csv", x, delimiter=",", header="left/1,silent", comments="")
    np.save(folder / "raw.npy", 200 * (1 + np.nan_to_num(x)))
    return folder


def run(out: Path, *arguments: str) -> None:
    small = ("--train.steps", "2", "--num_samples", "3", "--num_particles", "2")
    short = ("--train.accelerator", "cpu", "--train.batch_size", "2", "--snippet", "2")
    assert main(["spikes", "--out", str(out), *small, *short, *arguments]) == 0


def test_starts_of_the_model() -> None:
    traces = Traces(0.03 * torch.randn(2, 100), rate=30.0)
    model = _model(SpikesConfig(traces="", amplitude=0.35, decay=0.7), traces)
    assert model.amplitude.tolist() == pytest.approx([0.35, 0.35])
    assert model.decay.tolist() == pytest.approx([0.7, 0.7])
    with explained(ProgramError, "decay", "above 0", "-1.0", "0.2"):
        _model(SpikesConfig(traces="", decay=-1.0), traces)


def table(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def found(recording: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("spikes") / "run"
    run(out, "--traces", str(recording / "traces.csv"), "--rate", "30")
    return out


@pytest.mark.parametrize("model", ["--model calcium", "--model=calcium"])
def test_fit_of_calcium_is_the_same(
    model: str, recording: Path, found: Path, tmp_path: Path
) -> None:
    train = ("--train.steps=2", "--train.batch_size=2", "--train.accelerator=cpu")
    draws = ("--num_samples=3", "--num_particles=2", "--snippet=2", "--num_figures=0")
    data = ("--traces", str(recording / "traces.csv"), "--rate", "30", *model.split())
    assert main(["fit", "--out", str(tmp_path / "run"), *data, *train, *draws]) == 0
    written = (tmp_path / "run" / "spikes.csv").read_text()
    assert written == (found / "spikes.csv").read_text()


def test_help_of_fit_says_where_recordings_go(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, says in {
        "fit": "fit --model calcium --traces",
        "fit --model calcium": "frames a second (Hz)",
    }.items():
        with pytest.raises(SystemExit):
            main([*arguments.split(), "--help"])
        assert says in " ".join(capsys.readouterr().out.split())


def test_tables_are_by_time_and_by_cell(found: Path) -> None:
    rows = table(found / "spikes.csv")
    assert list(rows[0]) == ["time", "left/1", "silent"]
    assert len(rows) == FRAMES
    assert float(rows[-1]["time"]) == pytest.approx((FRAMES - 0.5) / RATE, rel=1e-5)
    assert all(0 <= float(row["left/1"]) <= 1 for row in rows)
    first, second = table(found / "cells.csv")
    assert (first["cell"], second["cell"]) == ("left/1", "silent")
    assert float(first["noise_scale"]) == pytest.approx(0.03, rel=3 * ERROR)
    level = 100 * 0.954 * 0.03 / RATE**0.5  # of white noise, in % per root Hz
    assert float(first["noise_level"]) == pytest.approx(level, rel=3 * ERROR)
    mean = np.mean([float(row["left/1"]) for row in rows[:100] + rows[105:]])  # as observed
    assert float(first["spikes_per_second"]) == pytest.approx(mean * RATE, rel=1e-3)


def test_rates_are_those_of_observed_frames() -> None:
    x = torch.tensor([[0.1, 0.2, float("nan"), float("nan")], [0.1, 0.2, 0.3, 0.4]])
    expected = torch.tensor([[0.0, 0.5, 1.0, 1.0], [0.0, 0.5, 1.0, 1.0]])
    assert _rates(Traces(x, rate=10.0), expected).tolist() == [2.5, 6.25]


def test_frames_keep_their_times(tmp_path: Path) -> None:
    """A clock that counts seconds from 1970."""
    rows = "\n".join(f"{1.7e9 + t / 32:.5f},{0.1 * (t % 7)}" for t in range(64))
    (tmp_path / "late.csv").write_text(f"time,a\n{rows}\n")
    run(tmp_path / "run", "--traces", str(tmp_path / "late.csv"), "--num_figures", "1")
    times = [float(row["time"]) for row in table(tmp_path / "run" / "spikes.csv")]
    assert np.diff(times).tolist() == pytest.approx([1 / 32] * 63, abs=2e-6)


def test_posterior_is_by_cell_and_time(found: Path) -> None:
    with xr.open_dataset(found / "posterior.nc", group="posterior", engine="h5netcdf") as draws:
        assert draws["spikes"].dims == ("chain", "draw", "cell", "time")
        assert draws["spikes"].shape == draws["calcium"].shape == (1, 3, 2, FRAMES)
        assert draws["cell"].values.tolist() == ["left/1", "silent"]
        expected = draws["spikes"].mean(("chain", "draw")).sel(cell="left/1").values
    written = [float(row["left/1"]) for row in table(found / "spikes.csv")]
    assert written == pytest.approx(expected.tolist(), rel=1e-5)
    with xr.open_dataset(
        found / "posterior.nc", group="posterior_predictive", engine="h5netcdf"
    ) as predicted:
        assert predicted["fluorescence"].notnull().all()


def test_figures_are_of_the_first_cells(found: Path, recording: Path, tmp_path: Path) -> None:
    assert sorted(path.name for path in (found / "figures").iterdir()) == [
        "000_left_1.png",
        "001_silent.png",
    ]
    out = tmp_path / "run"
    run(out, "--traces", str(recording / "traces.npz"), "--num_figures", "1")
    assert len(list((out / "figures").iterdir())) == 1


def test_config_gives_the_same_run(found: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    assert main(["spikes", "--config", str(found / "config.yaml"), "--out", str(again)]) == 0
    assert (again / "spikes.csv").read_text() == (found / "spikes.csv").read_text()


@pytest.mark.parametrize(
    "choice",
    [
        "--model SaturatingCalcium --posterior autoregressive",
        "--model PhysiologicalCalcium --indicator gcamp6s --insomnia 0",
        "--counts true",
    ],
)
def test_other_programs_train(recording: Path, tmp_path: Path, choice: str) -> None:
    run(tmp_path / "run", "--traces", str(recording / "traces.npz"), *choice.split())
    assert (tmp_path / "run" / "posterior.nc").is_file()


def test_raw_fluorescence_is_divided_by_its_baseline(recording: Path, tmp_path: Path) -> None:
    raw = ("--traces", str(recording / "raw.npy"), "--rate", "30", "--raw", "true")
    run(tmp_path / "run", *raw)
    first, _ = table(tmp_path / "run" / "cells.csv")
    assert float(first["noise_scale"]) == pytest.approx(0.03, rel=3 * ERROR)


def test_slow_frames_may_hold_several_spikes(
    recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A guide that counts is kept as such; bins are no shorter than a frame."""
    data = ("--traces", str(recording / "traces.npz"), "--rate", "7.5")
    run(tmp_path / "run", *data, "--counts", "true", "--num_figures", "0")
    assert capsys.readouterr().out.count("true spikes in bins of 133 ms") == 1
    guide = load_guide(tmp_path / "run")
    assert guide.posterior(torch.zeros(1, 20)).base_dist.support is StoppedCounts.support


def test_a_slow_recording_needs_a_guide_of_its_own(
    recording: Path, found: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("--traces", str(recording / "traces.csv"), "--rate", "15", "--guide", str(found))
    message = refused(capsys, "spikes", "--out", str(tmp_path / "run"), *arguments)
    assert "rate: expected at least 30 Hz" in message
    assert not (tmp_path / "run").exists()


def test_a_guide_serves_another_recording(
    recording: Path, found: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The recording that it was trained on, and one of the same cells at three times the rate."""
    with np.load(recording / "traces.npz") as file:
        slow = np.nan_to_num(file["x"])
    np.save(tmp_path / "fast.npy", slow.repeat(3, 0))
    again, fast = tmp_path / "again", tmp_path / "fast"
    reuse = ("--guide", str(found), "--num_figures", "0", "--traces")
    run(again, *reuse, str(recording / "traces.csv"), "--rate", "30")
    assert not (again / "checkpoints").exists()
    assert (again / "spikes.csv").read_text() == (found / "spikes.csv").read_text()
    assert "resampled" not in capsys.readouterr().out
    run(fast, *reuse, str(tmp_path / "fast.npy"), "--rate", "90")
    assert len(table(fast / "spikes.csv")) == FRAMES
    told = capsys.readouterr().out
    assert "rate=90 Hz" in told
    assert "resampled to 30 Hz, the rate of the guide" in told


@pytest.mark.slow
def test_spikes_are_found(
    recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """True spikes judge the result; the silent cell has no correlation, and next to no spikes.

    A correlation of 0.8 is what is wanted of a guide of simulated cells, at full training.
    """
    arguments = ("--traces", str(recording / "traces.npz"), "--train.accelerator", "cpu")
    assert main(["spikes", "--out", str(tmp_path / "run"), *arguments, "--train.steps", "150"]) == 0
    shown = capsys.readouterr().out
    assert "unobserved=5, spikes known" in shown
    line = next(row for row in shown.splitlines() if "bins of 100 ms" in row)
    assert float(line.split(": ")[1].split()[0]) >= 0.8
    silent = table(tmp_path / "run" / "cells.csv")[1]
    assert float(silent["spikes_per_second"]) < 0.15


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("--rate 30", "traces"),
        ("--traces nowhere.csv --rate 30", "nowhere.csv: expected a file in .csv, .npy, .npz"),
        ("--traces {}/traces.csv", "rate of {}/traces.csv: expected frames a second, got none"),
        ("--traces {}/traces.csv --rate 0", "rate: expected frames a second, above 0"),
        ("--traces {}/traces.csv --rate 30 --model VAE", "model"),
        ("--traces {}/wide.npy --rate 30", "Pass cells_in='rows'"),
        ("--traces {}/constant.npy --rate 30", "cell 'cell1': expected a trace that varies"),
        ("--traces {}/frame.npy --rate 30 --cells_in columns", "at least two frames"),
        ("--traces {}/traces.csv --rate 30 --num_samples 0", "num_samples: expected an int"),
        ("--traces {}/traces.csv --rate 30 --guide nowhere", "nowhere/guide.ckpt"),
        ("--traces {}/traces.csv --rate 30 --insomnia 2", "insomnia: expected a number from 0"),
    ],
)
def test_mistakes_are_explained(
    arguments: str,
    says: str,
    recording: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    np.save(recording / "wide.npy", np.random.randn(5, 9))
    np.save(recording / "constant.npy", np.stack([np.random.randn(9), np.ones(9)], 1))
    np.save(recording / "frame.npy", np.random.randn(1, 3))
    monkeypatch.chdir(tmp_path)
    message = refused(capsys, "spikes", *arguments.replace("{}", str(recording)).split())
    assert says.replace("{}", str(recording)) in message
    assert not list(tmp_path.iterdir())
