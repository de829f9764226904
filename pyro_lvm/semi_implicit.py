"""Objectives of semi-implicit programs: their mixing variables are averaged out."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, cast

import torch
from torch import Tensor

from pyro_lvm.annealing import Schedule
from pyro_lvm.checks import is_imputed, record_checked
from pyro_lvm.densities import check_repeatable, guide_sites, log_prob
from pyro_lvm.enumeration import is_enumerated
from pyro_lvm.errors import PlateError, ProgramError, explain
from pyro_lvm.gradients import Draw
from pyro_lvm.layout import Layout, Scale, differs_from_one
from pyro_lvm.mixing import Marginal, Mixing, mixing_sites, split_rows
from pyro_lvm.mixing_chunks import LaterDraws
from pyro_lvm.mixing_rows import FreshRows, GuideRows, ModelRows, Rows
from pyro_lvm.objective import Objective
from pyro_lvm.particles import Particles, assembled, check_runs, folded, joint_name
from pyro_lvm.tracing import Program, Recorder, Site

__all__ = [
    "MixedParticles",
    "SemiImplicitObjective",
    "check_in_full",
    "check_reached",
    "draw_mixed",
    "run_model",
    "weighed",
]


@dataclass(frozen=True)
class MixedParticles(Particles):
    """Particles of programs with mixing variables.

    Attributes:
        log_prior: the model's density by row, and
        log_guide: the guide's; None where it has no mixing variables. ``log_p`` contains the
            lower side of the one, ``log_q`` the upper side of the other.
    """

    log_prior: Marginal | None = None
    log_guide: Marginal | None = None

    @property
    def score_sites(self) -> list[str]:
        """Latent sites that cannot be reparameterised; mixing variables need not be."""
        return [n for n in self.values if self.guide[n].needs_score]

    @property
    def upper_log_weights(self) -> Tensor:
        """Log-weights ``(K, *batch)`` with the lower side of log q: their mean is at least
        the evidence lower bound's.
        """
        if self.log_guide is None:
            return self.log_weights
        return self.log_weights + (self.log_guide.upper - self.log_guide.lower)


def draw_mixed(
    model: Program,
    guide: Program,
    args: Any,
    kwargs: Any,
    *,
    num_particles: int,
    max_plate_nesting: int,
    mixing: Mixing,
) -> MixedParticles:
    """Run the guide once and the model on its draws, mixing variables in rows of both.

    Raises:
        ProgramError: mixing variables that cannot be averaged out.
        PlateError: they join the data of a minibatch in one density.
    """
    first = mixing.first
    rows = GuideRows(num_particles, max_plate_nesting, first)
    q = record_checked(guide, args, kwargs, rows)
    p = run_model(model, args, kwargs, q, first)
    drawn = guide_sites(q.sites, p.sites)
    hidden = mixing_sites(q.sites, p.sites)
    log_q = {n: log_prob(s) for n, s in drawn.items() if n not in hidden}
    later_p = mixing.later(mixing.num_prior_mixing, first.num_prior_mixing)
    later_q = mixing.later(mixing.num_mixing, first.num_mixing)
    if later_q:
        check_repeatable(guide)
    more_p = LaterDraws(model, args, kwargs, p.sites, p.again, later_p)
    more_q = LaterDraws(guide, args, kwargs, drawn, partial(FreshRows, rows, p.given), later_q)
    return weighed(p, q, rows, log_q, more_p, more_q)


def run_model(model: Program, args: Any, kwargs: Any, q: Recorder, mixing: Mixing) -> ModelRows:
    """Run the model at the guide's latents, its own mixing variables in rows.

    Raises:
        ProgramError: the two programs do not fit, or the model may not have such variables.
    """
    count, nesting = q.num_particles or 1, q.max_plate_nesting
    latents = {n: s.value for n, s in q.sites.items() if not (s.is_observed or s.is_auxiliary)}
    p = ModelRows(count, nesting, latents, q.plates, mixing)
    record_checked(model, args, kwargs, p)
    check_runs(p, q, mixes=True)
    _check_drawn(p.sites, q.sites)
    mixed = mixing_sites(p.sites, q.sites)
    if mixed and not mixing.num_prior_mixing:
        raise _not_averaged(mixed[0])
    return p


def weighed(
    p: ModelRows,
    q: Recorder,
    rows: Rows,
    log_q: Mapping[str, Tensor],
    more_p: LaterDraws | None = None,
    more_q: LaterDraws | None = None,
) -> MixedParticles:
    """Particles of two runs, what varies by row averaged.

    Args:
        p: the model's run.
        q: the guide's.
        rows: knows which rows of ``log_q`` are whose; any, if none vary by row.
        log_q: terms by site, ``(S?, K or 1, *plates)`` nats.
        more_p: further draws of the model's mixing variables, and
        more_q: of the guide's.
    """
    model_sites = {n: s for n, s in p.sites.items() if not is_imputed(s) or n in p.given}
    layout = Layout.of(model_sites, guide_sites(q.sites, p.sites), q.max_plate_nesting)
    hidden = mixing_sites(p.sites, q.sites)
    log_p = {n: log_prob(s) for n, s in model_sites.items() if n not in hidden}
    p_parts, log_prior = _averaged(log_p, p, layout, layout.model_scales, more_p)
    q_parts, log_guide = _averaged(log_q, rows, layout, layout.guide_scales, more_q)
    particles = assembled(p, q, layout, p_parts, q_parts, p.count)
    return MixedParticles(**vars(particles), log_prior=log_prior, log_guide=log_guide)


def _check_drawn(model: Mapping[str, Site], guide: Mapping[str, Site]) -> None:
    for name in model.keys() - guide.keys():
        if is_enumerated(model[name]):
            raise ProgramError(
                explain(
                    f"site '{name}'",
                    "a site that the guide draws, beside mixing variables",
                    'one to sum out, infer={"enumerate": "parallel"}',
                    "Draw it in the guide, or use ELBO or IWAE with a guide that has a density.",
                )
            )


def _not_averaged(name: str) -> ProgramError:
    return ProgramError(
        explain(
            f"auxiliary site '{name}'",
            "a model whose prior has a density",
            "a mixing variable",
            "Use DSIVI, which averages out those of the model too.",
        )
    )


def check_reached(particles: MixedParticles) -> None:
    """The latents of a guide must be differentiable in mixing variables that are trained.

    Raises:
        ProgramError: they are not.
    """
    if particles.log_guide is None:
        return
    rows = particles.log_guide.rows
    sites = [s for s in particles.guide.values() if s.is_auxiliary and s.value.requires_grad]
    if not (sites and rows.requires_grad) or bool((rows == rows[0]).all()):
        return
    values = [site.value for site in sites]
    slopes = torch.autograd.grad(rows.sum(), values, retain_graph=True, allow_unused=True)
    for site, slope in zip(sites, slopes, strict=True):
        if slope is None or not slope.any():
            raise ProgramError(
                explain(
                    f"auxiliary site '{site.name}'",
                    "a differentiable step from it to the latents",
                    "one that stops its gradient, such as round, argmax or detach",
                    "Make the step smooth, or draw noise of a fixed law there.",
                )
            )


def _averaged(
    terms: Mapping[str, Tensor],
    rows: Rows,
    layout: Layout,
    scales: Mapping[str, Scale],
    more: LaterDraws | None,
) -> tuple[dict[str, Tensor], Marginal | None]:
    """Terms by site, those that vary by row averaged in one, and that one's rows."""
    plain, names, by_row = split_rows(folded(layout, terms, scales), len(layout.shape))
    if by_row is None:
        return plain, None
    _check_whole(layout, names)
    check_in_full(names, scales)
    marginal = rows.marginal(by_row)
    if more:
        marginal = marginal.joined(more.log_sums(names, layout, scales), sum(more.sizes))
    return {**plain, joint_name(names): marginal.value}, marginal


def _check_whole(layout: Layout, names: list[str]) -> None:
    for plate in layout.subsampled_inside:
        raise PlateError(
            explain(
                f"plate '{plate}'",
                f"the mixing variables of {names} inside it, on a minibatch",
                "mixing variables outside it: they join all its data in one density",
                "Draw the auxiliary site inside the plate, or pass the full data.",
            )
        )


def check_in_full(names: Iterable[str], scales: Mapping[str, Scale]) -> None:
    """A power of a density that depends on mixing variables has not that of their mean's.

    Raises:
        ProgramError: one of the sites is scaled, and not all others of both programs with it.
    """
    for name in names:
        if differs_from_one(scales[name]):
            raise ProgramError(
                explain(
                    f"poutine.scale around '{name}'",
                    "a density that counts in full, to average out mixing variables",
                    f"a factor of {scales[name]}",
                    "Use beta= for KL warm-up, or scale both programs as a whole.",
                )
            )


class SemiImplicitObjective(Objective):
    r"""Importance-weighted bound with mixing variables averaged out, in nats per datum.

    .. math::

        \log \tfrac1K \sum_k
        \frac{\tfrac1{J'} \sum_j p(x, z_k \mid \zeta_j)}
             {\tfrac1{J+1} \sum_{j=0}^J q(z_k \mid \psi_{kj}, x)}

    where :math:`\psi_{k0}` made :math:`z_k` and all others are independent of it. By symmetry
    :math:`z_k` is a draw of the mixture that divides, so that each weight has the mean p(x):
    a lower bound for any J, J', K, also where particles share the other draws.

    Example:
        The Rényi bound of order 1/2, with ten fresh draws of the guide's mixing variables.

        >>> from pyro_lvm.guides import SemiImplicitGuide
        >>> from pyro_lvm.models import VAE
        >>> from pyro_lvm.weights import log_mean_exp
        >>> class SemiImplicitRenyi(SemiImplicitObjective):
        ...     def __init__(self, num_particles=2):
        ...         super().__init__(
        ...             Mixing(num_mixing=10),
        ...             num_particles,
        ...             "reparam",
        ...             beta=1.0,
        ...             free_bits=0.0,
        ...             max_plate_nesting=None,
        ...         )
        ...     def bound_per_datum(self, log_weights):
        ...         return 2 * log_mean_exp(log_weights / 2)
        >>> model = VAE(6, 2, hidden=(8,))
        >>> guide = SemiImplicitGuide(in_features=6, latent_features=2, hidden=(8,))
        >>> SemiImplicitRenyi(num_particles=5).bound(model, guide, torch.zeros(4, 6)).shape
        torch.Size([4])
    """

    takes: ClassVar[tuple[str, ...]] = ("reparam",)
    mixes: ClassVar[bool] = True

    mixing: Mixing

    @abstractmethod
    def __init__(
        self,
        mixing: Mixing,
        num_particles: int,
        gradient: str,
        *,
        beta: Schedule,
        free_bits: float,
        max_plate_nesting: int | None,
    ) -> None:
        self.mixing = mixing
        super().__init__(
            num_particles,
            gradient,
            beta=beta,
            free_bits=free_bits,
            max_plate_nesting=max_plate_nesting,
        )

    def estimate(self, draw: Draw) -> tuple[Particles, Tensor]:
        """Draws, and the bound ``(*batch,)`` with its gradient; at the first step, a check."""
        particles, value = super().estimate(draw)
        if self.step == 0 and torch.is_grad_enabled():
            check_reached(cast(MixedParticles, particles))
        return particles, value

    def run(
        self,
        model: Program,
        guide: Program,
        args: Any,
        kwargs: Any,
        max_plate_nesting: int,
        **how: Any,
    ) -> MixedParticles:
        return draw_mixed(
            model,
            guide,
            args,
            kwargs,
            num_particles=self.num_particles,
            max_plate_nesting=max_plate_nesting,
            mixing=self.mixing,
            **how,
        )
