"""Four densities on the plane, fitted by semi-implicit guides and by Normals.

"banana", "X" and "two modes" are those of the SIVI paper, "sharp banana" a correlated Normal,
bent. All are normalised, so the divergence KL(q || p) of a guide is minus its bound: known for
Normals by quadrature, and for semi-implicit guides between the two sides of the sandwich; the
mass of the guide's density on a grid, from draws of its noise, is a third estimate.

References:
    Yin, Zhou (2018), *Semi-implicit variational inference*, arXiv:1805.11183, section 4.1.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.distributions import Transform, constraints

from benchmarks.training import train
from pyro_lvm.guides import SemiImplicitWeights
from pyro_lvm.objectives import DSIVI, SIVI

__all__ = ["RUNS", "TARGETS", "best_normal", "picture", "run"]

DRAWS, MIXING, STEPS, RATE = 32, 50, 4000, 1e-2
GRID = torch.cartesian_prod(torch.linspace(-7, 7, 141), torch.linspace(-6, 14, 201))
CELL = 0.1 * 0.1
STARTS = ([0.0, 0.0], [2.0, 0.0], [0.0, 2.0], [0.5, -0.5])


class Bend(Transform):
    """``(a, b) -> (a, b + curvature * a^2 + shift)``, which keeps volumes."""

    bijective = True
    domain = codomain = constraints.real_vector

    def __init__(self, curvature: float, shift: float = 0.0) -> None:
        super().__init__()
        self.curvature, self.shift = curvature, shift

    def _bent(self, a: Tensor) -> Tensor:
        return torch.stack([torch.zeros_like(a), self.curvature * a.square() + self.shift], -1)

    def _call(self, x: Tensor) -> Tensor:
        return x + self._bent(x[..., 0])

    def _inverse(self, y: Tensor) -> Tensor:
        return y - self._bent(y[..., 0])

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.zeros_like(x[..., 0])


def _normal(a: float, b: float, covariance: float = 0.0) -> dist.MultivariateNormal:
    matrix = torch.tensor([[a, covariance], [covariance, b]])
    return dist.MultivariateNormal(torch.zeros(2), matrix)


def _halves(loc: list[list[float]], covariance: list[list[list[float]]]) -> Any:
    normals = dist.MultivariateNormal(torch.tensor(loc), torch.tensor(covariance))
    return dist.MixtureSameFamily(dist.Categorical(torch.ones(2)), normals)


UNIT = [[1.0, 0.0], [0.0, 1.0]]
TARGETS: dict[str, Any] = {
    "banana": dist.TransformedDistribution(_normal(4.0, 1.0), [Bend(0.25)]),
    "sharp banana": dist.TransformedDistribution(_normal(1.0, 1.0, 0.9), [Bend(1.0, 1.0)]),
    "X": _halves([[0.0, 0.0]] * 2, [[[2.0, 1.8], [1.8, 2.0]], [[2.0, -1.8], [-1.8, 2.0]]]),
    "two modes": _halves([[-2.0, 0.0], [2.0, 0.0]], [UNIT, UNIT]),
}


def target(name: str) -> None:
    pyro.sample("z", TARGETS[name])


def many(program: Callable[[], Any]) -> Callable[[], None]:
    """``DRAWS`` runs side by side: the loss is the sum of their bounds."""

    def run() -> None:
        with pyro.plate("draws", DRAWS):
            program()

    return run


def fitted(name: str, steps: int) -> SemiImplicitWeights:
    guide = SemiImplicitWeights(2, noise_features=10, noise_hidden=(50, 50))
    objective = SIVI(num_mixing=MIXING, max_plate_nesting=1)
    module = objective(many(partial(target, name)), many(guide))
    train(module, list(guide.parameters()), tuple, steps, RATE, per=DRAWS)
    return guide


def run(name: str, seed: int, steps: int | None = None) -> dict[str, float]:
    """KL(q || p) of the three families, nats."""
    pyro.set_rng_seed(seed)
    guide = fitted(name, steps or STEPS)
    sides = [
        DSIVI.sandwich(partial(target, name), guide, num_mixing=2000, num_particles=2000)
        for _ in range(5)
    ]
    lower, upper = torch.tensor(sides).mean(0).tolist()
    log_q = density(guide)
    by_grid = (log_q.exp() * (log_q - TARGETS[name].log_prob(GRID))).sum() * CELL
    return {
        "independent Normals": best_normal(name, full=False)[1],
        "full Normal": best_normal(name, full=True)[1],
        "SIVI, at most": -lower,
        "SIVI, at least": -upper,
        "SIVI, on a grid": by_grid.item(),
        "mass on the grid": log_q.exp().sum().item() * CELL,
    }


RUNS = list(TARGETS)


@torch.no_grad()
def density(guide: SemiImplicitWeights, num_mixing: int = 4000) -> Tensor:
    """log q at the points of the grid, by draws of the noise."""
    with pyro.plate("rows", num_mixing):
        q = guide.conditionals(guide.mixing())["z"]
    rows = [q.log_prob(points[:, None]).logsumexp(1) for points in GRID.split(500)]
    return torch.cat(rows) - np.log(num_mixing)


def best_normal(name: str, full: bool) -> tuple[dist.MultivariateNormal, float]:
    """The Normal of least KL(q || p), and that, by descent from several starts."""
    found = [_descended(TARGETS[name], full, torch.tensor(start)) for start in STARTS]
    return min(found, key=lambda each: each[1])


def _descended(exact: Any, full: bool, start: Tensor) -> tuple[dist.MultivariateNormal, float]:
    """The expectation under the Normal is a Gauss-Hermite sum of 40 x 40 nodes."""
    nodes, weights = (torch.tensor(v).float() for v in np.polynomial.hermite_e.hermegauss(40))
    points = torch.cartesian_prod(nodes, nodes)
    weight = torch.cartesian_prod(weights, weights).prod(-1) / weights.sum().square()
    loc, raw = nn.Parameter(start), nn.Parameter(torch.zeros(3))
    optimiser = torch.optim.LBFGS([loc, raw], max_iter=200, line_search_fn="strong_wolfe")

    def normal() -> dist.MultivariateNormal:
        tril = raw[:2].exp().diag() + full * raw[2:].diag(-1)
        return dist.MultivariateNormal(loc.clone(), scale_tril=tril)

    def kl() -> Tensor:
        optimiser.zero_grad()
        q = normal()
        expected = (weight * exact.log_prob(loc + points @ q.scale_tril.T)).sum()
        value: Tensor = -q.entropy() - expected
        if torch.is_grad_enabled():
            value.backward()
        return value

    optimiser.step(kl)
    with torch.no_grad():
        return normal(), kl().item()


def picture(steps: int | None = None) -> Figure:
    """Each target, the semi-implicit guide and the best full Normal, side by side."""
    pyro.set_rng_seed(0)
    figure = Figure(figsize=(9.0, 11.0), layout="constrained")
    axes = figure.subplots(len(TARGETS), 3, sharex=True, sharey="row")
    for row, (name, exact) in zip(axes, TARGETS.items(), strict=True):
        columns = {
            name: exact.log_prob(GRID),
            "SIVI": density(fitted(name, steps or STEPS)),
            "best Normal": best_normal(name, full=True)[0].log_prob(GRID),
        }
        a, b = GRID.reshape(141, 201, 2).unbind(-1)
        for axis, (title, log_q) in zip(row, columns.items(), strict=True):
            axis.contourf(a, b, log_q.exp().reshape(a.shape), levels=12, cmap="viridis")
            axis.set(title=title, xlim=(-5, 5), ylim=(-4, 8))
    return figure
