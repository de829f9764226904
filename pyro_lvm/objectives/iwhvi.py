"""The bound of semi-implicit guides with a learned reverse program."""

from __future__ import annotations

from typing import Any

from pyro.infer.elbo import ELBOModule
from torch import Tensor, nn

from pyro_lvm.annealing import Schedule
from pyro_lvm.checks import record_checked
from pyro_lvm.densities import guide_sites, log_prob
from pyro_lvm.errors import ParameterError, ProgramError, explain
from pyro_lvm.mixing import Mixing, check_draws, mixing_sites
from pyro_lvm.objectives.groups import check_groups, mean_of_bounds
from pyro_lvm.reverse import reversed_rows
from pyro_lvm.semi_implicit import MixedParticles, SemiImplicitObjective, run_model, weighed
from pyro_lvm.tracing import Program, Recorder

__all__ = ["IWHVI"]


class IWHVI(SemiImplicitObjective):
    r"""Lower bound for a guide with mixing variables and a reverse program, nats per datum.

    .. math::

        \log p(x, z) - \log \tfrac1{J+1} \sum_{j=0}^J
        \frac{q(z, \psi_j \mid x)}{\tau(\psi_j \mid z, x)}

    with :math:`\psi_0, z` from the guide and the other :math:`\psi_j \sim \tau`. A bound for
    any :math:`\tau`, and the tighter the nearer it is to :math:`q(\psi \mid z, x)`; with that
    one it is the evidence lower bound at any J. With J = 0 it is the auxiliary-variable bound,
    with :math:`\tau = q(\psi \mid x)` it is :class:`SIVI`. K > 1 importance-weights it.

    The reverse program is called as the guide, with one keyword more for each latent,
    ``reverse(x, z=z)``, and samples the guide's auxiliary sites, in its plates. It is trained
    with the guide, by the same loss: make it a submodule of the guide. The guide runs twice a
    step, so that its encoder does too.

    References:
        Sobolev, Vetrov (2019), *Importance weighted hierarchical variational inference*,
        arXiv:1905.03290, eq. 7.
        Maaløe, Sønderby, Sønderby, Winther (2016), *Auxiliary deep generative models*,
        arXiv:1602.05473, for J = 0.

    Args:
        num_particles: K draws per datum.
        gradient: "reparam".
        num_mixing: J >= 0 draws of the reverse program, per particle and datum.
        reverse: the program; by default the guide's attribute of that name.
        num_groups: M, which divides K: the bound is the mean of M bounds of K / M draws each.
            1 importance-weights all of them, K averages evidence lower bounds.
        beta: KL warm-up factor in the loss, a number or a function of the step.
        free_bits: floor of each latent site's mean KL in the loss, nats.
        max_plate_nesting: dims the plates may take; found by one extra run if left out.

    Raises:
        ValueError: an argument out of range.

    Example:
        With the exact reverse program one draw is as good as any number.

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
        >>> def reverse(x, z):
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("psi", dist.Normal((x / 2 + z) / 2, 0.125**0.5))
        >>> x = torch.ones(3)
        >>> IWHVI(num_mixing=0, reverse=reverse).bound(model, guide, x)
        tensor([-1.5155, -1.5155, -1.5155])
        >>> dist.Normal(0.0, 2**0.5).log_prob(x)
        tensor([-1.5155, -1.5155, -1.5155])
    """

    def __init__(
        self,
        num_particles: int = 1,
        gradient: str = "reparam",
        *,
        num_mixing: int = 10,
        reverse: Program | None = None,
        num_groups: int = 1,
        beta: Schedule = 1.0,
        free_bits: float = 0.0,
        max_plate_nesting: int | None = None,
    ) -> None:
        self.num_mixing = check_draws("num_mixing", num_mixing, 0)
        self.reverse = reverse
        self.num_groups = check_groups(num_groups, num_particles)
        super().__init__(
            Mixing(num_mixing),
            num_particles,
            gradient,
            beta=beta,
            free_bits=free_bits,
            max_plate_nesting=max_plate_nesting,
        )

    def bound_per_datum(self, log_weights: Tensor) -> Tensor:
        return mean_of_bounds(log_weights, self.num_groups)

    def run(
        self,
        model: Program,
        guide: Program,
        args: Any,
        kwargs: Any,
        max_plate_nesting: int,
        **how: Any,
    ) -> MixedParticles:
        q = Recorder(self.num_particles, max_plate_nesting)
        record_checked(guide, args, kwargs, q)
        p = run_model(model, args, kwargs, q, self.mixing)
        if not mixing_sites(q.sites, p.sites):
            log_q = {n: log_prob(s) for n, s in guide_sites(q.sites, p.sites).items()}
            return weighed(p, q, p, log_q)
        rows, tau = reversed_rows(guide, self._reverse(guide), args, kwargs, q, self.num_mixing)
        log_q = {n: log_prob(s) for n, s in guide_sites(rows.sites, p.sites).items()}
        log_q |= {n: log_q[n] - log_prob(s) for n, s in tau.items()}
        return weighed(p, q, rows, log_q)

    def _reverse(self, guide: Program) -> Program:
        found: Program | None = self.reverse or getattr(guide, "reverse", None)
        if found is None:
            raise _no_reverse()
        return found

    def __call__(self, model: Program, guide: Program) -> ELBOModule:
        """A module whose ``forward`` is :meth:`differentiable_loss` of the two programs.

        Raises:
            ParameterError: the reverse program has parameters that the guide does not.
        """
        parameters = {id(p) for p in guide.parameters()} if isinstance(guide, nn.Module) else set()
        own = self.reverse.parameters() if isinstance(self.reverse, nn.Module) else ()
        if any(id(p) not in parameters for p in own):
            raise _not_in_the_guide()
        return super().__call__(model, guide)


def _no_reverse() -> ProgramError:
    return ProgramError(
        explain(
            "reverse",
            "a program that draws the mixing variables given the latents",
            "none, neither as argument nor as the guide's attribute `reverse`",
            "Pass IWHVI(reverse=...), or use SIVI, which needs none.",
        )
    )


def _not_in_the_guide() -> ParameterError:
    return ParameterError(
        explain(
            "reverse",
            "a submodule of the guide, whose parameters are trained with it",
            "a module of its own",
            "Write guide.reverse = reverse.",
        )
    )
