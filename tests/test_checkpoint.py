"""Checkpoints are whole or refused, and nothing in a foreign file is run."""

import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from explained import explained
from pyro.infer.autoguide import AutoNormal
from torch import Tensor
from training_job import data, programs

from pyro_lvm import FitResult, fit
from pyro_lvm.errors import CheckpointError, ParameterError
from pyro_lvm.objectives import ELBO
from pyro_lvm.training.checkpoint import CheckpointFolder, DamagedCheckpoint, read, write
from pyro_lvm.training.files import WriteError

CONTENT = {
    "weights": OrderedDict(w=torch.arange(2000.0)),
    "names": ["a", None, (1, 2.5, True)],
}


class Payload:
    """Leaves a trace if it is ever unpickled by running it."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.trace,))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "run" / "a.ckpt"
    write(path, "training", CONTENT)
    return path


def test_round_trip(file: Path) -> None:
    content = read(file, "training")
    assert torch.equal(content["weights"]["w"], CONTENT["weights"]["w"].cpu())  # type: ignore[call-overload]
    assert content["names"] == CONTENT["names"]
    assert [path.name for path in file.parent.iterdir()] == ["a.ckpt"], "no temporary file"


@pytest.mark.parametrize("kept", [0, 1, 100, 5000, -1])
def test_torn_file(file: Path, kept: int) -> None:
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(DamagedCheckpoint, match=r"a\.ckpt: expected a whole file"):
        read(file, "training")


def test_changed_byte(file: Path) -> None:
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 2] ^= 1
    file.write_bytes(raw)
    with pytest.raises(DamagedCheckpoint):
        read(file, "training")


@pytest.mark.parametrize("writer", [torch.save, pickle.dump])
def test_code_in_a_file_is_not_run(tmp_path: Path, writer: Any) -> None:
    path, trace = tmp_path / "bad.ckpt", tmp_path / "trace"
    with path.open("wb") as file:
        writer({"format": "pyro_lvm.training", "version": 1, "x": Payload(trace)}, file)
    with pytest.raises(CheckpointError, match="not run"):
        read(path, "training")
    assert not trace.exists()
    torch.load(path, weights_only=False) if writer is torch.save else pickle.loads(
        path.read_bytes()
    )
    assert trace.exists(), "the payload was a live one"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "a foreign list"),
        ({"weights": torch.zeros(2)}, "a foreign dict"),
        ({"format": "pyro_lvm.result", "version": 1}, "format 'pyro_lvm.result'"),
        ({"format": "pyro_lvm.training", "version": 99}, "expected version 1, got version 99"),
    ],
)
def test_wrong_kind(tmp_path: Path, content: Any, message: str) -> None:
    torch.save(content, tmp_path / "x.ckpt")
    with pytest.raises(CheckpointError, match=message):
        read(tmp_path / "x.ckpt", "training")


def test_objects_are_refused_when_written(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"content\['a'\]\[1\].*got a Payload"):
        write(tmp_path / "x.ckpt", "training", {"a": [1, Payload(tmp_path)]})


def test_failure_while_writing_leaves_the_old_file(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(content: Any, target: Any) -> None:
        target.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", fail)
    with explained(WriteError, f"file {file}", "a place to write it", "disk full", "Make room"):
        write(file, "training", {"new": 1})
    monkeypatch.undo()
    assert read(file, "training")["names"] == CONTENT["names"]
    assert len(list(file.parent.iterdir())) == 1


def test_folder_keeps_the_last_two_and_the_best(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    assert folder.latest() is None
    for step in (1, 2, 30):
        folder.save(step, {"step": step})
    folder.save_best({"step": 2})
    assert [path.name for path in folder.all()] == ["step-000000002.ckpt", "step-000000030.ckpt"]
    assert folder.best.is_file()
    latest = folder.latest()
    assert latest is not None
    assert latest["step"] == 30


def test_folder_without_a_whole_checkpoint(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    folder.save(1, {}).write_bytes(b"PK")
    with pytest.warns(UserWarning, match="damaged"), pytest.raises(CheckpointError, match="step-"):
        folder.latest()


def test_foreign_checkpoint_in_a_run_is_refused_not_skipped(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    folder.save(1, {})
    torch.save({"format": "other"}, folder.path(2))
    with pytest.raises(CheckpointError, match="format 'other'"):
        folder.latest()


def test_result_saves_and_loads(tmp_path: Path) -> None:
    result = fit(*programs(), data(), ELBO(), max_steps=3, accelerator="cpu")
    result.save(tmp_path)
    model, guide = programs(seed=1)
    loaded = FitResult.load(tmp_path, model, guide)
    assert loaded.model is model
    assert loaded.history == result.history
    assert loaded.config == result.config
    for name, value in model.state_dict().items():
        assert torch.equal(value, result.model.state_dict()[name])  # type: ignore[attr-defined]


def test_result_of_other_shapes_is_refused(tmp_path: Path) -> None:
    fit(*programs(), data(), ELBO(), max_steps=1, accelerator="cpu").save(tmp_path)
    model, guide = programs()
    model.decoder = torch.nn.Linear(3, 4)
    with pytest.raises(ParameterError, match=r"decoder.weight.*\(4, 2\), got shape \(4, 3\)"):
        FitResult.load(tmp_path, model, guide)
    with pytest.raises(ParameterError, match="missing here"):
        FitResult.load(tmp_path, programs()[0], programs(batch_norm=True)[1])


def global_model(x: Tensor) -> None:
    mean = pyro.sample("mean", dist.Normal(0.0, 10.0))
    noise = pyro.param("noise", torch.tensor(1.0), constraint=dist.constraints.positive)
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(mean, noise), obs=x)


def test_result_with_parameters_made_at_the_first_call(tmp_path: Path) -> None:
    x = torch.linspace(0, 1, 20)
    options = {"max_steps": 5, "batch_size": None, "accelerator": "cpu"}
    result = fit(global_model, AutoNormal(global_model), x, ELBO(), **options)  # type: ignore[arg-type]
    result.save(tmp_path)
    noise = pyro.param("noise").item()
    pyro.clear_param_store()
    with pytest.raises(ParameterError, match="args="):
        FitResult.load(tmp_path, global_model, AutoNormal(global_model))
    loaded = FitResult.load(tmp_path, global_model, AutoNormal(global_model), args=x)
    assert pyro.param("noise").item() == noise
    for name, value in loaded.guide.state_dict().items():  # type: ignore[attr-defined]
        assert torch.equal(value, result.guide.state_dict()[name])  # type: ignore[attr-defined]
