"""Programs, data and one run that the training tests share; also a script to be killed."""

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from pyro.nn import PyroModule, PyroParam
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import StepLR

from pyro_lvm import FitResult, fit
from pyro_lvm.objectives import ELBO, IWAE
from pyro_lvm.random_state import kept_random_state
from pyro_lvm.training import Callback, TrainingState

FEATURES, LATENT = 4, 2


class Model(PyroModule):
    """Factor analysis; with ``num_data`` its plate scales the batch up."""

    def __init__(self, num_data: int | None = None) -> None:
        super().__init__()
        self.decoder = nn.Linear(LATENT, FEATURES)
        self.noise = PyroParam(torch.ones(FEATURES), constraint=constraints.positive)
        self.num_data = num_data

    def forward(self, x: Tensor) -> None:
        rows = torch.arange(len(x))
        with pyro.plate("data", self.num_data or len(x), subsample=rows):
            z = pyro.sample("z", dist.Normal(torch.zeros(LATENT), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.decoder(z), self.noise).to_event(1), obs=x)


class Guide(PyroModule):
    """A diagonal Normal from a linear encoder, perhaps behind a BatchNorm."""

    def __init__(self, num_data: int | None = None, batch_norm: bool = False) -> None:
        super().__init__()
        first = nn.BatchNorm1d(FEATURES) if batch_norm else nn.Identity()
        self.encoder = nn.Sequential(first, nn.Linear(FEATURES, 2 * LATENT))
        self.num_data = num_data

    def forward(self, x: Tensor) -> None:
        loc, log_scale = self.encoder(x).chunk(2, -1)
        rows = torch.arange(len(x))
        with pyro.plate("data", self.num_data or len(x), subsample=rows):
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))


def programs(seed: int = 0, **options: Any) -> tuple[Model, Guide]:
    with kept_random_state():
        torch.manual_seed(seed)
        model, guide = Model(options.get("num_data")), Guide(**options)
        return model.to(torch.get_default_dtype()), guide.to(torch.get_default_dtype())


def data(num_data: int = 40) -> Tensor:
    sizes = [(LATENT, FEATURES), (num_data, LATENT), (num_data, FEATURES)]
    own = {"generator": torch.Generator("cpu").manual_seed(7), "device": "cpu"}
    loadings, z, noise = (torch.randn(size, **own) for size in sizes)
    return (z @ loadings + 0.3 * noise).to(torch.get_default_device())


def train(model: Any = None, guide: Any = None, x: Any = None, **options: Any) -> FitResult:
    """A short quiet fit of the shared programs, or of those given."""
    if model is None:
        model, guide = programs()
    settings = {"max_steps": 6, "batch_size": 10, "log_every": 1, "accelerator": "cpu"}
    objective = options.pop("objective", None) or ELBO()
    return fit(model, guide, data() if x is None else x, objective, **{**settings, **options})


def jitter(batch: Tensor, generator: torch.Generator) -> Tensor:
    noise = torch.randn(batch.shape, generator=generator, device=generator.device)
    return batch + 0.1 * noise.to(batch)


def decay(optimizer: Optimizer) -> StepLR:
    return StepLR(optimizer, 3, 0.9)


class Send(Callback):
    """Sends this process a signal at the end of a step."""

    def __init__(self, step: int, number: signal.Signals) -> None:
        self.step, self.number = step, number

    def on_step_end(self, state: TrainingState) -> None:
        if state.step == self.step:
            os.kill(os.getpid(), self.number)


def job(run_dir: Path | None, *, callbacks: Sequence[Callback] = (), **options: Any) -> FitResult:
    """Five steps an epoch, everything random or stateful switched on."""
    model, guide = programs()
    settings: dict[str, Any] = {
        "max_epochs": 5,
        "batch_size": 6,
        "validation": 0.25,
        "transform": jitter,
        "lr": 0.2,  # so high that the held-out bound goes down at times
        "lr_scheduler": decay,
        "max_grad_norm": 20.0,
        "patience": 4,
        "restore_best": True,
        "evaluate_every": 3,
        "log_every": 2,
        "checkpoint_every": 2,
        "diagnostic_particles": 30,
        "accelerator": "cpu",
        "seed": 3,
    }
    return fit(
        model,
        guide,
        data(),
        IWAE(num_particles=3, beta=lambda step: min(1.0, step / 10)),
        run_dir=run_dir,
        callbacks=callbacks,
        **{**settings, **options},
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    folder, kind, step = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    if kind == "kill":
        job(folder, callbacks=[Send(step, signal.SIGKILL)])
    else:
        is_lost = len(sys.argv) > 4 and os.environ["LOCAL_RANK"] == "1"
        job(
            folder,
            callbacks=[Send(int(sys.argv[4]), signal.SIGKILL)] if is_lost else [],
            max_epochs=None,
            max_steps=step,
            log_every=1,
            resume=True,
            devices=2,
            strategy="ddp",
        )
