"""Programs of one and two latent variables whose expected bounds quadrature gives exactly."""

from collections.abc import Callable
from dataclasses import dataclass, field

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_lvm.oracles import normal_grid

X = torch.tensor(1.3, dtype=torch.float64)


def normal(value: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
    return dist.Normal(loc, scale).log_prob(value)


def bernoulli(value: Tensor, logits: Tensor) -> Tensor:
    return dist.Bernoulli(logits=logits).log_prob(value)


@dataclass
class Program:
    """Parameters with gradients, a model, a guide, and log-weights on a grid of all latents."""

    name: str
    model: Callable[..., None]
    guide: Callable[..., None]
    grid: Callable[[float], tuple[Tensor, Tensor]]
    theta: dict[str, Tensor] = field(default_factory=dict)
    phi: dict[str, Tensor] = field(default_factory=dict)
    is_discrete: bool = False

    @property
    def leaves(self) -> list[Tensor]:
        return [*self.theta.values(), *self.phi.values()]


def leaves(**values: float) -> dict[str, Tensor]:
    return {n: torch.tensor(v, dtype=torch.float64, requires_grad=True) for n, v in values.items()}


def one_level() -> Program:
    t, f = leaves(a=0.3, b=0.8), leaves(m=0.4, s=-0.2)

    def model(n: int) -> None:
        with pyro.plate("data", n):
            z = pyro.sample("z", dist.Normal(t["a"], 1.0))
            pyro.sample("x", dist.Normal(t["b"] * z, 0.7), obs=X.expand(n))

    def guide(n: int) -> None:
        with pyro.plate("data", n):
            pyro.sample("z", dist.Normal(f["m"] + 0.3 * X, f["s"].exp()))

    def grid(beta: float = 1.0) -> tuple[Tensor, Tensor]:
        e, mass = normal_grid(400)
        loc, scale = f["m"] + 0.3 * X, f["s"].exp()
        z = loc + scale * e
        kl = normal(z, t["a"], torch.ones_like(z)) - normal(z, loc, scale)
        return normal(X, t["b"] * z, torch.tensor(0.7)) + beta * kl, mass

    return Program("one-level", model, guide, grid, t, f)


def two_level() -> Program:
    t, f = leaves(a=0.9, b=0.8), leaves(m1=0.5, s1=-0.4, c=0.3, m2=0.1, s2=-0.1)

    def model(n: int) -> None:
        with pyro.plate("data", n):
            z2 = pyro.sample("z2", dist.Normal(0.0, 1.0))
            z1 = pyro.sample("z1", dist.Normal(t["a"] * z2, 0.8))
            pyro.sample("x", dist.Normal(t["b"] * z1, 0.7), obs=X.expand(n))

    def guide(n: int) -> None:
        with pyro.plate("data", n):
            z1 = pyro.sample("z1", dist.Normal(f["m1"], f["s1"].exp()))
            pyro.sample("z2", dist.Normal(f["c"] * z1 + f["m2"], f["s2"].exp()))

    def grid(beta: float = 1.0) -> tuple[Tensor, Tensor]:
        e, mass = normal_grid(61)
        e1, e2 = torch.meshgrid(e, e, indexing="ij")
        z1 = f["m1"] + f["s1"].exp() * e1
        loc2 = f["c"] * z1 + f["m2"]
        z2 = loc2 + f["s2"].exp() * e2
        log_p = normal(z2, torch.zeros(()), torch.ones(())) + normal(
            z1, t["a"] * z2, torch.tensor(0.8)
        )
        log_q = normal(z1, f["m1"], f["s1"].exp()) + normal(z2, loc2, f["s2"].exp())
        log_w = normal(X, t["b"] * z1, torch.tensor(0.7)) + beta * (log_p - log_q)
        return log_w.reshape(-1), (mass[:, None] * mass).reshape(-1)

    return Program("two-level", model, guide, grid, t, f)


def _mixed(name: str, discrete_first: bool) -> Program:
    t, f = leaves(a=0.4, b=0.8), leaves(l=-0.3, g=0.5, m=0.2, d=0.6, s=-0.2)

    def model(n: int) -> None:
        with pyro.plate("data", n):
            c = pyro.sample("c", dist.Bernoulli(logits=t["a"]))
            z = pyro.sample("z", dist.Normal(c - 0.5, 1.0))
            pyro.sample("x", dist.Normal(t["b"] * z + c, 0.7), obs=X.expand(n))

    def loc_and_logits(c: Tensor | float, z: Tensor | float) -> tuple[Tensor, Tensor]:
        if discrete_first:
            return f["m"] + f["d"] * c, f["l"] + f["g"]
        return f["m"] + f["d"], f["l"] + f["g"] * z

    def draw_c(z: Tensor | float) -> Tensor:
        return pyro.sample("c", dist.Bernoulli(logits=loc_and_logits(0.0, z)[1]))

    def draw_z(c: Tensor | float) -> Tensor:
        return pyro.sample("z", dist.Normal(loc_and_logits(c, 0.0)[0], f["s"].exp()))

    def guide(n: int) -> None:
        with pyro.plate("data", n):
            if discrete_first:
                draw_z(draw_c(0.0))
            else:
                draw_c(draw_z(0.0))

    def grid(beta: float = 1.0) -> tuple[Tensor, Tensor]:
        e, mass = normal_grid(300)
        c = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
        loc = loc_and_logits(c, 0.0)[0]
        z = loc + f["s"].exp() * e
        logits = loc_and_logits(c, z)[1].expand(2, len(e))
        log_c = bernoulli(c.expand_as(logits), logits)
        log_q = log_c + normal(z, loc, f["s"].exp())
        log_p = bernoulli(c, t["a"]) + normal(z, c - 0.5, torch.ones(()))
        log_w = normal(X, t["b"] * z + c, torch.tensor(0.7)) + beta * (log_p - log_q)
        return log_w.expand(2, len(e)).reshape(-1), (log_c.exp() * mass).reshape(-1)

    return Program(name, model, guide, grid, t, f, is_discrete=True)


def discrete_first() -> Program:
    return _mixed("discrete, then continuous", True)


def discrete_last() -> Program:
    return _mixed("continuous, then discrete", False)


PROGRAMS = [one_level, two_level, discrete_first, discrete_last]
