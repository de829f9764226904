r"""What a discriminator tells the guide's draws from, and the log-ratio that follows.

A discriminator trained to tell draws of the guide (label 1) from draws of a contrast r
(label 0) has the logit :math:`T = \log q(z \mid x) - \log r(z \mid x)`. With the prior as
contrast, T is the log-ratio wanted. Where guide and prior are far apart T cannot be learned;
a Gaussian with the guide's own moments is near the guide, and the rest of the log-ratio,
:math:`\log r(z \mid x) - \log p(z)`, is known.

References:
    Mescheder, Nowozin, Geiger (2017), *Adversarial variational Bayes*, arXiv:1701.04722,
    section 3.3 for the adaptive contrast.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import add
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.distributions import Normal

from pyro_lvm.densities import log_prob
from pyro_lvm.distributions.implicit import is_implicit
from pyro_lvm.errors import DensityError, ProgramError, explain
from pyro_lvm.tracing import Site

__all__ = ["CONTRASTS", "Contrast", "Covered", "adaptive", "prior"]


class Covered(NamedTuple):
    """The latent sites that a ratio covers: as model and guide ran them, and their values.

    All in the same plates; together they are one vector a datum.
    """

    model: Sequence[Site]
    guide: Sequence[Site]
    values: Sequence[Tensor]

    def joined(self, values: Sequence[Tensor]) -> Tensor:  # (*left, features)
        """Values ``(*left, *event)`` of the sites, side by side."""
        sites = zip(values, self.model, strict=True)
        return torch.cat(
            [v.reshape(*v.shape[: v.dim() - s.fn.event_dim], -1) for v, s in sites], -1
        )

    def fresh(self, sites: Sequence[Site], count: int) -> Tensor:  # (count, *batch, features)
        """New draws at ``sites``, without gradient, of the distributions already computed."""
        with torch.no_grad():
            return self.joined([site.fn.sample((count,)) for site in sites])


class Contrasted(NamedTuple):
    """One step's view of the latents, and what the logit lacks.

    Attributes:
        draws: the guide's draws as the discriminator sees them, ``(K, *plates, features)``.
        others: draws of the contrast, of the same shape.
        offset: ``(K, *plates)`` nats to add to the logit for the log-ratio.
    """

    draws: Tensor
    others: Tensor
    offset: Tensor | float


class Contrast(Protocol):
    """Prepares one step from the covered sites."""

    def __call__(self, covered: Covered) -> Contrasted: ...


def prior(covered: Covered) -> Contrasted:
    """Against draws of the model's prior; its own parameters get no gradient from T."""
    draws = covered.joined(covered.values)
    for site in covered.model:
        if site.is_downstream:
            raise _depends(site, "prior", "Use contrast='adaptive', which scores the prior.")
    others = covered.fresh(covered.model, draws.shape[0])
    plates = (1,) * (draws.dim() - others.dim()) + others.shape[1:]
    return Contrasted(draws, others.reshape(-1, *plates).expand_as(draws), 0.0)


def adaptive(covered: Covered, num_draws: int = 64) -> Contrasted:
    """Against a Gaussian with the moments of ``num_draws`` fresh draws of each datum's guide.

    The discriminator sees the latents standardised by them. The prior needs a density.
    """
    draws = covered.joined(covered.values)
    for site in covered.guide:
        if site.is_downstream:
            raise _depends(site, "guide", "Make the sites one site, or use contrast='prior'.")
    count = -(-num_draws // draws.shape[0])
    sample = covered.fresh(covered.guide, count).flatten(0, 1)  # (draws, *plates, features)
    mean, scale = sample.mean(0), sample.std(0) + torch.finfo(sample.dtype).eps
    log_r = Normal(mean, scale).log_prob(draws).sum(-1)
    for site in covered.model:
        if is_implicit(site.fn):
            raise _no_prior(site)
    sites = zip(covered.model, covered.values, strict=True)
    log_p = reduce(add, [log_prob(site, value) for site, value in sites])
    return Contrasted((draws - mean) / scale, torch.randn_like(draws), log_r - log_p)


CONTRASTS: dict[str, Contrast] = {"prior": prior, "adaptive": adaptive}


def _no_prior(site: Site) -> DensityError:
    return DensityError(
        explain(
            f"site '{site.name}'",
            "a prior with a density, which contrast='adaptive' scores",
            "Implicit: it can be drawn from, and has no density",
            "Pass contrast='prior'.",
        )
    )


def _depends(site: Site, program: str, hint: str) -> ProgramError:
    return ProgramError(
        explain(
            f"site '{site.name}'",
            f"a {program} that depends on no other latent site, to be drawn from again",
            f"one that does, {type(site.fn).__name__}",
            hint,
        )
    )
