"""NumPyro's jitted step on the same parameters and data, where NumPyro is installed.

Import this before JAX is used: one thread, as PyTorch has.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from torch import Tensor, nn

__all__ = ["NAME", "gradients", "is_installed", "steps"]

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
    slopes = gradients(program, parameters, x, bound, num_particles)
    count = 0

    def step() -> float:
        nonlocal count
        count += 1
        loss, _ = slopes(count)
        return float(loss)

    return step


def gradients(
    program: str, parameters: nn.Module, x: Tensor, bound: str, num_particles: int
) -> Callable[[int], Any]:
    """From the number of a step to its loss and gradients, ready to be read."""
    os.environ.setdefault("XLA_FLAGS", ONE_THREAD)
    import jax
    from numpyro.infer import RenyiELBO, Trace_ELBO

    from benchmarks.peers_numpyro_programs import PROGRAMS

    model, guide = PROGRAMS[program]
    here = {
        name: jax.numpy.asarray(p.detach().numpy()) for name, p in parameters.named_parameters()
    }
    data, key = jax.numpy.asarray(x.numpy()), jax.random.PRNGKey(0)
    elbo = (
        RenyiELBO(alpha=0, num_particles=num_particles)
        if bound == "IWAE" and num_particles > 1
        else Trace_ELBO(num_particles)
    )

    def loss(values: Any, x: Any, count: Any) -> Any:
        draws = jax.random.fold_in(key, count)
        return elbo.loss(draws, {}, lambda x: model(values, x), lambda x: guide(values, x), x)

    both = jax.jit(jax.value_and_grad(loss))
    return lambda count: jax.block_until_ready(both(here, data, count))
