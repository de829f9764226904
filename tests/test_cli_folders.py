"""Folders of runs: what is kept, what goes on, and what a full disk or Ctrl-C leaves."""

import errno
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from test_cli import SHORT, refused, run

from pyro_lvm.cli.main import main

pytestmark = pytest.mark.usefixtures("no_default_device")


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("folders") / "fit"
    run(out, "fit", "--seed", "3")
    return out


def test_an_earlier_run_is_kept(fitted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (fitted / "metrics.csv").read_text()
    assert "--resume, --overwrite" in refused(capsys, "fit", "--out", str(fitted))
    assert (fitted / "metrics.csv").read_text() == before


def test_a_run_does_not_go_on_as_another(fitted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With --resume and nothing else it would be the default one."""
    before = (fitted / "config.yaml").read_text()
    says = refused(
        capsys, "fit", "--out", str(fitted), "--resume", "--objective.num_particles", "7"
    )
    assert "objective.num_particles=7" in says
    assert f"--config {fitted / 'config.yaml'}" in says
    assert (fitted / "config.yaml").read_text() == before


def test_a_place_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    says = refused(capsys, "fit", "--out", str(tmp_path / "file" / "run"))
    assert "expected a folder to write to, got [Errno 20] Not a directory" in says


def test_a_folder_that_is_no_run_is_never_deleted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    refused(capsys, "fit", "--out", str(tmp_path), "--overwrite")
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_a_project_with_a_config_of_its_own_is_never_deleted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.yaml").write_text("defaults: [model]\n")
    for flag in ("--overwrite", "--resume"):
        assert "got other files in it" in refused(capsys, "fit", "--out", str(tmp_path), flag)
    assert (tmp_path / "config.yaml").read_text() == "defaults: [model]\n"


def test_a_run_is_not_deleted_to_be_resumed(
    fitted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    says = refused(capsys, "fit", "--out", str(fitted), "--resume", "--overwrite")
    assert "expected --resume or --overwrite, got both" in says
    assert (fitted / "result.ckpt").is_file()


def test_a_longer_run_is_not_that_of_the_same_cosine(
    fitted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = str(fitted / "config.yaml")
    longer = ("--config", config, "--out", str(fitted), "--resume", "--train.steps", "9")
    says = refused(capsys, "fit", *longer)
    assert "expected train.steps=6, got train.steps=9" in says
    assert "a cosine falls to 0 over the steps of the first time" in says


def test_a_full_disk_is_told_and_nothing_is_torn(
    fitted: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "run"
    run(out, "fit")
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    usage = SimpleNamespace(free=1000)
    monkeypatch.setattr("pyro_lvm.cli.writing.disk_usage", lambda _: usage)
    says = refused(capsys, "fit", "--out", str(out), *SHORT, "--resume")
    assert re.search(r"posterior.nc: expected room for .* MiB, got 0.000954 MiB", says)
    monkeypatch.undo()

    def full(self: object, path: Path, **_: object) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", full)
    says = refused(capsys, "fit", "--out", str(out), *SHORT, "--resume")
    assert "training_curves.png: expected a place to write it, got No space left" in says
    assert "--resume" in says
    assert {path for path in out.rglob("*") if path.is_file()} == set(before)
    assert all(path.read_bytes() == b for path, b in before.items() if path.suffix == ".png")


def test_a_file_that_cannot_be_read(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def unreadable(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", "x.npz")

    monkeypatch.setattr("pyro_lvm.cli.runs.read_data", unreadable)
    assert "file x.npz: expected one that can be read or written, got Permission denied" in refused(
        capsys, "fit"
    )


def test_ctrl_c_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pyro_lvm.cli.runs.Plan.run", interrupted)
    assert main(["fit", "--out", str(tmp_path / "run")]) == 130
    assert "--resume" in capsys.readouterr().err
    monkeypatch.setattr("pyro_lvm.cli.diagnose.restore", interrupted)
    assert main(["diagnose", "anywhere"]) == 130
    assert "--resume" not in capsys.readouterr().err
