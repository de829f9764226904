"""Gated recurrent steps: the network of an autoregressive guide."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pyro_lvm.nn import MLP, widen

__all__ = ["RecurrentSteps"]


class RecurrentSteps(nn.Module):
    """A GRU over the values before each step and their context, and a linear output.

    A :class:`~pyro_lvm.distributions.autoregressive.StepNetwork`. The output reads the step's
    input beside the recurrent state, so that a linear dependence on the value just before, and
    on the context, passes by the bounded state.

    References:
        Cho et al. (2014), *Learning phrase representations using RNN encoder-decoder*,
        arXiv:1406.1078, section 2.3.

    Args:
        num_inputs: I, numbers that encode one step's value.
        context_features: C.
        num_outputs: numbers that one step's distribution takes.
        state_features: size of the recurrent state.

    Example:
        >>> steps = RecurrentSteps(1, 3, 2, state_features=8)
        >>> steps(torch.zeros(5, 4, 10, 1), torch.zeros(4, 10, 3)).shape
        torch.Size([5, 4, 10, 2])
        >>> outputs, state = steps.step(torch.zeros(5, 4, 1), torch.zeros(4, 3), None)
        >>> outputs.shape, state.shape
        (torch.Size([5, 4, 2]), torch.Size([5, 4, 8]))
    """

    def __init__(
        self, num_inputs: int, context_features: int, num_outputs: int, state_features: int
    ) -> None:
        super().__init__()
        both = num_inputs + context_features
        self.gru = nn.GRU(both, state_features, batch_first=True)
        self.head = MLP(state_features + both, num_outputs, hidden=())

    def forward(self, inputs: Tensor, context: Tensor) -> Tensor:
        both = _join(inputs, context)  # (*, T, I + C)
        rows, _ = self.gru(both.reshape(-1, *both.shape[-2:]))  # a GRU takes one batch dim
        return self._outputs(widen(rows).reshape(*both.shape[:-1], -1), both)

    def step(self, inputs: Tensor, context: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        both = _join(inputs, context)  # (*, I + C)
        size = self.gru.hidden_size
        before = both.new_zeros(size) if state is None else state
        before = before.expand(*both.shape[:-1], size).reshape(-1, size)
        rows = torch.gru_cell(both.reshape(-1, both.shape[-1]), before, *self.gru.all_weights[0])
        after = widen(rows).reshape(*both.shape[:-1], size)
        return self._outputs(after, both), after

    def _outputs(self, state: Tensor, both: Tensor) -> Tensor:
        outputs: Tensor = self.head(torch.cat([state, both], -1))
        return outputs


def _join(inputs: Tensor, context: Tensor) -> Tensor:
    left = torch.broadcast_shapes(inputs.shape[:-1], context.shape[:-1])
    return torch.cat([inputs.expand(*left, -1), context.expand(*left, -1)], -1)
