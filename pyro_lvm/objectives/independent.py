"""Acceptance of proposals that do not look where the chain is."""

from __future__ import annotations

from torch import Tensor

from pyro_lvm.acceptance import AcceptanceObjective
from pyro_lvm.latent_chains import StartingAt
from pyro_lvm.metropolis import independence_chain
from pyro_lvm.particles import Particles
from pyro_lvm.proposing import Drawn, chosen, latents, numbers
from pyro_lvm.tracing import Program

__all__ = ["IndependentAcceptance"]


class IndependentAcceptance(AcceptanceObjective):
    """Proposals and states are draws of one guide, called once for both."""

    def started(self, drawn: Drawn, guide: Program) -> dict[str, Tensor]:
        """States after the warm-up, ``(K, *plates, *event)`` by site of the guide."""
        steps = self.num_warmup + 1
        particles = drawn(guide, num_particles=steps * self.num_particles)
        by_step = particles.log_weights.unflatten(0, (steps, self.num_particles))
        last = independence_chain(by_step).rows[-1]  # (K, *batch)
        rows = self.layout(particles).unfold(last * self.num_particles + numbers(last))
        return chosen(latents(particles), rows)

    def paired(self, drawn: Drawn, guide: Program, states: dict[str, Tensor]) -> Particles:
        """The states, then as many proposals: ``(2 K, *batch)``."""
        with StartingAt(states):
            return drawn(guide, num_particles=2 * self.num_particles)
