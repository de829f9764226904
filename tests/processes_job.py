"""Fits whose noise is a column of the data, to be run by one process or by several; a script."""

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_lvm import fit
from pyro_lvm.nn import Discriminator
from pyro_lvm.objectives import AVB, ELBO, IWAE
from pyro_lvm.training import Callback, TrainingState

NUM_DATA, FEATURES, LATENT, PARTICLES = 16, 3, 2, 4


class GivenNoise(dist.Normal):  # type: ignore[misc]
    """A Normal whose draws are known: ``noise`` is ``(K, *batch)``, one of them for one draw."""

    def __init__(self, loc: Tensor, scale: Tensor, noise: Tensor) -> None:
        self.noise = noise
        super().__init__(loc, scale, validate_args=False)

    def expand(self, shape: Any, _instance: Any = None) -> "GivenNoise":
        return GivenNoise(self.loc.expand(shape), self.scale.expand(shape), self.noise)

    def rsample(self, shape: Any = ()) -> Tensor:
        target = (*shape, *self.loc.shape)
        noise = self.noise if len(target) >= self.noise.dim() else self.noise[0].reshape(target)
        return self.loc + self.scale * noise.expand(target)

    def sample(self, shape: Any = ()) -> Tensor:
        return self.rsample(shape).detach()


class Model(PyroModule):
    """Factor analysis, perhaps with a mean that all data share; ``num_data`` scales its plate."""

    def __init__(self, is_global: bool) -> None:
        super().__init__()
        self.decoder = nn.Linear(LATENT, FEATURES)
        self.is_global = is_global

    def forward(self, x: Tensor, noise: Tensor) -> None:
        mean = 0.0
        if self.is_global:
            mean = pyro.sample("mean", dist.Normal(x.new_zeros(()), 1.0))
            mean = mean.unsqueeze(-1)
        with plate(x):
            zero = x.new_zeros(len(x), LATENT)
            prior = GivenNoise(zero, zero + 1, noise.flip(1).movedim(1, 0))
            z = pyro.sample("z", prior.to_event(1))
            pyro.sample("x", dist.Normal(self.decoder(z) + mean, 1.0).to_event(1), obs=x)


class Guide(PyroModule):
    """Amortised over the data; of the global site one Normal."""

    def __init__(self, is_global: bool) -> None:
        super().__init__()
        self.encoder = nn.Linear(FEATURES, 2 * LATENT)
        self.is_global = is_global
        if is_global:
            self.loc = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, noise: Tensor) -> None:
        if self.is_global:
            drawn = torch.linspace(-1, 1, PARTICLES).unsqueeze(-1)
            pyro.sample("mean", GivenNoise(self.loc, self.loc.exp(), drawn))
        loc, log_scale = self.encoder(x).chunk(2, -1)
        with plate(x):
            drawn = noise.movedim(1, 0)
            pyro.sample("z", GivenNoise(loc, log_scale.exp(), drawn).to_event(1))


def plate(x: Tensor) -> Any:
    return pyro.plate("data", 10 * NUM_DATA, subsample=torch.arange(len(x)))


def adversary(rank: int) -> AVB:
    """Each process begins with a discriminator of its own."""
    torch.manual_seed(rank)
    return AVB(Discriminator(LATENT, FEATURES, (8,)), PARTICLES, num_discriminator_steps=2)


CASES: dict[str, Any] = {
    "ELBO": lambda rank: ELBO(PARTICLES),
    "IWAE": lambda rank: IWAE(PARTICLES, "dreg"),
    "global": lambda rank: ELBO(PARTICLES),
    "AVB": adversary,
}

SHARED: dict[str, Any] = {"lr_scheduler": "cosine", "max_grad_norm": 1.0}


def trained(case: str, rank: int = 0, **options: Any) -> dict[str, Any]:
    """Losses and parameters after two epochs; SGD steps are gradients."""
    torch.manual_seed(1)
    model, guide = Model(case == "global"), Guide(case == "global")
    x = torch.randn(NUM_DATA, FEATURES)
    noise = torch.randn(NUM_DATA, PARTICLES, LATENT)
    settings = {"optimizer": "sgd", "lr": 0.1, "batch_size": 8, "max_epochs": 2, "log_every": 1}
    settings |= {"accelerator": "cpu", "diagnostic_particles": 0, "precision": "64-true"}
    objective = CASES[case](rank)
    result = fit(model, guide, (x, noise), objective, **{**settings, **options})  # type: ignore[arg-type]
    parameters = [*model.parameters(), *guide.parameters()]
    if case == "AVB":
        parameters += [*objective.discriminator.parameters()]
    return {"loss": result.history["loss"], "parameters": [p.detach() for p in parameters]}


def adam(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=0.1)


class SharedAdam:
    """Each process keeps the moments of some parameters."""

    def __call__(self, parameters: Any) -> torch.optim.Optimizer:
        from torch.distributed.optim import ZeroRedundancyOptimizer  # warns of its own torch.jit

        self.optimizer = ZeroRedundancyOptimizer(parameters, torch.optim.Adam, lr=0.1)
        return self.optimizer

    @property
    def num_bytes(self) -> int:
        """Of the moments that this process has."""
        states = [*self.optimizer.state.values(), *self.optimizer.optim.state.values()]
        every = [value for state in states if state for value in state.values() if value.dim()]
        return sum({value.data_ptr(): value.nbytes for value in every}.values())


class DieAfter(Callback):
    """Ends every process, as an error would, after a step that is not saved."""

    def on_step_end(self, state: TrainingState) -> None:
        if state.step == 3:
            raise InterruptedError


def shared_out(rank: int, folder: Path) -> dict[str, Any]:
    """Runs whose optimiser is in shares, one of them killed and resumed; each one's moments."""
    runs: dict[str, Any] = {}
    for name, killed in (("ZeRO", False), ("killed", True)):
        made = SharedAdam()
        how = {**SHARED, "optimizer": made, "run_dir": folder / name, "checkpoint_every": 2}
        if killed:
            with suppress(InterruptedError):
                trained("ELBO", rank, **how, callbacks=[DieAfter()])
        runs[name] = trained("ELBO", rank, **how, resume=killed) | {"bytes": made.num_bytes}
    return runs


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    folder, rank = Path(sys.argv[1]), int(os.environ["RANK"])
    results = {name: trained(name, rank) for name in CASES}
    results["Adam"] = trained("ELBO", rank, optimizer=adam, **SHARED)
    results |= shared_out(rank, folder)
    torch.save(results, folder / f"{rank}.pt")
