"""Gradients of replayed steps: any slope, one backward pass, memory of their own."""

from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from pyro_lvm.errors import ProgramError
from pyro_lvm.objectives import ELBO
from pyro_lvm.training import CompiledLoss

pytestmark = [
    pytest.mark.usefixtures("float64"),
    pytest.mark.not_simulated(reason="its operations cannot be recorded"),
]


class Twice(PyroModule):
    """A location that is the sum of two parameters, whose gradients are one tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.row = nn.Parameter(torch.zeros(3))
        self.matrix = nn.Parameter(torch.zeros(1, 3))

    def forward(self, x: Tensor) -> None:
        location = self.row + self.matrix.view(3)
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(location, 1.0).to_event(1), obs=x)


class Fixed(torch.autograd.Function):
    """Zero, with a gradient that is the same tensor each time."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, slope: Tensor) -> Tensor:
        ctx.slope = slope
        return value.new_zeros(())

    @staticmethod
    def backward(ctx: Any, _: Tensor) -> Any:
        return ctx.slope, None


class Constant(PyroModule):
    """A term whose gradient is one of the model's own tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3))
        self.slope = torch.arange(3.0)

    def forward(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(0.0, 1.0).expand([3]).to_event(1), obs=x)
            pyro.factor("f", Fixed.apply(self.weight, self.slope))


def loss_of(model: PyroModule) -> CompiledLoss:
    return CompiledLoss(ELBO(), model, lambda x: None, backend="graph")


def test_a_multiple_of_the_loss_has_the_multiple_of_its_gradient() -> None:
    model, x = Twice(), torch.arange(12.0).view(4, 3)
    (0.25 * loss_of(model)(x)).backward()
    torch.testing.assert_close(model.row.grad, -x.sum(0) / 4)


def test_gradients_that_are_one_tensor_can_be_clipped_in_place() -> None:
    model, x = Twice(), torch.arange(12.0).view(4, 3)
    loss_of(model)(x).backward()
    found = [*model.parameters()]
    assert found[0].grad is not None
    assert found[1].grad is not None
    total = clip_grad_norm_(found, 1.0)
    expected = -x.sum(0) / (total + 1e-6)  # torch adds 1e-6 to the norm
    torch.testing.assert_close(found[0].grad, expected)
    torch.testing.assert_close(found[1].grad, expected.view(1, 3))


def test_a_tensor_of_the_program_that_is_a_gradient_stays_as_it_is() -> None:
    model = Constant()
    for _ in range(2):
        model.zero_grad()
        (0.25 * loss_of(model)(torch.ones(1, 3))).backward()
        torch.testing.assert_close(model.weight.grad, 0.25 * torch.arange(3.0))
    assert torch.equal(model.slope, torch.arange(3.0))


def test_a_second_backward_pass_is_refused() -> None:
    loss = loss_of(Twice())(torch.ones(4, 3))
    loss.backward()
    with pytest.raises(ProgramError, match=r"(?s)one backward pass.*a second one.*Call the loss"):
        loss.backward()
