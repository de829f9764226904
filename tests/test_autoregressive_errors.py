"""What autoregressive distributions and guides refuse, and how they say so."""

from typing import Any

import pyro
import pytest
import torch
from autoregressive_parts import SUMS, bits_guide, recurrent, sum_of_bits
from explained import explained
from torch import nn

from pyro_lvm.distributions import Autoregressive, Entries
from pyro_lvm.errors import DataError, ProgramError
from pyro_lvm.guides import AutoregressiveGuide
from pyro_lvm.guides.recurrence import RecurrentSteps
from pyro_lvm.objectives import ELBO


@pytest.fixture(autouse=True)
def local_parameters(fresh_state: None) -> None:
    """Guides own their parameters; ``fresh_state`` sets it back."""
    pyro.settings.set(module_local_params=True)


def test_a_context_without_steps() -> None:
    network = RecurrentSteps(1, 4, 2, 3)
    for shape in [(4,), (2, 0, 4)]:
        with explained(ProgramError, "context", "steps >= 1", f"{shape}", "context[:, None]"):
            Autoregressive(network, torch.zeros(shape), Entries("normal"))


def test_a_network_with_another_number_of_outputs() -> None:
    q = Autoregressive(RecurrentSteps(1, 4, 3, 5), torch.zeros(2, 4), Entries("normal"))
    for call in (q.sample, lambda: q.log_prob(torch.zeros(2))):
        with explained(ProgramError, "network RecurrentSteps", "2 outputs a step", "3", "last"):
            call()


@pytest.mark.parametrize("shape", [(), (2, 4), (3, 1)])
def test_a_value_of_another_shape(shape: tuple[int, ...]) -> None:
    q = recurrent(Entries("normal"))
    with explained(ProgramError, "value", "event shape (3,)", f"shape {shape}", "each step"):
        q.log_prob(torch.zeros(shape))


def test_discrete_entries_have_no_path_derivative() -> None:
    q = recurrent(Entries("bernoulli"))
    with pytest.raises(NotImplementedError, match=r"rsample: expected normal entries.*\nTry: .*"):
        q.rsample()
    guide = bits_guide()
    with explained(ProgramError, "site 'z'", "reparam", "without rsample", "score"):
        ELBO().differentiable_loss(sum_of_bits, guide, SUMS)


@pytest.mark.parametrize(
    ("arguments", "where", "found"),
    [
        ({"family": "poisson"}, "family", "'poisson'"),
        ({"num_categories": 0}, "num_categories", "0"),
        ({"num_steps": 0}, "num_steps", "0"),
        ({"latent_features": 0}, "latent_features", "0"),
        ({"state_features": 0}, "state_features", "0"),
        ({"num_data": 0}, "num_data", "0"),
        ({"in_features": 0, "num_steps": None}, "in_features", "0"),
        ({"encoder": nn.Identity()}, "encoder_features", "None"),
        ({"encoder": nn.Identity(), "num_steps": None}, "encoder_features", "None"),
        ({"encoder_features": 3}, "encoder_features", "3 without an encoder"),
        (
            {"encoder_features": 3, "num_steps": None},
            "encoder_features",
            "3 without an encoder",
        ),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], where: str, found: str) -> None:
    with explained(ProgramError, where, "", found, ""):
        AutoregressiveGuide(**arguments)


def test_an_entry_of_no_size() -> None:
    with explained(ProgramError, "shape", "an integer >= 1", "0", "shape"):
        Entries("normal", (0,))


@pytest.mark.parametrize("shape", [(4, 3), (4, 3, 2), (4, 0, 64), (4, 3, 64, 1), (0, 3, 64)])
def test_sequences_of_another_shape(shape: tuple[int, ...]) -> None:
    guide = AutoregressiveGuide(num_steps=None)
    with pytest.raises(DataError, match=r"x: expected"):
        guide(torch.zeros(shape))


def test_encoder_of_another_output_size() -> None:
    for encoder in (nn.Linear(6, 8), nn.Sequential(nn.Linear(6, 7), nn.Flatten())):
        guide = AutoregressiveGuide(encoder, encoder_features=7, num_steps=None)
        name = type(encoder).__name__
        with explained(DataError, f"encoder {name}", "(4, steps, 7)", "(4,", "one row a step"):
            guide(torch.zeros(4, 3, 6))
