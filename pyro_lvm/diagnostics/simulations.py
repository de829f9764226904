"""Where latents that made simulated data rank among the guide's draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor

__all__ = ["DISTANCE", "Simulations"]

DISTANCE = "distance"


@dataclass(frozen=True)
class Simulations:
    """Ranks of the latents of N simulations, and of functions of them, among L draws each.

    A rank is how many draws are below the truth, whole from 0 to L, on the CPU; ties are broken at
    random.
    Under an exact posterior every rank is uniform, whatever function of latents and data it is
    the rank of, and N simulations are independent.

    Attributes:
        ranks: by latent site ``(N, *event)``.
        quantities: ``(N,)`` of functions of all latents of a simulation and its data:
            "log p(x | z)"; "log p(x, z)" and "log q(z | x)" where there are such densities;
            "distance", to a point drawn from the prior; and what the user asked for.
        num_draws: L.

    Example:
        >>> ranks = torch.tensor([[0, 3], [2, 1]])
        >>> simulations = Simulations({"z": ranks}, {"distance": ranks[:, 0]}, num_draws=3)
        >>> simulations.scalars()
        (('z[0]', 'z[1]'), tensor([[0, 3],
                                   [2, 1]]))
    """

    ranks: Mapping[str, Tensor]
    quantities: Mapping[str, Tensor]
    num_draws: int

    @property
    def num_simulations(self) -> int:
        """N."""
        return len(self.quantities[DISTANCE])

    @classmethod
    def joined(cls, parts: Sequence[Simulations]) -> Simulations:
        """Simulations of one model and guide, for instance by several processes, as one."""
        first = parts[0]
        return cls(
            {name: torch.cat([part.ranks[name] for part in parts]) for name in first.ranks},
            {n: torch.cat([part.quantities[n] for part in parts]) for n in first.quantities},
            first.num_draws,
        )

    def equals(self, other: Simulations) -> bool:
        """Whether both have the same sites, quantities and ranks."""
        return self.num_draws == other.num_draws and all(
            mine.keys() == theirs.keys() and all(torch.equal(mine[n], theirs[n]) for n in mine)
            for mine, theirs in ((self.ranks, other.ranks), (self.quantities, other.quantities))
        )

    def first(self, count: int) -> Simulations:
        """The first ``count`` of them."""
        return Simulations(
            {name: ranks[:count] for name, ranks in self.ranks.items()},
            {name: ranks[:count] for name, ranks in self.quantities.items()},
            self.num_draws,
        )

    def scalars(self) -> tuple[tuple[str, ...], Tensor]:
        """Names of all scalars of all latents, as "z[0]", and their ranks ``(N, m)``."""
        labels = [label for name, ranks in self.ranks.items() for label in _labels(name, ranks)]
        flat = [ranks.reshape(len(ranks), -1) for ranks in self.ranks.values()]
        return tuple(labels), torch.cat(flat, 1)

    def to_dataset(self) -> Any:
        """The ranks as an ``xarray.Dataset`` of probabilities (rank + 1/2) / (L + 1).

        Dims are chain, draw (one a simulation) and event dims ``<site>_dim_0``, as ArviZ wants
        them of a group ``prior_sbc`` (``plot_ecdf_pit`` of arviz-plots).
        """
        import xarray

        found = {
            name: (
                ["chain", "draw", *(f"{name}_dim_{i}" for i in range(ranks.dim() - 1))],
                ((ranks[None].double() + 0.5) / (self.num_draws + 1)).numpy(),
            )
            for name, ranks in {**self.ranks, **self.quantities}.items()
        }
        return xarray.Dataset(found, attrs={"num_draws": self.num_draws})


def _labels(name: str, ranks: Tensor) -> list[str]:
    places = product(*[range(size) for size in ranks.shape[1:]])
    return [f"{name}[{', '.join(map(str, place))}]" if place else name for place in places]
