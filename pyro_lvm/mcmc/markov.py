"""A guide that proposes from where chains are, as a kernel of Pyro's MCMC."""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import torch
from pyro.infer.mcmc.mcmc_kernel import MCMCKernel
from torch import Tensor

from pyro_lvm.diagnostics.chunks import Chunks, check_count
from pyro_lvm.diagnostics.correction import check_exact
from pyro_lvm.errors import PyroLVMError, explain
from pyro_lvm.layout import Layout
from pyro_lvm.mcmc.counts import Counts
from pyro_lvm.objectives import ELBO
from pyro_lvm.particles import Particles, draw
from pyro_lvm.proposing import chosen, latents, moved, proposals_from
from pyro_lvm.tracing import Program

__all__ = ["MarkovMetropolisHastings"]

State = dict[str, Tensor]


class MarkovMetropolisHastings(MCMCKernel):
    r"""A kernel of :class:`pyro.infer.MCMC` with a guide that proposes from where chains are.

    .. math:: z' \sim q(z' \mid z, x), \quad \text{accepted with probability }
        \min\Bigl(1, \frac{p(x, z')\, q(z \mid z', x)}{p(x, z)\, q(z' \mid z, x)}\Bigr)

    The limit is the exact posterior, whatever the guide. All chains move at once: draws are
    ``(num_samples, num_chains, *plates, *event)`` by site. Each datum accepts for itself.

    The guide is called with ``current=``, the states by site, and without it for the draws that
    chains start at; see :class:`~pyro_lvm.objectives.MarkovAcceptance`, which trains it, and
    :class:`~pyro_lvm.mcmc.RandomWalk`. For a warm start set ``initial_params``, for instance to
    ``objective.chains.values``, the states of its chains.

    Args:
        model: generative program.
        guide: Markov guide, with a density.
        num_chains: C, side by side.

    Raises:
        DensityError: the guide's density is an estimate.
        PlateError: a minibatch beside a latent of all data.
        PyroLVMError: ``initial_params`` that are not states of these chains.

    References:
        Hastings (1970), *Monte Carlo sampling methods using Markov chains and their
        applications*.

    Example:
        >>> import pyro, pyro.distributions as dist, arviz as az
        >>> from pyro.infer import MCMC
        >>> from pyro_lvm.mcmc import RandomWalk
        >>> def model(x):
        ...     with pyro.plate("data", len(x)):
        ...         z = pyro.sample("z", dist.Normal(0.0, 1.0))
        ...         pyro.sample("x", dist.Normal(z, 1.0), obs=x)
        >>> def start(x):
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("z", dist.Normal(0.0, 1.0))
        >>> kernel = MarkovMetropolisHastings(model, RandomWalk(start, 1.5), num_chains=50)
        >>> mcmc = MCMC(kernel, num_samples=200, warmup_steps=50, disable_progbar=True)
        >>> mcmc.run(torch.tensor([-1.0, 2.0]))
        >>> draws = mcmc.get_samples()["z"]  # the posteriors are N(-0.5, 0.5), N(1, 0.5)
        >>> draws.shape, draws.mean((0, 1)).round(decimals=1)
        (torch.Size([200, 50, 2]), tensor([-0.5000,  1.0000]))
        >>> chains = az.convert_to_dataset({"z": draws.transpose(0, 1).numpy()})
        >>> bool((az.rhat(chains)["z"] < 1.05).all()), bool((az.ess(chains)["z"] > 1000).all())
        (True, True)
    """

    _current: State
    _shown: State

    def __init__(self, model: Program, guide: Program, *, num_chains: int = 1) -> None:
        self.model, self.guide = model, guide
        self.num_chains = check_count("num_chains", num_chains)
        self.transforms: dict[str, Any] = {}  # draws are where the model has them
        self._given: State | None = None
        super().__init__()

    def setup(self, warmup_steps: int, *args: Any, **kwargs: Any) -> None:
        """Start at draws of the guide given the data, or at the states given."""
        count = self.num_chains
        self._chunks = Chunks(ELBO, self.model, self.guide, args, kwargs, count, count)
        check_exact(self._chunks)
        first = next(iter(self._chunks))
        self._current, self._shown = latents(first), self._in_plates(first)
        if self._given is not None:
            self._current = _like(self._given, self._current)
            self._shown |= {n: v for n, v in self._given.items() if n in self._shown}
        self._counts = Counts(torch.zeros_like(first.log_p), warmup_steps, type(self).__name__)

    @property
    def initial_params(self) -> State:
        """The start, ``(num_chains, *plates, *event)`` by latent site."""
        return dict(self._shown)

    @initial_params.setter
    def initial_params(self, params: State) -> None:
        self._given = dict(params)

    @torch.no_grad()
    def sample(self, params: State) -> State:
        """The next states after ``params``, which are the last ones returned."""
        chunks = self._chunks
        drawn = partial(self._drawn, chunks)
        with chunks.plates:
            pairs = proposals_from(drawn, self.guide, self._current, chunks.max_plate_nesting)
        rows = moved(pairs, cast(Layout, pairs.layout))
        self._current = chosen(latents(pairs), rows)
        self._counts.add(rows.reshape(pairs.log_p.chunk(2)[0].shape) >= self.num_chains)
        self._shown = self._in_plates(pairs, chosen(pairs.values, rows))
        return dict(self._shown)

    def logging(self) -> dict[str, str]:
        """The acceptance rate so far, over all chains and data, and of the worst."""
        return self._counts.logging()

    def diagnostics(self) -> dict[str, Tensor]:
        """The acceptance rate of each chain and datum, ``(num_chains, *batch)``."""
        return {"acceptance rate": self._counts.rate}

    def cleanup(self) -> None:
        """Warn if chains have stood still."""
        self._counts.warn(self._counts.rate.mean(0))

    def _drawn(self, chunks: Chunks, guide: Program, num_particles: int) -> Particles:
        return draw(
            chunks.model,
            guide,
            chunks.args,
            chunks.kwargs,
            num_particles=num_particles,
            max_plate_nesting=chunks.max_plate_nesting,
            enumerate_sites=chunks.enumerates,
        )

    def _in_plates(self, particles: Particles, values: State | None = None) -> State:
        values = dict(particles.values if values is None else values)
        sites = {n: particles.model[n] for n in values if not particles.guide[n].is_auxiliary}
        shown = {
            n: self._chunks.in_own_plates(site, values[n], self.num_chains)
            for n, site in sites.items()
        }
        return {name: draws.values for name, draws in shown.items()}


def _like(given: State, start: State) -> State:
    """``given`` in the shapes of ``start``."""
    sizes = {name: tuple(value.shape) for name, value in start.items()}
    wrong = [n for n, value in start.items() if n not in given or given[n].numel() != value.numel()]
    if wrong or given.keys() - start.keys():
        found = f"{ {name: tuple(value.shape) for name, value in given.items()} }"
        hint = "Pass the states of as many chains of the same guide, or leave initial_params out."
        raise PyroLVMError(explain("initial_params", f"{sizes}", found, hint))
    return {name: given[name].to(value).reshape(value.shape) for name, value in start.items()}
