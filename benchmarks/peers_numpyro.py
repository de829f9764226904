"""NumPyro's jitted steps on the same parameters and data, where NumPyro is installed.

JAX reads its flags at its first use: here, for one thread.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["NAME", "Trained", "is_installed", "steps"]

NAME = "NumPyro"
ONE_THREAD = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
Step = Callable[[], float]


def is_installed() -> bool:
    return find_spec("numpyro") is not None


def steps(
    program: str, parameters: nn.Module, x: Tensor, bound: str
) -> dict[str, Callable[[int], Step]]:
    """The column of NumPyro: from K to its step; none where it is not installed."""
    if not is_installed():
        return {}
    return {NAME: lambda num_particles: _step(program, parameters, x, bound, num_particles)}


def _step(program: str, parameters: nn.Module, x: Tensor, bound: str, num_particles: int) -> Step:
    jax = _jax()
    slopes = jax.jit(jax.value_and_grad(_loss(program, bound, num_particles)))
    values, data, counter = _arrays(parameters), jax.numpy.asarray(x.numpy()), count(1)

    def step() -> float:
        return float(jax.block_until_ready(slopes(values, data, next(counter)))[0])

    return step


class Trained:
    """Parameters under Adam, one jitted update a step.

    Args:
        program: its name.
        parameters: where they start, and where :meth:`sync` leaves them.
        bound: "ELBO" or "IWAE".
        num_particles: K.
        lr: learning rate.
    """

    def __init__(
        self, program: str, parameters: nn.Module, bound: str, num_particles: int, lr: float
    ) -> None:
        jax = _jax()
        from numpyro.optim import Adam

        optimizer, loss = Adam(lr), _loss(program, bound, num_particles)

        def update(state: Any, x: Any, count: Any) -> Any:
            return optimizer.update(jax.grad(loss)(optimizer.get_params(state), x, count), state)

        self.parameters, self.read = parameters, optimizer.get_params
        self.update, self.counter = jax.jit(update), count(1)
        self.state = optimizer.init(_arrays(parameters))

    def step(self, x: Tensor) -> None:
        jax = _jax()
        state = self.update(self.state, jax.numpy.asarray(x.numpy()), next(self.counter))
        self.state = jax.block_until_ready(state)

    @torch.no_grad()
    def sync(self) -> None:
        values = self.read(self.state)
        for name, parameter in self.parameters.named_parameters():
            parameter.copy_(torch.tensor(values[name].tolist()))


def _loss(program: str, bound: str, num_particles: int) -> Callable[[Any, Any, Any], Any]:
    """From parameters, data and the number of a step to the loss."""
    jax = _jax()
    from numpyro.infer import RenyiELBO, Trace_ELBO

    from benchmarks.peers_numpyro_programs import PROGRAMS

    model, guide = PROGRAMS[program]
    is_weighted = bound == "IWAE" and num_particles > 1
    elbo = RenyiELBO(0, num_particles) if is_weighted else Trace_ELBO(num_particles)
    key = jax.random.PRNGKey(0)

    def loss(values: Any, x: Any, count: Any) -> Any:
        draws = jax.random.fold_in(key, count)
        return elbo.loss(draws, {}, partial(model, values), partial(guide, values), x)

    return loss


def _arrays(parameters: nn.Module) -> dict[str, Any]:
    array = _jax().numpy.array  # a copy
    return {name: array(p.detach().numpy()) for name, p in parameters.named_parameters()}


def _jax() -> Any:
    """The library, on one thread as PyTorch is."""
    os.environ.setdefault("XLA_FLAGS", ONE_THREAD)
    return import_module("jax")
