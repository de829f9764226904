"""The contract of guides without density: a planted fault is found."""

from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_lvm.distributions import Implicit
from pyro_lvm.testing import ContractError, check_guide

pytestmark = pytest.mark.usefixtures("float64")


class Guide(PyroModule):
    """A right guide, for faults to be planted in by overriding its parts."""

    def __init__(self) -> None:
        super().__init__()
        self.shift, self.spread = nn.Linear(3, 2), nn.Linear(2, 2)

    def forward(self, x: Tensor) -> None:
        shift = self.features(x)
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", Implicit(lambda left: self.draw(shift, left), 1, shape=shift.shape))

    def features(self, x: Tensor) -> Tensor:
        shift: Tensor = self.shift(x)
        return shift

    def draw(self, shift: Tensor, left: torch.Size) -> Tensor:
        drawn: Tensor = shift + self.spread(torch.randn(left + shift.shape))
        return drawn


class Beside(Guide):
    """A site with a density beside the one without."""

    def forward(self, x: Tensor) -> None:
        super().forward(x)
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("y", dist.Normal(self.shift(x), 1.0).to_event(1))


class Number(Guide):
    """A site without event dims."""

    def forward(self, x: Tensor) -> None:
        shift = self.features(x)

        def draw(left: torch.Size) -> Tensor:
            return self.draw(shift, left)[..., 0] + self.draw(shift, left)[..., 1]

        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", Implicit(draw, shape=shift.shape[:-1]))


class Pooled(Guide):
    def features(self, x: Tensor) -> Tensor:
        return super().features(x) + super().features(x).mean(0)


class Unused(Guide):
    def draw(self, shift: Tensor, left: torch.Size) -> Tensor:
        return shift + torch.randn(left + shift.shape)


class NoNoise(Guide):
    def draw(self, shift: Tensor, left: torch.Size) -> Tensor:
        drawn: Tensor = (shift + self.spread(shift)).expand(left + shift.shape)
        return drawn


class SharedNoise(Guide):
    def draw(self, shift: Tensor, left: torch.Size) -> Tensor:
        drawn: Tensor = shift + self.spread(torch.randn((*left, 1, shift.shape[-1])))
        return drawn


class SharedByParticles(Guide):
    def draw(self, shift: Tensor, left: torch.Size) -> Tensor:
        half = torch.randn((max(left.numel() // 2, 1), *shift.shape))
        noise = half.repeat_interleave(2, 0)[: left.numel()].reshape(left + shift.shape)
        drawn: Tensor = shift + self.spread(noise)
        return drawn


class Remembers(Guide):
    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(2, 2).weight.detach()

    def __deepcopy__(self, memo: Any) -> Any:
        return type(self)()

    def features(self, x: Tensor) -> Tensor:
        return super().features(x) @ self.last


@pytest.mark.parametrize("guide", [Guide, Beside, Number])
def test_right_guides_pass(guide: type[Guide]) -> None:
    check_guide(guide(), torch.randn(4, 3))


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (Pooled, "draws beside another datum: expected the same"),
        (Unused, "parameter 'spread.weight': expected a finite gradient"),
        (NoNoise, "draws of site 'z': expected finite ones that vary"),
        (SharedNoise, "draws of site 'z': expected independent data, got correlations of 1"),
        (SharedByParticles, "draws of site 'z': expected independent draws, got correlations"),
        (Remembers, "state_dict: expected the same program"),
    ],
)
def test_a_planted_fault_is_found(fault: type[Guide], message: str) -> None:
    with pytest.raises(ContractError, match=message):
        check_guide(fault(), torch.randn(4, 3))
