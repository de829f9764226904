"""``fit``: what it reaches, its options and what it writes."""

import csv
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor
from training_job import FEATURES, Model, data, job, programs, train

import pyro_lvm
from pyro_lvm import FitResult, fit
from pyro_lvm.errors import PyroLVMError
from pyro_lvm.objectives import ELBO, IWAE
from pyro_lvm.training import Callback, TrainingState
from pyro_lvm.training.state import COLUMNS


def log_evidence(model: Model, x: Tensor) -> Tensor:
    """Exact log p(x) of the factor model, summed, nats."""
    loadings = model.decoder.weight
    covariance = loadings @ loadings.mT + torch.diag(model.noise**2)
    return dist.MultivariateNormal(model.decoder.bias, covariance).log_prob(x).sum()


def test_reaches_the_maximum_of_a_linear_model(float64: torch.dtype) -> None:
    """The exact posterior is full rank, so the diagonal guide is off by a rotation only."""
    x = data(200).to(float64)
    model, guide = programs()
    options = {"max_steps": 1200, "lr": 0.03, "batch_size": 50, "evaluate_every": 600}
    options |= {"validation": x, "lr_scheduler": "cosine"}
    result = train(model, guide, x, objective=ELBO(5), **options)
    exact = log_evidence(model, x) / len(x)
    free = dist.MultivariateNormal(x.mean(0), torch.cov(x.T, correction=0)).log_prob(x).mean()
    # The best 2-factor model is the best full Gaussian here. Over eight starts 0.00002 to 0.0007
    # are left, but 0.29 where the second factor is hardly used at first: that start climbs slowly,
    # has no maximum below (ascent on the exact evidence goes on to 0), and leaves 0.0004 after
    # five times the steps.
    assert exact > free - 0.001
    # The guide's rotation costs 0.001 nats; a diagonal guide elsewhere would cost tenths.
    assert result.history["bound"][-1] == pytest.approx(exact.item(), abs=0.01)
    assert result.history["khat_high"][-1] is not None


def test_loss_is_per_datum_whatever_the_scale_of_the_plate() -> None:
    plain = train(*programs())
    scaled = train(*programs(num_data=1000))
    assert scaled.history["loss"] == pytest.approx(plain.history["loss"], rel=1e-5)
    assert scaled.history["grad_norm"] == pytest.approx(plain.history["grad_norm"], rel=1e-4)


def test_loss_is_the_objective_over_the_number_of_data() -> None:
    (model, guide), objective, x = programs(), ELBO(500), data()
    with torch.no_grad():
        guide.encoder[1].weight.zero_()
    log_weights = objective.log_weights(model, guide, x)  # (500, 40)
    error = (log_weights.std(0).square().sum() / 500).sqrt() / len(x)
    result = train(model, guide, x, objective=objective, batch_size=None, max_steps=1)
    # The difference of two such means, at 5 standard errors.
    assert result.history["loss"][0] == pytest.approx(
        -log_weights.mean().item(), abs=7 * error.item()
    )


def test_the_config_tells_how_it_was_trained() -> None:
    config = train(*programs(), objective=IWAE(3, "dreg"), max_steps=1).config
    assert config["objective"] == "IWAE(num_particles=3, gradient='dreg')"
    assert config["data"] == f"tensor of shape {tuple(data().shape)}"


# Options.


@pytest.mark.parametrize(
    "options",
    [
        {"batch_size": 0},
        {"max_steps": True},
        {"lr": -1.0},
        {"lr": "fast"},
        {"max_grad_norm": 0.0},
        {"max_grad_norm": -1.0},
        {"seed": None},
        {"precision": "3-mixed"},
        {"max_steps": -1},
        {"log_every": 0},
        {"on_nonfinite": "ignore"},
        {"objective": "iwae"},
        {"precision": "16-mixed"},
        {"patience": 3},
        {"restore_best": True},
        {"optimizer": "lion"},
        {"lr_scheduler": "linear"},
        {"validation": 1.5},
        {"validation": torch.zeros(0, FEATURES)},
    ],
)
def test_bad_options_name_the_argument(options: dict[str, Any]) -> None:
    with pytest.raises(PyroLVMError, match=next(iter(options))):
        train(**options)


def test_patience_and_best() -> None:
    options = {"lr": 0.5, "max_epochs": 200, "max_steps": None, "validation": 0.25}
    result = train(patience=3, restore_best=True, **options)
    bounds = [bound for bound in result.history["bound"] if bound is not None]
    assert len(bounds) < 200
    assert max(bounds) == max(bounds[:-3])
    again = train(result.model, result.guide, max_steps=0, validation=0.25)
    assert again.history["bound"][0] == max(bounds), "the best parameters are back"


def test_best_checkpoint_is_a_file(tmp_path: Path) -> None:
    result = train(run_dir=tmp_path, validation=data(), max_steps=None, max_epochs=2)
    assert result.best_checkpoint is not None
    assert result.best_checkpoint.is_file()


def test_callbacks_see_steps_and_epochs_and_can_stop() -> None:
    seen: list[tuple[str, int]] = []

    class Watch(Callback):
        def on_step_end(self, state: TrainingState) -> None:
            seen.append(("step", state.step))
            state.stop = state.step == 5

        def on_epoch_end(self, state: TrainingState) -> None:
            seen.append(("epoch", state.epoch))

    train(callbacks=[Watch()])
    assert seen == [*(("step", i) for i in (1, 2, 3, 4)), ("epoch", 1), ("step", 5)]


def test_clipping_schedule_and_own_optimizer() -> None:
    def momentum(parameters: Any) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=0.1, momentum=0.9)

    def halve(optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
        return torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)

    result = train(optimizer=momentum, lr_scheduler=halve, max_grad_norm=1e-6)
    assert result.history["learning_rate"][:3] == [0.05, 0.025, 0.0125]
    moved = result.model.decoder.weight - programs()[0].decoder.weight  # type: ignore[attr-defined]
    assert 0 < moved.abs().max() < 1e-6


def test_cosine_ends_at_zero() -> None:
    assert train(lr_scheduler="cosine").history["learning_rate"][5] == pytest.approx(0, abs=1e-12)


def test_the_callers_random_state_is_left_alone() -> None:
    states = torch.get_rng_state(), np.random.get_state()[1]
    train(transform=lambda batch, generator: batch + torch.randn(batch.shape))
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1] == states[1]).all()


@pytest.mark.not_simulated(reason="autocast does not know it")
def test_autocast_trains_with_finite_losses() -> None:
    result = train(precision="bf16-mixed", objective=IWAE(5), validation=0.25, max_steps=None,
                   max_epochs=3)  # fmt: skip
    assert all(np.isfinite(result.history["loss"]))
    assert result.model.decoder.weight.dtype == torch.float32  # type: ignore[attr-defined]


def test_metrics_files_hold_the_history(tmp_path: Path) -> None:
    result = job(tmp_path, max_epochs=2)
    with (tmp_path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert tuple(rows[0]) == COLUMNS == tuple(result.history)
    for name in COLUMNS:
        assert [line[name] for line in lines] == result.history[name]
        assert [row[name] or None for row in rows] == [
            None if v is None else str(v) for v in result.history[name]
        ]


def test_missing_tensorboard_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(PyroLVMError, match=r"pyro-lvm\[tensorboard\]"):
        train(run_dir=tmp_path, tensorboard=True)


def test_tensorboard_files(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    train(run_dir=tmp_path, tensorboard=True)
    assert list((tmp_path / "tensorboard").glob("events.*"))


def test_progress_bar_is_off_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    train()
    assert capsys.readouterr().err == ""
    train(progress=True, validation=0.25, max_steps=None, max_epochs=1)
    shown = capsys.readouterr().err
    assert all(name in shown for name in ("loss=", "bound=", "ess=", "khat="))


def test_top_level_names() -> None:
    assert pyro_lvm.fit is fit
    assert pyro_lvm.FitResult is FitResult
