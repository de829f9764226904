"""Flows away from their start, for the tests of the distribution and of the guide."""

from typing import Any

import pytest
import torch
from moved import moved
from torch import Tensor, nn

from pyro_lvm.distributions import ConditionalFlow
from pyro_lvm.distributions.flow import FAMILIES

every_family = pytest.mark.parametrize("family", FAMILIES)


def bent(features: int, context_features: int, family: str, **options: Any) -> ConditionalFlow:
    """A flow well away from the identity."""
    return moved(ConditionalFlow(features, context_features, family, hidden=(8,), **options), 0.1)


def grid(half_width: float, nodes: int) -> tuple[Tensor, float]:
    """Points ``(nodes ** 2, 2)`` of a square, and the area that each stands for."""
    line = torch.linspace(-half_width, half_width, nodes)
    return torch.cartesian_prod(line, line), (2 * half_width / (nodes - 1)) ** 2


def gradients(value: Tensor, flow: nn.Module) -> list[Tensor]:
    parameters = list(flow.parameters())
    return list(torch.autograd.grad(value.sum(), parameters, materialize_grads=True))
