"""Contract checks that any model or guide can be put through, the user's own included."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from importlib import import_module
from pkgutil import walk_packages
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_lvm import gradients
from pyro_lvm.errors import explain
from pyro_lvm.masking import masked_log_prob
from pyro_lvm.objective import Objective
from pyro_lvm.objectives import ELBO
from pyro_lvm.oracles import LinearGaussian
from pyro_lvm.parameters import allow_local_parameters
from pyro_lvm.tracing import Recorder, Site, record

__all__ = ["ContractError", "check_guide", "check_model", "check_objective", "discover"]

Program = Callable[..., Any]
Values = Mapping[str, Tensor]

_ANY_NESTING = 1_000_000
_STANDARD_ERRORS = 6  # a chance of 2e-9 a number, over hundreds of numbers


class ContractError(AssertionError):
    """A model or guide that does not keep what the others rely on."""


def discover(package: str, base: type = PyroModule) -> list[type]:
    """The public classes of a package's modules that are subclasses of ``base``, by name.

    Classes that another one extends are left out: a class is a base or a choice, not both.

    Args:
        package: import name of the package.
        base: what they have in common.

    Example:
        >>> [found.__name__ for found in discover("pyro_lvm.guides")]
        ['AmortizedNormal', 'HierarchicalNormal']
    """
    root = import_module(package)
    names = [found.name for found in walk_packages(root.__path__, f"{package}.")]
    modules = [import_module(name) for name in sorted(names)]
    public = [getattr(module, name) for module in modules for name in module.__all__]
    classes = {c for c in public if isinstance(c, type) and issubclass(c, base)}
    leaves = [c for c in classes if not any(c in d.__mro__[1:] for d in classes)]
    return sorted(leaves, key=lambda c: c.__name__)


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
        sites = _sites(guide, x)
        values = {name: site.value for name, site in sites.items()}
        _check_gradients(guide, ELBO(num_particles=2).differentiable_loss(model, guide, x))
        for site in sites.values():
            _check_density(site, num_draws)
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
            allow_local_parameters(program)
        yield


def _require(holds: bool, where: str, expected: str, found: object, hint: str) -> None:
    if not holds:
        raise ContractError(explain(where, expected, str(found), hint))


def _sites(
    program: Program, *args: Any, given: Values | None = None, **kwargs: Any
) -> dict[str, Site]:
    return record(program, args, kwargs, Recorder(None, _ANY_NESTING, given)).sites


def _log_prob(program: Program, x: Tensor, values: Values) -> Tensor:  # (*left, B)
    """Log-probability of each datum: of ``values``, and of what the program observes."""
    sites = _sites(program, x, given=values).values()
    terms = [masked_log_prob(s.fn, s.value, s.mask, s.is_observed) for s in sites]
    return sum(terms, torch.zeros_like(terms[0]))


def _prior_draw(model: Program, size: int, observed: str) -> tuple[Tensor, dict[str, Tensor]]:
    sites = _sites(model, size=size)
    hint = "Draw it in plate 'data', and return it."
    _require(observed in sites, "model", f"a site '{observed}'", sorted(sites), hint)
    x = sites.pop(observed).value.detach()
    _require(len(x) == size, f"site '{observed}'", f"{size} data", tuple(x.shape), hint)
    _require(bool(x.isfinite().all()), f"site '{observed}'", "finite draws", "others", hint)
    return x, {name: site.value.detach() for name, site in sites.items()}


def _check_prior_mean(model: Program, num_draws: int, observed: str) -> None:
    site = _sites(model, size=num_draws)[observed]
    error = (site.value - site.fn.mean).detach()
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
    found: Any = [None] * len(parameters)
    if value.requires_grad:
        found = torch.autograd.grad(value, parameters, allow_unused=True)
    for name, gradient in zip(names, found, strict=True):
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
                for frame in site.frames:
                    stack.enter_context(_plate(frame))
                shape = tuple(site.fn.event_shape)
                normal = dist.Normal(site.value.new_zeros(shape), 1.0)
                pyro.sample(name, normal.to_event(len(shape)))

    return model


def _plate(frame: Any) -> Any:
    indices = None if frame.full_size == frame.size else torch.arange(frame.size)
    return pyro.plate(frame.name, frame.full_size, subsample=indices, dim=frame.dim)


def _check_density(site: Site, num_draws: int) -> None:
    r"""Draws z of a site must give :math:`E[r(z) / q(z)] = 1` for a density r.

    r is a Normal fitted to half of the draws and shrunk, so that the ratio, taken over the
    other half, has little variance.
    """
    draws = site.fn((num_draws,)).detach()  # (draws, B, *event)
    log_q = site.fn.log_prob(draws).detach().double().T
    fitted, tested = draws.flatten(2).double().transpose(0, 1).chunk(2, 1)  # (B, draws, dims)
    centred = fitted - fitted.mean(1, keepdim=True)
    covariance = 0.8 * centred.mT @ centred / fitted.shape[1]
    r = dist.MultivariateNormal(fitted.mean(1, keepdim=True), covariance[:, None])
    ratio = torch.exp(r.log_prob(tested) - log_q[:, -tested.shape[1] :])
    limit = _STANDARD_ERRORS * ratio.std() / ratio.numel() ** 0.5 + 1e-3
    error = (ratio.mean() - 1).abs()
    hint = "Compare the distribution's rsample with its log_prob."
    found = f"mean ratio {ratio.mean():.3g}"
    where = f"log-probability of draws of site '{site.name}'"
    _require(bool(error < limit), where, "that of their distribution", found, hint)


def check_objective(objective: Objective, *, size: int = 6) -> None:
    """Check an objective whose bound is a function of the log-weights, in float64.

    The bound of a datum: the same for permuted particles, raised by c with its log-weights,
    c where they all are c, blind to other data, for any K; its curvature that of autograd.
    The losses: one value and one gradient by every entry point; minibatches that add up and
    are scaled by N/B; log p(x) where the guide is the exact posterior. Copies and a
    ``state_dict`` round trip go on as the original does.

    Args:
        objective: built with any arguments; it is left as it was.
        size: number of data.

    Raises:
        ContractError: the first thing that does not hold.

    Example:
        >>> from pyro_lvm.objectives import IWAE
        >>> check_objective(IWAE(num_particles=5, gradient="dreg"))
    """
    with _strict():
        _check_bound(objective, size)
        for num_particles in {1, 2, objective.num_particles}:
            _check_curvature(objective, _log_weights(num_particles, size))
        oracle = LinearGaussian(torch.randn(3, 2).double(), torch.ones(3).double())
        x = torch.randn(size, 3).double()
        _check_minibatches(objective, oracle, x)
        _check_entry_points(objective, oracle, x)
        _check_copies(objective, oracle, x)


def _log_weights(num_particles: int, size: int) -> Tensor:
    return 2 * torch.randn(num_particles, size, dtype=torch.float64)


def _require_equal(where: str, found: Tensor, expected: Tensor, hint: str) -> None:
    same = found.shape == expected.shape and torch.allclose(found, expected, 1e-9, 1e-9)
    _require(same, where, str(expected.tolist()), found.tolist(), hint)


def _check_bound(objective: Objective, size: int) -> None:
    bound = objective.bound_per_datum
    hint = "Write bound_per_datum as a mean over particles, datum by datum."
    for num_particles in {1, 2, objective.num_particles}:
        log_weights = _log_weights(num_particles, size)
        value = bound(log_weights)
        _require_equal("bound of permuted particles", bound(log_weights.flip(0)), value, hint)
        _require_equal("bound of log-weights + 3", bound(log_weights + 3), value + 3, hint)
        _require_equal("bound of permuted data", bound(log_weights.flip(1)), value.flip(0), hint)
        one_by_one = torch.cat([bound(datum) for datum in log_weights.split(1, 1)])
        _require_equal("bounds of single data", one_by_one, value, hint)
        constant = torch.full_like(log_weights, -700.0)
        _require_equal("bound of equal log-weights", bound(constant), constant[0], hint)


def _check_curvature(objective: Objective, log_weights: Tensor) -> None:
    generic = gradients.curvature(objective.bound_per_datum, log_weights)
    hint = "Correct curvature, or leave it out: the base class has a generic one."
    _require_equal("curvature", objective.curvature(log_weights), generic, hint)


def _check_minibatches(objective: Objective, oracle: LinearGaussian, x: Tensor) -> None:
    """The exact posterior takes the noise away, so every number is known."""
    objective = deepcopy(objective)
    programs = oracle.model, oracle.exact_guide
    exact = oracle.log_evidence(x)
    hint = "Keep the N/B scale and the sum over data out of bound_per_datum."
    halves = torch.cat([objective.bound(*programs, half) for half in x.split(2)])
    _require_equal("bounds of minibatches", halves, exact, hint)
    _require_equal("bound under the exact posterior", objective.bound(*programs, x), exact, hint)
    if _is_plain(objective):
        loss = objective.loss(*programs, x, size=len(x), subsample=torch.arange(2))
        scaled = -exact[:2].sum() * len(x) / 2
        _require_equal("loss of 2 data", torch.tensor(loss, dtype=x.dtype), scaled, hint)


def _is_plain(objective: Objective) -> bool:
    return objective.beta == 1.0 and objective.free_bits == 0.0


def _check_entry_points(objective: Objective, oracle: LinearGaussian, x: Tensor) -> None:
    """The guide is random and trainable; each call starts from one seed and one state."""
    shift = torch.full((2,), 0.3, dtype=torch.float64, requires_grad=True)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x[:, :2] * shift, 1.1).to_event(1))

    def by(name: str) -> tuple[Tensor, Tensor]:
        torch.manual_seed(1)
        shift.grad = None
        fresh: Any = deepcopy(objective)
        call = fresh(oracle.model, guide) if name == "forward" else getattr(fresh, name)
        value = call(x) if name == "forward" else call(oracle.model, guide, x)
        if isinstance(value, Tensor):
            value.backward()
        gradient = torch.zeros_like(shift) if shift.grad is None else shift.grad
        return torch.as_tensor(value, dtype=x.dtype).detach(), gradient

    value, gradient = by("differentiable_loss")
    hint = "Leave the losses to Objective, which derives them from one another."
    for name in ("loss", "loss_and_grads", "forward"):
        found, its_gradient = by(name)
        _require_equal(name, found, value, hint)
        expected = torch.zeros_like(shift) if name == "loss" else gradient
        _require_equal(f"gradient of {name}", its_gradient, expected, hint)


def _check_copies(objective: Objective, oracle: LinearGaussian, x: Tensor) -> None:
    """What goes on from a copy or a loaded state gives the numbers the original gives."""
    original = deepcopy(objective)
    _steps(original, oracle, x)
    restored = deepcopy(objective)
    restored.load_state_dict(original.state_dict())
    expected = _steps(deepcopy(original), oracle, x)
    hint = "Keep all state in state_dict, as numbers and tensors."
    _require_equal("losses after load_state_dict", _steps(restored, oracle, x), expected, hint)
    plain = all(_is_savable(value) for value in original.state_dict().values())
    _require(plain, "state_dict", "numbers and tensors", original.state_dict(), hint)


def _steps(objective: Objective, oracle: LinearGaussian, x: Tensor) -> Tensor:
    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x[:, :2], 1.1).to_event(1))

    torch.manual_seed(2)
    losses = [objective.differentiable_loss(oracle.model, guide, x) for _ in range(3)]
    return torch.stack(losses).detach()


def _is_savable(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(_is_savable(inner) for inner in value.values())
    if isinstance(value, list | tuple):
        return all(_is_savable(inner) for inner in value)
    return value is None or isinstance(value, str | bool | int | float | Tensor)
