"""A guide's draws beside those of a sampler that needs no guide, on a few data."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from itertools import product
from typing import Any

import torch
from pyro.infer import MCMC, NUTS
from torch import Tensor

from pyro_lvm.diagnostics.chunks import check_count
from pyro_lvm.diagnostics.nuts_differences import NutsComparison, compared
from pyro_lvm.diagnostics.posterior import sample_posterior
from pyro_lvm.diagnostics.unconstrained import UnconstrainedModel
from pyro_lvm.shared_plates import OneMinibatch

__all__ = ["compare_with_nuts"]

Program = Callable[..., Any]


def compare_with_nuts(
    model: Program,
    guide: Program,
    *args: Any,
    num_samples: int = 500,
    num_warmup: int = 300,
    num_chains: int = 2,
    num_guide_samples: int = 4000,
    **kwargs: Any,
) -> NutsComparison:
    r"""Hold a guide against the No-U-Turn sampler on a few data.

    NUTS draws all latents of all these data together, in unconstrained space, from prior draws
    on, so that the guide has no say. Discrete sites marked to be enumerated are summed out.
    A second for each few hundred draws of a small model: take 4 data, not 400.

    Args:
        model: generative program, called as ``model(*args, **kwargs)``.
        guide: its guide; only drawn from.
        num_samples: draws of NUTS in each chain.
        num_warmup: draws before, which adapt step size and mass and are dropped.
        num_chains: one after the other, 2 or more for an R-hat between chains.
        num_guide_samples: draws of the guide.

    Raises:
        ProgramError: a model with discrete latents that are not summed out.
        PlateError: a latent outside a subsampled plate.
        ValueError: a count below 1.

    References:
        Hoffman, Gelman (2014), *The No-U-Turn sampler*, arXiv:1111.4246.
        Gelman et al. (2013), *Bayesian Data Analysis*, 3rd edition, section 11.4, for R-hat.

    Example:
        The guide has the right means and half of the standard deviations.

        >>> import pyro, pyro.distributions as dist
        >>> def model(x):
        ...     with pyro.plate("data", len(x)):
        ...         z = pyro.sample("z", dist.Normal(0.0, 1.0))
        ...         pyro.sample("x", dist.Normal(z, 1.0), obs=x)
        >>> def guide(x):
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("z", dist.Normal(x / 2, 0.5**1.5))
        >>> found = compare_with_nuts(model, guide, torch.tensor([0.5, -1.0]), num_samples=200)
        >>> found.names, found.log_sd.value.exp().round(decimals=1)
        (('z[0]', 'z[1]'), tensor([0.5000, 0.5000]))
    """
    for name, count in (("num_samples", num_samples), ("num_chains", num_chains)):
        check_count(name, count)
    with OneMinibatch():  # one minibatch in all that follows
        guided = sample_posterior(model, guide, *args, num_samples=num_guide_samples, **kwargs)
        sampler = UnconstrainedModel(model, args, kwargs)
        chains = [_chain(sampler, num_samples, num_warmup) for _ in range(num_chains)]
        values = [sampler.values(vectors) for vectors, _ in chains]
    sites = [name for name in values[0] if name in guided]
    names = [label for name in sites for label in _labels(name, guided[name].shape[1:])]
    own = torch.cat([_rows(guided[name]) for name in sites], 1)  # (G, m)
    exact = torch.stack([torch.cat([_rows(part[n]) for n in sites], 1) for part in values])
    return compared(tuple(names), own, exact, sum(count for _, count in chains))


def _chain(model: UnconstrainedModel, num_samples: int, num_warmup: int) -> tuple[Tensor, int]:
    """Vectors ``(num_samples, *batch, D)``, and how many of the moves diverged."""

    def potential(position: Mapping[str, Tensor]) -> Tensor:
        return -model.densities(position["all"][None]).log_joint.sum()

    kernel = NUTS(potential_fn=potential)
    run = MCMC(
        kernel,
        num_samples=num_samples,
        warmup_steps=num_warmup,
        initial_params={"all": model.prior_draws(1)[0]},
        disable_progbar=not sys.stderr.isatty(),
    )
    run.run()
    diverged = run.diagnostics()["divergences"]
    return run.get_samples()["all"], sum(map(len, diverged.values()))


def _rows(draws: Tensor) -> Tensor:  # (draws, scalars)
    return draws.reshape(len(draws), -1)


def _labels(name: str, shape: torch.Size) -> list[str]:
    places = product(*map(range, shape))
    return [f"{name}[{', '.join(map(str, place))}]" if place else name for place in places]
