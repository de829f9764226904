"""The acceptance rate of Metropolis-Hastings as an objective of its independent proposal."""

from __future__ import annotations

from typing import Any

from pyro_lvm.objectives.independent import IndependentAcceptance
from pyro_lvm.particles import Particles, draw
from pyro_lvm.tracing import Program

__all__ = ["MHAcceptance"]


class MHAcceptance(IndependentAcceptance):
    r"""Trains a guide to be a proposal that Metropolis-Hastings accepts.

    With :math:`z \sim p(z \mid x)`, :math:`z' \sim q(z' \mid x)`, :math:`w = p(x, z) / q(z \mid
    x)` and :math:`\xi = w(z') / w(z)`, the acceptance rate A has the lower bounds

    .. math:: \log A = \log E \min\{1, \xi\} \ge E \min\{0, \log \xi\}, \qquad
        A \ge 1 - \sqrt{-\tfrac12 E \log \xi}, \quad
        -E \log \xi = KL(q \,\|\, p) + KL(p \,\|\, q)

    "jensen" ascends :math:`E \min\{0, \log \xi\}`, "symmetric" :math:`E \log \xi`, whose forward
    divergence weighs modes that the guide leaves out; these are the value, in nats per datum. Both
    are 0, and the rate 1, at the exact posterior. z' has its path
    derivative; z are the states of K chains a datum, which the guide's own proposals move after
    each step, so they come from the posterior only as far as these have mixed: ``is_bound`` is
    False (and the number has nothing to do with log p(x)). A mode that the guide never visits
    stays unseen, at whatever rate. How much a flow puts into each of several far modes is learned
    only from draws between them, whose gradients are rare and large, and biased once clipped: a
    mixture with fixed shares has no such gradients.

    The guide needs a density, a flow's for instance. For one with mixing variables see
    :class:`SemiImplicitAcceptance`; for proposals from where a chain is :class:`MarkovAcceptance`;
    for a target given by samples, and proposals without a density, :class:`ImplicitAcceptance`.

    The model is the target and gets no gradient. Where the programs have a data plate, pass the
    numbers of the rows last, ``objective.loss(model, guide, x, index)``, and ``num_data``: each
    datum has its own chains, and accepts for itself. The programs are called without them, but
    by ``fit``, whose batches ``(x, index)`` they take as ``forward(self, x, index=None)``.
    Evaluation without an index starts chains anew.

    For latents of all data, "symmetric" is doubly stochastic: it is linear in log p(x, z), so that
    a minibatch in a subsampled plate gives an unbiased estimate of it and of its gradient. To
    accept takes all data: ``objective.move(model, guide, x)`` moves the chains, first and then once
    an epoch, say; steps on minibatches leave them where they are. "jensen" is not linear, and
    refuses minibatches.

    References:
        Neklyudov, Egorov, Shvechikov, Vetrov (2018), *Metropolis-Hastings view on variational
        inference and adversarial training*, arXiv:1810.07151v1, sections 3 and 4.

    Args:
        num_particles: K chains of each datum, and proposals.
        lower_bound: "jensen" or "symmetric".
        num_data: N, rows of the data plate, if there is one.
        num_warmup: moves from the guide's draws to the chains' first states.
        max_plate_nesting: dims the plates may take; found by one extra run if left out.

    Raises:
        ProgramError: an argument out of range; a site without ``rsample``.
        DataError: a data plate without an index, or one out of range.
        PlateError: a minibatch beside a latent of all data; several plates of independent data.

    Example:
        >>> import pyro, pyro.distributions as dist, torch
        >>> def model():
        ...     pyro.sample("z", dist.Normal(1.0, 2.0))
        >>> def guide():
        ...     pyro.sample("z", dist.Normal(pyro.param("loc", torch.tensor(0.0)), 2.0))
        >>> objective = MHAcceptance(num_particles=64)
        >>> svi = pyro.infer.SVI(model, guide, pyro.optim.Adam({"lr": 0.02}), objective)
        >>> losses = [svi.step() for _ in range(200)]
        >>> bool(objective.acceptance(model, guide) > 0.95)
        True
    """

    def draws(
        self, model: Program, guide: Program, *, args: Any, kwargs: Any, **how: Any
    ) -> Particles:
        """Draws of a guide and their weights."""
        return draw(model, guide, args, kwargs, enumerate_sites=self.enumerates, **how)
