"""What a step of training costs: rows that networks see, and waits for a device."""

from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from exact_models import EXPLICIT
from pyro.nn import PyroModule
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from pyro_lvm.nn import Discriminator
from pyro_lvm.objective import Objective
from pyro_lvm.objectives import AAE, ALI, AVB, ELBO, IWAAE, IWAVB, WakeSleep

ROWS, FEATURES, LATENT, PARTICLES = 8, 6, 2, 4


class Counted(nn.Module):
    """A linear map that counts the rows it sees."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.map, self.rows = nn.Linear(inputs, outputs), 0

    def forward(self, x: Tensor) -> Tensor:
        self.rows += x.shape[:-1].numel()
        mapped: Tensor = self.map(x)
        return mapped


class Model(PyroModule):
    def __init__(self) -> None:
        super().__init__()
        self.decoder = Counted(LATENT, FEATURES)

    def forward(self, x: Tensor | None = None, *, size: int = 1) -> Tensor:
        with pyro.plate("data", size if x is None else len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(LATENT), 1.0).to_event(1))
            fn = dist.Normal(self.decoder(z), 1.0).to_event(1)
            drawn: Tensor = pyro.sample("x", fn, obs=x)
        return drawn


class Guide(PyroModule):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = Counted(FEATURES, 2 * LATENT)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        loc, log_scale = self.encoder(x).chunk(2, -1)
        with pyro.plate("data", len(x)):
            return {"z": pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))}


class Waits(TorchDispatchMode):
    """Lists what needs the values of tensors, for which Python would wait."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if any(name in str(function) for name in ("local_scalar", "nonzero", "equal.default")):
            self.seen.append(str(function))
        return function(*args, **(kwargs or {}))


def objectives() -> list[Objective]:
    gradients = ("reparam", "dreg", "score", "vimco")
    every = [(cls, g) for cls in EXPLICIT for g in gradients if g in cls.takes]
    paired, alone = Discriminator(LATENT, FEATURES, (8,)), Discriminator(LATENT, hidden=(8,))
    return [
        *[cls(max(PARTICLES, cls.min_particles), gradient) for cls, gradient in every],
        ELBO(PARTICLES, "stl"),
        *[cls(paired, PARTICLES) for cls in (AVB, IWAVB, ALI)],
        *[cls(alone, PARTICLES) for cls in (AAE, IWAAE)],
        AVB(paired, PARTICLES, contrast="adaptive"),
    ]


@pytest.mark.parametrize(
    "objective", objectives(), ids=lambda o: f"{type(o).__name__}-{o.gradient}"
)
def test_a_step_runs_each_network_once_and_never_waits(objective: Objective) -> None:
    """The encoder for each datum, the decoder for each draw, and both for each dream."""
    with pyro.settings.context(module_local_params=True):
        model, guide = Model(), Guide()
        loss = objective(model, guide)
        x = torch.randn(ROWS, FEATURES)
        loss(x)  # looks for the plates, too
        guide.encoder.rows = model.decoder.rows = 0
        with pyro.validation_enabled(False), Waits() as waits:
            loss(x).backward()
    dreams = ROWS if isinstance(objective, WakeSleep | ALI) else 0
    is_explained = isinstance(objective, WakeSleep)  # the guide learns from dreams
    assert guide.encoder.rows == ROWS + dreams * is_explained
    assert model.decoder.rows == objective.num_particles * ROWS + dreams
    assert waits.seen == []
