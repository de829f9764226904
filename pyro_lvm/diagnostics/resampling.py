"""Draws of the exact posterior in the limit: a guide's draws, chosen by their weights."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_lvm.layout import Layout, chosen_rows, fitted
from pyro_lvm.particles import Particles

__all__ = ["Resampled"]


class Resampled:
    """Particles drawn with replacement in proportion to their weights, from all chunks so far.

    Each draw is replaced by one of a new chunk with that chunk's share of the total weight, so
    that the draws are those from all particles at once and no particle has to be kept.

    Args:
        num_samples: draws for each datum, independent given the particles.

    Attributes:
        values: latent values by site, ``(num_samples, *plates, *event)``.

    References:
        Rubin (1988), *Using the SIR algorithm to simulate posterior distributions*.

    Example:
        Of two draws the second has three times the weight.

        >>> layout = Layout(0, (), 1.0, {}, {}, ())
        >>> weights, values = torch.tensor([1.0, 3.0]), torch.tensor([0.0, 1.0])
        >>> resampled = Resampled(1000)
        >>> resampled.add(Particles(weights.log(), torch.zeros(2), values={"z": values}), layout)
        >>> resampled.values["z"].mean()
        tensor(0.7460)
    """

    def __init__(self, num_samples: int) -> None:
        self.num_samples = num_samples
        self.values: dict[str, Tensor] = {}
        self._log_sum: Tensor | None = None  # (*batch,)

    def add(self, particles: Particles, layout: Layout) -> None:
        """Take one more chunk into account."""
        log_weights = particles.log_weights
        log_sum = torch.logsumexp(log_weights, 0)
        total = log_sum if self._log_sum is None else torch.logaddexp(self._log_sum, log_sum)
        shares = torch.softmax(log_weights, 0).nan_to_num(1.0).movedim(0, -1)  # any, where all 0
        chosen = torch.distributions.Categorical(shares).sample((self.num_samples,))
        replace = torch.rand_like(total.expand(chosen.shape)) < (log_sum - total).exp()
        for name, value in particles.values.items():
            old = self.values.get(name)
            new = chosen_rows(value, layout.unfold(chosen))
            taken = fitted(layout.unfold(replace), new)
            self.values[name] = new if old is None else torch.where(taken, new, old)
        self._log_sum = total
