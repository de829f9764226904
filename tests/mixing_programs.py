"""Programs with mixing variables whose densities are known, and draws of them."""

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_lvm.mixing import Mixing
from pyro_lvm.semi_implicit import draw_mixed

MAX_Z = 5.0
"""Standard errors of means: of a hundred comparisons right code fails once in 1e4 runs."""

MIXING = {"is_auxiliary": True}
X = torch.tensor([1.5], dtype=torch.float64)
LOG_P = dist.Normal(torch.zeros_like(X), 2**0.5).log_prob(X)


def gaussian(x: Tensor) -> None:
    """Normal(x / 2, 0.5): the exact posterior."""
    with pyro.plate("data", len(x)):
        psi = pyro.sample("psi", dist.Normal(x / 2, 0.5), infer=MIXING)
        pyro.sample("z", dist.Normal(psi, 0.5))


def two_modes(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        side = pyro.sample("side", dist.Bernoulli(torch.tensor(0.3)), infer=MIXING)
        pyro.sample("z", dist.Normal(x / 2 + 2 * side - 1, 0.7))


def wide(x: Tensor) -> None:
    """A conditional wider than the posterior: weights of finite variance for any J."""
    with pyro.plate("data", len(x)):
        psi = pyro.sample("psi", dist.Normal(x / 2, 0.5), infer=MIXING)
        pyro.sample("z", dist.Normal(psi, 1.0))


def mixed_prior(x: Tensor) -> None:
    """The prior of ``conjugate_programs.model``, as a mixture."""
    with pyro.plate("data", len(x)):
        zeta = pyro.sample("zeta", dist.Normal(torch.zeros(()), 0.8), infer=MIXING)
        z = pyro.sample("z", dist.Normal(zeta, 0.6))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def exact_log_q(guide, z: Tensor, x: Tensor) -> Tensor:
    if guide is gaussian:
        return dist.Normal(x / 2, 0.5**0.5).log_prob(z)
    sides = dist.Normal(x / 2 + torch.tensor([[-1.0], [1.0]]), 0.7).log_prob(z.unsqueeze(-2))
    return (sides + torch.tensor([[0.7], [0.3]]).log()).logsumexp(-2)


def hierarchical(x: Tensor) -> None:
    """Two levels of mixing, one more mixing variable that reads a latent, two latents."""
    with pyro.plate("data", len(x)):
        top = pyro.sample("top", dist.Normal(x / 2, 0.3), infer=MIXING)
        psi = pyro.sample("psi", dist.Normal(top, 0.4), infer=MIXING)
        first = pyro.sample("first", dist.Normal(psi, 0.5))
        late = pyro.sample("late", dist.Normal(0.5 * first, 0.6), infer=MIXING)
        pyro.sample("second", dist.Normal(late - first, 0.7))


def two_latents(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        first = pyro.sample("first", dist.Normal(torch.zeros(()), 1.0))
        second = pyro.sample("second", dist.Normal(torch.zeros(()), 1.0))
        pyro.sample("x", dist.Normal(first + second, 1.0), obs=x)


def draws(model, guide, x: Tensor, num_particles: int, *mixing, nesting: int = 1):
    return draw_mixed(
        model,
        guide,
        (x,),
        {},
        num_particles=num_particles,
        max_plate_nesting=nesting,
        mixing=Mixing(*mixing),
    )


def mean_and_error(values: Tensor) -> tuple[Tensor, Tensor]:
    values = values.flatten()
    return values.mean(), values.std() / len(values) ** 0.5
