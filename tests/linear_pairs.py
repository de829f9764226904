"""One latent and one number, all linear and Gaussian: joint densities and their ratio are known."""

from collections.abc import Callable
from copy import deepcopy

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

DATA_VARIANCE = 2.0


def data(size: int) -> Tensor:
    return DATA_VARIANCE**0.5 * torch.randn(size, 1)


class Model(nn.Module):
    """``z ~ Normal(0, 1)``, ``x ~ Normal(w z, s)``."""

    def __init__(self, slope: float = 0.8, scale: float = 0.9) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(slope))
        self.log_scale = nn.Parameter(torch.tensor(scale).log())

    def x_given(self, z: Tensor) -> dist.Normal:
        return dist.Normal(self.slope * z, self.log_scale.exp())

    def forward(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(1).to(x), 1.0).to_event(1))
            pyro.sample("x", self.x_given(z).to_event(1), obs=x)


class Guide(nn.Module):
    """``z ~ Normal(a x, t)``."""

    def __init__(self, slope: float = 0.6, scale: float = 0.8) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(slope))
        self.log_scale = nn.Parameter(torch.tensor(scale).log())

    def z_given(self, x: Tensor) -> dist.Normal:
        return dist.Normal(self.slope * x, self.log_scale.exp())

    def forward(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", self.z_given(x).to_event(1))


def log_joints(model: Model, guide: Guide, z: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Log q(x, z) and log p(x, z), of the shape of z and x."""
    of_data = dist.Normal(0.0, DATA_VARIANCE**0.5).log_prob(x)
    of_latent = dist.Normal(0.0, 1.0).log_prob(z)
    return of_data + guide.z_given(x).log_prob(z), of_latent + model.x_given(z).log_prob(x)


class ExactRatio(nn.Module):
    """The logit of an optimal critic: ``log_ratio(draws, context)``, its parameters held."""

    def __init__(self, log_ratio: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.log_ratio = log_ratio

    def forward(self, draws: Tensor, context: Tensor) -> Tensor:
        return self.log_ratio(draws[..., 0], context[..., 0])


def exact_ratio(model: Model, guide: Guide) -> ExactRatio:
    """log q(x, z) / p(x, z) of the programs as they are now."""
    model, guide = deepcopy(model), deepcopy(guide)

    def log_ratio(z: Tensor, x: Tensor) -> Tensor:
        log_q, log_p = log_joints(model, guide, z, x)
        return log_q - log_p

    return ExactRatio(log_ratio)


class Quadratic(nn.Module):
    """Logits that are quadratic in two numbers: the family of these log-ratios."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(5, 1)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, draws: Tensor, context: Tensor) -> Tensor:
        a, b = torch.broadcast_tensors(draws[..., 0], context[..., 0])
        logits: Tensor = self.linear(torch.stack([a, b, a * a, a * b, b * b], -1))
        return logits.squeeze(-1)


GRID = torch.linspace(-9.0, 9.0, 400, dtype=torch.float64)
AREA = (GRID[1] - GRID[0]).square()


def divergence(name: str, log_a: Tensor, log_b: Tensor) -> Tensor:
    """D(a || b) by quadrature, from log-densities on a grid with :data:`AREA` a point."""
    a, b = log_a.exp(), log_b.exp()
    log_m = torch.logaddexp(log_a, log_b) - torch.tensor(2.0).log()
    terms = {
        "kl": a * (log_a - log_b),
        "reverse_kl": b * (log_b - log_a),
        "jensen_shannon": a * (log_a - log_m) + b * (log_b - log_m),
        "mixture to b": 2 * log_m.exp() * (log_m - log_b),
        "mixture to a": 2 * log_m.exp() * (log_m - log_a),
    }
    return terms[name].sum() * AREA


def mean_gradient(
    loss: Callable[[], Tensor], parameters: list[nn.Parameter], repeats: int = 20
) -> tuple[Tensor, Tensor]:
    """Mean gradient of repeated losses and its standard error."""
    found = torch.stack(
        [torch.stack(torch.autograd.grad(loss(), parameters)) for _ in range(repeats)]
    )
    return found.mean(0), found.std(0) / repeats**0.5
