"""What is drawn on the side leaves the random numbers of every GPU alone, the current or not."""

from collections.abc import Callable
from contextlib import AbstractContextManager

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

from pyro_lvm.diagnostics.bridge import _seeded
from pyro_lvm.objectives import ELBO
from pyro_lvm.particles import inspect
from pyro_lvm.random_state import RandomState, kept_random_state
from pyro_lvm.testing.contract import strict
from pyro_lvm.training.recording import undisturbed


@pytest.fixture
def states(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Of three GPUs."""
    found = [10, 11, 12]
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(found))
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda i: found[i])
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda s, i: found.__setitem__(i, s))
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: found.__setitem__(1, seed))
    return found


@pytest.mark.parametrize(
    "keep",
    [kept_random_state, lambda: _seeded(0), lambda: undisturbed(ELBO(), nn.Module()), strict],
)
def test_of_every_gpu(keep: Callable[[], AbstractContextManager[None]], states: list[int]) -> None:
    with keep():
        states[2] += 1
    assert states == [10, 11, 12]


def test_a_look_at_programs(states: list[int]) -> None:
    def program() -> None:
        states[2] += 1
        with pyro.plate("data", 2):
            pyro.sample("z", dist.Normal(0.0, 1.0))

    inspect(program, program, (), {})
    assert states == [10, 11, 12]


def test_of_every_gpu_once_more(states: list[int]) -> None:
    before = RandomState()
    states[2] += 1
    with before.again():
        assert states == [10, 11, 12]
        states[0] += 5
    assert states == [10, 11, 13]
