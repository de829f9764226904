"""What comes of programs on the device asked for, where no default device is set."""

from functools import partial
from pathlib import Path
from typing import Any

import pyro
import pytest
import torch
from lightning_fabric.accelerators import CPUAccelerator
from lightning_fabric.strategies import SingleDeviceStrategy
from second_device import Run, check_same
from simulated_device import NAME
from test_compiled_objectives import KEEPING, LATENT, critic, data, of_vectors, with_holes
from torch import Tensor

from pyro_lvm import fit, sample_posterior
from pyro_lvm.diagnostics import (
    AIS,
    MetropolisWithinGibbs,
    Status,
    active_units,
    impute,
    log_evidence,
    report,
    to_inference_data,
)
from pyro_lvm.mcmc import IndependentMetropolisHastings
from pyro_lvm.missing import Incomplete
from pyro_lvm.objective import Objective
from pyro_lvm.objectives import AVB, ELBO, IWAE, PAGAN, UIVI, VGI

pytestmark = pytest.mark.usefixtures("float64")


def programs(device: torch.device) -> tuple[Any, Any, Tensor]:
    model, guide = of_vectors()
    return model.to(device), guide.to(device), data().to(device)


# Weights, evidence, draws.


def weights(device: torch.device) -> list[Tensor]:
    objective = IWAE(num_particles=20)
    return [f(*programs(device)).detach() for f in (objective.bound, objective.log_weights)]


def evidence(method: Any, device: torch.device) -> list[Tensor]:
    found = log_evidence(*programs(device), num_samples=100, method=method)
    return [found.value, found.khat, found.effective_sample_size]


def draws(device: torch.device) -> list[Tensor]:
    pair = programs(device)
    units = active_units(*pair, num_samples=5)["z"]
    return [*sample_posterior(*pair, num_samples=5).values(), units.double()]


def completed(method: Any, device: torch.device) -> list[Tensor]:
    model, guide, _ = programs(device)
    x = with_holes().to(device)
    options: Any = {"num_samples": 4, "num_particles": 8, "method": method}
    return [impute(Incomplete(model), lambda x: guide(x.nan_to_num()), x, **options).values]


def chain(device: torch.device) -> list[Tensor]:
    model, guide, x = programs(device)
    kernel = IndependentMetropolisHastings(model, guide, block_size=10)
    mcmc = pyro.infer.MCMC(kernel, num_samples=20, warmup_steps=5, disable_progbar=True)
    mcmc.run(x)
    return list(mcmc.get_samples().values())


RUNS: dict[str, Run] = {
    "weights": weights,
    "iwae": partial(evidence, "iwae"),
    "ais": partial(evidence, AIS(num_temperatures=2, num_leapfrog=1)),
    "draws": draws,
    "imputations": partial(completed, "sir"),
    "imputations by chains": partial(completed, MetropolisWithinGibbs()),
    "mcmc": chain,
}


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
def test_tensors(run: Run, device: torch.device) -> None:
    check_same(run, device)


@pytest.mark.filterwarnings("ignore:correct=:UserWarning")  # from few draws
@pytest.mark.parametrize("correct", [None, "mh", "psis"])
def test_arviz(correct: str | None, device: torch.device) -> None:
    torch.set_default_device(None)
    model, guide, x = programs(device)
    found = to_inference_data(model, guide, x, num_samples=20, seed=0, correct=correct)
    assert found["posterior"]["z"].size == 20 * len(x) * LATENT


CHECKS = ["weights", "gap", "predictive", "loo_pit", "collapse", "discriminator"]


def test_report(device: torch.device, tmp_path: Path) -> None:
    """The checks run, whatever they find."""
    torch.set_default_device(None)
    model, guide, x = programs(device)
    options: Any = {"objective": AVB(critic(), 3), "num_samples": 40, "folder": tmp_path}
    found = report(model, guide, x[:4], checks=CHECKS, **options)
    assert Status.ERROR not in {finding.verdict.status for finding in found.findings.values()}


# Training, and going on from a checkpoint.


def on(device: torch.device) -> dict[str, Any]:
    """Options that bring ``fit`` there; Lightning does not know a simulated device by name."""
    if device.type != NAME:
        return {"accelerator": device.type, "devices": 1}
    return {"accelerator": "cpu", "strategy": SingleDeviceStrategy(device)}


def fitted(cls: type[Objective], folder: Path, device: torch.device) -> list[Tensor]:
    """Parameters after four steps, two of them from a checkpoint."""
    x = with_holes() if cls is VGI else data()
    rows = (x, torch.arange(len(x))) if cls is VGI else x
    options: Any = {"batch_size": 10, "allow_nan": True, "progress": False, "validation": rows}
    options |= {"run_dir": folder / device.type, "checkpoint_every": 2}
    make, pair = KEEPING.get(cls, (lambda: cls(4), of_vectors))
    for steps in (2, 4):
        model, guide = pair()
        resume = steps == 4
        fit(model, guide, rows, make(), max_steps=steps, resume=resume, **on(device), **options)
    return [*model.parameters(), *guide.parameters()]


@pytest.mark.parametrize("cls", [AVB, ELBO, PAGAN, UIVI, VGI])
def test_fit_goes_on(
    cls: type[Objective], device: torch.device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CPUAccelerator, "setup_device", lambda self, device: None)
    check_same(partial(fitted, cls, tmp_path), device)
