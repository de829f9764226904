"""Autoregressive distribution: a network gives each entry's parameters from those before it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from pyro.distributions import TorchDistribution, constraints
from torch import Tensor
from torch.nn.functional import pad

from pyro_lvm.distributions.entries import Entries
from pyro_lvm.errors import ProgramError, explain
from pyro_lvm.nn import widen
from pyro_lvm.scoring import log_prob

__all__ = ["Autoregressive", "StepNetwork"]

_NO_SIZE = torch.Size()


class StepNetwork(Protocol):
    """What gives the parameters of each step, in one of two ways that must agree.

    ``inputs`` are the encoded values of the step before (zeros at the first). They and
    ``context`` broadcast over dims to their left.

    Example:
        The mean of all steps before, which one step at a time keeps as a sum and a count.

        >>> class MeanSoFar:
        ...     def __call__(self, inputs, context):
        ...         count = torch.arange(1, 1 + inputs.shape[-2])[:, None]
        ...         return self.outputs(inputs.cumsum(-2) / count)
        ...     def step(self, inputs, context, state):
        ...         total, count = state or (0.0, 0)
        ...         total, count = total + inputs, count + 1
        ...         return self.outputs(total / count), (total, count)
        ...     def outputs(self, mean):
        ...         return torch.cat([mean, torch.zeros_like(mean)], -1)  # log-scale 0
        >>> network, inputs, state = MeanSoFar(), torch.randn(5, 1), None
        >>> for row in inputs:
        ...     last, state = network.step(row, None, state)
        >>> torch.allclose(last, network(inputs, None)[-1])
        True
    """

    def __call__(self, inputs: Tensor, context: Tensor) -> Tensor:
        """All steps, ``(*, T, I)`` and ``(*, T, C)`` to ``(*, T, num_outputs)``: causal."""

    def step(self, inputs: Tensor, context: Tensor, state: Any) -> tuple[Tensor, Any]:
        """One step, ``(*, I)`` and ``(*, C)`` to ``(*, num_outputs)``, and the next state.

        ``state`` is None at the first.
        """


class Autoregressive(TorchDistribution):
    r"""Steps in order, each given all the steps before it and a context.

    .. math:: q(z_1, \dots, z_T \mid c) = \prod_t q(z_t \mid z_{<t}, c)

    A draw takes T calls of the network, one after the other; a value is scored by one call on
    all of its steps. Draws of Normal entries have path derivatives, and a log-probability is
    differentiable in such a value, through the steps that follow too. The network runs without
    autocast, for both to round alike.

    References:
        Gregor, Danihelka, Mnih, Blundell, Wierstra (2014), *Deep autoregressive networks*,
        arXiv:1310.8499.
        Uria, Côté, Gregor, Murray, Larochelle (2016), *Neural autoregressive distribution
        estimation*, arXiv:1605.02226, eq. 1.

    Args:
        network: see :class:`StepNetwork`.
        context: ``(*batch, T, C)``, what step t may know besides the steps before it.
        entries: family and shape of a step's value.

    Raises:
        ProgramError: a context without steps, a value of another event shape, a network
            that gives another number of outputs than ``entries.num_outputs``.
        NotImplementedError: ``rsample`` of discrete entries.

    Example:
        A random walk: the mean of a step is the value before it.

        >>> class Walk:
        ...     def __call__(self, inputs, context):
        ...         return torch.cat([inputs + context, torch.zeros_like(inputs)], -1)
        ...     def step(self, inputs, context, state):
        ...         return self(inputs, context), None
        >>> walk = Autoregressive(Walk(), torch.zeros(3, 10, 1), Entries("normal"))
        >>> z = walk.rsample()
        >>> z.shape, walk.log_prob(z).shape
        (torch.Size([3, 10]), torch.Size([3]))
    """

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012

    def __init__(self, network: StepNetwork, context: Tensor, entries: Entries) -> None:
        _check_context(context)
        self.network = network
        self.context = widen(context)
        self.entries = entries
        self.has_rsample = entries.has_rsample
        *batch, num_steps, _ = context.shape
        super().__init__(torch.Size(batch), torch.Size((num_steps, *entries.shape)))

    @property
    def support(self) -> Any:
        return constraints.independent(self.entries.support, self.event_dim)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Autoregressive:
        context = self.context.expand(*batch_shape, *self.context.shape[-2:])
        return Autoregressive(self.network, context, self.entries)

    def rsample(self, sample_shape: Any = _NO_SIZE) -> Tensor:  # (*sample, *batch, T, *entry)
        if not self.entries.has_rsample:
            hint = "Call sample, and train by gradient='score' or 'vimco'."
            found = f"{self.entries.family} entries"
            raise NotImplementedError(explain("rsample", "normal entries", found, hint))
        return self._draw(sample_shape)

    @torch.no_grad()
    def sample(self, sample_shape: Any = _NO_SIZE) -> Tensor:  # (*sample, *batch, T, *entry)
        return self._draw(sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:  # (*left,)
        """Nats, of ``value`` of shape ``(*left, T, *entry)``, by one call of the network."""
        self._check_event(value)
        inputs = self.entries.encode(value).to(self.context)
        before = pad(inputs[..., :-1, :], (0, 0, 1, 0))
        with self._full_precision():
            steps = self._distribution(self.network(before, self.context))
        return log_prob(steps.to_event(1), value)

    def unroll(self, draw: Callable[[int, TorchDistribution], Tensor]) -> list[Tensor]:
        """Values of all steps, in order, each ``draw(t, distribution)`` given those before.

        The distribution of a step has batch shape ``(*left,)`` and the event shape of a step;
        ``draw`` may add dims to the left.
        """
        inputs = self.context.new_zeros(*self.batch_shape, self.entries.num_inputs)
        state = None
        values: list[Tensor] = []
        with self._full_precision():
            for t, context in enumerate(self.context.unbind(-2)):
                raw, state = self.network.step(inputs, context, state)
                values.append(draw(t, self._distribution(raw)))
                inputs = self.entries.encode(values[-1]).to(self.context)
        return values

    def _draw(self, sample_shape: Any) -> Tensor:
        expanded = self.expand(torch.Size(sample_shape) + self.batch_shape)
        values = expanded.unroll(lambda t, step: step())
        return torch.stack(values, -1 - len(self.entries.shape))

    def _full_precision(self) -> torch.autocast:
        """Without autocast: rounded steps would not have the density that one call gives."""
        return torch.autocast(self.context.device.type, enabled=False)

    def _distribution(self, raw: Tensor) -> TorchDistribution:
        if raw.shape[-1] != self.entries.num_outputs:
            name = type(self.network).__name__
            expected = f"{self.entries.num_outputs} outputs a step"
            hint = f"Match the network's last layer with {self.entries}."
            raise ProgramError(explain(f"network {name}", expected, f"{raw.shape[-1]}", hint))
        return self.entries.distribution(raw)

    def _check_event(self, value: Tensor) -> None:
        event = value.shape[max(value.dim() - self.event_dim, 0) :]
        if event != self.event_shape:
            expected = f"event shape {tuple(self.event_shape)}"
            hint = "Give one entry for each step of the context."
            found = f"a value of shape {tuple(value.shape)}"
            raise ProgramError(explain("value", expected, found, hint))


def _check_context(context: Tensor) -> None:
    if context.dim() < 2 or not context.shape[-2]:
        hint = "Give one row of features for each step; context[:, None] makes one step."
        found = f"shape {tuple(context.shape)}"
        raise ProgramError(explain("context", "shape (*batch, steps >= 1, C)", found, hint))
