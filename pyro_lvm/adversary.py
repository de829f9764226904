"""A discriminator that is trained as it is used, and stands in for densities."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus
from torch.optim import Adam, Optimizer

from pyro_lvm.contrast import CONTRASTS, Contrasted, Covered
from pyro_lvm.distributions.implicit import is_implicit
from pyro_lvm.errors import ProgramError, explain
from pyro_lvm.saturation import Watch
from pyro_lvm.tracing import Site

__all__ = ["Adversary"]

Sites = Mapping[str, Site]


class Adversary:
    r"""Estimates :math:`\log q(z \mid x) - \log p(z)` by logistic regression on draws.

    While it has a ``rate``, each use first takes ``num_steps`` optimiser steps at that rate on

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
        optimizer: from parameters to an optimiser, whose own learning rate is not used; Adam
            with beta_1 = 0.5 if left out.
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
        optimizer: Callable[[Iterable[Tensor]], Optimizer] | None,
        r1: float,
        ema: float,
        sites: Sequence[str] | None,
    ) -> None:
        self.discriminator = discriminator.requires_grad_(False)
        self.average = deepcopy(discriminator) if ema else discriminator
        self.contrast = CONTRASTS[contrast]
        self.context = context
        self.num_steps = num_steps
        self.r1, self.ema = r1, ema
        self.sites = sites
        self.rate: float | None = None
        self.watch = Watch(type(discriminator).__name__)
        parameters = [*discriminator.parameters()]
        make = optimizer or partial(Adam, betas=(0.5, 0.999))
        self.optimizer = make(parameters) if parameters else None

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
        """The log-ratio at ``values``, ``(K, *plates)`` nats, after its steps if it has a rate."""
        covered, context = self._covered(values, model, guide), self._context(args, kwargs)
        now = self.contrast(covered)
        self._follow(now.draws)
        if self.rate is not None and self.optimizer is not None:
            self._learn(covered, now, context)
        self.average.eval()  # in training mode spectral norm moves its vectors
        return self._logits(self.average, now.draws, context) + now.offset

    @torch.no_grad()
    def logits(
        self, values: Mapping[str, Tensor], model: Sites, guide: Sites, args: Any, kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """T at ``values`` and at as many draws of the contrast, ``(K, *plates)`` nats each."""
        context = self._context(args, kwargs)
        now = self.contrast(self._covered(values, model, guide))
        self._follow(now.draws)
        self.average.eval()
        real, fake = (self._logits(self.average, z, context) for z in (now.draws, now.others))
        return real, fake

    def state_dict(self) -> dict[str, Any]:
        """Weights, their average and the optimiser's state."""
        state: dict[str, Any] = {"discriminator": self.discriminator.state_dict()}
        if self.ema:
            state["average"] = self.average.state_dict()
        if self.optimizer is not None:
            state["optimizer"] = self.optimizer.state_dict()
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.discriminator.load_state_dict(state["discriminator"])
        if self.ema:
            self.average.load_state_dict(state["average"])
        if self.optimizer is not None:
            self.optimizer.load_state_dict(state["optimizer"])

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
            self._step(now.draws.detach(), now.others.detach(), context)

    @torch.enable_grad()
    def _step(self, draws: Tensor, others: Tensor, context: Any) -> None:
        self.discriminator.requires_grad_(True).train()
        others = others.requires_grad_(self.r1 > 0)
        real = self._logits(self.discriminator, draws, context)
        fake = self._logits(self.discriminator, others, context)
        self.watch(real, fake)
        loss = softplus(-real).mean() + softplus(fake).mean()
        if self.r1:
            (slope,) = torch.autograd.grad(fake.sum(), others, create_graph=True)
            loss = loss + 0.5 * self.r1 * slope.square().sum(-1).mean()
        optimizer: Any = self.optimizer
        for group in optimizer.param_groups:
            group["lr"] = self.rate
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        self.discriminator.requires_grad_(False)
        if self.ema:
            for kept, new in zip(self._averaged, self.discriminator.parameters(), strict=True):
                kept.lerp_(new, 1.0 - self.ema)

    @property
    def _averaged(self) -> Iterable[Tensor]:
        return self.average.parameters()

    def _logits(self, discriminator: nn.Module, z: Tensor, context: Any) -> Tensor:
        logits: Tensor = discriminator(z, context)
        if logits.shape != z.shape[:-1]:
            raise ProgramError(
                explain(
                    "discriminator",
                    f"one logit a draw, of shape {tuple(z.shape[:-1])}",
                    f"shape {tuple(logits.shape)} for latents of shape {tuple(z.shape)}",
                    "Return logits without a last dim; broadcast the context over particles.",
                )
            )
        return logits

    def _context(self, args: Any, kwargs: Any) -> Any:
        if callable(self.context):
            return self.context(*args, **kwargs)
        return [*args, *kwargs.values()][0] if self.context else None

    def _follow(self, z: Tensor) -> None:
        """Move the discriminator to where the latents are."""
        parameter = next(self.discriminator.parameters(), z)
        if parameter.device != z.device or parameter.dtype != z.dtype:
            for module in (self.discriminator, self.average):
                module.to(z)


def _parted(joined: Tensor, covered: Covered) -> list[Tensor]:
    """The inverse of :meth:`Covered.joined`, in the shapes of its values."""
    sizes = [site.fn.event_shape.numel() for site in covered.model]
    parts = joined.split(sizes, -1)
    return [p.reshape(v.shape) for p, v in zip(parts, covered.values, strict=True)]
