"""A discriminator that is trained as it is used, and stands in for densities."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pyro_lvm.contrast import CONTRASTS, Contrasted, Covered
from pyro_lvm.critic import Critic, MakeOptimizer, Side
from pyro_lvm.distributions.implicit import is_implicit
from pyro_lvm.errors import ProgramError, explain
from pyro_lvm.tracing import Site

__all__ = ["Adversary"]

Sites = Mapping[str, Site]

_SATURATED = "Use contrast='adaptive', and judge the model by AIS, not by this objective."


class Adversary:
    r"""Estimates :math:`\log q(z \mid x) - \log p(z)` by logistic regression on draws.

    While it ``learns``, each use first takes ``num_steps`` optimiser steps on

    .. math:: E_q \,\mathrm{softplus}(-T(x, z)) + E_r \,\mathrm{softplus}(T(x, z))

    with draws of the guide and of the contrast r; the first step shares the objective's own
    draws. Then T is evaluated with its parameters frozen. One warning tells if it has come to
    tell nearly all draws apart. The estimate is as good as the discriminator: see
    :func:`pyro_lvm.diagnostics.ratio_quality`.

    Args:
        discriminator: module called as ``discriminator(z, context)``, with z ``(K, *plates,
            features)`` and context ``(*plates, ...)`` or None; returns logits ``(K, *plates)``.
        contrast: "prior" or "adaptive", see :mod:`pyro_lvm.contrast`.
        context: from the programs' arguments to the discriminator's context; by default the
            first of them. ``False`` for no context.
        num_steps: discriminator steps for each step of the objective; 0 leaves it as it is.
        optimizer: from parameters to an optimiser; Adam with beta_1 = 0.5 if left out.
        r1: weight of the squared gradient of T in z at draws of the contrast. It stabilises,
            and biases the ratio.
        ema: decay of an average of the discriminator's weights, by which T is evaluated.
        sites: latent sites to cover; by default those without a density, else all.
    """

    def __init__(
        self,
        discriminator: nn.Module,
        *,
        contrast: str,
        context: Callable[..., Any] | bool,
        num_steps: int,
        optimizer: MakeOptimizer | None,
        r1: float,
        ema: float,
        sites: Sequence[str] | None,
    ) -> None:
        self.critic = Critic(discriminator, optimizer=optimizer, r1=r1, ema=ema, hint=_SATURATED)
        self.contrast = CONTRASTS[contrast]
        self.context = context
        self.num_steps = num_steps
        self.sites = sites
        self.learns = False

    def covers(self, model: Sites, guide: Sites) -> Sequence[str]:
        """The sites given, or those without a density, or else all that the guide draws."""
        drawn = [n for n, site in guide.items() if n in model and not site.is_observed]
        implicit = [n for n in drawn if is_implicit(guide[n].fn) or is_implicit(model[n].fn)]
        if self.sites is None:
            return implicit or drawn
        if unknown := sorted(set(self.sites) - set(drawn)):
            hint = "Name sites that both programs sample, or leave sites= out."
            raise ProgramError(explain("sites", f"some of {drawn}", repr(unknown[0]), hint))
        return self.sites

    def __call__(
        self, values: Mapping[str, Tensor], model: Sites, guide: Sites, args: Any, kwargs: Any
    ) -> Tensor:
        """The log-ratio at ``values``, ``(K, *plates)`` nats, after its steps if it learns."""
        covered, context = self._covered(values, model, guide), self._context(args, kwargs)
        now = self.contrast(covered)
        self.critic.follow(now.draws)
        if self.learns:
            self._learn(covered, now, context)
        return self.critic(Side(now.draws, context)) + now.offset

    @torch.no_grad()
    def logits(
        self, values: Mapping[str, Tensor], model: Sites, guide: Sites, args: Any, kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """T at ``values`` and at as many draws of the contrast, ``(K, *plates)`` nats each."""
        context = self._context(args, kwargs)
        now = self.contrast(self._covered(values, model, guide))
        self.critic.follow(now.draws)
        return self.critic(Side(now.draws, context)), self.critic(Side(now.others, context))

    def state_dict(self) -> dict[str, Any]:
        """Weights, their average and the optimiser's state."""
        return self.critic.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.critic.load_state_dict(state)

    def _covered(self, values: Mapping[str, Tensor], model: Sites, guide: Sites) -> Covered:
        names = self.covers(model, guide)
        return Covered(
            [model[n] for n in names], [guide[n] for n in names], [values[n] for n in names]
        )

    def _learn(self, covered: Covered, now: Contrasted, context: Any) -> None:
        for step in range(self.num_steps):
            if step:
                fresh = covered.fresh(covered.guide, 1).squeeze(0)
                values = _parted(fresh, covered)
                now = self.contrast(covered._replace(values=values))
            self.critic.learn(Side(now.draws, context), Side(now.others, context))

    def _context(self, args: Any, kwargs: Any) -> Any:
        if callable(self.context):
            return self.context(*args, **kwargs)
        return [*args, *kwargs.values()][0] if self.context else None


def _parted(joined: Tensor, covered: Covered) -> list[Tensor]:
    """The inverse of :meth:`Covered.joined`, in the shapes of its values."""
    sizes = [site.fn.event_shape.numel() for site in covered.model]
    parts = joined.split(sizes, -1)
    return [p.reshape(v.shape) for p, v in zip(parts, covered.values, strict=True)]
