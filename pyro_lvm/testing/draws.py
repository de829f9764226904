"""Draws of a site, held against its own density, or alone where it has none."""

from __future__ import annotations

from math import prod
from typing import Any

import pyro.distributions as dist
import torch
from torch.distributions import Independent, biject_to

from pyro_lvm.distributions.implicit import is_implicit
from pyro_lvm.testing.contract import require
from pyro_lvm.tracing import Site

__all__ = ["STANDARD_ERRORS", "check_draws", "variable"]

STANDARD_ERRORS = 6  # a chance of 2e-9 a number, over hundreds of numbers


def check_draws(site: Site, num_draws: int) -> None:
    """Draws must agree with the site's density; without one, they must be independent noise.

    Args:
        site: a site in the plate "data", of at least two data.
        num_draws: draws to make.

    Raises:
        ContractError: they do not.
    """
    if is_implicit(site.fn):
        check = _independence
    else:
        check = _frequencies if site.fn.support.is_discrete else _density
    check(site, num_draws)


def _density(site: Site, num_draws: int) -> None:
    r"""Draws z of a site must give :math:`E[r(z) / q(z)] = 1` for a density r.

    r is a Normal fitted to half of the draws and shrunk, so that the ratio, taken over the
    other half, has little variance. A bounded site is checked in unbounded coordinates.
    """
    draws = site.fn((num_draws,)).detach()  # (draws, B, *event)
    to_support = biject_to(site.fn.support)
    free = to_support.inv(draws.double())
    volume = to_support.log_abs_det_jacobian(free, draws.double())
    log_q = (site.fn.log_prob(draws).detach().double() + volume).T
    fitted, tested = free.flatten(2).transpose(0, 1).chunk(2, 1)  # (B, draws, dims)
    centred = fitted - fitted.mean(1, keepdim=True)
    covariance = 0.8 * centred.mT @ centred / fitted.shape[1]
    r = dist.MultivariateNormal(fitted.mean(1, keepdim=True), covariance[:, None])
    ratio = torch.exp(r.log_prob(tested) - log_q[:, -tested.shape[1] :])
    limit = STANDARD_ERRORS * ratio.std() / ratio.numel() ** 0.5 + 1e-3
    error = (ratio.mean() - 1).abs()
    hint = "Compare the distribution's rsample with its log_prob."
    found = f"mean ratio {ratio.mean():.3g}"
    where = f"log-probability of draws of site '{site.name}'"
    require(bool(error < limit), where, "that of their distribution", found, hint)


def _frequencies(site: Site, num_draws: int) -> None:
    """How often each value of each variable is drawn must be its probability."""
    draws = site.fn((num_draws,)).detach()
    fn = variable(site)
    support = fn.enumerate_support()  # (values, *batch, *event)
    probability = fn.log_prob(support).detach().exp()
    hits = draws == support.unsqueeze(1)  # (values, draws, *batch, *event)
    hits = hits.reshape(*hits.shape[:2], *fn.batch_shape, -1).all(-1)
    frequency = hits.to(probability.dtype).mean(1)  # (values, *batch)
    deviation = (probability * (1 - probability) / num_draws).sqrt()
    limit = STANDARD_ERRORS * deviation + 20 / num_draws
    worst = ((frequency - probability).abs() / limit).max()
    where = f"frequency of draws of site '{site.name}'"
    hint = "Compare the distribution's sample with its log_prob."
    require(bool(worst < 1), where, "its probability", f"{worst:.2g} times the limit", hint)


def _independence(site: Site, num_draws: int) -> None:
    """Each draw of each datum must have noise of its own."""
    draws = site.fn((num_draws,)).detach().double()
    draws = draws.reshape(num_draws, prod(site.fn.batch_shape), -1)  # (draws, data, features)
    where = f"draws of site '{site.name}'"
    hint = "Draw noise of shape sample_shape + (*batch, ...)."
    spread = draws.std(0)
    varies = bool(draws.isfinite().all() & (spread > 0).all())
    require(varies, where, "finite ones that vary", "others", hint)
    z = (draws - draws.mean(0)) / spread
    limit = STANDARD_ERRORS / num_draws**0.5
    for of, product in {"data": z[:, 1:] * z[:, :-1], "draws": z[1:] * z[:-1]}.items():
        correlation = product.mean(0).abs()
        found = f"correlations of {correlation.max():.2g}" if correlation.numel() else "none"
        require(bool((correlation < limit).all()), where, f"independent {of}", found, hint)


def variable(site: Site) -> Any:
    """The distribution without its declared event dims."""
    fn = site.fn
    while isinstance(fn, Independent):
        fn = fn.base_dist
    return fn
