"""A discriminator and its training by logistic regression."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus
from torch.optim import Adam

from pyro_lvm.errors import ProgramError, explain
from pyro_lvm.own_step import MakeOptimizer, OwnStep
from pyro_lvm.saturation import Watch

__all__ = ["Critic", "MakeOptimizer", "Side"]


class Side(NamedTuple):
    """Draws of one distribution, ``(K, *plates, features)``, and what else the logit reads."""

    draws: Tensor
    context: Any = None


class Critic:
    r"""A discriminator whose logit tends to the log-ratio of two densities.

    One step of :meth:`learn`, by an optimiser of its own, is on

    .. math:: E_a \,\mathrm{softplus}(-T) + E_b \,\mathrm{softplus}(T)

    and :math:`T \to \log a - \log b`, in nats, at the learning rate last set by :meth:`set_rate`.
    Everywhere else its parameters are frozen. One warning tells if it has come to tell nearly
    all draws apart.

    Args:
        discriminator: module called as ``discriminator(draws, context)``; returns logits
            ``(K, *plates)``.
        optimizer: from parameters to an optimiser; Adam with beta_1 = 0.5 if left out.
        r1: weight of the squared gradient of T in the draws of b. It stabilises, and biases the
            ratio.
        ema: decay of an average of the discriminator's weights, by which T is evaluated.
        hint: what to try where it is saturated.
    """

    def __init__(
        self,
        discriminator: nn.Module,
        *,
        optimizer: MakeOptimizer | None,
        r1: float = 0.0,
        ema: float = 0.0,
        hint: str,
    ) -> None:
        self.discriminator = discriminator.requires_grad_(False)
        self.average = deepcopy(discriminator) if ema else discriminator
        self.r1, self.ema = r1, ema
        self.watch = Watch(type(discriminator).__name__, hint)
        parameters = [*discriminator.parameters()]
        make = optimizer or partial(Adam, betas=(0.5, 0.999))
        self.own_step = OwnStep(parameters, make, self.watch) if parameters else None

    def __call__(self, side: Side) -> Tensor:
        """T, ``(K, *plates)`` nats, with its gradient in the draws and the context."""
        self.average.eval()  # in training mode spectral norm moves its vectors
        return _logits(self.average, side)

    def set_rate(self, rate: float) -> None:
        """The learning rate of the steps to come."""
        for group in self.own_step.optimizer.param_groups if self.own_step else []:
            group["lr"] = rate

    def learn(self, a: Side, b: Side) -> None:
        """One step on draws without gradient."""
        if self.own_step is not None:
            self._learn(self.own_step, a, b)

    def follow(self, draws: Tensor) -> None:
        """Move the discriminator and its optimiser's state to the device and dtype of the draws."""
        parameter = next(self.discriminator.parameters(), draws)
        if parameter.device != draws.device or parameter.dtype != draws.dtype:
            for module in (self.discriminator, self.average):
                module.to(draws)
            if self.own_step is not None:
                optimizer = self.own_step.optimizer
                optimizer.load_state_dict(optimizer.state_dict())  # to where its parameters are

    def state_dict(self) -> dict[str, Any]:
        """Weights, their average and the optimiser's state."""
        state: dict[str, Any] = {"discriminator": self.discriminator.state_dict()}
        if self.ema:
            state["average"] = self.average.state_dict()
        if self.own_step is not None:
            state["optimizer"] = self.own_step.optimizer.state_dict()
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.discriminator.load_state_dict(state["discriminator"])
        if self.ema:
            self.average.load_state_dict(state["average"])
        if self.own_step is not None:
            self.own_step.optimizer.load_state_dict(state["optimizer"])

    @torch.enable_grad()
    def _learn(self, own_step: OwnStep, a: Side, b: Side) -> None:
        self.discriminator.requires_grad_(True).train()
        others = b.draws.detach().requires_grad_(self.r1 > 0)
        real = _logits(self.discriminator, a._replace(draws=a.draws.detach()))
        fake = _logits(self.discriminator, b._replace(draws=others))
        loss = softplus(-real).mean() + softplus(fake).mean()
        if self.r1:
            (slope,) = torch.autograd.grad(fake.sum(), others, create_graph=True)
            loss = loss + 0.5 * self.r1 * slope.square().sum(-1).mean()
        gradients = torch.autograd.grad(loss, own_step.parameters, allow_unused=True)
        self.discriminator.requires_grad_(False)
        own_step(gradients, real.detach(), fake.detach())
        if self.ema:
            new = self.discriminator.parameters()
            for kept, value in zip(self.average.parameters(), new, strict=True):
                kept.lerp_(value, 1.0 - self.ema)


def _logits(discriminator: nn.Module, side: Side) -> Tensor:
    draws = side.draws
    logits: Tensor = discriminator(draws, side.context)
    if logits.shape != draws.shape[:-1]:
        raise ProgramError(
            explain(
                "discriminator",
                f"one logit a draw, of shape {tuple(draws.shape[:-1])}",
                f"shape {tuple(logits.shape)} for draws of shape {tuple(draws.shape)}",
                "Return logits without a last dim; broadcast the context over particles.",
            )
        )
    return logits
