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
from torch.nn.functional import one_hot

from pyro_lvm.distributions.implicit import is_implicit
from pyro_lvm.masking import masked_log_prob
from pyro_lvm.objectives import ELBO, SIVI
from pyro_lvm.testing.contract import ROUNDING, require, strict
from pyro_lvm.testing.draws import STANDARD_ERRORS, check_draws, variable
from pyro_lvm.testing.implicit import check_data_apart, path_loss, seeded_draws
from pyro_lvm.tracing import Recorder, Site, record

__all__ = ["check_guide", "check_model"]

Program = Callable[..., Any]
Values = Mapping[str, Tensor]

_ANY_NESTING = 1_000_000


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
        drawn = {n: site for n, site in sites.items() if not site.is_observed}
        latent = {n: _held(site) for n, site in drawn.items() if n not in observed}
        _check_prior_mean(model, num_draws, observed)
        _check_left_dims(model, x, latent, size)
        _check_permutes(model, x, latent)
        _check_gradients(model, _log_prob(model, x, latent).sum())
        _check_state_dict(model, lambda program: _log_prob(program, x, latent))
        _check_store()


def check_guide(
    guide: nn.Module, x: Tensor, model: Program | None = None, *, num_draws: int = 4000
) -> None:
    """Check a guide of independent data, ``guide(x)``.

    Sites and plates that match the model's; a gradient for every parameter; draws that agree
    with the log-probabilities; data that permute; ``state_dict``; an empty parameter store;
    no warnings. At sites without density: gradients through the draws, independent draws. A
    guide that has such sites is compared, between data and after ``state_dict``, by its draws
    from one seed. Auxiliary sites are averaged out of the loss, and are as others besides.

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
        has_density = not any(is_implicit(site.fn) for site in sites.values())
        loss = _scored_loss(sites) if has_density else path_loss
        _check_gradients(guide, loss(model, guide, x))
        for site in sites.values():
            check_draws(site, num_draws)
        if has_density:
            _check_permutes(guide, x, values)
            _check_state_dict(guide, lambda program: _log_prob(program, x, values))
        else:
            check_data_apart(guide, x)
            _check_state_dict(guide, lambda program: seeded_draws(program, x))
        _check_store()


def _scored_loss(sites: Mapping[str, Site]) -> Callable[..., Tensor]:
    """With a gradient also where there is no path derivative, or averaged over mixing variables."""
    if any(site.is_auxiliary for site in sites.values()):
        return SIVI(num_particles=2, num_mixing=2).differentiable_loss
    return ELBO(num_particles=2, gradient="score").differentiable_loss


def _sites(
    program: Program, *args: Any, given: Values | None = None, **kwargs: Any
) -> dict[str, Site]:
    return record(program, args, kwargs, Recorder(None, _ANY_NESTING, given)).sites


def _log_prob(program: Program, x: Tensor, values: Values) -> Tensor:  # (*left, B)
    """Log-probability of each datum, at sites with a density: of ``values`` and of what is seen."""
    every = _sites(program, x, given=values).values()
    sites = [site for site in every if not is_implicit(site.fn)]
    terms = [masked_log_prob(s.fn, s.value, s.mask, s.is_observed) for s in sites]
    return sum(terms, torch.zeros_like(terms[0]))


def _held(site: Site) -> Tensor:
    """A prior's draw, as a fixed value; without a density, its parameters act through it."""
    return site.value if is_implicit(site.fn) else site.value.detach()


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
    observed = [n for n, site in sites.items() if site.is_observed and not site.is_factor]
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
        limit = STANDARD_ERRORS * error.std(0) / num_draws**0.5 + 1e-5
        worst = (error.mean(0).abs() / limit).max()
        where, found = f"prior-predictive mean of '{name}'", f"{worst:.2g} times the limit"
        require(bool(worst < 1), where, "the distribution's", found, hint)


def _deviation(site: Site) -> Tensor:
    """Of each draw from the mean; of each symbol's indicator, where symbols have no mean."""
    value: Tensor = site.value
    mean: Tensor = site.fn.mean
    fn = variable(site)
    if isinstance(fn, dist.Categorical):
        mean = fn.probs
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
    same = torch.allclose(together, alone, rtol=ROUNDING, atol=ROUNDING)
    require(same, "model", "the same for each particle alone", "another value", hint)


def _check_permutes(program: Program, x: Tensor, values: Values) -> None:
    hint = "Keep data apart: no batch norm, no sum over the batch."
    log_prob = _log_prob(program, x, values)
    expected = f"one log-probability a datum, shape ({len(x)},)"
    require(log_prob.shape == (len(x),), "program", expected, tuple(log_prob.shape), hint)
    permuted = _log_prob(program, x.flip(0), {name: z.flip(0) for name, z in values.items()})
    same = torch.allclose(permuted, log_prob.flip(0), rtol=ROUNDING, atol=ROUNDING)
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


def _check_state_dict(program: nn.Module, behaviour: Callable[[nn.Module], Tensor]) -> None:
    copy = deepcopy(program)
    with torch.no_grad():
        for parameter in copy.parameters():
            parameter.add_(0.1)
    copy.load_state_dict(program.state_dict())
    same = torch.equal(behaviour(copy), behaviour(program))
    hint = "Keep all state in parameters and buffers."
    require(same, "state_dict", "the same program after a round trip", "another", hint)


def _check_store() -> None:
    names = list(pyro.get_param_store())
    hint = "Make them module parameters (PyroParam), in place of pyro.param."
    require(not names, "parameter store", "nothing in it", names, hint)


def _standard_model(guide: Program, x: Tensor) -> Program:
    """A standard Normal, of the right shape and plates, at each latent site of the guide."""
    sites = {name: site for name, site in _sites(guide, x).items() if not site.is_auxiliary}

    def model(x: Tensor) -> None:
        for name, site in sites.items():
            with ExitStack() as stack:
                for frame in site.frames:
                    stack.enter_context(_plate(frame))
                shape = tuple(site.fn.event_shape)
                normal = dist.Normal(_floating(site).new_zeros(shape), 1.0)
                pyro.sample(name, normal.to_event(len(shape)))

    return model


def _floating(site: Site) -> Tensor:
    """A tensor of the site's floating type, also where its draws are integers."""
    value = site.value
    return value if value.is_floating_point() else site.fn.log_prob(value)


def _plate(frame: Any) -> Any:
    indices = None if frame.full_size == frame.size else torch.arange(frame.size)
    return pyro.plate(frame.name, frame.full_size, subsample=indices, dim=frame.dim)
