"""The command line: what it writes, that its numbers are right, and what it says of mistakes."""

import csv
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import xarray as xr
import yaml
from torch import Tensor

from pyro_lvm import guides, models, objectives
from pyro_lvm.cli.configs import EvaluationConfig
from pyro_lvm.cli.evaluation import Evaluation, summarize
from pyro_lvm.cli.figures import comparison, image_grid, latent_pairs
from pyro_lvm.cli.legend import legend
from pyro_lvm.cli.main import main
from pyro_lvm.diagnostics import AIS, CollapseReport, LogEvidence, log_evidence

pytestmark = pytest.mark.usefixtures("no_default_device")

SHORT = [
    *("--train.steps", "6", "--train.evaluate_every", "3", "--train.batch_size", "20"),
    *("--train.accelerator", "cpu", "--model.hidden", "[5]", "--guide.hidden", "[5]"),
    *("--model.latent_features", "3", "--evaluation.num_samples", "40"),
    *("--evaluation.max_data", "15", "--evaluation.posterior_data", "4"),
    *("--evaluation.posterior_samples", "7", "--evaluation.ais_temperatures", "3"),
]
FIGURES = [
    "collapse",
    "khat",
    "latent_pairs",
    "prior_samples",
    "reconstructions",
    "training_curves",
]


def run(out: Path, *arguments: str) -> None:
    command, *rest = arguments
    assert main([command, "--out", str(out), *SHORT, *rest]) == 0


def table(out: Path) -> list[dict[str, str]]:
    with (out / "table.csv").open() as file:
        return list(csv.DictReader(file))


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The message of a command that must fail, in three parts."""
    assert main(arguments) == 2
    message = capsys.readouterr().err
    assert re.search(r"(?s)^pyro-lvm: .+: expected .+, got .+\nTry: .+\n$", message), message
    return message


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("cli") / "fit"
    run(out, "fit", "--seed", "3")
    return out


def test_list_names_all_that_is_exported() -> None:
    """The one subprocess: the installed script, as a user types it."""
    script = Path(sys.executable).with_name("pyro-lvm")
    shown = subprocess.run([script, "list"], capture_output=True, text=True, check=True).stdout
    names = [*guides.__all__, *models.__all__, *objectives.__all__, "digits", "mnist"]
    concrete = [name for name in names if name != "Objective"]
    assert all(re.search(rf"^  {name} +\S", shown, re.MULTILINE) for name in concrete), shown
    assert "`" not in shown, "marks of links and formulas"


def test_fit_writes_a_run_directory(fitted: Path) -> None:
    assert sorted(p.stem for p in (fitted / "figures").glob("*.png")) == FIGURES
    for name in ("metrics.csv", "result.ckpt", "table.md"):
        assert (fitted / name).stat().st_size > 0
    assert list((fitted / "checkpoints").glob("*.ckpt"))


def test_posterior_is_what_arviz_expects(fitted: Path) -> None:
    with xr.open_dataset(fitted / "posterior.nc", group="posterior", engine="h5netcdf") as draws:
        assert draws["z"].dims[:3] == ("chain", "draw", "data")
        assert draws["z"].shape == (1, 7, 4, 3)


def test_config_gives_the_same_run(fitted: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    assert main(["fit", "--config", str(fitted / "config.yaml"), "--out", str(again)]) == 0
    assert (again / "metrics.csv").read_text() == (fitted / "metrics.csv").read_text()
    first, second = table(fitted)[0], table(again)[0]
    assert first["log_evidence"] == second["log_evidence"]


def test_resume_goes_on_to_the_same_end(tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    constant = ("--train.schedule", "constant")
    run(whole, "fit", *constant)
    run(parts, "fit", *constant, "--train.steps", "3")
    run(parts, "fit", *constant, "--resume")
    assert table(whole)[0]["log_evidence"] == table(parts)[0]["log_evidence"]


@pytest.mark.parametrize(
    "choice",
    [
        "--model.latent_features [3,2] --guide.name HierarchicalNormal",
        "--model.name FactorAnalysis --guide.options.covariance full "
        "--data.options.binarization null --objective.gradient reparam",
        "--objective.name Renyi --objective.options.alpha 2 --objective.gradient vimco",
        "--objective.name MIWAE --objective.num_particles 6 --objective.options.num_groups 3",
        "--objective.name ReweightedWakeSleep --objective.gradient score",
        "--objective.name TVO",
        "--objective.name ELBO --objective.gradient reparam --train.warm_up 4 "
        "--objective.options.free_bits 0.5",
        "--guide.name SemiAmortized --guide.options.num_steps 2",
        "--model.name ADGM --guide.name AuxiliaryNormal",
        "--model.options.likelihood gaussian --data.name concrete",
    ],
)
def test_other_programs_train(tmp_path: Path, choice: str) -> None:
    run(tmp_path / "run", "fit", *choice.split())


# Without a density.


@pytest.mark.parametrize("objective", ["AVB", "IWAVB", "AAE"])
def test_a_guide_without_density_is_judged_by_annealing(
    tmp_path: Path, objective: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The column log p(x) is by AIS; what the discriminator has a part in is marked."""
    methods = []

    def spy(*args: object, **how: Any) -> LogEvidence:
        estimate = log_evidence(*args, **how)  # type: ignore[arg-type]
        methods.append((how.get("method", "iwae"), estimate))
        return estimate

    monkeypatch.setattr("pyro_lvm.cli.evaluation.log_evidence", spy)
    run(tmp_path, "fit", "--objective.name", objective, "--guide.name", "ImplicitGuide")
    (_, weighted), (how, annealed) = methods
    assert how == AIS(3, initial="guide")
    assert annealed.num_samples == 16
    (row,) = table(tmp_path)
    assert float(row["log_evidence"]) == pytest.approx(annealed.value.mean().item())
    assert float(row["effective_share"]) == pytest.approx(
        weighted.effective_sample_size.mean().item() / 40
    )
    assert float(row["evidence_error"]) == pytest.approx(annealed.standard_error.mean().item())
    assert (row["bound_is_estimate"], row["weights_are_estimates"]) == ("True", "True")
    text = (tmp_path / "table.md").read_text()
    assert re.search(r"\| ~-\d+\.\d+ \| +-\d+\.\d+ \|.*~\d+% \| +~\d+%", text), text
    assert "annealed importance sampling" in text
    assert (tmp_path / "figures" / "calibration.png").stat().st_size > 0
    with xr.open_dataset(tmp_path / "posterior.nc", engine="h5netcdf") as kept:
        assert kept.attrs["log_weight_is_exact"] == 0
        assert kept.attrs["discriminator_log_loss"] > 0


def test_an_adversarial_objective_with_densities_has_exact_weights(tmp_path: Path) -> None:
    run(tmp_path, "fit", "--objective.name", "AVB")
    (row,) = table(tmp_path)
    assert (row["bound_is_estimate"], row["weights_are_estimates"]) == ("True", "False")
    text = (tmp_path / "table.md").read_text()
    assert "by importance sampling with 40 draws" in " ".join(text.split())
    assert re.search(r"\| ~-\d", text), text


@pytest.mark.parametrize("estimates", [True, False])
def test_estimates_are_marked(estimates: bool) -> None:
    (low,) = [evaluation(torch.tensor([-3.0, -1.0]), torch.zeros(2))]
    judged = replace(
        low, evidence_error=0.25, bound_is_estimate=estimates, weights_are_estimates=estimates
    )
    rows = [summarize("row", [judged], [judged])]
    text = legend(rows, 2, [0, 1], EvaluationConfig())
    assert "Monte Carlo error of 0.25" in " ".join(text.split())
    assert ("~ marks" in text) == ("discriminator" in text) == estimates
    assert ("by discriminator" in comparison(rows).axes[1].get_xlabel()) == estimates


def test_compare_writes_one_row_an_objective(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "compare"
    wanted = "[{name: ELBO, gradient: reparam, num_particles: 1}, {name: IWAE, num_particles: 4}]"
    run(out, "compare", "--seeds", "[0, 1]", "--objectives", wanted)
    first, second = table(out)
    assert [first["objective"], second["objective"]] == ["ELBO-reparam-K1", "IWAE-dreg-K4"]
    assert float(first["gain"]) == 0
    difference = float(second["log_evidence"]) - float(first["log_evidence"])
    assert float(second["gain"]) == pytest.approx(difference)
    shown = capsys.readouterr().out
    assert (out / "table.md").read_text() in shown
    assert {"figures/comparison.png", "figures/collapse.png"} <= set(shown.split())
    assert len(list((out / "runs").glob("*/seed*/metrics.csv"))) == 4
    assert yaml.safe_load((out / "config.yaml").read_text())["seeds"] == [0, 1]


def test_the_table_shows_collapse_by_layer(tmp_path: Path) -> None:
    layers = "--model.latent_features [3,2] --model.name HierarchicalVAE"
    run(tmp_path / "run", "fit", *layers.split(), "--guide.name", "LadderNormal")
    (row,) = table(tmp_path / "run")
    counts = [float(row[f"active_units_z{level}"]) for level in (1, 2)]
    kl = "/".join(f"{float(row[f'kl_z{level}']):z.1f}" for level in (1, 2))
    text = (tmp_path / "run" / "table.md").read_text()
    assert re.search(rf"active \| +KL z1/z2 .*\n.*\n.* {sum(counts):g}/5 \| +{kl} \|", text), text


def test_one_process_trains_each_run_as_if_alone(fitted: Path, tmp_path: Path) -> None:
    """The second of two runs has the numbers of a run of its own: nothing leaks between them."""
    out = tmp_path / "compare"
    run(out, "compare", "--seeds", "[3]", "--objectives", "[{name: ELBO}, {name: IWAE}]")
    assert table(out)[1]["log_evidence"] == table(fitted)[0]["log_evidence"]


def evaluation(log_evidence: Tensor, khat: Tensor) -> Evaluation:
    collapse = CollapseReport({"z": torch.tensor(2.5)}, {"z": torch.tensor([0.5, 0.0])}, 0.01)
    share = torch.full_like(khat, 0.5)
    return Evaluation(log_evidence - 1, log_evidence, khat, share, collapse, 0.25)


def test_summary_by_hand() -> None:
    low = evaluation(torch.tensor([-3.0, -1.0]), torch.tensor([0.6, 0.8]))
    high = evaluation(torch.tensor([-2.0, -2.0]), torch.tensor([0.1, 0.1]))
    row = summarize("row", [low, high], [low, low])
    assert row.bound == -3.0
    assert row.log_evidence == -2.0
    assert row.data_error == pytest.approx(0.5)  # seed means -2.5 and -1.5: sd 0.5 sqrt 2
    assert row.seed_error == 0.0  # both seeds have mean -2
    assert row.gain == 0.0  # the second seed: +1 and -1
    assert row.khat_share == 0.25
    assert row.effective_share == 0.5
    assert (row.kl, row.active_units, row.num_units) == ({"z": 2.5}, {"z": 1}, 2)


def test_summary_of_one_seed_has_no_error_over_seeds() -> None:
    only = evaluation(torch.tensor([-3.0, -1.0]), torch.zeros(2))
    row = summarize("row", [only], [only])
    assert row.seed_error != row.seed_error
    assert row.gain_error == 0.0


def test_images_are_laid_out_in_rows() -> None:
    images = torch.arange(1.0, 4.0).reshape(3, 1, 1)
    sheet = image_grid(images, "title", columns=2).axes[0].images[0].get_array()
    assert sheet is not None
    assert sheet[::2, ::2].tolist() == [[1, 2], [3, 0]]


def test_pair_plot_shows_the_dims_that_vary() -> None:
    draws = torch.randn(20, 30, 5)
    draws[..., 3] += 5 * torch.randn(30)
    draws[..., 1] += 5 * torch.randn(30)
    figure = latent_pairs(draws, [f"z[{i}]" for i in range(5)], num_dims=2)
    assert [figure.axes[i].get_ylabel() for i in (0, 2)] == ["z[1]", "z[3]"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("fit --objective.name IWEA", "Did you mean 'IWAE'?"),
        ("fit --model.name VEA", "models: expected one of"),
        ("fit --model.name BayesianLinearRegression", "model.name: expected a model with latents"),
        ("fit --model.name VAEAC", "with transform=RandomMasks"),
        ("fit --model.name LinearCalcium", "Run pyro-lvm spikes --traces FILE"),
        ("fit --guide.options.rnak 2", "options of AmortizedNormal: expected some of"),
        ("fit --objective.name VGI", "VGI: expected a choice that options can build, got one"),
        ("fit --guide.name LadderNormal", "got one that needs 'top_down'"),
        ("fit --objective.name TVO --train.warm_up 9", "options of TVO: expected some of"),
        ("fit --data.name digit", "data set: expected one of"),
        ("fit --guide.name ImplicitGuide", "Use AVB or IWAVB"),
        ("fit --objective.name ELBO --guide.name ImplicitGuide", "site 'z': expected a density"),
        ("fit --objective.name AVB --objective.gradient dreg", "gradient: expected one of"),
        ("fit --objective.gradient slt", "gradient: expected one of"),
        ("fit --train.steps many", "train.steps"),
        ("fit --train.steps -1", "train.steps: expected at least 0, got -1"),
        ("fit --train.batch_size 0", "train.batch_size: expected at least 1, got 0"),
        ("fit --train.evaluate_every 0", "train.evaluate_every: expected at least 1"),
        ("fit --train.num_threads 0", "train.num_threads: expected at least 1"),
        ("fit --train.learning_rate 0", "train.learning_rate: expected a"),
        ("fit --train.max_grad_norm -1", "train.max_grad_norm: expected at least 0"),
        ("compare --evaluation.posterior_samples 0", "posterior_samples: expected at least 1"),
        ("compare --evaluation.num_samples 1", "evaluation.num_samples: expected at least 2"),
        ("fit --frobnicate", "--frobnicate"),
        ("fit --config nowhere.yaml", "nowhere.yaml"),
        ("frobnicate", "frobnicate"),
        ("compare --seeds []", "seeds: expected at least one"),
        ("compare --seeds [1,1]", "seeds: expected each of them once"),
        ("compare --objectives [{name:ELBO},{name:ELBO}]", "objectives: expected each"),
    ],
)
def test_mistakes_are_explained_before_anything_is_written(
    arguments: str,
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [word.replace("name:", "name: ") for word in arguments.split()]
    assert says in refused(capsys, *words)
    assert not list(tmp_path.iterdir())
