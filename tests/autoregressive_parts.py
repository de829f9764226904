"""Programs that the tests of autoregressive distributions and guides share, and their training."""

from itertools import product
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyro_lvm.distributions import Autoregressive, Entries
from pyro_lvm.guides import AutoregressiveGuide
from pyro_lvm.guides.recurrence import RecurrentSteps
from pyro_lvm.objective import Objective
from pyro_lvm.oracles import LinearGaussian

T = 5
MAX_Z = 5.5  # standard errors, over a few hundred numbers: less than once in 1e5 runs


def recurrent(entries: Entries, *batch: int, steps: int = 3) -> Autoregressive:
    network = RecurrentSteps(entries.num_inputs, 4, entries.num_outputs, state_features=6)
    return Autoregressive(network, torch.randn(*batch, steps, 4), entries)


def walk(last_noise: float = 0.4) -> LinearGaussian:
    """Increments of a random walk that is seen in noise, best at its end.

    The posterior of an increment depends on the sum of all others.
    """
    noise = torch.ones(T)
    noise[-1] = last_noise
    return LinearGaussian(torch.ones(T, T).tril(), noise)


def walks(oracle: LinearGaussian, size: int) -> Tensor:
    return torch.randn(size, T) @ oracle.loading.T + oracle.noise * torch.randn(size, T)


def train(guide: nn.Module, objective: Objective, model: Any, batch: Any, steps: int) -> None:
    optimizer = torch.optim.Adam(guide.parameters(), 2e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        objective.differentiable_loss(model, guide, batch()).backward()
        optimizer.step()
        schedule.step()


def gradients(model: Any, guide: nn.Module, objective: Objective, x: Tensor, count: int) -> Tensor:
    """Of the loss of a datum, in all parameters, one row a replicate of rows that are alike."""
    draws = []
    for _ in range(count):
        loss = objective.differentiable_loss(model, guide, x) / len(x)
        parts = torch.autograd.grad(loss, list(guide.parameters()))
        draws.append(torch.cat([part.flatten() for part in parts]))
    return torch.stack(draws)


BITS = 4
VALUES = torch.tensor(list(product([0.0, 1.0], repeat=BITS)), dtype=torch.float64)
SUMS = torch.tensor([[1.0], [2.0], [3.0]], dtype=torch.float64)


def sum_of_bits(x: Tensor, noise: float = 0.3) -> None:
    """Bits that explain each other away: only their sum is seen."""
    with pyro.plate("data", len(x), dim=-1):
        z = pyro.sample("z", dist.Bernoulli(torch.full((BITS,), 0.3)).to_event(1))
        total = z.sum(-1, keepdim=True)
        pyro.sample("x", dist.Normal(total, noise).to_event(1), obs=x)


def bits_guide(hidden: tuple[int, ...] = (16,), state_features: int = 16) -> AutoregressiveGuide:
    return AutoregressiveGuide(
        in_features=1,
        num_steps=BITS,
        family="bernoulli",
        hidden=hidden,
        state_features=state_features,
    )
