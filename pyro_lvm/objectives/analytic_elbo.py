"""The evidence lower bound with divergences in closed form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from operator import add
from typing import Any, ClassVar

from torch import Tensor
from torch.distributions import kl_divergence

from pyro_lvm.annealing import Schedule
from pyro_lvm.densities import guide_sites
from pyro_lvm.layout import Layout, Scale
from pyro_lvm.objective import Objective
from pyro_lvm.particles import Particles
from pyro_lvm.tracing import Program, Site

__all__ = ["AnalyticELBO"]

Sites = Mapping[str, Site]


class AnalyticELBO(Objective):
    r"""Evidence lower bound, in nats per datum, whose divergences are not estimated from draws.

    .. math:: \tfrac1K \sum_k \log p(x \mid z_k) - \mathrm{KL}(q(z \mid x) \,\|\, p(z))

    for each latent site of both programs whose two distributions depend on no other draw and
    have a divergence known to ``torch.distributions.kl_divergence``, as two Normals have. All
    other sites, and those that are masked, scaled apart or not reparameterised, are scored at
    their draws as by :class:`~pyro_lvm.objectives.ELBO`, whose expectation this has in any case.

    It pays where a density is steep: the log-uniform prior of sparse variational dropout has the
    slope -1 / w, of infinite variance under a Normal around 0. ``log_weights`` holds the
    divergences too, so it is for no importance sampling.

    References:
        Kingma, Welling (2014), *Auto-encoding variational Bayes*, arXiv:1312.6114, eq. 7.

    Args:
        num_particles: draws per datum, K >= 1.
        gradient: any of "reparam", "stl", "dreg", "score", "vimco", of what is drawn.
        beta: KL warm-up factor in the loss, a number or a function of the step.
        max_plate_nesting: dims the plates may take; found by one extra run if left out.
        chunk_particles: particles at a time; see :class:`~pyro_lvm.objective.Objective`.

    Raises:
        ValueError: an argument out of range.

    Example:
        With no data to explain nothing is left to chance.

        >>> import pyro
        >>> import pyro.distributions as dist
        >>> def model():
        ...     pyro.sample("z", dist.Normal(0.0, 1.0))
        >>> def guide():
        ...     pyro.sample("z", dist.Normal(1.0, 1.0))
        >>> AnalyticELBO(num_particles=2).bound(model, guide)
        tensor(-0.5000)
    """

    is_linear: ClassVar[bool] = True

    def __init__(
        self,
        num_particles: int = 1,
        gradient: str = "reparam",
        *,
        beta: Schedule = 1.0,
        max_plate_nesting: int | None = None,
        chunk_particles: int | None = None,
    ) -> None:
        super().__init__(
            num_particles,
            gradient,
            beta=beta,
            max_plate_nesting=max_plate_nesting,
            chunk_particles=chunk_particles,
        )

    def bound_per_datum(self, log_weights: Tensor) -> Tensor:
        return log_weights.mean(0)

    def run(
        self,
        model: Program,
        guide: Program,
        args: Any,
        kwargs: Any,
        max_plate_nesting: int,
        **how: Any,
    ) -> Particles:
        """Draws, with the divergences in the place of both densities."""
        return super().run(
            model,
            guide,
            args,
            kwargs,
            max_plate_nesting,
            ratio=_Divergences(max_plate_nesting),
            **how,
        )


class _Divergences:
    """KL(q || p), where it is known, for log q(z) - log p(z)."""

    def __init__(self, max_plate_nesting: int) -> None:
        self.max_plate_nesting = max_plate_nesting
        self.terms: dict[str, Tensor] = {}

    def covers(self, model: Sites, guide: Sites) -> Sequence[str]:
        """The sites that have one; it is found once, here."""
        drawn = guide_sites(guide, model)
        layout = Layout.of(model, drawn, self.max_plate_nesting)
        found = {
            name: _divergence(q, model[name])
            for name, q in drawn.items()
            if name in model
            and _is_plain(q, layout.guide_scales[name])
            and _is_plain(model[name], layout.model_scales[name])
        }
        self.terms = {name: term for name, term in found.items() if term is not None}
        return list(self.terms)

    def __call__(
        self, values: Mapping[str, Tensor], model: Sites, guide: Sites, args: Any, kwargs: Any
    ) -> Tensor:
        return reduce(add, self.terms.values())


def _is_plain(site: Site, scale: Scale) -> bool:
    is_chosen = site.is_observed or site.is_downstream or site.mask is not None
    is_whole = isinstance(scale, float) and scale == 1.0
    return site.has_rsample and is_whole and not is_chosen


def _divergence(q: Site, p: Site) -> Tensor | None:
    try:
        return kl_divergence(q.fn, p.fn)
    except NotImplementedError:
        return None
