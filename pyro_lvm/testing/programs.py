"""Contract of models and guides."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from copy import deepcopy
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import Independent, biject_to
from torch.nn.functional import one_hot

from pyro_lvm.masking import masked_log_prob
from pyro_lvm.objectives import ELBO
from pyro_lvm.testing.contract import require, strict
from pyro_lvm.tracing import Recorder, Site, record

__all__ = ["check_guide", "check_model"]

Program = Callable[..., Any]
Values = Mapping[str, Tensor]

_ANY_NESTING = 1_000_000
_ROUNDING = 1e-4  # of float32 sums over features and networks
_STANDARD_ERRORS = 6  # a chance of 2e-9 a number, over hundreds of numbers


def check_model(model: nn.Module, *, size: int = 6, num_draws: int = 2000) -> None:
    """Check a model of independent data, ``model(x=None, *, size=1)``, which returns ``x``.

    Prior-predictive shapes and mean; one log-probability a datum, for any left dims of the
    latent sites; data that permute; a gradient for every parameter; ``state_dict``; an empty
    parameter store; no warnings.

    Args:
        model: a module with its sites in the plate "data" at dim -1: latent ones, and those
            that observe ``x``, which may be one for each step of a sequence.
        size: data to draw for all checks but that of the mean.
        num_draws: data to draw for that of the mean.

    Raises:
        ContractError: the first thing that does not hold.

    Example:
        >>> from pyro_lvm.models import FactorAnalysis
        >>> check_model(FactorAnalysis(in_features=3, latent_features=2))
    """
    with strict(model):
        x, sites = _prior_draw(model, size)
        observed = _check_observed(model, x)
        latent = {name: site.value.detach() for name, site in sites.items() if name not in observed}
        _check_prior_mean(model, num_draws, observed)
        _check_left_dims(model, x, latent, size)
        _check_permutes(model, x, latent)
        _check_gradients(model, _log_prob(model, x, latent).sum())
        _check_state_dict(model, x, latent)
        _check_store()


def check_guide(
    guide: nn.Module, x: Tensor, model: Program | None = None, *, num_draws: int = 4000
) -> None:
    """Check a guide of independent data, ``guide(x)``, with an explicit density.

    Sites and plates that match the model's; a gradient for every parameter; draws that agree
    with the log-probabilities; data that permute; ``state_dict``; an empty parameter store;
    no warnings.

    Args:
        guide: a module with its sites in the plate "data" at dim -1; a discrete site is made
            of variables that can be enumerated.
        x: ``(B, ...)`` data, B > 1.
        model: the model it is for; a standard Normal at each of its sites if left out.
        num_draws: draws for the check of the log-probabilities.

    Raises:
        ContractError: the first thing that does not hold.
        ProgramError: sites or plates do not match.

    Example:
        >>> from pyro_lvm.guides import AmortizedNormal
        >>> check_guide(AmortizedNormal(in_features=3, latent_features=2), torch.randn(5, 3))
    """
    with strict(guide, model):
        model = model or _standard_model(guide, x)
        sites = _sites(guide, x)
        values = {name: site.value for name, site in sites.items()}
        objective = ELBO(num_particles=2, gradient="score")  # where there is no path derivative
        _check_gradients(guide, objective.differentiable_loss(model, guide, x))
        for site in sites.values():
            check = _check_frequencies if site.fn.support.is_discrete else _check_density
            check(site, num_draws)
        _check_permutes(guide, x, values)
        _check_state_dict(guide, x, values)
        _check_store()


def _sites(
    program: Program, *args: Any, given: Values | None = None, **kwargs: Any
) -> dict[str, Site]:
    return record(program, args, kwargs, Recorder(None, _ANY_NESTING, given)).sites


def _log_prob(program: Program, x: Tensor, values: Values) -> Tensor:  # (*left, B)
    """Log-probability of each datum: of ``values``, and of what the program observes."""
    sites = _sites(program, x, given=values).values()
    terms = [masked_log_prob(s.fn, s.value, s.mask, s.is_observed) for s in sites]
    return sum(terms, torch.zeros_like(terms[0]))


def _prior_draw(model: Program, size: int) -> tuple[Tensor, dict[str, Site]]:
    """Data and the sites they were drawn at."""
    returned: list[Any] = []
    sites = _sites(lambda: returned.append(model(size=size)))
    x = returned[0]
    hint = "Draw it in plate 'data', and return it."
    is_data = isinstance(x, Tensor) and x.dim() > 0 and len(x) == size
    found = tuple(x.shape) if isinstance(x, Tensor) else x
    require(is_data, "model", f"{size} data returned", found, hint)
    require(bool(x.isfinite().all()), "data drawn from the prior", "finite ones", "others", hint)
    return x.detach(), sites


def _check_observed(model: Program, x: Tensor) -> list[str]:
    """The sites that observe ``x``: some, and nothing of ``x`` is drawn anew."""
    returned: list[Any] = []
    sites = _sites(lambda: returned.append(model(x)))
    observed = [name for name, site in sites.items() if site.is_observed]
    hint = "Pass the data to the site by obs=x."
    require(bool(observed), "model", "a site that observes x", sorted(sites), hint)
    require(torch.equal(returned[0], x), "model(x)", "x returned", "other values", hint)
    return observed


def _check_prior_mean(model: Program, num_draws: int, observed: list[str]) -> None:
    sites = _sites(model, size=num_draws)
    hint = "Compare the distribution's rsample with its mean."
    for name in observed:
        require(name in sites, "model drawing x", f"a site '{name}'", sorted(sites), hint)
        error = _deviation(sites[name])
        limit = _STANDARD_ERRORS * error.std(0) / num_draws**0.5 + 1e-5
        worst = (error.mean(0).abs() / limit).max()
        where, found = f"prior-predictive mean of '{name}'", f"{worst:.2g} times the limit"
        require(bool(worst < 1), where, "the distribution's", found, hint)


def _deviation(site: Site) -> Tensor:
    """Of each draw from the mean; of each symbol's indicator, where symbols have no mean."""
    value: Tensor = site.value
    mean: Tensor = site.fn.mean
    variable = _variable(site)
    if isinstance(variable, dist.Categorical):
        mean = variable.probs
        value = one_hot(value.long(), mean.shape[-1])
    return (value - mean).detach()


def _check_left_dims(model: Program, x: Tensor, latent: Values, size: int) -> None:
    """A particle dim to the left must give what scoring each particle alone gives."""
    particles = [latent, {name: z.flip(0) for name, z in latent.items()}]
    stacked = {name: torch.stack([p[name] for p in particles]) for name in latent}
    together = _log_prob(model, x, stacked)
    hint = "Let networks and distributions broadcast over dims left of the plates."
    expected = f"log-probabilities of shape (2, {size})"
    require(together.shape == (2, size), "model", expected, tuple(together.shape), hint)
    alone = torch.stack([_log_prob(model, x, particle) for particle in particles])
    same = torch.allclose(together, alone, rtol=_ROUNDING, atol=_ROUNDING)
    require(same, "model", "the same for each particle alone", "another value", hint)


def _check_permutes(program: Program, x: Tensor, values: Values) -> None:
    hint = "Keep data apart: no batch norm, no sum over the batch."
    log_prob = _log_prob(program, x, values)
    expected = f"one log-probability a datum, shape ({len(x)},)"
    require(log_prob.shape == (len(x),), "program", expected, tuple(log_prob.shape), hint)
    permuted = _log_prob(program, x.flip(0), {name: z.flip(0) for name, z in values.items()})
    same = torch.allclose(permuted, log_prob.flip(0), rtol=_ROUNDING, atol=_ROUNDING)
    require(same, "permuted data", "permuted log-probabilities", "others", hint)


def _check_gradients(module: nn.Module, value: Tensor) -> None:
    hint = "Use it in forward, or remove it."
    names = [name for name, p in module.named_parameters() if p.requires_grad]
    parameters = [p for p in module.parameters() if p.requires_grad]
    found: Any = [None] * len(parameters)
    if value.requires_grad:
        found = torch.autograd.grad(value, parameters, allow_unused=True)
    for name, gradient in zip(names, found, strict=True):
        reached = gradient is not None and bool(gradient.isfinite().all() & gradient.any())
        require(reached, f"parameter '{name}'", "a finite gradient, not all 0", gradient, hint)


def _check_state_dict(program: nn.Module, x: Tensor, values: Values) -> None:
    copy = deepcopy(program)
    with torch.no_grad():
        for parameter in copy.parameters():
            parameter.add_(0.1)
    copy.load_state_dict(program.state_dict())
    same = torch.equal(_log_prob(copy, x, values), _log_prob(program, x, values))
    hint = "Keep all state in parameters and buffers."
    require(same, "state_dict", "the same program after a round trip", "another", hint)


def _check_store() -> None:
    names = list(pyro.get_param_store())
    hint = "Make them module parameters (PyroParam), in place of pyro.param."
    require(not names, "parameter store", "nothing in it", names, hint)


def _standard_model(guide: Program, x: Tensor) -> Program:
    """A standard Normal, of the right shape and plates, at each site of the guide."""
    sites = _sites(guide, x)

    def model(x: Tensor) -> None:
        for name, site in sites.items():
            with ExitStack() as stack:
                for frame in site.frames:
                    stack.enter_context(_plate(frame))
                shape = tuple(site.fn.event_shape)
                log_prob = site.fn.log_prob(site.value)  # floating, also where draws are integers
                normal = dist.Normal(log_prob.new_zeros(shape), 1.0)
                pyro.sample(name, normal.to_event(len(shape)))

    return model


def _plate(frame: Any) -> Any:
    indices = None if frame.full_size == frame.size else torch.arange(frame.size)
    return pyro.plate(frame.name, frame.full_size, subsample=indices, dim=frame.dim)


def _check_density(site: Site, num_draws: int) -> None:
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
    limit = _STANDARD_ERRORS * ratio.std() / ratio.numel() ** 0.5 + 1e-3
    error = (ratio.mean() - 1).abs()
    hint = "Compare the distribution's rsample with its log_prob."
    found = f"mean ratio {ratio.mean():.3g}"
    where = f"log-probability of draws of site '{site.name}'"
    require(bool(error < limit), where, "that of their distribution", found, hint)


def _check_frequencies(site: Site, num_draws: int) -> None:
    """How often each value of each variable is drawn must be its probability."""
    draws = site.fn((num_draws,)).detach()
    variable = _variable(site)
    support = variable.enumerate_support()  # (values, *batch, *event)
    probability = variable.log_prob(support).detach().exp()
    hits = draws == support.unsqueeze(1)  # (values, draws, *batch, *event)
    hits = hits.reshape(*hits.shape[:2], *variable.batch_shape, -1).all(-1)
    frequency = hits.to(probability.dtype).mean(1)  # (values, *batch)
    deviation = (probability * (1 - probability) / num_draws).sqrt()
    limit = _STANDARD_ERRORS * deviation + 20 / num_draws
    worst = ((frequency - probability).abs() / limit).max()
    where = f"frequency of draws of site '{site.name}'"
    hint = "Compare the distribution's sample with its log_prob."
    require(bool(worst < 1), where, "its probability", f"{worst:.2g} times the limit", hint)


def _variable(site: Site) -> Any:
    """The distribution without its declared event dims."""
    variable = site.fn
    while isinstance(variable, Independent):
        variable = variable.base_dist
    return variable
