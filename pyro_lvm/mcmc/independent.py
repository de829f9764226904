"""A trained guide as the proposal of Pyro's MCMC."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, NoReturn

import torch
from pyro.infer.mcmc.mcmc_kernel import MCMCKernel
from torch import Tensor

from pyro_lvm.diagnostics.chunks import Chunks, Plated, check_count
from pyro_lvm.diagnostics.correction import check_exact, in_plates
from pyro_lvm.diagnostics.discrete import with_discrete_draws
from pyro_lvm.diagnostics.missing import mixing_of
from pyro_lvm.diagnostics.posterior import latent_draws
from pyro_lvm.errors import PyroLVMError, explain
from pyro_lvm.mcmc.counts import Counts
from pyro_lvm.metropolis import independence_chain
from pyro_lvm.objective import Objective
from pyro_lvm.objectives import DSIVI, ELBO

__all__ = ["IndependentMetropolisHastings"]

Program = Callable[..., Any]
State = dict[str, Tensor]


class _Proposal(NamedTuple):
    draws: dict[str, Plated]  # one draw each
    log_weight: Tensor  # (*batch,)


class IndependentMetropolisHastings(MCMCKernel):
    r"""A kernel of :class:`pyro.infer.MCMC` whose proposals are a guide's draws.

    .. math:: z' \sim q(z' \mid x), \quad \text{accepted with probability }
        \min\Bigl(1, \frac{p(x, z')\, q(z \mid x)}{p(x, z)\, q(z' \mid x)}\Bigr)

    The limit is the exact posterior, whatever the guide. The batch is that of the objectives: each
    datum accepts for itself, so that the rate does not vanish with the number of data. A chain
    starts at a draw of the guide. For many chains at once and all of ArviZ's groups, call
    :func:`pyro_lvm.diagnostics.to_inference_data` with ``correct="mh"``.

    **Mixing variables.** A semi-implicit guide has no density to accept by, but an exact chain
    all the same. A proposal is z with the J + 1 draws of :math:`\psi` that its density is
    averaged over, the one that made z among them, and no other proposal's:

    .. math:: \hat q(z) = \tfrac1{J+1} \sum_{j=0}^J q(z \mid \psi_j, x), \quad
        w = \frac{p(x, z)}{\hat q(z)}

    The weight does not tell which one made z. In an order drawn at random, each did with
    probability 1 / (J + 1), so that z and all :math:`\psi_j` have the density :math:`\hat q(z)
    \prod_j q(\psi_j \mid x)`. A chain of them all that accepts by w, which it keeps with its
    state, has the limit :math:`w \, \hat q(z) \prod_j q(\psi_j \mid x) \propto p(z \mid x)
    \prod_j q(\psi_j \mid x)`: of z, the exact posterior for any J. The price of a small J is a
    lower acceptance rate. The same holds for mixing variables from a reverse program, and for a
    prior's, averaged over draws of their own: :math:`p(x \mid z) \, \tfrac1{J'} \sum_j p(z \mid
    \zeta_j)` has the mean p(x, z).

    Args:
        model: generative program.
        guide: its guide, with a density or with mixing variables.
        objective: what averages these out, such as ``SIVI(num_mixing=200)``, as for
            ``to_inference_data``; ``DSIVI()``, with 50 draws, if left out.
        block_size: proposals made at a time.

    Raises:
        DensityError: guide or model has no density.
        PlateError: a minibatch beside a latent of all data.

    References:
        Tierney (1994), *Markov chains for exploring posterior distributions*, section 2.3.3.
        Andrieu, Roberts (2009), *The pseudo-marginal approach for efficient Monte Carlo
        computations*, section 2, for estimates of a density that a chain keeps.

    Example:
        >>> import pyro, pyro.distributions as dist
        >>> from pyro.infer import MCMC
        >>> def model(x):
        ...     with pyro.plate("data", len(x)):
        ...         z = pyro.sample("z", dist.Normal(0.0, 1.0))
        ...         pyro.sample("x", dist.Normal(z, 1.0), obs=x)
        >>> def guide(x):
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("z", dist.Normal(x / 2, 1.0))
        >>> kernel = IndependentMetropolisHastings(model, guide)
        >>> mcmc = MCMC(kernel, num_samples=2000, warmup_steps=50, disable_progbar=True)
        >>> mcmc.run(torch.tensor([-1.0, 2.0]))
        >>> draws = mcmc.get_samples()["z"]  # the posteriors are N(-0.5, 0.5), N(1, 0.5)
        >>> draws.shape, kernel.diagnostics()["acceptance rate"].round(decimals=1)
        (torch.Size([2000, 2]), tensor([0.8000, 0.8000]))
    """

    _proposals: Iterator[_Proposal]
    _current: _Proposal
    _counts: Counts

    def __init__(
        self,
        model: Program,
        guide: Program,
        *,
        objective: Objective | None = None,
        block_size: int = 256,
    ) -> None:
        self.model, self.guide = model, guide
        self.mixing = mixing_of(objective, otherwise=DSIVI())
        self.block_size = check_count("block_size", block_size)
        self.transforms: dict[str, Any] = {}  # draws are where the model has them
        super().__init__()

    def setup(self, warmup_steps: int, *args: Any, **kwargs: Any) -> None:
        """Start at a draw of the guide given the data."""
        programs = (self.model, self.guide, args, kwargs)
        chunks = Chunks(ELBO, *programs, self.block_size, mixing=self.mixing)
        check_exact(chunks)
        layout = chunks.probe.layout
        self._batch = layout.names if layout else ()
        self._proposals = _endless(chunks)
        self._current = next(self._proposals)
        zeros = torch.zeros_like(self._current.log_weight)
        self._counts = Counts(zeros, warmup_steps, type(self).__name__)

    @property
    def initial_params(self) -> State:
        """The start, ``(*plates, *event)`` by latent site."""
        return self._state()

    @initial_params.setter
    def initial_params(self, params: State) -> NoReturn:
        expected = "none: chains start at the guide's draws"
        hint = "Leave initial_params out."
        raise PyroLVMError(explain("initial_params", expected, f"{sorted(params)}", hint))

    @torch.no_grad()
    def sample(self, params: State) -> State:
        """The next state after ``params``, which is the last one returned."""
        now, new = self._current, next(self._proposals)
        chain = independence_chain(torch.stack([now.log_weight, new.log_weight]))
        accepted = chain.rows[1:].bool()
        self._current = _Proposal(
            {n: self._either(accepted, new.draws[n], draws) for n, draws in now.draws.items()},
            torch.where(accepted[0], new.log_weight, now.log_weight),
        )
        self._counts.add(accepted[0])
        return self._state()

    def logging(self) -> dict[str, str]:
        """The acceptance rate so far, over all data and of the worst."""
        return self._counts.logging()

    def diagnostics(self) -> dict[str, Tensor]:
        """The acceptance rate of each datum, ``(*batch,)``."""
        return {"acceptance rate": self._counts.rate}

    def cleanup(self) -> None:
        """Warn if chains have stood still."""
        self._counts.warn(self._counts.rate)

    def _either(self, accepted: Tensor, new: Plated, now: Plated) -> Plated:
        taken = in_plates(accepted, now, self._batch)
        return Plated(now.plates, torch.where(taken, new.values, now.values))

    def _state(self) -> State:
        return {name: draws.values[0] for name, draws in self._current.draws.items()}


@torch.no_grad()
def _endless(chunks: Chunks) -> Iterator[_Proposal]:
    while True:
        for particles in (with_discrete_draws(chunks, drawn) for drawn in chunks):
            draws = latent_draws(chunks, particles)
            for k, log_weight in enumerate(particles.log_weights):
                one = {n: Plated(d.plates, d.values[k : k + 1]) for n, d in draws.items()}
                yield _Proposal(one, log_weight)
