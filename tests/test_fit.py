"""``fit``: what it takes, what it reaches, what it refuses and what it writes."""

import csv
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoDiagonalNormal, AutoMultivariateNormal, AutoNormal
from pyro.poutine.util import is_validation_enabled
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset
from training_job import FEATURES, Guide, Model, data, job, programs

import pyro_lvm
from pyro_lvm import FitResult, fit
from pyro_lvm.errors import DataError, NonFiniteError, ParameterError, PlateError, PyroLVMError
from pyro_lvm.guides import AmortizedNormal
from pyro_lvm.models import FactorAnalysis
from pyro_lvm.objectives import ELBO, IWAE
from pyro_lvm.training import Callback, TrainingState
from pyro_lvm.training.loader import Batch, Batches
from pyro_lvm.training.programs import Programs
from pyro_lvm.training.settings import check_covered
from pyro_lvm.training.state import COLUMNS


def train(model: Any = None, guide: Any = None, x: Any = None, **options: Any) -> FitResult:
    """A short quiet fit of the shared programs, or of those given."""
    if model is None:
        model, guide = programs()
    settings = {"max_steps": 6, "batch_size": 10, "log_every": 1, "accelerator": "cpu"}
    objective = options.pop("objective", None) or ELBO()
    return fit(model, guide, data() if x is None else x, objective, **{**settings, **options})


# What it reaches.


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
    assert exact > free - 0.15, "the best 2-factor model is near the best full Gaussian"
    assert result.history["bound"][-1] == pytest.approx(exact.item(), abs=0.1)
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


# Programs.


def model_function(x: Tensor) -> None:
    loc = pyro.param("loc", torch.zeros(FEATURES))
    scale = pyro.param("scale", torch.ones(FEATURES), constraint=dist.constraints.positive)
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(FEATURES), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(loc + z, scale).to_event(1), obs=x)


class Pair(nn.Module):
    """Pyro's old style: two methods that register their networks by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(FEATURES, FEATURES)

    def model(self, x: Tensor) -> None:
        model_function(x)

    def guide(self, x: Tensor) -> None:
        pyro.module("encoder", self.encoder)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.encoder(x), 1.0).to_event(1))


def test_functions_and_methods_train() -> None:
    pair = Pair()
    before = pair.encoder.weight.detach().clone()
    result = train(pair.model, pair.guide)
    assert set(pyro.get_param_store()) >= {"loc", "scale"}
    assert not torch.equal(pyro.param("loc"), torch.zeros(FEATURES))
    assert not torch.equal(pyro.param("scale"), torch.ones(FEATURES))
    assert not torch.equal(pair.encoder.weight, before)
    assert result.history["loss"][-1] < result.history["loss"][0]  # type: ignore[operator]


def test_modules_built_with_local_parameters_off_or_on_train_alike() -> None:
    off = train(*programs())
    with pyro.settings.context(module_local_params=True):
        on = train(*programs())
    assert off.history == on.history
    assert not pyro.get_param_store(), "module parameters stay out of the store"


def local_model(x: Tensor) -> None:
    mean = pyro.sample("mean", dist.Normal(0.0, 10.0))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(mean, 1.0))
        pyro.sample("x", dist.Normal(z, 0.5), obs=x)


@pytest.mark.parametrize(
    ("kind", "called_before"),
    [(AutoNormal, False), (AutoDiagonalNormal, True), (AutoMultivariateNormal, False)],
)
def test_autoguides_train(kind: Any, called_before: bool) -> None:
    guide = kind(local_model)
    x = torch.linspace(1, 3, 8)
    if called_before:
        guide(x)
    options = {"batch_size": None, "max_steps": 300, "lr": 0.1, "lr_scheduler": "cosine"}
    result = train(local_model, guide, x, objective=ELBO(20), **options)
    assert result.history["loss"][-1] < result.history["loss"][0]  # type: ignore[operator]
    median = guide.median(x)
    assert median["mean"].item() == pytest.approx(2.0, abs=0.5)
    assert (median["z"].diff() > 0).all(), "each row's own parameter found its row"


# Data.


class Rows(Dataset[Any]):
    def __init__(self, x: Tensor) -> None:
        self.x = x

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> Tensor:
        return self.x[index]


def test_all_forms_of_data_give_the_same_run() -> None:
    x = data()
    forms = [x, x.numpy(), (x,), [x], {"x": x}, Rows(x), TensorDataset(x)]
    histories = [train(x=form).history for form in forms]
    assert all(history == histories[0] for history in histories)


def test_data_drawn_from_a_model_carry_no_graph() -> None:
    """They depend on its parameters, and a second step would go through a freed graph."""
    model = FactorAnalysis(3, 1)
    guide = AmortizedNormal(in_features=3, latent_features=1, hidden=(4,))
    x = model(size=8)
    assert x.requires_grad
    fit(model, guide, x, ELBO(), max_steps=2, batch_size=None, progress=False)


def test_a_dataloader_keeps_its_batches_and_is_reproducible() -> None:
    loader = DataLoader(TensorDataset(data()), batch_size=8, shuffle=True)
    runs = [train(x=loader, max_epochs=2, max_steps=None) for _ in range(2)]
    assert runs[0].history == runs[1].history
    assert runs[0].history["step"] == [*range(1, 11)]
    own = DataLoader(Rows(data()), batch_size=8, shuffle=True, generator=torch.Generator())
    assert train(x=own).history == train(x=own).history


def test_batches_cover_the_data_once_an_epoch_and_in_a_new_order() -> None:
    batches = Batches(torch.arange(10), 4, seed=0)
    first, second = ([b.args[0].tolist() for b in batches.epoch(e)] for e in (0, 1))
    assert [len(batch) for batch in first] == [4, 4, 2]
    for epoch in (first, second):
        assert sorted(row for batch in epoch for row in batch) == [*range(10)]
    assert first != second
    assert [b.args[0].tolist() for b in batches.epoch(1, start=1)] == second[1:]


def test_processes_share_each_batch_equally() -> None:
    shares = [Batches(torch.arange(11), 4, seed=0, rank=r, world_size=2) for r in (0, 1)]
    rows = [[b.args[0].tolist() for b in share.epoch(0)] for share in shares]
    assert [len(b) for b in rows[0]] == [len(b) for b in rows[1]] == [2, 2, 1]
    assert len({i for share in rows for batch in share for i in batch}) == 10


def test_batch_norm_leaves_out_a_batch_of_one() -> None:
    model, guide = programs(batch_norm=True)
    result = train(model, guide, data(21), max_steps=None, max_epochs=2)
    assert result.history["step"] == [1, 2, 3, 4]
    with pytest.raises(DataError, match="BatchNorm"):
        train(model, guide, data(), batch_size=1)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(0, FEATURES), "data: expected at least one datum"),
        (
            data().index_fill(0, torch.tensor([3]), float("nan")),
            r"data.*NaN or infinite.*at \[3, 0\]",
        ),
        ((data(), torch.zeros(7)), r"equal length, got data\[0\]: 40, data\[1\]: 7"),
        ((data(), 100), "a tuple of Tensor, int|a tuple of int, Tensor"),
        ("file.csv", "got a str"),
        (data().double(), "data: expected the dtype of the parameters, got torch.float64"),
    ],
)
def test_bad_data(x: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        train(x=x)


def test_a_mask_excuses_nan() -> None:
    def model(x: Tensor, observed: Tensor) -> None:
        loc = pyro.param("loc", torch.tensor(0.0))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(loc, 1.0))
            with pyro.poutine.mask(mask=observed):
                pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x: Tensor, observed: Tensor) -> None:
        shift = pyro.param("shift", torch.tensor(0.0))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(shift, 1.0))

    x = torch.linspace(1, 2, 10)
    x[4] = float("nan")
    observed = ~x.isnan()
    result = train(model, guide, {"x": x, "observed": observed}, max_steps=20, lr=0.1)
    assert result.history["skipped"][-1] == 0
    assert pyro.param("loc").item() > 0.1
    with pytest.raises(DataError, match="NaN"):
        train(model, guide, {"x": x, "observed": observed[:, None]})


# Refusals.


def test_nothing_to_train() -> None:
    def program(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.0, 1.0))

    with pytest.raises(ParameterError, match="at least one trainable parameter"):
        train(program, program)


@pytest.mark.parametrize("shape", [(), (FEATURES + 1,)])
def test_stale_parameter_of_another_shape(shape: tuple[int, ...]) -> None:
    pyro.param("loc", torch.zeros(shape))
    with pytest.raises(ParameterError, match=r"'loc': expected shape \(4,\)") as error:
        train(model_function, Pair().guide)
    assert f"got {shape}" in str(error.value)
    assert "pyro.clear_param_store()" in str(error.value)


def test_stale_module_in_the_store() -> None:
    train(model_function, Pair().guide)
    with pytest.raises(ParameterError, match=r"encoder.*another module"):
        train(model_function, Pair().guide)


def test_parameters_of_the_store_inside_a_pyro_module() -> None:
    class Mixed(Guide):
        def forward(self, x: Tensor) -> None:
            pyro.param("inside", torch.tensor(0.0))
            super().forward(x)

    with pytest.raises(ParameterError, match="PyroParam"):
        train(programs()[0], Mixed())


def test_several_processes_need_modules() -> None:
    model, guide = programs()
    check_covered(ELBO()(model, guide), [*model.parameters(), *guide.parameters()], 2)
    outside = torch.zeros(3, requires_grad=True)
    with pytest.raises(ParameterError, match="1 parameters in Pyro's store"):
        check_covered(ELBO()(model, guide), [outside], 2)
    check_covered(ELBO()(model, guide), [outside], 1)


def test_random_subsampling_is_refused_in_several_processes() -> None:
    def subsampled(x: Tensor) -> None:
        with pyro.plate("data", len(x), subsample_size=5) as rows:
            pyro.sample("z", dist.Normal(pyro.param("a", torch.tensor(0.0)), 1.0))
            assert len(rows) == 5

    batch = Batch.of(data())
    Programs(subsampled, subsampled).discover(batch)
    with pytest.raises(PlateError, match=r"plate 'data'.*5 from 40.*\n.*subsample="):
        Programs(subsampled, subsampled).discover(batch, refuse_subsampling=True)
    Programs(*programs(num_data=100)).discover(batch, refuse_subsampling=True)


@pytest.mark.parametrize(
    "options",
    [
        {"batch_size": 0},
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


# Non-finite losses.


class Overflowing(Guide):
    """Gives an infinite scale on the listed calls."""

    def __init__(self, bad_calls: range) -> None:
        super().__init__()
        self.bad_calls, self.calls = bad_calls, -1  # the search for plates

    def forward(self, x: Tensor) -> None:
        is_bad = self.training and self.calls in self.bad_calls
        self.calls += self.training
        super().forward(x * 1e30 if is_bad else x)


def test_nonfinite_loss_names_the_site() -> None:
    model, guide = programs()
    with torch.no_grad():
        guide.encoder[1].weight.fill_(1e4)
    before = {name: value.clone() for name, value in guide.state_dict().items()}
    with pytest.raises(NonFiniteError, match=r"step 1.*site 'z'.*Normal with"):
        train(model, guide)
    for name, value in guide.state_dict().items():
        assert torch.equal(value, before[name]), "parameters are unchanged"


def test_bad_updates_are_skipped_and_counted() -> None:
    result = train(programs()[0], Overflowing(range(2, 4)), on_nonfinite="skip", max_skips=2)
    assert result.history["skipped"][-1] == 2
    assert all(torch.isfinite(p).all() for p in result.model.parameters())  # type: ignore[attr-defined]
    with pytest.raises(NonFiniteError):
        train(programs()[0], Overflowing(range(1, 5)), on_nonfinite="skip", max_skips=2)


# Pyro's own checks.


class Watching(Guide):
    """Notes at each training step whether Pyro checks; at last its scale is negative."""

    def __init__(self, good_steps: int = 100, family: Any = dist.Normal) -> None:
        super().__init__()
        self.good_steps, self.family = good_steps, family
        self.seen: list[bool] = []  # first by the search for plates

    @property
    def is_checked(self) -> list[bool]:
        return self.seen[1:]

    def forward(self, x: Tensor) -> None:
        if self.training:
            self.seen.append(is_validation_enabled())
        sign = 1.0 if len(self.is_checked) <= self.good_steps else -1.0
        loc, log_scale = self.encoder(x).chunk(2, -1)
        scale = sign * log_scale.exp()
        with pyro.plate("data", len(x), subsample=torch.arange(len(x))):
            fn = self.family(loc, scale) if self.family is dist.Normal else self.family(scale)
            pyro.sample("z", fn.to_event(1))


def test_pyro_checks_in_the_first_epoch_or_at_every_step() -> None:
    guides = [Watching(), Watching()]
    with torch.no_grad():
        for guide in guides:
            guide.load_state_dict(programs()[1].state_dict())
    results = [train(programs()[0], g, check_every_step=e) for g, e in zip(guides, (False, True))]
    assert guides[0].is_checked == [True] * 4 + [False] * 2
    assert guides[1].is_checked == [True] * 6
    assert results[0].history == results[1].history
    assert is_validation_enabled()


def test_checks_that_the_user_switched_off_stay_off() -> None:
    guide = Watching()
    with pyro.validation_enabled(False):
        train(programs()[0], guide, check_every_step=True)
    assert guide.is_checked == [False] * 6


def test_a_resumed_run_starts_with_checks(tmp_path: Path) -> None:
    train(run_dir=tmp_path)
    guide = Watching()
    train(programs()[0], guide, run_dir=tmp_path, resume=True, max_steps=8)
    assert guide.seen == [True, False], "no search: the checkpoint knows the plates"


@pytest.mark.parametrize(
    ("family", "gradient", "told"),
    [
        (dist.Normal, "reparam", r"site 'z' of the guide, Normal with.*scale in \[-"),
        (dist.Poisson, "score", "invalid Poisson rate"),  # torch refuses to draw it
    ],
)
def test_unchecked_parameters_out_of_range_are_told(family: Any, gradient: str, told: str) -> None:
    guide = Watching(5, family)
    with pytest.raises(NonFiniteError, match=f"step 6.*{told}"):
        train(programs()[0], guide, objective=ELBO(2, gradient))
    assert guide.is_checked[:6] == [True] * 4 + [False] * 2


def test_a_datum_out_of_the_support_is_found_wherever_it_is() -> None:
    def model(x: Tensor) -> None:
        rate = pyro.param("rate", torch.tensor(1.0), constraint=dist.constraints.positive)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Bernoulli(logits=rate * z), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(pyro.param("loc", torch.tensor(0.0)), 1.0))

    x = torch.zeros(40)
    x[7] = 2.0
    with pytest.raises(PyroLVMError, match="site 'x': expected a value that Bernoulli"):
        train(model, guide, x, max_epochs=3, max_steps=None)


# The rest of the options.


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
