"""Rows with holes, and programs over them, that the tests of variational Gibbs inference share."""

import pyro
import pyro.distributions as dist
import torch
from gibbs_parts import factor_analysis, marginal
from pyro.nn import PyroModule
from torch import Tensor, nn

NAN = torch.nan


def table(rows: int = 6) -> Tensor:
    """Rows of one hole, of two, of none, of all but one, in turn."""
    x = marginal(factor_analysis()).sample((rows,))
    holes = [[1], [0, 2], [], [0, 1, 3]]
    for row in range(rows):
        x[row, holes[row % 4]] = NAN
    return x


def everything(x: Tensor) -> tuple[Tensor, Tensor]:
    return x, torch.arange(len(x))


def first(x: Tensor) -> tuple[Tensor, Tensor]:
    return x[:1], torch.tensor([0])


def trainable(model: nn.Module, guide: nn.Module) -> dict[str, Tensor]:
    return dict(nn.ModuleDict({"model": model, "guide": guide}).named_parameters())


class Pair(PyroModule):
    """Two classes, the second given the first; no latents."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.tensor([0.2, -0.4]))
        self.second = nn.Parameter(torch.tensor([[0.1, 0.5, -0.3], [-1.0, 0.0, 0.7]]))

    def forward(self, x: Tensor) -> None:
        with pyro.plate("data", len(x), dim=-1):
            a = pyro.sample("a", dist.Categorical(logits=self.first), obs=x[:, 0])
            pyro.sample("b", dist.Categorical(logits=self.second[a.long()]), obs=x[:, 1])
