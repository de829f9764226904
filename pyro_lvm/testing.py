"""Contract checks that any model or guide can be put through, the user's own included."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor, nn

from pyro_lvm.errors import explain
from pyro_lvm.objectives import ELBO

__all__ = ["ContractError", "check_guide", "check_model"]

Program = Callable[..., Any]
Values = Mapping[str, Tensor]

_STANDARD_ERRORS = 6  # a chance of 2e-9 a number, over hundreds of numbers


class ContractError(AssertionError):
    """A model or guide that does not keep what the others rely on."""


def check_model(
    model: nn.Module, *, size: int = 6, num_draws: int = 2000, observed: str = "x"
) -> None:
    """Check a model of independent data, ``model(x=None, *, size=1)``.

    Prior-predictive shapes and mean; one log-probability a datum, for any left dims of the
    latent sites; data that permute; a gradient for every parameter; ``state_dict``; an empty
    parameter store; no warnings.

    Args:
        model: a module with its sites in the plate "data" at dim -1.
        size: data to draw for all checks but that of the mean.
        num_draws: data to draw for that of the mean.
        observed: name of the observed site.

    Raises:
        ContractError: the first thing that does not hold.

    Example:
        >>> from pyro_lvm.models import FactorAnalysis
        >>> check_model(FactorAnalysis(in_features=3, latent_features=2))
    """
    with _strict(model):
        x, latent = _prior_draw(model, size, observed)
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
        guide: a module with its continuous sites in the plate "data" at dim -1.
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
    with _strict(guide, model):
        model = model or _standard_model(guide, x)
        values = {name: site["value"] for name, site in _sites(guide, x).items()}
        _check_gradients(guide, ELBO(num_particles=2).differentiable_loss(model, guide, x))
        _check_density(model, guide, x, num_draws)
        _check_permutes(guide, x, values)
        _check_state_dict(guide, x, values)
        _check_store()


@contextmanager
def _strict(*programs: object) -> Iterator[None]:
    """Seeded, warnings as errors, Pyro's checks on, parameters local, the store set aside."""
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng())
        stack.enter_context(warnings.catch_warnings())
        stack.enter_context(pyro.validation_enabled())
        stack.enter_context(pyro.settings.context(module_local_params=True))
        stack.enter_context(pyro.get_param_store().scope())
        warnings.simplefilter("error")
        torch.manual_seed(0)
        for program in programs:
            _make_local(program)
        yield


def _make_local(program: object) -> None:
    """Let Pyro modules that were built with ``module_local_params`` off run with it on."""
    parts = program.modules() if isinstance(program, nn.Module) else []
    for part in parts:
        if isinstance(part, PyroModule) and not hasattr(part._pyro_context, "param_state"):
            part._pyro_context.param_state = {"params": {}, "constraints": {}}


def _require(holds: bool, where: str, expected: str, found: object, hint: str) -> None:
    if not holds:
        raise ContractError(explain(where, expected, str(found), hint))


def _sites(program: Program, *args: Any, **kwargs: Any) -> dict[str, Any]:
    trace = pyro.poutine.trace(program).get_trace(*args, **kwargs)
    nodes = prune_subsample_sites(trace).nodes
    return {name: site for name, site in nodes.items() if site["type"] == "sample"}


def _log_prob(program: Program, x: Tensor, values: Values) -> Tensor:  # (*left, B)
    """Log-probability of each datum: of ``values``, and of what the program observes."""
    trace = pyro.poutine.trace(pyro.condition(program, data=values)).get_trace(x)
    trace.compute_log_prob()
    nodes = prune_subsample_sites(trace).nodes.values()
    total: Tensor = sum(site["log_prob"] for site in nodes if site["type"] == "sample")
    return total


def _prior_draw(model: Program, size: int, observed: str) -> tuple[Tensor, dict[str, Tensor]]:
    sites = _sites(model, size=size)
    hint = "Draw it in plate 'data', and return it."
    _require(observed in sites, "model", f"a site '{observed}'", sorted(sites), hint)
    x = sites.pop(observed)["value"].detach()
    _require(len(x) == size, f"site '{observed}'", f"{size} data", tuple(x.shape), hint)
    _require(bool(x.isfinite().all()), f"site '{observed}'", "finite draws", "others", hint)
    return x, {name: site["value"].detach() for name, site in sites.items()}


def _check_prior_mean(model: Program, num_draws: int, observed: str) -> None:
    site = _sites(model, size=num_draws)[observed]
    error = (site["value"] - site["fn"].mean).detach()
    limit = _STANDARD_ERRORS * error.std(0) / num_draws**0.5 + 1e-5
    worst = (error.mean(0).abs() / limit).max()
    hint = "Compare the distribution's rsample with its mean."
    where = f"prior-predictive mean of '{observed}'"
    _require(bool(worst < 1), where, "the distribution's", f"{worst:.2g} times the limit", hint)


def _check_left_dims(model: Program, x: Tensor, latent: Values, size: int) -> None:
    """A particle dim to the left must give what scoring each particle alone gives."""
    particles = [latent, {name: z.flip(0) for name, z in latent.items()}]
    stacked = {name: torch.stack([p[name] for p in particles]) for name in latent}
    together = _log_prob(model, x, stacked)
    hint = "Let networks and distributions broadcast over dims left of the plates."
    expected = f"log-probabilities of shape (2, {size})"
    _require(together.shape == (2, size), "model", expected, tuple(together.shape), hint)
    alone = torch.stack([_log_prob(model, x, particle) for particle in particles])
    same = torch.allclose(together, alone, rtol=1e-4, atol=1e-4)
    _require(same, "model", "the same for each particle alone", "another value", hint)


def _check_permutes(program: Program, x: Tensor, values: Values) -> None:
    hint = "Keep data apart: no batch norm, no sum over the batch."
    log_prob = _log_prob(program, x, values)
    expected = f"one log-probability a datum, shape ({len(x)},)"
    _require(log_prob.shape == (len(x),), "program", expected, tuple(log_prob.shape), hint)
    permuted = _log_prob(program, x.flip(0), {name: z.flip(0) for name, z in values.items()})
    same = torch.allclose(permuted, log_prob.flip(0), rtol=1e-4, atol=1e-4)
    _require(same, "permuted data", "permuted log-probabilities", "others", hint)


def _check_gradients(module: nn.Module, value: Tensor) -> None:
    hint = "Use it in forward, or remove it."
    names = [name for name, p in module.named_parameters() if p.requires_grad]
    parameters = [p for p in module.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(value, parameters, allow_unused=True)
    for name, gradient in zip(names, gradients, strict=True):
        reached = gradient is not None and bool(gradient.isfinite().all() & gradient.any())
        _require(reached, f"parameter '{name}'", "a finite gradient, not all 0", gradient, hint)


def _check_state_dict(program: nn.Module, x: Tensor, values: Values) -> None:
    copy = deepcopy(program)
    with torch.no_grad():
        for parameter in copy.parameters():
            parameter.add_(0.1)
    copy.load_state_dict(program.state_dict())
    same = torch.equal(_log_prob(copy, x, values), _log_prob(program, x, values))
    hint = "Keep all state in parameters and buffers."
    _require(same, "state_dict", "the same program after a round trip", "another", hint)


def _check_store() -> None:
    names = list(pyro.get_param_store())
    hint = "Make them module parameters (PyroParam), in place of pyro.param."
    _require(not names, "parameter store", "nothing in it", names, hint)


def _standard_model(guide: Program, x: Tensor) -> Program:
    """A standard Normal, of the right shape and plates, at each site of the guide."""
    sites = _sites(guide, x)

    def model(x: Tensor) -> None:
        for name, site in sites.items():
            with ExitStack() as stack:
                for frame in site["cond_indep_stack"]:
                    stack.enter_context(_plate(frame))
                shape = tuple(site["fn"].event_shape)
                normal = dist.Normal(torch.zeros_like(site["value"]).new_zeros(shape), 1.0)
                pyro.sample(name, normal.to_event(len(shape)))

    return model


def _plate(frame: Any) -> Any:
    indices = None if frame.full_size == frame.size else torch.arange(frame.size)
    return pyro.plate(frame.name, frame.full_size, subsample=indices, dim=frame.dim)


def _check_density(model: Program, guide: Program, x: Tensor, num_draws: int) -> None:
    r"""Draws z from q must give :math:`E[r(z) / q(z)] = 1` for a density r.

    r is a Normal fitted to half of the draws and shrunk, so that the ratio, taken over the
    other half, has little variance.
    """
    particles = ELBO(num_particles=num_draws).particles(model, guide, x)
    draws = torch.cat([value.flatten(2) for value in particles.values.values()], -1)
    fitted, tested = draws.double().transpose(0, 1).chunk(2, 1)  # (B, draws, dims)
    centred = fitted - fitted.mean(1, keepdim=True)
    covariance = 0.8 * centred.mT @ centred / fitted.shape[1]
    r = dist.MultivariateNormal(fitted.mean(1, keepdim=True), covariance[:, None])
    ratio = torch.exp(r.log_prob(tested) - particles.log_q.double().T[:, -tested.shape[1] :])
    limit = _STANDARD_ERRORS * ratio.std() / ratio.numel() ** 0.5 + 1e-3
    error = (ratio.mean() - 1).abs()
    hint = "Compare the distribution's rsample with its log_prob."
    found = f"mean ratio {ratio.mean():.3g}"
    _require(bool(error < limit), "log-probability of the draws", "theirs", found, hint)
