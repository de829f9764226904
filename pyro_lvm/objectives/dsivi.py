"""The bound of semi-implicit guides and priors."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from pyro_lvm.annealing import Schedule
from pyro_lvm.errors import ProgramError, explain
from pyro_lvm.mixing import Mixing, check_chunk, check_draws
from pyro_lvm.objectives.groups import check_groups, mean_of_bounds
from pyro_lvm.semi_implicit import MixedParticles, SemiImplicitObjective
from pyro_lvm.tracing import Program

__all__ = ["DSIVI"]


class DSIVI(SemiImplicitObjective):
    r"""Lower bound for a guide and a prior with mixing variables, in nats per datum.

    .. math::

        \log p(x \mid z) + \log \tfrac1{J'} \sum_{j=1}^{J'} p(z \mid \zeta_j)
        - \log \tfrac1{J+1} \sum_{j=0}^J q(z \mid \psi_j, x)

    with :math:`\psi` as in :class:`SIVI` and :math:`\zeta_j \sim p(\zeta)` independent of z:
    auxiliary sites of the model that the guide does not have. A bound for any J and J', and
    rising in both. A small J' makes a prior wide, so that it is seen by few draws; evaluate
    with a larger one than that of training.

    No draw of the prior's mixing variables may have made z. A prior whose :math:`\zeta` are
    data (:class:`~pyro_lvm.distributions.AggregatedPrior`) draws them without regard to the
    datum: with its own always among the J', this is no bound.

    References:
        Molchanov, Kharitonov, Sobolev, Vetrov (2019), *Doubly semi-implicit variational
        inference*, arXiv:1810.02789.

    Args:
        num_particles: K draws per datum; K > 1 importance-weights the bound.
        gradient: "reparam".
        num_mixing: J >= 0 fresh draws of the guide's mixing variables, per particle and datum.
        num_prior_mixing: J' >= 1 draws of the model's.
        share_mixing: one set of the guide's fresh draws for all particles of a datum.
        share_prior_mixing: one set of the model's draws for all particles and data, whose law
            must then be one for all data.
        chunk_mixing: fresh draws at a time, of either program; all of them if left out. For
            numbers so large that memory is short: it is then that of one chunk, and each chunk
            is a run of the program, two where there is a gradient.
        num_groups: M, which divides K: the bound is the mean of M bounds of K / M draws each.
            1 importance-weights all of them, K averages evidence lower bounds.
        beta: KL warm-up factor in the loss, a number or a function of the step.
        free_bits: floor of each latent site's mean KL in the loss, nats.
        max_plate_nesting: dims the plates may take; found by one extra run if left out.

    Raises:
        ValueError: an argument out of range.

    Example:
        A prior Normal(0, 1), written as a mixture of Normals.

        >>> import torch, pyro
        >>> import pyro.distributions as dist
        >>> def model(x):
        ...     with pyro.plate("data", len(x)):
        ...         law = dist.Normal(0.0, 0.75**0.5)
        ...         zeta = pyro.sample("zeta", law, infer={"is_auxiliary": True})
        ...         z = pyro.sample("z", dist.Normal(zeta, 0.5))
        ...         pyro.sample("x", dist.Normal(z, 1.0), obs=x)
        >>> def guide(x):
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("z", dist.Normal(x / 2, 0.5**0.5))  # the exact posterior
        >>> _ = torch.manual_seed(0)
        >>> x = torch.ones(1000)  # log p(x) = -1.5155
        >>> for count in (1, 10, 100, 1000):
        ...     objective = DSIVI(num_prior_mixing=count, share_prior_mixing=False)
        ...     print(f"{objective.bound(model, guide, x).mean():.2f}")
        -3.43
        -1.59
        -1.52
        -1.52
    """

    def __init__(
        self,
        num_particles: int = 1,
        gradient: str = "reparam",
        *,
        num_mixing: int = 50,
        num_prior_mixing: int = 50,
        share_mixing: bool = False,
        share_prior_mixing: bool = True,
        chunk_mixing: int | None = None,
        num_groups: int = 1,
        beta: Schedule = 1.0,
        free_bits: float = 0.0,
        max_plate_nesting: int | None = None,
    ) -> None:
        self.num_mixing = check_draws("num_mixing", num_mixing, 0)
        self.num_prior_mixing = check_draws("num_prior_mixing", num_prior_mixing, 1)
        self.share_mixing = share_mixing
        self.share_prior_mixing = share_prior_mixing
        self.chunk_mixing = check_chunk(chunk_mixing)
        self.num_groups = check_groups(num_groups, num_particles)
        super().__init__(
            Mixing(num_mixing, num_prior_mixing, share_mixing, share_prior_mixing, chunk_mixing),
            num_particles,
            gradient,
            beta=beta,
            free_bits=free_bits,
            max_plate_nesting=max_plate_nesting,
        )

    def bound_per_datum(self, log_weights: Tensor) -> Tensor:
        return mean_of_bounds(log_weights, self.num_groups)

    @classmethod
    @torch.no_grad()
    def sandwich(
        cls,
        model: Program,
        guide: Program,
        *args: Any,
        num_mixing: int = 100,
        num_particles: int = 100,
        chunk_mixing: int | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor]:
        r"""Estimates from below and above of the evidence lower bound of a semi-implicit guide.

        The one with the draw that made z among those averaged, the other without it: their
        means have :math:`\mathbb E_q[\log p(x, z) - \log q(z \mid x)]` between them for every
        J, and meet as J grows. The guide's own bound is therefore known as well as the two are
        near. The upper one is no bound of log p(x).

        Args:
            model: with an explicit prior.
            guide: with mixing variables, or without: the two are then equal.
            args: of both programs; ``kwargs`` too.
            num_mixing: J >= 1.
            num_particles: draws of z whose mean is taken.
            chunk_mixing: mixing draws at a time; all of them if left out.

        Returns:
            Two tensors ``(*batch,)``, nats.

        Raises:
            ProgramError: the model has mixing variables: no independent draws of them bound
                log p(z) from above.
        """
        objective = cls(
            num_particles,
            num_mixing=check_draws("num_mixing", num_mixing, 1),
            share_mixing=True,
            chunk_mixing=chunk_mixing,
        )
        particles = cast(MixedParticles, objective.particles(model, guide, *args, **kwargs))
        if particles.log_prior is not None:
            raise ProgramError(
                explain(
                    f"{cls.__name__}.sandwich",
                    "a model with an explicit prior",
                    "one with mixing variables, which nothing here bounds from above",
                    "Look at DSIVI(num_prior_mixing=...).bound as num_prior_mixing grows.",
                )
            )
        return particles.log_weights.mean(0), particles.upper_log_weights.mean(0)
