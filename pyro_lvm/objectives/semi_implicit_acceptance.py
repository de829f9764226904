"""The acceptance rate of Metropolis-Hastings as an objective of a semi-implicit proposal."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import torch

from pyro_lvm.mixing import Mixing, check_draws, mixing_sites
from pyro_lvm.objectives.independent import IndependentAcceptance
from pyro_lvm.particles import Particles
from pyro_lvm.semi_implicit import check_reached, draw_mixed
from pyro_lvm.tracing import Program

__all__ = ["SemiImplicitAcceptance"]


class SemiImplicitAcceptance(IndependentAcceptance):
    r"""Trains a guide with mixing variables to be a proposal that Metropolis-Hastings accepts.

    Each state and each proposal has J + 1 mixing draws, and the weight

    .. math:: w(z, \psi) = p(x, z) \Big/ \tfrac1{J+1} \sum_{j=0}^J q(z \mid \psi_j, x)

    A chain of z and :math:`\psi` that accepts by it is exact, with the limit :math:`p(z \mid x)
    \prod_j q(\psi_j \mid x)`; see :class:`~pyro_lvm.mcmc.IndependentMetropolisHastings`. Given a
    state z, all its :math:`\psi_j` are therefore independent draws of the guide's, made anew at
    each step, which is a Gibbs step; of a proposal's, one has made it. With :math:`\xi = w(z',
    \psi') / w(z, \psi)`, this chain accepts at the rate :math:`A_J = E \min\{1, \xi\}`, and

    .. math:: \log A \ge \log A_J \ge E \min\{0, \log \xi\}, \qquad
        A \ge A_J \ge 1 - \sqrt{-\tfrac12 E \log \xi}

    where A is the rate that the guide would have if its density were known: :math:`1 - A_J` is
    the total variation between (state, proposal) and (proposal, state), each with its mixing
    draws, and without these it can only be less. ``acceptance`` is :math:`A_J`. So the bounds, in
    nats per datum, hold for any J; all else is as in :class:`MHAcceptance`.

    References:
        Neklyudov, Egorov, Shvechikov, Vetrov (2018), *Metropolis-Hastings view on variational
        inference and adversarial training*, arXiv:1810.07151v1, sections 3 and 4.
        Yin, Zhou (2018), *Semi-implicit variational inference*, arXiv:1805.11183, for the guides.
        Andrieu, Vihola (2015), *Convergence properties of pseudo-marginal Markov chain Monte Carlo
        algorithms*, arXiv:1210.1484, for rates of chains that average a density out.

    Args:
        num_particles: K chains of each datum, and proposals.
        num_mixing: J >= 0 fresh mixing draws of each. The chains' warm-up draws of a datum,
            ``(num_warmup + 1) * K * (J + 1)`` rows, are made at once.
        lower_bound: "jensen" or "symmetric".
        num_data: N, rows of the data plate, if there is one.
        num_warmup: moves from the guide's draws to the chains' first states.
        max_plate_nesting: dims the plates may take; found by one extra run if left out.

    Raises:
        ProgramError: an argument out of range; a latent without ``rsample``; mixing variables
            of the model, whose density a chain may not estimate anew at each step.
        DataError: a data plate without an index, or one out of range.
        PlateError: a minibatch beside a latent of all data; several plates of independent data.

    Example:
        A mixture of Normals that could be N(1, 2), the target.

        >>> import pyro, pyro.distributions as dist
        >>> def model():
        ...     pyro.sample("z", dist.Normal(1.0, 2.0))
        >>> def guide():
        ...     loc = pyro.param("loc", torch.tensor(-1.0))
        ...     psi = pyro.sample("psi", dist.Normal(loc, 1.2), infer={"is_auxiliary": True})
        ...     pyro.sample("z", dist.Normal(psi, 1.6))
        >>> _ = torch.manual_seed(0)
        >>> objective = SemiImplicitAcceptance(num_particles=64, num_mixing=50)
        >>> svi = pyro.infer.SVI(model, guide, pyro.optim.Adam({"lr": 0.05}), objective)
        >>> losses = [svi.step() for _ in range(150)]
        >>> bool(objective.acceptance(model, guide) > 0.85)
        True
    """

    mixes: ClassVar[bool] = True

    def __init__(
        self,
        num_particles: int = 64,
        *,
        num_mixing: int = 50,
        lower_bound: str = "jensen",
        num_data: int | None = None,
        num_warmup: int = 20,
        max_plate_nesting: int | None = None,
    ) -> None:
        self.num_mixing = check_draws("num_mixing", num_mixing, 0)
        super().__init__(
            num_particles,
            lower_bound=lower_bound,
            num_data=num_data,
            num_warmup=num_warmup,
            max_plate_nesting=max_plate_nesting,
        )

    def draws(
        self, model: Program, guide: Program, *, args: Any, kwargs: Any, **how: Any
    ) -> Particles:
        """Draws of a guide and their weights; mixing draws are no part of the chains' states."""
        particles = draw_mixed(model, guide, args, kwargs, mixing=Mixing(self.num_mixing), **how)
        if self.step == 0 and torch.is_grad_enabled():
            check_reached(particles)
        hidden = mixing_sites(particles.guide, particles.model)
        shown = {n: site for n, site in particles.guide.items() if n not in hidden}
        return replace(particles, guide=shown)
