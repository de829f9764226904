"""``pyro-lvm diagnose``: runs come back as they were trained, and what is no run is explained."""

import re
from pathlib import Path

import pytest
import torch
import yaml

from pyro_lvm.cli.main import main
from pyro_lvm.cli.restored import restore
from pyro_lvm.training import FitResult
from pyro_lvm.training.checkpoint import CheckpointFolder

pytestmark = pytest.mark.usefixtures("no_default_device")

SHORT = [
    *("--train.steps", "6", "--train.evaluate_every", "3", "--train.batch_size", "20"),
    *("--train.accelerator", "cpu", "--model.hidden", "[5]", "--guide.hidden", "[5]"),
    *("--model.latent_features", "3", "--evaluation.num_samples", "40"),
    *("--evaluation.max_data", "15", "--evaluation.posterior_data", "4"),
    *("--evaluation.posterior_samples", "7", "--evaluation.ais_temperatures", "3"),
]
CHECKS = ["--num_samples", "100", "--checks", "[weights, gap]"]
OBJECTIVES = "[{name: ELBO, gradient: reparam, num_particles: 1}, {name: IWAE, num_particles: 4}]"


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("diagnose") / "fit"
    assert main(["fit", "--out", str(out), *SHORT, "--seed", "3"]) == 0
    return out


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("diagnose") / "compare"
    command = ["compare", "--out", str(out), *SHORT, "--seeds", "[1, 2]"]
    assert main([*command, "--objectives", OBJECTIVES]) == 0
    return out


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The message of a command that must fail, in three parts."""
    assert main(["diagnose", *arguments]) == 2
    message = capsys.readouterr().err
    assert re.search(r"(?s)^pyro-lvm: .+: expected .+, got .+\nTry: .+\n$", message), message
    return message


def test_a_run_gets_its_report(fitted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diagnose", str(fitted), *CHECKS]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"{fitted}: IWAE-dreg-K5, seed 3\n")
    assert re.search(r"^\[(pass|warn|fail)\] weights: ", shown, re.MULTILINE), shown
    page = (fitted / "report.html").read_text(encoding="utf-8")
    assert "15 x 64" in page, "the test data that the run was judged on"
    assert "IWAE(num_particles=5" in page
    assert (fitted / "figures" / "check_weights.png").stat().st_size > 0


def test_programs_come_back_as_they_were_trained(fitted: Path) -> None:
    run, again = restore(fitted), restore(fitted)
    result = FitResult.load(fitted, again.model, again.guide)
    for one, other in ((run.model, result.model), (run.guide, result.guide)):
        other_state = other.state_dict()  # type: ignore[union-attr]
        for name, value in one.state_dict().items():
            torch.testing.assert_close(value, other_state[name], rtol=0, atol=0)
    assert run.objective.step == 6


def test_a_discriminator_comes_back_too(tmp_path: Path) -> None:
    out = tmp_path / "avb"
    choice = ["--objective.name", "AVB", "--guide.name", "ImplicitGuide"]
    assert main(["fit", "--out", str(out), *SHORT, *choice]) == 0
    saved = CheckpointFolder(out / "checkpoints").latest()
    assert saved is not None
    discriminator = restore(out).objective.state_dict()["adversary"]["discriminator"]
    for name, value in saved["objective"]["adversary"]["discriminator"].items():
        torch.testing.assert_close(discriminator[name], value, rtol=0, atol=0)


def test_the_best_run_of_a_comparison_is_taken_or_any(compared: Path) -> None:
    table = (compared / "table.csv").read_text().splitlines()
    best = max(table[1:], key=lambda row: float(row.split(",")[2])).split(",")[0]
    assert restore(compared).label == f"{best}, seed 1"
    assert restore(compared, "IWAE-dreg-K4", 2).label == "IWAE-dreg-K4, seed 2"


def test_a_comparison_is_asked_for_what_it_has(
    compared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "IWAE-dreg-K4" in refused(capsys, str(compared), "--objective", "IWAE")
    assert "[1, 2]" in refused(capsys, str(compared), "--seed", "0")


def test_no_run_is_explained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no such folder" in refused(capsys, str(tmp_path / "nothing"))
    assert "no config.yaml in it" in refused(capsys, str(tmp_path))
    settings = tmp_path / "config.yaml"
    settings.write_text("a: [", encoding="utf-8")
    assert "that is no YAML" in refused(capsys, str(tmp_path))
    settings.write_text("table: cells.csv", encoding="utf-8")
    assert "got one of pyro-lvm impute.\nTry: Look at" in refused(capsys, str(tmp_path))
    settings.write_text("traces: cells.npz", encoding="utf-8")
    assert "got one of pyro-lvm spikes.\nTry: Look at" in refused(capsys, str(tmp_path))
    settings.write_text("defaults: [model]", encoding="utf-8")
    assert "of something else" in refused(capsys, str(tmp_path))
    settings.write_text("objective: {name: ELBO, colour: red}", encoding="utf-8")
    assert "colour" in refused(capsys, str(tmp_path))


def test_a_run_that_was_interrupted_says_so(fitted: Path, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_bytes((fitted / "config.yaml").read_bytes())
    first = CheckpointFolder(fitted / "checkpoints").path(3)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / first.name).write_bytes(first.read_bytes())
    assert restore(tmp_path).label == (
        "IWAE-dreg-K5, seed 3, stopped at step 3 of 6: --resume goes on"
    )


def test_counts_below_their_least(capsys: pytest.CaptureFixture[str]) -> None:
    """-5 would leave out the last five."""
    assert "max_data: expected at least 0, got -5" in refused(capsys, "any", "--max_data", "-5")
    assert "num_threads: expected at least 1" in refused(capsys, "any", "--num_threads", "0")


def test_an_unknown_check_is_explained(fitted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "'weighs'" in refused(capsys, str(fitted), "--checks", "[weighs]")


def test_a_broken_checkpoint_is_explained(
    fitted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.yaml").write_bytes((fitted / "config.yaml").read_bytes())
    assert "--resume" in refused(capsys, str(tmp_path)), "no checkpoint yet"
    kept = CheckpointFolder(fitted / "checkpoints").all()[-1]
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / kept.name).write_bytes(kept.read_bytes()[:-100])
    with pytest.warns(UserWarning, match="skipped a damaged checkpoint"):
        assert "a whole file" in refused(capsys, str(tmp_path))


def test_other_sizes_are_explained(
    fitted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = yaml.safe_load((fitted / "config.yaml").read_text())
    settings["guide"]["hidden"] = [7]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    (tmp_path / "checkpoints").symlink_to(fitted / "checkpoints")
    assert "the saved shape" in refused(capsys, str(tmp_path))
