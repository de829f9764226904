"""The bound of semi-implicit guides."""

from __future__ import annotations

from torch import Tensor

from pyro_lvm.annealing import Schedule
from pyro_lvm.mixing import Mixing, check_chunk, check_draws
from pyro_lvm.objectives.groups import check_groups, mean_of_bounds
from pyro_lvm.semi_implicit import SemiImplicitObjective

__all__ = ["SIVI"]


class SIVI(SemiImplicitObjective):
    r"""Lower bound for a guide with mixing variables, in nats per datum.

    .. math::

        \log p(x, z) - \log \tfrac1{J+1} \sum_{j=0}^J q(z \mid \psi_j, x), \qquad
        \psi_j \sim q(\psi \mid x), \quad z \sim q(z \mid \psi_0, x)

    A guide is semi-implicit if it draws z given an auxiliary site, one with
    ``infer={"is_auxiliary": True}`` that the model does not have; its density is then an
    integral that nobody knows. The bound is one for any J, and rises to the evidence lower
    bound of the guide as J grows. With J = 0 the best a guide can do is to draw one
    :math:`\psi`. K > 1 importance-weights it: the bound rises to log p(x) with K for any J.

    Only what depends on the mixing variables is computed J + 1 times: never the likelihood,
    nor an encoder that they do not enter. Every gradient is by path, so latents need
    ``rsample``; mixing variables do too if parameters move their law.

    References:
        Yin, Zhou (2018), *Semi-implicit variational inference*, arXiv:1805.11183, eq. 9.

    Args:
        num_particles: K draws per datum.
        gradient: "reparam".
        num_mixing: J >= 0 fresh draws of the mixing variables, per particle and datum.
        share_mixing: one set of fresh draws for all particles of a datum.
        chunk_mixing: fresh draws at a time; all of them if left out. For numbers so large that
            memory is short: it is then that of one chunk, and each chunk is a run of the guide,
            two where there is a gradient.
        num_groups: M, which divides K: the bound is the mean of M bounds of K / M draws each.
            1 importance-weights all of them, K averages evidence lower bounds.
        beta: KL warm-up factor in the loss, a number or a function of the step.
        free_bits: floor of each latent site's mean KL in the loss, nats.
        max_plate_nesting: dims the plates may take; found by one extra run if left out.

    Raises:
        ValueError: an argument out of range.

    Example:
        A guide that is the exact posterior, Normal(x / 2, 1/2), written as a mixture of
        Normals.

        >>> import torch, pyro
        >>> import pyro.distributions as dist
        >>> def model(x):
        ...     with pyro.plate("data", len(x)):
        ...         z = pyro.sample("z", dist.Normal(0.0, 1.0))
        ...         pyro.sample("x", dist.Normal(z, 1.0), obs=x)
        >>> def guide(x):
        ...     with pyro.plate("data", len(x)):
        ...         psi = pyro.sample("psi", dist.Normal(x / 2, 0.5), infer={"is_auxiliary": True})
        ...         pyro.sample("z", dist.Normal(psi, 0.5))
        >>> _ = torch.manual_seed(0)
        >>> x = torch.ones(1000)  # log p(x) = -1.5155
        >>> for num_mixing in (0, 1, 10, 100):
        ...     print(f"{SIVI(num_mixing=num_mixing).bound(model, guide, x).mean():.2f}")
        -1.88
        -1.72
        -1.55
        -1.53
    """

    def __init__(
        self,
        num_particles: int = 1,
        gradient: str = "reparam",
        *,
        num_mixing: int = 50,
        share_mixing: bool = False,
        chunk_mixing: int | None = None,
        num_groups: int = 1,
        beta: Schedule = 1.0,
        free_bits: float = 0.0,
        max_plate_nesting: int | None = None,
    ) -> None:
        self.num_mixing = check_draws("num_mixing", num_mixing, 0)
        self.share_mixing = share_mixing
        self.chunk_mixing = check_chunk(chunk_mixing)
        self.num_groups = check_groups(num_groups, num_particles)
        super().__init__(
            Mixing(num_mixing, 0, share_mixing, chunk=chunk_mixing),
            num_particles,
            gradient,
            beta=beta,
            free_bits=free_bits,
            max_plate_nesting=max_plate_nesting,
        )

    def bound_per_datum(self, log_weights: Tensor) -> Tensor:
        return mean_of_bounds(log_weights, self.num_groups)
