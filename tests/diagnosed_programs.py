"""Programs that diagnostics are tried on, and the groups that ArviZ gets of them."""

from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor

from pyro_lvm.oracles import LinearGaussian


class WideGuide(PyroModule):
    """The posterior with 1.3 times its spread: finite weights, one bound a datum."""

    def __init__(self, oracle: LinearGaussian) -> None:
        super().__init__()
        self.oracle = oracle
        self.largest = 0

    def forward(self, x: Tensor, size: Any = None, subsample: Any = None) -> None:
        with pyro.plate("data", size or len(x), subsample=subsample) as index:
            q = self.oracle.posterior(x if subsample is None else x[index])
            wide = dist.MultivariateNormal(q.loc, 1.3**2 * q.covariance_matrix)
            z = pyro.sample("z", wide)
        self.largest = max(self.largest, len(z) if z.dim() == 3 else 1)


def hierarchy(y: Tensor, covariate: Tensor) -> None:
    """A global latent, a latent in one plate, another in the two crossed, and a factor."""
    w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([3]).to_event(1))
    pyro.factor("penalty", -0.1 * w.square().sum(-1))
    groups = pyro.plate("groups", 4, dim=-2)
    people = pyro.plate("people", 5, dim=-1)
    with groups:
        a = pyro.sample("a", dist.Normal(w.sum(-1), 1.0))
    with groups, people:
        b = pyro.deterministic("b", a * covariate)
        pyro.sample("y", dist.Poisson((0.1 * b).exp()), obs=y)


def hierarchy_guide(y: Tensor, covariate: Tensor) -> None:
    helper = pyro.sample(
        "helper", dist.Normal(0.0, 1.0).expand([3]).to_event(1), infer={"is_auxiliary": True}
    )
    pyro.sample("w", dist.Delta(helper, event_dim=1))
    with pyro.plate("groups", 4, dim=-2):
        pyro.sample("a", dist.Normal(0.0, 0.5))


def tensor(array: Any) -> Tensor:
    """What a data array holds, on the device of the test."""
    return torch.as_tensor(array.values)


GROUPS = (
    "posterior",
    "prior",
    "posterior_predictive",
    "prior_predictive",
    "log_likelihood",
    "sample_stats",
    "observed_data",
)
