"""A run that was stopped, in whatever way, and resumed equals one that was not, bit for bit."""

import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim.lr_scheduler import StepLR
from training_job import Send, data, job, programs, train

from pyro_lvm import FitResult, fit
from pyro_lvm.annealing import LinearWarmup
from pyro_lvm.errors import CheckpointError
from pyro_lvm.objective import Objective
from pyro_lvm.objectives import ELBO, IWAE, Renyi
from pyro_lvm.training import Callback, TrainingState
from pyro_lvm.training.evaluate import Evaluator
from pyro_lvm.training.rows import Rows, checksum

JOB = Path(__file__).with_name("training_job.py")
STEPS = 25  # of the job


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> FitResult:
    """The uninterrupted run; its files are in the folder of its best checkpoint."""
    return job(tmp_path_factory.mktemp("whole"))


def assert_equal_runs(one: FitResult, other: FitResult) -> None:
    assert one.history == other.history
    for name, value in state(one).items():
        assert torch.equal(value, state(other)[name]), name


def state(result: FitResult) -> dict[str, torch.Tensor]:
    return {**result.model.state_dict(), **result.guide.state_dict()}  # type: ignore[attr-defined]


def assert_equal_files(one: Path, other: Path) -> None:
    for name in ("metrics.csv", "metrics.jsonl"):
        assert (one / name).read_text() == (other / name).read_text()


@pytest.mark.parametrize("stop_after", [1, 4, 5, 13, 24])
def test_steps_then_more_steps(whole: FitResult, tmp_path: Path, stop_after: int) -> None:
    class Stop(Callback):
        def on_step_end(self, state: TrainingState) -> None:
            state.stop = state.step == stop_after

    job(tmp_path, callbacks=[Stop()])
    resumed = job(tmp_path, resume=True)
    assert_equal_runs(resumed, whole)
    assert whole.best_checkpoint is not None
    assert_equal_files(tmp_path, whole.best_checkpoint.parents[1])


def test_early_stopping_counts_on_after_a_stop(tmp_path: Path) -> None:
    patient = job(tmp_path / "a", patience=2)
    assert patient.history["step"][-1] == 9
    job(tmp_path / "b", patience=2, max_steps=7)
    assert_equal_runs(job(tmp_path / "b", patience=2, resume=True), patient)


@pytest.mark.cpu_only(reason="bit for bit, in a process of its own")
def test_killed_at_a_random_step(whole: FitResult, tmp_path: Path) -> None:
    kill_at = random.SystemRandom().randrange(3, STEPS)  # any step must do
    killed = subprocess.run(
        [sys.executable, str(JOB), str(tmp_path), "kill", str(kill_at)], check=False
    )
    assert killed.returncode == -signal.SIGKILL, f"at step {kill_at}"
    resumed = job(tmp_path, resume=True)
    assert_equal_runs(resumed, whole)


def test_ctrl_c_ends_the_step_and_saves(
    whole: FitResult, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(signal.SIGINT)
    stopped = job(tmp_path, callbacks=[Send(7, signal.SIGINT)])
    assert stopped.interrupted
    shown = capsys.readouterr().out
    assert "Stopped after step 7" in shown
    assert "resume=True" in shown
    assert signal.getsignal(signal.SIGINT) is before
    resumed = job(tmp_path, resume=True)
    assert not resumed.interrupted
    assert_equal_runs(resumed, whole)


def test_ctrl_c_in_the_last_step_is_not_lost(whole: FitResult, tmp_path: Path) -> None:
    """A script that trains one model after the other must end; the run itself is complete."""
    stopped = job(tmp_path, callbacks=[Send(STEPS, signal.SIGINT)])
    assert stopped.interrupted
    resumed = job(tmp_path, resume=True)
    assert not resumed.interrupted
    assert_equal_runs(resumed, whole)


@pytest.mark.parametrize("evaluation", [1, 9])  # of 9, the last after the end
def test_ctrl_c_in_an_evaluation(
    whole: FitResult, tmp_path: Path, evaluation: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate, calls = Evaluator.__call__, iter(range(1, 100))

    def interrupted(evaluator: Evaluator) -> Any:
        if next(calls) == evaluation:
            os.kill(os.getpid(), signal.SIGINT)
        return evaluate(evaluator)

    monkeypatch.setattr(Evaluator, "__call__", interrupted)
    assert job(tmp_path).interrupted
    monkeypatch.undo()
    assert_equal_runs(job(tmp_path, resume=True), whole)


def test_ctrl_c_twice_while_saving(
    whole: FitResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is being written goes, what was written before stays."""
    save = torch.save

    def interrupted(content: Any, file: Any) -> None:
        if content["state"]["step"] == 6:
            file.write(b"half")
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGINT)
        save(content, file)

    monkeypatch.setattr(torch, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        job(tmp_path)
    monkeypatch.undo()
    kept = [path.name for path in (tmp_path / "checkpoints").iterdir() if "step" in path.name]
    assert sorted(kept) == ["step-000000002.ckpt", "step-000000004.ckpt"]
    assert_equal_runs(job(tmp_path, resume=True), whole)


def test_second_ctrl_c_ends_at_once(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        job(tmp_path, callbacks=[Send(7, signal.SIGINT), Send(7, signal.SIGINT)])


def test_ctrl_c_without_a_folder_says_that_nothing_was_saved(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert job(None, callbacks=[Send(2, signal.SIGINT)]).interrupted
    assert "Nothing was saved" in capsys.readouterr().out


def test_torn_checkpoint_is_named_and_the_one_before_is_used(
    whole: FitResult, tmp_path: Path
) -> None:
    job(tmp_path, callbacks=[Send(9, signal.SIGINT)])
    torn = max((tmp_path / "checkpoints").glob("step-*.ckpt"))
    torn.write_bytes(torn.read_bytes()[:1000])
    with pytest.warns(UserWarning, match=torn.name):
        resumed = job(tmp_path, resume=True)
    assert_equal_runs(resumed, whole)


def test_resume_from_another_folder_or_file(whole: FitResult, tmp_path: Path) -> None:
    job(tmp_path / "a", callbacks=[Send(9, signal.SIGINT)])
    last = max((tmp_path / "a" / "checkpoints").glob("step-*.ckpt"))
    for source in (tmp_path / "a", last):
        resumed = job(tmp_path / f"from-{source.name}", resume=source)
        assert resumed.history == whole.history


def test_resume_of_a_finished_run_changes_nothing(whole: FitResult, tmp_path: Path) -> None:
    job(tmp_path)
    assert_equal_runs(job(tmp_path, resume=True), whole)


def test_a_new_run_does_not_overwrite_an_old_one(tmp_path: Path) -> None:
    job(tmp_path, max_epochs=1)
    with pytest.raises(CheckpointError, match=r"earlier run.*\n.*resume=True"):
        job(tmp_path)


def test_resume_without_checkpoints_starts_anew(whole: FitResult, tmp_path: Path) -> None:
    assert job(tmp_path, resume=True).history == whole.history


@pytest.mark.parametrize(("option", "value"), [("seed", 4), ("batch_size", 7)])
def test_resume_with_another_order_of_data_is_refused(
    tmp_path: Path, option: str, value: int
) -> None:
    job(tmp_path, max_epochs=1)
    with pytest.raises(CheckpointError, match=f"{option}=.*got {option}={value}"):
        job(tmp_path, resume=True, **{option: value})


CHANGED = {
    "optimizer.lr": {"lr": 0.1},
    "optimizer=": {"optimizer": "sgd"},
    "optimizer.weight_decay": {"optimizer": lambda p: torch.optim.Adam(p, 0.2, weight_decay=1.0)},
    "lr_scheduler.gamma": {"lr_scheduler": lambda optimizer: StepLR(optimizer, 3, 0.5)},
    "lr_scheduler=": {"lr_scheduler": None},
    "max_grad_norm=": {"max_grad_norm": 1.0},
    "precision=": {"precision": "64-true"},
}


@pytest.mark.parametrize("named", CHANGED)
def test_resume_by_another_rule_is_refused(tmp_path: Path, named: str) -> None:
    """Torch would go on with the saved rate, the result would say the new one."""
    job(tmp_path, max_epochs=1)
    with pytest.raises(CheckpointError) as caught:
        job(tmp_path, resume=True, **CHANGED[named])
    expected, found = str(caught.value).split(", got ")
    assert named in expected
    assert named in found


@pytest.mark.parametrize(
    ("objective", "named"),
    [
        (IWAE(5), "objective=Renyi"),
        (Renyi(4, alpha=2.0), "objective.num_particles=3"),
        (Renyi(3, alpha=0.5), "objective.alpha=2.0"),
        (Renyi(3, alpha=2.0, beta=LinearWarmup(7)), "LinearWarmup(num_steps=9, start=0.0)"),
    ],
)
def test_resume_of_another_objective_is_refused(
    tmp_path: Path, objective: Objective, named: str
) -> None:
    first = Renyi(3, alpha=2.0, beta=LinearWarmup(9))
    train(objective=first, run_dir=tmp_path)
    train(objective=first, run_dir=tmp_path, resume=True, max_steps=8)  # one that has been used
    with pytest.raises(CheckpointError, match=re.escape(named)):
        train(objective=objective, run_dir=tmp_path, resume=True)


def test_resume_on_other_data_is_refused(tmp_path: Path) -> None:
    """As many of them: another standardisation, say."""
    train(run_dir=tmp_path)
    with pytest.raises(CheckpointError, match="data_checksum"):
        train(x=2 * data(), run_dir=tmp_path, resume=True)
    x = {"x": data(), "mask": torch.ones(40, 4, dtype=torch.bool)}
    assert len({checksum(Rows(part)) for part in (x, x["x"], {**x, "mask": ~x["mask"]})}) == 3


def test_a_cosine_does_not_rise_again(tmp_path: Path) -> None:
    """A longer run under the saved schedule would end at the rate it began with."""
    train(run_dir=tmp_path, max_steps=6, lr_scheduler="cosine")
    with pytest.raises(CheckpointError, match=r"T_max=6, got lr_scheduler.T_max=12.\n.*cosine"):
        train(run_dir=tmp_path, max_steps=12, lr_scheduler="cosine", resume=True)


def test_resume_needs_something_to_resume(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="run_dir"):
        job(None, resume=True)
    with pytest.raises(CheckpointError, match="nothing there"):
        job(None, resume=tmp_path / "no.ckpt")
    with pytest.raises(CheckpointError, match="no checkpoints"):
        job(None, resume=tmp_path)


def test_longer_limit_goes_on_where_the_shorter_one_ended(tmp_path: Path) -> None:
    def run(folder: Path, steps: int, resume: bool) -> FitResult:
        options = {"max_steps": steps, "batch_size": 6, "log_every": 1, "accelerator": "cpu"}
        return fit(*programs(), data(), ELBO(), run_dir=folder, resume=resume, **options)  # type: ignore[arg-type]

    run(tmp_path / "a", 9, False)
    longer = run(tmp_path / "a", 18, True)
    assert_equal_runs(longer, run(tmp_path / "b", 18, False))


# Two processes.


def rows(folder: Path) -> list[dict[str, float]]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def by_torchrun(folder: Path, steps: int) -> list[dict[str, float]]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    arguments = [str(JOB), str(folder), "several", str(steps)]
    subprocess.run([*command, *arguments], check=True, timeout=300)
    return rows(folder)


@pytest.fixture(scope="module")
def whole_by_two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, float]]:
    """Rows of the run of two processes that nothing disturbed."""
    return by_torchrun(tmp_path_factory.mktemp("two"), 12)


@pytest.mark.slow
def test_two_processes(whole_by_two: list[dict[str, float]], tmp_path: Path) -> None:
    """Under torchrun: one rank logs, gradients stay in step, and a resumed run is equal."""
    assert [row["step"] for row in whole_by_two] == [*range(1, 13)]
    by_torchrun(tmp_path, 7)
    assert by_torchrun(tmp_path, 12) == whole_by_two


@pytest.mark.slow
def test_one_of_two_processes_is_killed(
    whole_by_two: list[dict[str, float]], tmp_path: Path
) -> None:
    """The other one, which nothing watches over, ends with an error; then both go on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    command = [sys.executable, str(JOB), str(tmp_path), "several", "12", "9"]
    pair = [
        subprocess.Popen(command, env={**os.environ, **where, "LOCAL_RANK": str(rank)})
        for rank in (0, 1)
    ]
    codes = [process.wait(timeout=120) for process in pair]
    assert codes[1] == -signal.SIGKILL
    assert codes[0] not in (0, -signal.SIGKILL)
    assert [row["step"] for row in rows(tmp_path)] == [*range(1, 10)]
    assert by_torchrun(tmp_path, 12) == whole_by_two
