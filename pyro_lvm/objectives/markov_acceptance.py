"""The acceptance rate of Metropolis-Hastings as an objective of a Markov proposal."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from pyro_lvm.acceptance import AcceptanceObjective
from pyro_lvm.annealing import Schedule, at_step
from pyro_lvm.particles import Particles, draw
from pyro_lvm.proposing import Drawn, chosen, latents, moved, proposals_from
from pyro_lvm.tracing import Program

__all__ = ["MarkovAcceptance"]


class MarkovAcceptance(AcceptanceObjective):
    r"""Trains a guide that proposes from where a chain is.

    With :math:`z \sim p(z \mid x)`, :math:`z' \sim q(z' \mid z, x)` and :math:`\xi = p(x, z')
    q(z \mid z', x) / (p(x, z) q(z' \mid z, x))`, the acceptance rate A has the lower bounds

    .. math:: \log A = \log E \min\{1, \xi\} \ge E \min\{0, \log \xi\}, \qquad
        A \ge 1 - \sqrt{-\tfrac12 E \log \xi}

    in nats per datum. Unlike that of independent proposals, a high rate says nothing: one that
    stays where it is, is always accepted. So the loss holds the entropy of the steps too,

    .. math:: \log \bigl( e^{\beta H} A \bigr) \ge \beta H + E \min\{0, \log \xi\}, \qquad
        H = -\tfrac1D E \log q(z' \mid z, x)

    with D the number of latent dims of a datum: :math:`e^H` is a typical length of a step, and
    :math:`\beta = 2` weighs squared lengths. For random walks in many dims that gives a rate
    of .47; :math:`\beta = 5.5` gives the .234 at which these mix best. ``bound`` and
    ``acceptance`` are without the entropy.

    The guide is called with ``current=``, the states ``(K, *plates, *event)`` by site, and without
    it for the draws that chains start at. :class:`pyro_lvm.mcmc.RandomWalk` makes a guide of
    that kind from any other. All else is as in :class:`MHAcceptance`.

    References:
        Neklyudov, Egorov, Shvechikov, Vetrov (2018), *Metropolis-Hastings view on variational
        inference and adversarial training*, arXiv:1810.07151v1, sections 3 and 4.
        Titsias, Dellaportas (2019), *Gradient-based adaptive Markov chain Monte Carlo*,
        arXiv:1911.01373, section 2, for the entropy.
        Roberts, Gelman, Gilks (1997), *Weak convergence and optimal scaling of random walk
        Metropolis algorithms*, for .234.

    Args:
        num_particles: K chains of each datum, and proposals.
        lower_bound: "jensen" or "symmetric".
        entropy_weight: beta, a number or a function of the training step; 0 for the acceptance
            rate alone, where the guide itself keeps its steps long.
        num_data: N, rows of the data plate, if there is one.
        num_warmup: moves from the guide's draws to the chains' first states.
        max_plate_nesting: dims the plates may take; found by one extra run if left out.

    Raises:
        ProgramError: an argument out of range; a site without ``rsample``.
        DataError: a data plate without an index, or one out of range.
        PlateError: a minibatch beside a latent of all data; several plates of independent data.

    Example:
        A random walk learns the length of its steps.

        >>> import torch, pyro, pyro.distributions as dist
        >>> from pyro_lvm.mcmc import RandomWalk
        >>> def model():
        ...     pyro.sample("z", dist.Normal(0.0, 2.0))
        >>> def start():
        ...     pyro.sample("z", dist.Normal(0.0, 4.0))
        >>> _ = torch.manual_seed(0)
        >>> guide, objective = RandomWalk(start, scale=0.1), MarkovAcceptance(64)
        >>> short = objective.acceptance(model, guide)
        >>> module = objective(model, guide)
        >>> optimizer = torch.optim.Adam(guide.parameters(), lr=0.05)
        >>> for _ in range(150):
        ...     optimizer.zero_grad()
        ...     module().backward()
        ...     optimizer.step()
        >>> long = objective.acceptance(model, guide)
        >>> bool(short > 0.9), bool(long < 0.7), bool(guide.scale > 2)
        (True, True, True)
    """

    schedules: ClassVar[tuple[str, ...]] = ("entropy_weight",)

    def __init__(
        self,
        num_particles: int = 64,
        *,
        lower_bound: str = "jensen",
        entropy_weight: Schedule = 2.0,
        num_data: int | None = None,
        num_warmup: int = 20,
        max_plate_nesting: int | None = None,
    ) -> None:
        super().__init__(
            num_particles,
            lower_bound=lower_bound,
            num_data=num_data,
            num_warmup=num_warmup,
            max_plate_nesting=max_plate_nesting,
        )
        self.entropy_weight = entropy_weight

    def draws(
        self, model: Program, guide: Program, *, args: Any, kwargs: Any, **how: Any
    ) -> Particles:
        """Draws of a guide and their weights."""
        return draw(model, guide, args, kwargs, enumerate_sites=self.enumerates, **how)

    def started(self, drawn: Drawn, guide: Program) -> dict[str, Tensor]:
        """States after the warm-up, ``(K, *plates, *event)`` by site of the guide."""
        first = drawn(guide, num_particles=self.num_particles)
        self.layout(first)
        states = latents(first)
        for _ in range(self.num_warmup):
            pairs = self.paired(drawn, guide, states)
            states = chosen(latents(pairs), moved(pairs, self.layout(pairs)))
        return states

    def paired(self, drawn: Drawn, guide: Program, states: dict[str, Tensor]) -> Particles:
        """The states, then as many proposals: ``(2 K, *batch)``."""
        return proposals_from(drawn, guide, states, self.max_plate_nesting or 0)

    def entropy(self, particles: Particles) -> Tensor:
        """H of the steps, ``(*batch,)`` nats per latent dim."""
        log_q = particles.log_q.chunk(2)[1]
        dims = sum(value.numel() for value in latents(particles).values())
        return -log_q.mean(0) * (particles.log_q.numel() / dims)

    def _total_loss(self, particles: Particles, value: Tensor) -> Tensor:
        beta = at_step(self.entropy_weight, self.step)
        return super()._total_loss(particles, value + beta * self.entropy(particles))
