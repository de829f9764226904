"""Several processes against one, and what they refuse."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from explained import explained, guide, model
from lightning_fabric.strategies import ModelParallelStrategy
from processes_job import CASES, SHARED, SharedAdam, adam, trained
from pyro.infer.autoguide import AutoNormal
from torch import Tensor

from pyro_lvm import fit
from pyro_lvm.errors import PlateError, ProgramError, PyroLVMError
from pyro_lvm.kept_chains import Chains
from pyro_lvm.objectives import ELBO, VGI, MHAcceptance
from pyro_lvm.training.evaluate import DatumCount
from pyro_lvm.training.loader import Batch
from pyro_lvm.training.optimizers import make_optimizer
from pyro_lvm.training.processes import check_can_share
from pyro_lvm.training.programs import Programs

JOB = Path(__file__).with_name("processes_job.py")


@pytest.fixture(scope="module")
def by_two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two processes found, started by torchrun."""
    folder = tmp_path_factory.mktemp("two")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    subprocess.run([*command, str(JOB), str(folder)], check=True, timeout=300)
    return [torch.load(folder / f"{rank}.pt") for rank in (0, 1)]


def assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Each process has half of a batch; sums are in another order, so equal to rounding."""
    assert found["loss"] == pytest.approx(expected["loss"], rel=1e-12)
    for one, other in zip(found["parameters"], expected["parameters"], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_two_processes_do_what_one_does(
    case: str, by_two: list[dict[str, Any]], float64: torch.dtype
) -> None:
    one = trained(case)
    for two in by_two:
        assert_same(two[case], one)


@pytest.mark.slow
@pytest.mark.parametrize("run", ["Adam", "ZeRO"])
def test_the_state_of_an_optimizer_is_shared_out(
    run: str, by_two: list[dict[str, Any]], float64: torch.dtype
) -> None:
    """With a schedule and gradients that are cut: two processes take the steps of one."""
    one = trained("ELBO", optimizer=adam, **SHARED)
    for two in by_two:
        assert_same(two[run], one)


@pytest.mark.slow
def test_a_shared_state_is_gathered_for_checkpoints(by_two: list[dict[str, Any]]) -> None:
    """A run that died two steps before its end goes on from the last one saved, bit for bit."""
    for two in by_two:
        assert two["killed"]["loss"] == two["ZeRO"]["loss"]
        for one, other in zip(two["killed"]["parameters"], two["ZeRO"]["parameters"], strict=True):
            assert torch.equal(one, other)


@pytest.mark.slow
@pytest.mark.parametrize("run", ["ZeRO", "killed"])
def test_each_process_has_half_of_a_shared_state(run: str, by_two: list[dict[str, Any]]) -> None:
    """Two moments of 8 bytes a parameter, of whole parameters of sizes 12, 6, 4 and 3."""
    assert sorted(two[run]["bytes"] for two in by_two) == [12 * 16, 13 * 16]


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # of torch's own
def test_a_shared_state_needs_a_process_group() -> None:
    parts = "process group, over which", "none", "torchrun, or pass strategy='ddp'"
    with explained(PyroLVMError, "optimizer", *parts):
        make_optimizer(SharedAdam(), [torch.zeros(2, requires_grad=True)], lr=0.1)


@pytest.mark.parametrize("objective", [VGI(Chains(torch.zeros(8, 2))), MHAcceptance(num_data=8)])
def test_chains_are_refused(objective: Any) -> None:
    parts = "without chains, when several", "a chain of each row", "in one process"
    with explained(ProgramError, type(objective).__name__, *parts):
        check_can_share(objective, 4, 2)
    check_can_share(objective, 4, 1)


def test_all_rows_at_once_are_refused() -> None:
    with explained(PyroLVMError, "batch_size", "rows to share out", "None", "need one process"):
        check_can_share(ELBO(), None, 2)
    check_can_share(ELBO(), None, 1)


def test_an_unscaled_global_latent_is_refused() -> None:
    def shared(x: Tensor) -> None:
        pyro.sample("mean", dist.Normal(0.0, 1.0))

    def joint(x: Tensor) -> None:
        shared(x)
        model(x)

    def joint_guide(x: Tensor) -> None:
        shared(x)
        guide(x)

    batch = Batch.of(torch.zeros(4))
    programs = Programs(joint, joint_guide)
    with explained(PlateError, "plates of the data", "all the data", "4, the share", "size=N"):
        DatumCount(ELBO(), programs, is_share=True)(batch)
    assert DatumCount(ELBO(), programs)(batch) == 4
    assert DatumCount(ELBO(), Programs(model, guide), is_share=True)(batch) == 4


def test_parameters_of_rows_are_refused() -> None:
    batch = Batch.of(torch.zeros(4))
    parts = (
        "computes the posterior of a row",
        "an AutoNormal with parameters for each of 4 rows",
        "in one process",
    )
    with explained(PlateError, "site 'z', plate 'data'", *parts):
        Programs(model, AutoNormal(model)).discover(batch, refuse_subsampling=True)
    Programs(model, AutoNormal(model)).discover(batch)


def modules_in_parts() -> ModelParallelStrategy:
    return ModelParallelStrategy(lambda module, mesh: module)


@pytest.mark.parametrize(
    ("strategy", "reason"),
    [
        ("fsdp", "'fsdp', with shards of them outside the wrapped loss"),
        (modules_in_parts(), "'ModelParallelStrategy', with shards of them outside"),
        ("deepspeed_stage_2", "'deepspeed_stage_2', whose engine keeps gradients"),
    ],
)
def test_strategies_that_take_parameters_apart_are_refused(strategy: Any, reason: str) -> None:
    parts = "whole in every process", reason, "ZeroRedundancyOptimizer"
    with explained(PyroLVMError, "strategy", *parts):
        fit(model, guide, torch.zeros(4), ELBO(), strategy=strategy)
