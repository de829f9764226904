"""A Gaussian model, its guide with and without a density, and discriminators of the two."""

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyro_lvm.distributions import Implicit
from pyro_lvm.objective import Objective

X = torch.tensor([0.5, -1.0, 2.0, 0.1], dtype=torch.float64)


class Exact(nn.Module):
    """The log-ratio of Normal(slope x, 0.9) to the prior, or to the guide's own moments."""

    def __init__(self, slope: float = 0.4) -> None:
        super().__init__()
        self.slope = slope

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        q = dist.Normal(self.slope * x, 0.9)
        return q.log_prob(z[..., 0]) - dist.Normal(0.0, 1.0).log_prob(z[..., 0])


class Quadratic(nn.Module):
    """Logits that are quadratic in (z, x): the exact family where all is Gaussian."""

    def __init__(self, sees_data: bool = True) -> None:
        super().__init__()
        self.linear = nn.Linear(5 if sees_data else 2, 1).double()
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)
        self.sees_data = sees_data

    def forward(self, z: Tensor, x: Tensor | None) -> Tensor:
        z = z[..., 0]
        terms = [z, z * z]
        if self.sees_data:
            assert x is not None
            terms += [z * x, (x * x).expand_as(z), x.expand_as(z)]
        return self.linear(torch.stack(terms, -1)).squeeze(-1)


def model(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(1).to(x), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z[..., 0], 1.0), obs=x)


class Guide(nn.Module):
    """z = w x + s noise, with or without its density."""

    def __init__(self, implicit: bool = True, slope: float = 0.4, scale: float = 0.9) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(slope, dtype=torch.float64))
        self.log_scale = nn.Parameter(torch.tensor(scale, dtype=torch.float64).log())
        self.implicit = implicit

    def forward(self, x: Tensor) -> None:
        loc, scale = (self.slope * x).unsqueeze(-1), self.log_scale.exp()

        def sampler(shape: torch.Size) -> Tensor:
            return loc + scale * torch.randn(shape + loc.shape).to(loc)

        explicit = dist.Normal(loc, scale).to_event(1)
        with pyro.plate("data", len(x)):
            z = Implicit(sampler, event_dim=1, shape=loc.shape) if self.implicit else explicit
            pyro.sample("z", z)


def value_and_gradient(objective: Objective, guide: Guide) -> tuple[Tensor, Tensor]:
    torch.manual_seed(3)
    loss = objective.differentiable_loss(model, guide, X)
    return loss.detach(), torch.stack(torch.autograd.grad(loss, [*guide.parameters()]))
