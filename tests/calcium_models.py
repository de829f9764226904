"""Every model of fluorescence by name, and what the tests of them share."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pyro
import pytest
import torch
from torch import Tensor

from pyro_lvm.models import LinearCalcium, PhysiologicalCalcium, SaturatingCalcium
from pyro_lvm.models.fluorescence import FluorescenceModel

MODELS: dict[str, Callable[..., FluorescenceModel]] = {
    "linear": LinearCalcium,
    "rising": partial(LinearCalcium, rise=True),
    "saturating": SaturatingCalcium,
    "physiological": PhysiologicalCalcium,
}
each_model = pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)


def one_spike(num_frames: int, count: float = 1.0) -> Tensor:
    return torch.nn.functional.pad(torch.full((1, 1), count), (0, num_frames - 1))


def total(model: FluorescenceModel, x: Tensor, spikes: Tensor, cell: Any = None) -> Tensor:
    """log p(x, spikes) of all traces, nats."""
    given = pyro.poutine.condition(model, {"spikes": spikes})
    return pyro.poutine.trace(given).get_trace(x, cell).log_prob_sum()
