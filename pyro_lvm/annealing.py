r"""KL warm-up and free bits: training-time changes of the log-weights.

With :math:`\beta` the weight is :math:`\log p(x \mid z) + \beta (\log p(z) - \log q(z))`
(Sønderby et al. 2016, arXiv:1602.02282). Free bits replace a site's KL term by
:math:`\max(\lambda, \overline{\mathrm{KL}})`, the mean over the minibatch (Kingma et al.
2016, arXiv:1606.04934). Neither changes ``bound`` or ``log_weights``, which
stay those of the model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_lvm.errors import ProgramError, explain
from pyro_lvm.particles import Part, Particles, names_within

__all__ = ["LinearWarmup", "Schedule", "annealed_log_weights", "at_step", "reads_parts"]

Schedule = float | Callable[[int], float]
"""A number, or a function of the training step."""


def at_step(schedule: Schedule, step: int) -> float:
    """What a schedule holds at a step."""
    return schedule(step) if callable(schedule) else schedule


@dataclass(frozen=True)
class LinearWarmup:
    """Factor that rises linearly from ``start`` to 1 over ``num_steps`` training steps.

    Raises:
        ProgramError: less than one step.

    Example:
        >>> warmup = LinearWarmup(num_steps=10)
        >>> warmup(0), warmup(5), warmup(20)
        (0.0, 0.5, 1.0)
    """

    num_steps: int
    start: float = 0.0

    def __post_init__(self) -> None:
        if self.num_steps < 1:
            hint = "Leave beta at 1.0 for no warm-up."
            raise ProgramError(explain("num_steps", "a number >= 1", repr(self.num_steps), hint))

    def __call__(self, step: int) -> float:
        return min(1.0, self.start + (1.0 - self.start) * step / self.num_steps)


def reads_parts(beta: float | Tensor, free_bits: float) -> bool:
    """Whether :func:`annealed_log_weights` needs log-probabilities by site."""
    return not (isinstance(beta, float) and beta == 1.0 and free_bits == 0.0)


def annealed_log_weights(
    particles: Particles, beta: float | Tensor, free_bits: float
) -> Tensor:  # (K, *batch)
    """Log-weights in nats with the KL terms scaled by ``beta`` and floored by ``free_bits``."""
    if not reads_parts(beta, free_bits):
        return particles.log_weights
    terms = [_floored(beta * term, free_bits) for term in _kl_terms(particles)]
    return sum([*_likelihood(particles), *terms], torch.zeros_like(particles.log_p))


def _likelihood(particles: Particles) -> list[Tensor]:
    parts = particles.parts.items()
    return [p.log_p for n, p in parts if p.log_p is not None and not _is_of_latents(n, particles)]


def _kl_terms(particles: Particles) -> list[Tensor]:
    """Log-ratios p over q by latent site; in one sum where the sites do not pair up."""
    parts = [p for n, p in particles.parts.items() if _is_of_latents(n, particles)]
    if any(part.log_p is None or part.log_q is None for part in parts):
        return [sum((_log_ratio(part) for part in parts), torch.zeros_like(particles.log_p))]
    return [_log_ratio(part) for part in parts]


def _is_of_latents(name: str, particles: Particles) -> bool:
    """Whether a part, of several sites in one sum perhaps, holds densities of the guide's draws."""
    if particles.parts[name].log_q is not None:
        return True
    sites = names_within(name, particles)
    drawn = [n for n in sites if n in particles.guide and not particles.guide[n].is_observed]
    data = [n for n in sites if drawn and particles.model[n].is_observed]
    if data:
        raise _inseparable(drawn[0], data[0])
    return bool(drawn)


def _inseparable(latent: str, data: str) -> ProgramError:
    return ProgramError(
        explain(
            f"sites '{latent}' and '{data}'",
            "a prior apart from the likelihood, for beta and free_bits",
            "one sum of both, over a site that the guide does not draw",
            "Draw that site in the guide, or leave beta at 1 and free_bits at 0.",
        )
    )


def _log_ratio(part: Part) -> Tensor:
    log_q = part.log_q if part.log_q is not None else 0.0
    return part.log_p - log_q if part.log_p is not None else torch.as_tensor(-log_q)


def _floored(term: Tensor, free_bits: float) -> Tensor:
    """A constant -free_bits, without gradient, while the mean KL is below it."""
    if free_bits == 0.0:
        return term
    is_free = -term.detach().mean() < free_bits
    return torch.where(is_free, torch.full_like(term, -free_bits), term)
