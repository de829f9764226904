"""A posterior with two modes: x = z^2 + noise, judged by quadrature.

z ~ N(0, 1) and x | z ~ N(z^2, 1), for four data. KL(q || p) of each guide to the exact
posterior: of a Normal in closed quadrature, of draws by their histogram in 400 cells against
the posterior's mass in each. The best Normal is found by minimising the quadrature itself, for
each datum alone, over many starts.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pyro
import pyro.distributions as dist
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from benchmarks.four_points import train
from pyro_lvm.diagnostics import sample_posterior
from pyro_lvm.guides import AmortizedNormal, ImplicitGuide
from pyro_lvm.nn import Discriminator
from pyro_lvm.objective import Objective
from pyro_lvm.objectives import AVB, ELBO

__all__ = ["RUNS", "best_normal", "divergence", "model", "picture", "run"]

NOISE = 1.0
X = torch.tensor([[1.0], [2.0], [3.0], [4.0]])
DRAWS, STEPS = 256, 3000  # draws of a datum and step
CELLS = 400
EDGES = torch.linspace(-4.0, 4.0, CELLS + 1, dtype=torch.float64)
MIDDLES = 0.5 * (EDGES[1:] + EDGES[:-1])
WIDTH = EDGES[1] - EDGES[0]


def model(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(x.new_zeros(1), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z.square(), NOISE).to_event(1), obs=x)


def _avb(contrast: str) -> AVB:
    discriminator = Discriminator(1, context_features=1, hidden=(64, 64))
    return AVB(
        discriminator, DRAWS, contrast=contrast, num_discriminator_steps=3, discriminator_lr=1e-3
    )


def _implicit() -> ImplicitGuide:
    return ImplicitGuide(
        in_features=1, latent_features=1, hidden=(32,), noise_features=8, noise_hidden=(64, 64)
    )


def _normal() -> AmortizedNormal:
    return AmortizedNormal(in_features=1, latent_features=1, hidden=(32, 32))


def run(name: str, seed: int, steps: int | None = None) -> dict[str, float]:
    """KL(q || p) of one trained guide, nats, by datum and in the mean."""
    pyro.set_rng_seed(seed)
    kl = divergence(histogram(RUNS[name](steps or STEPS)))
    by_datum = zip(X[:, 0].tolist(), kl.tolist(), strict=True)
    return {"mean KL": kl.mean().item()} | {f"x = {x:g}": value for x, value in by_datum}


def _trained(
    objective: Callable[[], Objective], guide: Callable[[], nn.Module], steps: int
) -> Tensor:
    """10^5 draws for each datum, ``(100000, 4)``."""
    trained, made = objective(), guide()
    for lr in (5e-4, 1e-4):
        train(trained, model, made, X, steps // 2, lr)
    return sample_posterior(model, made, X, num_samples=100_000)["z"].squeeze(-1)


RUNS: dict[str, Callable[[int], Tensor]] = {
    "AVB, prior": partial(_trained, partial(_avb, "prior"), _implicit),
    "AVB, adaptive": partial(_trained, partial(_avb, "adaptive"), _implicit),
    "trained Normal, ELBO": partial(_trained, partial(ELBO, DRAWS), _normal),
    "best Normal": lambda steps: best_normal().sample(torch.Size([100_000])),
}


def histogram(draws: Tensor) -> Tensor:  # (CELLS, 4)
    """Share of the draws ``(draws, 4)`` in each cell; those outside in the cells at the ends."""
    cells = torch.bucketize(draws.double().contiguous(), EDGES[1:-1].contiguous())
    counts = torch.zeros(CELLS, len(X), dtype=torch.float64)
    return counts.scatter_add(0, cells, torch.ones_like(draws).double()) / len(draws)


def log_posterior() -> Tensor:  # (CELLS, 4)
    """Log of the exact posterior's mass in each cell."""
    z, x = MIDDLES.unsqueeze(-1), X[:, 0].double()
    log_joint = dist.Normal(0.0, 1.0).log_prob(z) + dist.Normal(z.square(), NOISE).log_prob(x)
    return log_joint.log_softmax(0)


def divergence(mass: Tensor) -> Tensor:  # (..., 4)
    """KL(q || p) of masses ``(..., CELLS, 4)`` of the cells, nats."""
    mass = mass.clamp(min=torch.finfo(mass.dtype).tiny)  # its logarithm stays finite
    return (mass * (mass.log() - log_posterior())).sum(-2)


def best_normal() -> dist.Normal:
    """For each datum the Normal of least KL(q || p), by descent from many starts."""
    starts = torch.cartesian_prod(torch.linspace(-2, 2, 9), torch.tensor([0.2, 0.4, 1.0]).log())
    entry = starts.double().unsqueeze(-1).repeat(1, 1, len(X)).requires_grad_()  # (27, 2, 4)
    optimiser = torch.optim.Adam([entry], 0.02)
    for _ in range(800):
        optimiser.zero_grad()
        kl = divergence(_masses(entry))
        kl.sum().backward()
        optimiser.step()
    best = entry.detach().take_along_dim(kl.argmin(0)[None, None], 0)[0]
    return dist.Normal(best[0], best[1].exp())


def _masses(entry: Tensor) -> Tensor:  # (starts, CELLS, 4)
    loc, log_scale = entry.unsqueeze(2).unbind(1)
    return dist.Normal(loc, log_scale.exp()).log_prob(MIDDLES.unsqueeze(-1)).softmax(1)


def picture(steps: int | None = None) -> Figure:
    """The exact posterior, draws of an implicit guide, and the best Normal, side by side."""
    pyro.set_rng_seed(0)
    figure = Figure(figsize=(11.0, 2.8), layout="constrained")
    names = ("AVB, prior", "best Normal")
    shares = {name: histogram(RUNS[name](steps or STEPS)) for name in names}
    for i, axes in enumerate(figure.subplots(1, len(X), sharey=True)):
        axes.fill_between(MIDDLES, log_posterior()[:, i].exp() / WIDTH, color="0.8", label="exact")
        for name, share in shares.items():
            axes.step(MIDDLES, share[:, i] / WIDTH, where="mid", linewidth=0.8, label=name)
        axes.set(title=f"x = {X[i].item():g}", xlabel="z", xlim=(-3, 3))
    axes.legend()
    return figure
