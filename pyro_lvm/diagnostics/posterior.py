"""Draws of the latent variables from a guide."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pyro_lvm.diagnostics.chunks import Chunks, Plated
from pyro_lvm.diagnostics.discrete import with_discrete_draws
from pyro_lvm.diagnostics.missing import UnknownRatio, mixing_of
from pyro_lvm.objectives import DSIVI, ELBO
from pyro_lvm.particles import Particles

__all__ = ["latent_draws", "sample_posterior"]

Program = Callable[..., Any]


def sample_posterior(
    model: Program,
    guide: Program,
    *args: Any,
    num_samples: int = 1000,
    chunk_size: int | None = None,
    device: torch.device | str | None = None,
    **kwargs: Any,
) -> dict[str, Tensor]:
    """Draw the model's latent variables from the guide, without gradient.

    Discrete sites that the bounds sum out are drawn from their exact posterior given the
    guide's draws.

    Independent draws: their quality is the guide's, which :func:`pyro_lvm.diagnostics.
    pareto_khat` measures; they are not corrected by importance weights. For draws with their
    weights see :func:`pyro_lvm.diagnostics.to_inference_data`. A guide needs no density here.

    Args:
        model: generative program, called as ``model(*args, **kwargs)``.
        guide: its guide.
        num_samples: draws of each latent site.
        chunk_size: draws at a time; by default as many as bound the memory.
        device: where to put the draws, e.g. ``"cpu"``; by default where they were made.

    Returns:
        For each latent site ``(num_samples, *plates, *event)`` with the plates it is in.
        Auxiliary sites are left out.

    Raises:
        ValueError: programs that do not fit each other, or a count below 1.

    Example:
        >>> import pyro, pyro.distributions as dist
        >>> def model(x):
        ...     with pyro.plate("data", len(x)):
        ...         z = pyro.sample("z", dist.Normal(0.0, 1.0))
        ...         pyro.sample("x", dist.Normal(z, 1.0), obs=x)
        >>> def guide(x):
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("z", dist.Normal(x / 2, 0.5**0.5))
        >>> draws = sample_posterior(model, guide, torch.tensor([-1.0, 2.0]), num_samples=100)
        >>> draws["z"].shape
        torch.Size([100, 2])
    """
    unknown = UnknownRatio()
    mixing = mixing_of(None, otherwise=DSIVI(num_mixing=0, num_prior_mixing=1))
    chunks = Chunks(ELBO, model, guide, args, kwargs, num_samples, chunk_size, unknown, mixing)
    parts = [
        {name: draws.values.to(device) for name, draws in latent_draws(chunks, particles).items()}
        for particles in (with_discrete_draws(chunks, drawn) for drawn in chunks)
    ]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def latent_draws(chunks: Chunks, particles: Particles) -> dict[str, Plated]:
    """Values of each latent site of the model that is not auxiliary, in its own plates."""
    return {
        name: chunks.in_own_plates(particles.model[name], value, len(particles.log_p))
        for name, value in particles.values.items()
        if not _is_helper(name, particles)
    }


def _is_helper(name: str, particles: Particles) -> bool:
    sites = [program[name] for program in (particles.model, particles.guide) if name in program]
    return name.endswith("_unconstrained") or any(site.is_auxiliary for site in sites)
