"""Reweighted wake-sleep with weights by datum, ours, and by minibatch, Pyro's, where all is known.

Two causes z ~ N(0, I) of one sum, x | z ~ N(z_1 + z_2, 0.5), so that the posterior's two
coordinates are correlated by -0.8; 64 data, 10 draws. The guide has a mean linear in x and
independent coordinates and starts at the prior. The best KL(p || q), which the method descends,
has the posterior's own standard deviations, 0.745; that of KL(q || p) has 0.447. Reported losses
stand beside the exact -log p(x), and the trained guides' divergences are closed forms.

    python -m benchmarks.wake_sleep --steps 1000 --seeds 3
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import ReweightedWakeSleep as PyroReweightedWakeSleep
from torch import Tensor, nn

from benchmarks.command_line import parser_of
from pyro_lvm.objectives import ReweightedWakeSleep
from pyro_lvm.oracles import LinearGaussian

__all__ = [
    "ORACLE",
    "SIDES",
    "Guide",
    "Row",
    "best_divergence",
    "data",
    "main",
    "markdown",
    "run",
    "step",
]

RESULTS = Path(__file__).parent / "results"
NUM_DATA = 64
NUM_PARTICLES = 10
ORACLE = LinearGaussian(torch.ones(1, 2), torch.tensor([0.5]))

Step = Callable[["Guide", Tensor], float]


class Guide(nn.Module):
    """Independent Normals with a mean linear in x, at the prior until trained."""

    def __init__(self) -> None:
        super().__init__()
        self.slope, self.offset, self.log_scale = (nn.Parameter(torch.zeros(2)) for _ in range(3))

    def forward(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", self.posterior(x))

    def posterior(self, x: Tensor) -> dist.MultivariateNormal:
        scale = torch.diag(self.log_scale.exp())
        return dist.MultivariateNormal(self.slope * x + self.offset, scale_tril=scale)


def data(seed: int) -> Tensor:
    """Draws of the model, ``(64, 1)``."""
    generator = torch.Generator().manual_seed(seed)
    return 1.5 * torch.randn(NUM_DATA, 1, generator=generator)


def step(objective: PyroReweightedWakeSleep | ReweightedWakeSleep) -> Step:
    """The loss of all data, summed, with its gradient left in the guide's parameters."""

    def loss_and_grads(guide: Guide, x: Tensor) -> float:
        loss = objective.loss_and_grads(ORACLE.model, guide, x)
        return float(loss[0] if isinstance(loss, tuple) else loss)

    return loss_and_grads


SIDES: dict[str, Step] = {
    "Pyro": step(
        PyroReweightedWakeSleep(
            num_particles=NUM_PARTICLES, model_has_params=False, max_plate_nesting=1
        )
    ),
    "ours": step(ReweightedWakeSleep(NUM_PARTICLES)),
    "ours, dreg": step(ReweightedWakeSleep(NUM_PARTICLES, "dreg")),
}


@dataclass(frozen=True)
class Row:
    """Nats, summed over data; losses are means over steps."""

    side: str
    seed: int
    exact: float
    loss_of_prior: float
    loss: float
    minus_elbo: float
    divergence: float  # KL(p || q)
    best_divergence: float
    scale: float  # mean over coordinates


def run(side: str, seed: int, steps: int) -> Row:
    """Train one guide and judge it."""
    pyro.set_rng_seed(seed)
    x, guide = data(seed), Guide()
    loss_of_prior = mean(SIDES[side](guide, x) for _ in range(steps // 10))
    losses = list(_train(SIDES[side], guide, x, steps))
    with torch.no_grad():
        q, p = guide.posterior(x), ORACLE.posterior(x)
        return Row(
            side,
            seed,
            exact=-ORACLE.log_evidence(x).sum().item(),
            loss_of_prior=loss_of_prior,
            loss=mean(losses[-(steps // 10) :]),
            minus_elbo=-ORACLE.elbo(x, q).sum().item(),
            divergence=torch.distributions.kl_divergence(p, q).sum().item(),
            best_divergence=best_divergence(x),
            scale=guide.log_scale.exp().mean().item(),
        )


def best_divergence(x: Tensor) -> float:
    """The least KL(p || q) of independent coordinates: that of the posterior's marginals."""
    p = ORACLE.posterior(x)
    marginals = dist.MultivariateNormal(p.loc, scale_tril=torch.diag_embed(p.stddev))
    return float(torch.distributions.kl_divergence(p, marginals).sum())


def _train(loss_and_grads: Step, guide: Guide, x: Tensor, steps: int) -> Iterator[float]:
    optimiser = torch.optim.Adam(guide.parameters(), lr=0.02)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        optimiser.zero_grad()
        yield loss_and_grads(guide, x)
        optimiser.step()
        schedule.step()


def markdown(rows: list[Row]) -> str:
    """One line a run; losses and divergences in nats, summed over data."""
    head = (
        "| side | seed | exact -log p | loss of the prior | loss, trained | -ELBO, trained "
        "| KL(p \\|\\| q), trained | least KL(p \\|\\| q) | scale (best: 0.745) |"
    )
    lines = [
        f"| {r.side} | {r.seed} | {r.exact:.2f} | {r.loss_of_prior:.2f} | {r.loss:.2f} "
        f"| {r.minus_elbo:.2f} | {r.divergence:.2f} | {r.best_divergence:.2f} | {r.scale:.3f} |"
        for r in rows
    ]
    return "\n".join([head, "|" + " --- |" * 9, *lines])


def main() -> None:
    """Train on all seeds, print the table, write it to ``benchmarks/results``."""
    parser = parser_of(__doc__)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--save", action=argparse.BooleanOptionalAction, default=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = [run(side, seed, options.steps) for seed in range(options.seeds) for side in SIDES]
    command = f"python -m benchmarks.wake_sleep --steps {options.steps} --seeds {options.seeds}"
    title = "# Reweighted wake-sleep with weights by minibatch and by datum: 64 data, 10 draws"
    text = f"{title}\n\n{markdown(rows)}\n\n`{command}`"
    print(text)
    if options.save:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "wake_sleep.md").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
