"""Training on arrays that stay on disk: the same run, in the memory of a batch."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from explained import explained
from torch import Tensor

from pyro_lvm import fit
from pyro_lvm.errors import DataError
from pyro_lvm.guides import AmortizedNormal
from pyro_lvm.models import VAE
from pyro_lvm.objectives import ELBO
from pyro_lvm.training import rows

PIXELS = 4


def on_disk(path: Path, values: Tensor) -> np.memmap:
    np.save(path, values.numpy(force=True))
    array: np.memmap = np.load(path, mmap_mode="r")
    return array


def history(data: object, **options: object) -> dict[str, list[object]]:
    torch.manual_seed(0)
    programs = VAE(PIXELS, 2, (8,)), AmortizedNormal(in_features=PIXELS, latent_features=2)
    settings = {"max_epochs": 2, "batch_size": 16, "validation": 0.2} | options
    return fit(*programs, data, ELBO(), **settings).history  # type: ignore[arg-type]


def test_the_run_is_that_of_the_same_data_in_memory(tmp_path: Path) -> None:
    x = torch.rand(60, PIXELS).round()
    expected = history(x)
    assert history(on_disk(tmp_path / "x.npy", x)) == expected
    assert history({"x": on_disk(tmp_path / "x.npy", x)}) == expected


def test_values_are_checked_part_by_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.zeros(60, PIXELS)
    x[45, 1] = float("nan")
    monkeypatch.setattr(rows, "_PART", 20 * PIXELS * x.element_size())
    array = on_disk(tmp_path / "x.npy", x)
    with explained(DataError, "data, rows from 40 on", "finite data", "at [5, 1]", "Remove them"):
        history(array)
    mask = on_disk(tmp_path / "mask.npy", ~x.isnan())
    assert rows.Rows((array, mask)).some([45])[0][1].tolist() == [True, False, True, True]
    with pytest.raises(TypeError):  # these programs take no mask: the data themselves passed
        history((array, mask))


@pytest.mark.cpu_only(reason="measured in a process of its own")
def test_a_batch_is_in_memory_and_the_rest_is_not(tmp_path: Path) -> None:
    """Half a gigabyte of data, in a process that may not have as much."""
    script = f"""
import resource
import numpy as np, torch
from pyro_lvm import fit
from pyro_lvm.guides import AmortizedNormal
from pyro_lvm.models import VAE
from pyro_lvm.objectives import ELBO

x = np.memmap({str(tmp_path / "x")!r}, np.float32, "w+", shape=(2**19, 256))  # zeros, sparse
programs = VAE(256, 2, (8,)), AmortizedNormal(in_features=256, latent_features=2)
fit(*programs, torch.zeros(64, 256), ELBO(), max_steps=1)  # whatever a first run loads
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
used = 1024 * int(status["VmData"].split()[0])
resource.setrlimit(resource.RLIMIT_DATA, (used + 2**28, -1))
try:
    np.ones(x.shape, x.dtype)
except MemoryError:
    fit(*programs, x, ELBO(), max_steps=2, validation=0.01)
    print("trained")
"""
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "trained" in found.stdout, found.stderr
