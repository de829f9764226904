"""What the cases on a second device share: the same run there and on the CPU."""

from collections.abc import Callable
from typing import Any

import pyro
import torch
from devices import make_tensors_on, train_on
from simulated_device import NAME
from torch import Tensor
from torch.utils._pytree import tree_leaves

Run = Callable[[torch.device], Any]


@pyro.settings.context(module_local_params=True)
def check_same(run: Run, device: torch.device) -> None:
    """``run`` gives finite tensors on ``device``, and on a simulated one the CPU's numbers."""
    found = [leaf for leaf in tree_leaves(_once(run, device)) if isinstance(leaf, Tensor)]
    assert found
    assert {value.device.type for value in found} == {device.type}
    assert all(value.isfinite().all() for value in found)
    if device.type == NAME:
        expected = tree_leaves(_once(run, torch.device("cpu")))
        for ours, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(ours.cpu(), theirs)


def _once(run: Run, device: torch.device) -> Any:
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    make_tensors_on("cpu")
    train_on(device.type)
    return run(device)
