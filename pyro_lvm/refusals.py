"""What an objective refuses, and the errors that say why."""

from __future__ import annotations

from inspect import isabstract
from math import inf
from operator import index
from typing import Any

import pyro
import torch

from pyro_lvm.checks import nonfinite_data
from pyro_lvm.errors import NonFiniteError, ParameterError, PlateError, ProgramError, explain
from pyro_lvm.nonfinite import describe_nonfinite
from pyro_lvm.parameters import stepped_by_svi
from pyro_lvm.particles import Particles

__all__ = [
    "check_arguments",
    "check_extension",
    "check_subsampling",
    "check_trainable_by_svi",
    "nonfinite_loss",
]

_DERIVED = ("loss", "loss_and_grads", "differentiable_loss", "bound", "log_weights", "particles")


def check_extension(cls: type, base: type) -> None:
    """Refuse to extend a finished class, or to hide what ``base`` derives."""
    concrete = [b for b in cls.__mro__[1:-1] if issubclass(b, base) and not isabstract(b)]
    if concrete:
        raise TypeError(
            explain(
                f"class {cls.__name__}",
                f"an abstract base, such as {base.__name__}",
                f"the finished objective {concrete[0].__name__}",
                f"Extend {base.__name__} and write bound_per_datum.",
            )
        )
    if hidden := sorted(set(_DERIVED) & set(vars(cls))):
        raise TypeError(
            explain(
                f"class {cls.__name__}",
                f"{', '.join(_DERIVED)} as {base.__name__} derives them",
                f"its own {hidden[0]}",
                "Write bound_per_datum, or a gradient in pyro_lvm.gradients.",
            )
        )


def check_arguments(objective: Any) -> None:
    """Refuse arguments out of range, and gradients that are biased for the bound."""
    count, nesting, free_bits = (
        objective.num_particles,
        objective.max_plate_nesting,
        objective.free_bits,
    )
    least = objective.min_particles
    if not _is_count(count) or count < least:
        raise _argument("num_particles", f"an integer >= {least}", count, str(least))
    if nesting is not None and not _is_count(nesting, 0):
        raise _argument("max_plate_nesting", "an integer >= 0", nesting, "1")
    chunk = objective.chunk_particles
    if chunk is not None and not _is_count(chunk):
        raise _argument("chunk_particles", "an integer >= 1", chunk, "50")
    if objective.gradient not in objective.takes:
        first, found = repr(objective.takes[0]), objective.gradient
        raise _argument("gradient", f"one of {sorted(objective.takes)}", found, first)
    if not _is_amount(free_bits):
        raise _argument("free_bits", "a number >= 0", free_bits, "0.0")
    if not (callable(objective.beta) or _is_amount(objective.beta)):
        expected = "a number >= 0, or a function from the step to one"
        raise _argument("beta", expected, objective.beta, "1.0")
    _check_gradient(objective)


def _check_gradient(objective: Any) -> None:
    gradient, count = objective.gradient, objective.num_particles
    curved = not objective.is_linear and count > 1
    if gradient in ("vimco", "ovis") and count < 2:
        raise _argument("num_particles", f"K >= 2 with gradient={gradient!r}", count, "5")
    if gradient == "ovis" and not _survives_zero_weights(objective):
        raise ProgramError(
            explain(
                f"{type(objective).__name__}(gradient='ovis')",
                "a bound that stays finite where one weight is zero",
                "one that does not",
                "Use gradient='vimco' or 'score'; 'ovis' is for importance-weighted bounds.",
            )
        )
    if gradient == "stl" and curved and gradient not in objective.takes_biased:
        raise ProgramError(
            explain(
                f"{type(objective).__name__}(gradient='stl')",
                "an unbiased gradient for K > 1",
                "the sticking-the-landing one, which is biased for a non-linear bound",
                "Use gradient='dreg', which has low variance and the right mean.",
            )
        )
    if gradient == "dreg" and curved and objective.free_bits:
        wanted = "0 with gradient='dreg' and K > 1"
        raise _argument("free_bits", wanted, objective.free_bits, "0.0")


def _survives_zero_weights(objective: Any) -> bool:
    log_weights = torch.zeros(objective.num_particles, 1)
    log_weights[0] = -inf
    return bool(objective.bound_per_datum(log_weights).isfinite().all())


def _is_count(number: Any, least: int = 1) -> bool:
    try:
        return index(number) >= least
    except TypeError:
        return False


def _is_amount(number: Any) -> bool:
    """Whether it is a number >= 0, in a tensor perhaps, and not NaN."""
    try:
        return bool(number >= 0)
    except TypeError:
        return False


def _argument(name: str, expected: str, found: Any, instead: str) -> ProgramError:
    return ProgramError(explain(name, expected, repr(found), f"Pass {name}={instead}."))


def check_subsampling(objective: Any, particles: Particles) -> None:
    """Refuse a minibatch inside a joint weight, but for a bound that is linear in it."""
    layout = particles.layout
    if layout is None or not layout.subsampled_inside:
        return
    if objective.is_linear or objective.num_particles == 1:
        return
    raise PlateError(
        explain(
            f"plate '{layout.subsampled_inside[0]}'",
            f"every site inside it, for {type(objective).__name__} with K > 1 on a minibatch",
            "a site outside it: its joint weight needs all the data, and N/B inside a "
            "log-sum-exp is no bound",
            "Use ELBO, or pass the full data, or move the global variable to a parameter.",
        )
    )


def check_trainable_by_svi() -> None:
    """``SVI.step`` unconstrains every parameter it saw, and plain module ones cannot be."""
    step = stepped_by_svi()
    if step is None or not pyro.settings.get("module_local_params"):
        return
    plain = [n for n, s in step.trace.nodes.items() if not hasattr(s["value"], "unconstrained")]
    if plain:
        raise ParameterError(
            explain(
                f"parameter '{plain[0]}'",
                "a parameter of Pyro's store, which is what SVI.step trains",
                "a module's own parameter, as module_local_params is on",
                "Use pyro_lvm.fit, or a torch optimiser on objective(model, guide), or turn "
                "module_local_params off.",
            )
        )


def nonfinite_loss(particles: Particles, value: float) -> ValueError:
    """The error for a loss that is NaN or infinite: the data's fault, or a site's."""
    for site in particles.model.values():
        if site.is_observed and (error := nonfinite_data(site)):
            return error
    return NonFiniteError(
        explain(
            "loss",
            "a finite number",
            f"{value}, from {describe_nonfinite(particles)}",
            "Lower the learning rate, clip gradients, or keep scales away from 0.",
        )
    )
