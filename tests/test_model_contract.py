"""The contract of models: a planted fault is found."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroModule, PyroParam
from torch import Tensor, nn

from pyro_lvm.testing import ContractError, check_model


class Model(PyroModule):
    """A right model, for faults to be planted in by overriding its parts."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2, 3))
        self.scale = PyroParam(torch.ones(3), constraint=dist.constraints.positive)

    def forward(self, x: Tensor | None = None, *, size: int = 1) -> Tensor:
        with pyro.plate("data", size if x is None else len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            return pyro.sample("x", self.decode(z).to_event(1), obs=x)

    def decode(self, z: Tensor) -> dist.TorchDistribution:
        return dist.Normal(z @ self.weight, self.scale)


class Unused(Model):
    def decode(self, z: Tensor) -> dist.TorchDistribution:
        return dist.Normal(z @ self.weight, 1.0)


class Pooled(Model):
    def decode(self, z: Tensor) -> dist.TorchDistribution:
        return dist.Normal((z - z[..., :1, :]) @ self.weight, self.scale)


class OneParticle(Model):
    def decode(self, z: Tensor) -> dist.TorchDistribution:
        return dist.Normal((z[-1] if z.dim() > 2 else z) @ self.weight, self.scale)


class Shifted(Model):
    def decode(self, z: Tensor) -> dist.TorchDistribution:
        return ShiftedNormal(z @ self.weight, self.scale)


class Symbols(Model):
    def decode(self, z: Tensor) -> dist.TorchDistribution:
        return dist.Categorical(logits=self.logits(z))

    def logits(self, z: Tensor) -> Tensor:
        return (z @ self.weight)[..., None] * self.scale * torch.arange(3)


class ShiftedSymbols(Symbols):
    def decode(self, z: Tensor) -> dist.TorchDistribution:
        return ShiftedCategorical(logits=self.logits(z) + torch.arange(3))


NO_SIZE = torch.Size()


class ShiftedCategorical(dist.Categorical):
    def sample(self, sample_shape: torch.Size = NO_SIZE) -> Tensor:
        return (super().sample(sample_shape) + 1) % 3


class ShiftedNormal(dist.Normal):
    def rsample(self, sample_shape: torch.Size = NO_SIZE) -> Tensor:
        return super().rsample(sample_shape) + 0.5


class Forgetful(Model):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()), persistent=False)

    def decode(self, z: Tensor) -> dist.TorchDistribution:
        self.calls += 1.0
        return dist.Normal(z @ self.weight, self.scale + self.calls)


@pytest.mark.parametrize("right", [Model, Symbols])
def test_a_right_model_passes(right: type[Model]) -> None:
    check_model(right())


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (Unused, "parameter 'scale_unconstrained': expected a finite gradient"),
        (Pooled, "permuted data: expected permuted log-probabilities"),
        (OneParticle, "model: expected the same for each particle alone"),
        (Shifted, "prior-predictive mean of 'x': expected the distribution's"),
        (ShiftedSymbols, "prior-predictive mean of 'x': expected the distribution's"),
        (Forgetful, "expected the same for each particle alone"),
    ],
)
def test_a_planted_fault_is_found(fault: type[Model], message: str) -> None:
    with pytest.raises(ContractError, match=message):
        check_model(fault())


class Deaf(Model):
    def forward(self, x: Tensor | None = None, *, size: int = 1) -> Tensor:
        return super().forward(size=size if x is None else len(x))


class Mute(Model):
    def forward(self, x: Tensor | None = None, *, size: int = 1) -> None:  # type: ignore[override]
        super().forward(x, size=size)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (Deaf, r"model: expected a site that observes x, got \['x', 'z'\]"),
        (Mute, "model: expected 6 data returned, got None"),
    ],
)
def test_a_model_that_does_not_pass_on_its_data_is_found(fault: type[Model], message: str) -> None:
    with pytest.raises(ContractError, match=message):
        check_model(fault())
