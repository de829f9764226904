"""What comes of programs on the device asked for, where no default device is set."""

import dataclasses
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyro
import pytest
import torch
from second_device import check_same
from test_compiled_objectives import (
    KEEPING,
    LATENT,
    critic,
    data,
    of_holes,
    of_mixtures,
    of_vectors,
    with_holes,
)
from torch import Tensor
from torch.utils._pytree import tree_leaves

from pyro_lvm import fit
from pyro_lvm.diagnostics import (
    AIS,
    CHECKS,
    SMC,
    GibbsSweeps,
    MetropolisWithinGibbs,
    Status,
    active_units,
    amortization_gap,
    bidirectional,
    collapse_report,
    compare_with_nuts,
    impute,
    log_evidence,
    loo_pit,
    plot_sandwich,
    predictive_check,
    ratio_quality,
    report,
    sample_posterior,
    simulation_based_calibration,
    to_inference_data,
)
from pyro_lvm.mcmc import (
    ImplicitMetropolisHastings,
    IndependentMetropolisHastings,
    MarkovMetropolisHastings,
    RandomWalk,
)
from pyro_lvm.missing import Incomplete
from pyro_lvm.objective import Objective
from pyro_lvm.objectives import AVB, ELBO, IWAE, PAGAN, UIVI, VGI

pytestmark = pytest.mark.usefixtures("float64")

SHORT: dict[str, Any] = {"num_temperatures": 2, "num_leapfrog": 1}
Entry = Callable[[Any, Any, Tensor], Any]


def completed(method: Any, model: Any, guide: Any, x: Tensor) -> Any:
    rows = with_holes().to(x.device)
    options: Any = {"num_samples": 4, "num_particles": 8, "method": method}
    return impute(Incomplete(model), lambda x: guide(x.nan_to_num()), rows, **options).values


def completed_in_sweeps(model: Any, guide: Any, x: Tensor) -> Any:
    conditionals = of_holes()[1].to(x.device)
    return GibbsSweeps(num_warmup=1, thin=1)(conditionals, with_holes().to(x.device), 2).values


def exported(correct: str | None, model: Any, guide: Any, x: Tensor) -> Tensor:
    found = to_inference_data(model, guide, x, num_samples=20, seed=0, correct=correct)
    return torch.as_tensor(found["posterior"]["z"].values)


def chain(kernel: Any, x: Tensor) -> Any:
    mcmc = pyro.infer.MCMC(kernel, num_samples=20, warmup_steps=5, disable_progbar=True)
    mcmc.run(x)
    return mcmc.get_samples()


def independent(model: Any, guide: Any, x: Tensor) -> Any:
    return chain(IndependentMetropolisHastings(model, guide, block_size=10), x)


def walking(model: Any, guide: Any, x: Tensor) -> Any:
    return chain(MarkovMetropolisHastings(model, RandomWalk(guide), num_chains=2), x)


def of_samples(model: Any, guide: Any, x: Tensor) -> Any:
    judge = critic(context=None).to(x.device)
    sampler = ImplicitMetropolisHastings(lambda n: x.new_empty(n, LATENT).normal_(), judge)
    sampler.fit(x.new_empty(100, LATENT).normal_(), max_steps=3, batch_size=20)
    return sampler.sample(10).values


def drawn(model: Any, guide: Any, x: Tensor) -> list[Tensor]:
    mixture = of_mixtures()[1].to(x.device)
    figure = plot_sandwich(model, mixture, x, num_mixing=(1, 2), num_particles=5)
    return [torch.tensor(line.get_ydata()) for line in figure.axes[0].lines]


def judged(model: Any, guide: Any, x: Tensor) -> Any:
    found = ratio_quality(AVB(critic().to(x.device), 3), model, guide, x, num_samples=4)
    return [found.log_loss, found.accuracy, found.count]


ENTRIES: dict[str, Entry] = {
    "Objective.bound": IWAE(num_particles=20).bound,
    "Objective.log_weights": IWAE(num_particles=20).log_weights,
    "active_units": partial(active_units, num_samples=5),
    "amortization_gap": partial(amortization_gap, num_steps=2, num_samples=30),
    "bidirectional AIS": partial(bidirectional, num_samples=8, method=AIS(**SHORT)),
    "bidirectional SMC": partial(bidirectional, num_samples=8, method=SMC(**SHORT)),
    "collapse_report": partial(collapse_report, num_samples=5),
    "compare_with_nuts": lambda model, guide, x: compare_with_nuts(
        model, guide, x[:1], num_samples=20, num_warmup=10, num_chains=2, num_guide_samples=20
    ),
    "impute sir": partial(completed, "sir"),
    "impute MetropolisWithinGibbs": partial(completed, MetropolisWithinGibbs()),
    "GibbsSweeps": completed_in_sweeps,
    "log_evidence iwae": partial(log_evidence, num_samples=100),
    "log_evidence AIS": partial(log_evidence, num_samples=30, method=AIS(**SHORT)),
    "log_evidence SMC": partial(log_evidence, num_samples=30, method=SMC(**SHORT)),
    "loo_pit": partial(loo_pit, num_samples=30),
    "plot_sandwich": drawn,
    "predictive_check": partial(predictive_check, num_samples=20),
    "ratio_quality": judged,
    "sample_posterior": partial(sample_posterior, num_samples=5),
    "simulation_based_calibration": partial(
        simulation_based_calibration, num_simulations=20, num_draws=9
    ),
    "to_inference_data": partial(exported, None),
    "to_inference_data mh": partial(exported, "mh"),
    "to_inference_data psis": partial(exported, "psis"),
    "ImplicitMetropolisHastings": of_samples,
    "IndependentMetropolisHastings": independent,
    "MarkovMetropolisHastings": walking,
}


def programs(device: torch.device) -> tuple[Any, Any, Tensor]:
    model, guide = of_vectors()
    return model.to(device), guide.to(device), data().to(device)


def entered(entry: Entry, device: torch.device) -> list[Tensor]:
    """The numbers of what an entry gives, some of which it leaves on the CPU."""
    return [value.detach().to(device) for value in tensors(entry(*programs(device)))]


def tensors(result: Any) -> Iterator[Tensor]:
    for leaf in tree_leaves(vars(result) if dataclasses.is_dataclass(result) else result):
        if dataclasses.is_dataclass(leaf):
            yield from tensors(leaf)
        elif isinstance(leaf, Tensor):
            yield leaf


@pytest.mark.filterwarnings("ignore:correct=:UserWarning")  # from few draws
@pytest.mark.parametrize("entry", ENTRIES.values(), ids=ENTRIES)
def test_entries(entry: Entry, device: torch.device) -> None:
    check_same(partial(entered, entry), device)


OF_ENTRIES = {"amortization", "chains", "coverage", "evidence", "nuts", "sbc", "tarp"}
"""Checks that are little more than one of the entries above."""


def test_report(device: torch.device, tmp_path: Path) -> None:
    """The checks run, whatever they find."""
    torch.set_default_device(None)
    model, guide, x = programs(device)
    options: Any = {"objective": AVB(critic(), 3), "num_samples": 40, "folder": tmp_path}
    found = report(model, guide, x[:4], checks=[*CHECKS.keys() - OF_ENTRIES], **options)
    assert Status.ERROR not in {finding.verdict.status for finding in found.findings.values()}


# Training, and going on from a checkpoint.


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
        fit(model, guide, rows, make(), max_steps=steps, resume=resume, **options)
    return [*model.parameters(), *guide.parameters()]


@pytest.mark.parametrize("cls", [AVB, ELBO, PAGAN, UIVI, VGI])
def test_fit_goes_on(cls: type[Objective], device: torch.device, tmp_path: Path) -> None:
    check_same(partial(fitted, cls, tmp_path), device)
