r"""Gradient estimators of any bound that is a function of the log-weights.

Each takes the bound :math:`B(\log w_1, \dots, \log w_K)` of one datum and returns its value
with an unbiased gradient of :math:`\mathbb E[B]` attached, for model and guide alike. With
:math:`v_k = \partial B / \partial \log w_k` and the path derivative
:math:`\mathrm{path}_k = \partial_z \log w_k \cdot \partial_\phi z_k`:

==========  ==============================================================================
reparam     :math:`\sum_k v_k (\mathrm{path}_k - \partial_\phi \log q(z_k))`
stl         :math:`\sum_k v_k \mathrm{path}_k`; unbiased where :math:`v_k` is constant
dreg        :math:`\sum_k (v_k - \partial v_k / \partial \log w_k)\, \mathrm{path}_k`
score       reparam with samples fixed, plus
            :math:`\sum_k (B - B_{-k})\, \partial_\phi \log q(z_k)`,
            :math:`B_{-k}` the bound of the other draws
vimco       the same with :math:`\log w_k` replaced by the mean of the others in
            :math:`B_{-k}`
ovis        the same with :math:`w_k` replaced by zero in :math:`B_{-k}`
==========  ==============================================================================

Where autograd has applied :math:`v_k`, dreg is left to multiply the path by one minus the
bound's elasticity :math:`\partial \log v_k / \partial \log w_k`. It follows from
:math:`\mathbb E_q[f(z) \partial_\phi \log q(z)] = \mathbb E[\partial_z f \cdot
\partial_\phi z]` with :math:`f = v_k`; for the importance-weighted bound it gives the
squared weights of Tucker et al. 2019. A factor of all the guide's densities (KL warm-up,
``poutine.scale``, 0 of data that one ``poutine.mask`` hides in all sites) multiplies the
elasticity; draws masked otherwise must not reach data that count. score, vimco and ovis act on
sites without ``rsample`` only: reparameterised sites of the same program keep their path
derivative.

ovis is the optimal control variate where one weight dominates, :math:`\gamma = 0` in Liévin
et al. 2020. Their :math:`\gamma > 0` adds :math:`\gamma \sum_k \tilde w_k \partial_\phi \log
q(z_k)`, whose mean is not zero: it moves the guide as reweighted wake-sleep does.

References:
    Roeder, Wu, Duvenaud (2017), *Sticking the landing*, arXiv:1703.09194.
    Tucker, Lawson, Gu, Maddison (2019), *Doubly reparameterized gradient estimators for
    Monte Carlo objectives*, arXiv:1810.04152.
    Mnih, Rezende (2016), *Variational inference for Monte Carlo objectives*,
    arXiv:1602.06725.
    Liévin, Dittadi, Christensen, Winther (2020), *Optimal variance control of the score
    function gradient estimator for importance weighted bounds*, arXiv:2008.01998.
    Kool, van Hoof, Welling (2019), *Buy 4 REINFORCE samples, get a baseline for free!*
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from pyro_lvm.errors import ProgramError, explain
from pyro_lvm.layout import Scale
from pyro_lvm.particles import Particles

__all__ = [
    "GRADIENTS",
    "Bound",
    "Draw",
    "Gradient",
    "Relay",
    "bound_of_others",
    "bound_with",
    "elasticity",
    "guide_scale",
    "reparameterised",
]

Draw = Callable[..., Particles]


class Bound(Protocol):
    """What an estimator needs to know of an objective."""

    is_linear: ClassVar[bool]

    def bound_per_datum(self, log_weights: Tensor) -> Tensor: ...
    def elasticity(self, log_weights: Tensor) -> Tensor: ...
    def bound_of_others(self, log_weights: Tensor) -> Tensor: ...
    def bound_with(self, log_weights: Tensor, instead: Tensor) -> Tensor: ...
    def annealed(self, particles: Particles) -> Tensor: ...
    def beta_now(self) -> float: ...


class Gradient(Protocol):
    """Draw particles, return them and the bound ``(*batch,)`` with its gradient attached."""

    def __call__(self, bound: Bound, draw: Draw) -> tuple[Particles, Tensor]: ...


def reparam(bound: Bound, draw: Draw) -> tuple[Particles, Tensor]:
    particles = reparameterised(draw(), "reparam")
    return particles, bound.bound_per_datum(bound.annealed(particles))


def stl(bound: Bound, draw: Draw) -> tuple[Particles, Tensor]:
    particles = reparameterised(draw(path_only=True), "stl")
    return particles, bound.bound_per_datum(bound.annealed(particles))


def dreg(bound: Bound, draw: Draw) -> tuple[Particles, Tensor]:
    relay = Relay()
    particles = reparameterised(draw(path_only=True, relay=relay), "dreg")
    log_weights = bound.annealed(particles)
    value = bound.bound_per_datum(log_weights)
    if not bound.is_linear and len(log_weights) > 1:
        scale = bound.beta_now() * _whole_scale(particles) * _counted(particles)
        relay.multiply(particles, 1.0 - scale * bound.elasticity(log_weights.detach()))
    return particles, value


def score(bound: Bound, draw: Draw) -> tuple[Particles, Tensor]:
    return _with_score(bound, draw(), bound.bound_of_others)


def vimco(bound: Bound, draw: Draw) -> tuple[Particles, Tensor]:
    return _with_score(bound, draw(), lambda weights: _with_mean(bound, weights))


def ovis(bound: Bound, draw: Draw) -> tuple[Particles, Tensor]:
    return _with_score(bound, draw(), lambda weights: _with_zero(bound, weights))


GRADIENTS: dict[str, Gradient] = {
    "reparam": reparam,
    "stl": stl,
    "dreg": dreg,
    "score": score,
    "vimco": vimco,
    "ovis": ovis,
}


@dataclass
class Relay:
    """An identity whose backward multiplies by ``factor``, known only after the forward.

    One factor per path from the log-weight to a sample: the hook sits on a view that only
    the scoring passes read, so a path through several sites is multiplied once.
    """

    factor: Tensor | None = None  # (K, *plates)

    def multiply(self, particles: Particles, factor: Tensor) -> None:
        """Set the factor, ``(K, *batch)``."""
        layout = particles.layout
        self.factor = factor if layout is None else layout.unfold(factor)

    def __call__(self, value: Tensor, rows: slice = slice(None)) -> Tensor:
        """``value`` of the particles in ``rows``."""
        passed = value.view_as(value)
        passed.register_hook(partial(self._multiply, rows))
        return passed

    def _multiply(self, rows: slice, grad: Tensor) -> Tensor:
        if self.factor is None:
            return grad
        factor = self.factor[rows]
        return grad * factor.reshape(factor.shape + (1,) * (grad.dim() - factor.dim()))


def elasticity(function: Callable[[Tensor], Tensor], log_weights: Tensor) -> Tensor:
    """Derivative of the log of ``function``'s slope in each log-weight, ``(K, *batch)``.

    Generic, by double backward with K right-hand sides: memory K times that of the weights.
    """
    weights = log_weights.detach().requires_grad_()
    with torch.enable_grad():
        (slope,) = torch.autograd.grad(function(weights).sum(), weights, create_graph=True)
        if not slope.requires_grad:  # a linear bound
            return torch.zeros_like(log_weights)
        count = weights.shape[0]
        unit = torch.eye(count, dtype=weights.dtype, device=weights.device)
        units = unit.reshape(count, count, *(1,) * (weights.dim() - 1))
        every = units.expand(count, *weights.shape)
        (hessian,) = torch.autograd.grad(slope, weights, every, is_grads_batched=True)
    curvature = torch.diagonal(hessian).movedim(-1, 0)
    return curvature / slope.detach().clamp_min(torch.finfo(slope.dtype).tiny)


def _with_score(
    bound: Bound, particles: Particles, baseline: Callable[[Tensor], Tensor]
) -> tuple[Particles, Tensor]:
    log_weights = bound.annealed(particles)
    value = bound.bound_per_datum(log_weights)
    if particles.log_score is None:
        return particles, value
    with torch.no_grad():
        advantage = value - baseline(log_weights)
    surrogate = (advantage * particles.log_score).sum(0)
    return particles, value + (surrogate - surrogate.detach())


def bound_of_others(
    bound_per_datum: Callable[[Tensor], Tensor], log_weights: Tensor
) -> Tensor:  # (K, *batch)
    """The bound of all draws but the k-th; 0, no baseline, where there is only one."""
    count = log_weights.shape[0]
    if count == 1:
        return torch.zeros_like(log_weights)
    index = torch.arange(count, device=log_weights.device)
    others = (index[None, :] + index[1:, None]) % count  # (K - 1, K)
    return bound_per_datum(log_weights[others])


def bound_with(
    bound_per_datum: Callable[[Tensor], Tensor], log_weights: Tensor, instead: Tensor
) -> Tensor:  # (K, *batch)
    """The bound with the k-th log-weight replaced by the k-th of ``instead``."""
    count = log_weights.shape[0]
    own = torch.eye(count, dtype=torch.bool, device=log_weights.device)
    own = own.reshape(count, count, *(1,) * (log_weights.dim() - 1))
    return bound_per_datum(torch.where(own, instead, log_weights.unsqueeze(1)))


def _with_mean(bound: Bound, log_weights: Tensor) -> Tensor:  # (K, *batch)
    """The bound with the k-th log-weight replaced by the mean of the others."""
    mean_of_others = (log_weights.sum(0) - log_weights) / (log_weights.shape[0] - 1)
    return bound.bound_with(log_weights, mean_of_others)


def _with_zero(bound: Bound, log_weights: Tensor) -> Tensor:  # (K, *batch)
    """The bound with the k-th weight replaced by zero."""
    return bound.bound_with(log_weights, torch.full_like(log_weights, -inf))


def guide_scale(particles: Particles) -> Scale | None:
    """The factor around all of the guide's densities, or None if they have their own."""
    layout, guide = particles.layout, particles.guide
    if layout is None or not guide:
        return 1.0
    return layout.common([s for n, s in layout.guide_scales.items() if not guide[n].is_factor])


def _whole_scale(particles: Particles) -> Scale:
    scale = guide_scale(particles)
    if scale is None:
        raise ProgramError(
            explain(
                "poutine.scale in the guide",
                "one factor around all of its densities, with gradient='dreg' and K > 1",
                "factors of their own",
                "Put all latent sites under one poutine.scale, or use gradient='reparam'.",
            )
        )
    return scale


def _counted(particles: Particles) -> Scale:
    """1, or 0 of data whose draws have no density, if one mask over the batch hides them all."""
    layout, guide = particles.layout, particles.guide.values()
    masks = [site.mask for site in guide if not site.is_factor]
    if layout is None or layout.max_plate_nesting > len(layout.batch) or not masks:
        return 1.0
    if not all(isinstance(mask, Tensor) for mask in masks):
        return 1.0
    shared = layout.common([torch.as_tensor(mask).to(particles.log_p) for mask in masks])
    return 1.0 if shared is None else shared


def reparameterised(particles: Particles, gradient: str) -> Particles:
    """``particles``, if every draw has a path derivative; else the error that names the site."""
    if sites := particles.score_sites:
        imputed = sites[0].endswith("_unobserved")
        raise ProgramError(
            explain(
                f"site '{sites[0]}'",
                f"a reparameterised distribution under gradient='{gradient}'",
                f"one without rsample (all such sites: {sites})",
                "Use gradient='score' (leave-one-out REINFORCE), 'vimco' or 'ovis' (K >= 2); "
                "reparameterised sites keep their path derivative."
                + (" Or hide data by poutine.mask, which imputes nothing." if imputed else ""),
            )
        )
    return particles
