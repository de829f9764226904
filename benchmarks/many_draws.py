"""From 0 to 10^6 mixing draws: the sandwich of a bound that is known, its time and its memory.

z has five dims, each psi + 0.3 noise with psi ~ N(0, 0.64); the prior is the law that this
gives, so that the evidence lower bound is exactly 0. The draws are made 10,000 at a time.
"""

from __future__ import annotations

from time import process_time

import pyro
import pyro.distributions as dist
import torch

from benchmarks.peak_memory import peak_memory
from pyro_lvm.objectives import DSIVI, SIVI

__all__ = ["RUNS", "run"]

SIZE, OUTER, INNER = 5, 0.8, 0.3
PARTICLES, CHUNK = 50, 10_000
RUNS = {f"J = {count}": count for count in (0, *(10**n for n in range(7)))}


def guide() -> None:
    law = dist.Normal(torch.zeros(SIZE), OUTER).to_event(1)
    psi = pyro.sample("psi", law, infer={"is_auxiliary": True})
    pyro.sample("z", dist.Normal(psi, INNER).to_event(1))


def model() -> None:
    pyro.sample("z", dist.Normal(torch.zeros(SIZE), (OUTER**2 + INNER**2) ** 0.5).to_event(1))


def run(name: str, seed: int, particles: int | None = None) -> dict[str, float]:
    """Nats, seconds of CPU time, and MiB."""
    num_mixing, num_particles = RUNS[name], particles or PARTICLES
    pyro.set_rng_seed(seed)
    if not num_mixing:
        bound = SIVI(num_particles, num_mixing=0, num_groups=num_particles).bound(model, guide)
        return {"ELBO, at least": bound.item()}

    def sandwich() -> list[float]:
        sides = DSIVI.sandwich(
            model,
            guide,
            num_mixing=num_mixing,
            num_particles=num_particles,
            chunk_mixing=CHUNK,
        )
        return [side.item() for side in sides]

    start = process_time()
    lower, upper = sandwich()
    seconds = process_time() - start
    peak = peak_memory(sandwich) / 2**20
    found = {"ELBO, at least": lower, "ELBO, at most": upper}
    return found | {"width": upper - lower, "seconds": seconds, "peak MiB": peak}
