"""A training step of every objective on the device asked for, where no default device is set."""

from functools import partial
from typing import Any

import pytest
import torch
from second_device import check_same
from test_compiled_objectives import (
    GRADIENT_CELLS,
    KEEPING,
    SCORES,
    Make,
    Programs,
    batches,
    of_vectors,
    with_a_class,
)
from torch import Tensor

from pyro_lvm.objective import Objective

pytestmark = pytest.mark.usefixtures("float64")


def stepped(make: Make, programs: Programs, device: torch.device) -> list[Tensor]:
    """The loss of a step and the parameters after it."""
    objective, pair = make(), programs()
    loss: Any = objective(*pair)
    optimizer = torch.optim.SGD(loss.to(device).parameters(), lr=0.01)
    batch = [part.to(device) for part in batches(objective, pair[0])[0]]
    value = loss(*batch)
    value.backward()
    optimizer.step()
    return [value.detach(), *loss.parameters()]


@pytest.mark.parametrize(("cls", "gradient"), GRADIENT_CELLS)
def test_every_gradient(cls: type[Objective], gradient: str, device: torch.device) -> None:
    programs = with_a_class if gradient in SCORES else of_vectors
    check_same(partial(stepped, partial(cls, 4, gradient), programs), device)


@pytest.mark.parametrize(("make", "programs"), KEEPING.values(), ids=[c.__name__ for c in KEEPING])
def test_what_is_kept(make: Make, programs: Programs, device: torch.device) -> None:
    check_same(partial(stepped, make, programs), device)
