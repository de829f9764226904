"""Five posteriors of posteriordb as Pyro programs, with what its reference draws say of them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints

__all__ = ["POSTERIORS", "Posterior", "reference", "table"]

Data = dict[str, Any]
Draws = dict[str, Tensor]


class Posterior(NamedTuple):
    """A program without arguments, where to start, and its parameters by posteriordb's names."""

    program: Callable[[], None]
    start: Draws
    named: Callable[[Draws], Draws]


def reference() -> dict[str, Any]:
    """What was read of posteriordb, from the folder in PYRO_LVM_DATA."""
    path = Path(os.environ["PYRO_LVM_DATA"]) / "posteriordb.json"
    return dict(json.loads(path.read_text())["posteriors"])


def table(data: Data, *names: str) -> list[Tensor]:
    """Columns of the data, in the default dtype."""
    return [torch.tensor(data[name], dtype=torch.get_default_dtype()) for name in names]


def _numbered(name: str, values: Tensor) -> Draws:
    return {f"{name}[{i + 1}]": column for i, column in enumerate(values.unbind(-1))}


def eight_schools(data: Data) -> Posterior:
    y, sigma = table(data, "y", "sigma")

    def effects(draws: Draws) -> Tensor:
        return draws["mu"][..., None] + draws["tau"][..., None] * draws["eta"]

    def program() -> None:
        draws = {
            "mu": pyro.sample("mu", dist.Normal(0.0, 5.0)),
            "tau": pyro.sample("tau", dist.HalfCauchy(5.0)),
            "eta": pyro.sample("eta", dist.Normal(torch.zeros(8), 1.0).to_event(1)),
        }
        pyro.sample("y", dist.Normal(effects(draws), sigma).to_event(1), obs=y)

    start = {"mu": torch.tensor(4.0), "tau": torch.tensor(3.0), "eta": torch.zeros(8)}
    return Posterior(
        program,
        start,
        lambda d: {**_numbered("theta", effects(d)), "mu": d["mu"], "tau": d["tau"]},
    )


def _linear(y: Tensor, columns: Tensor, coefficients: Any, sigma: Any, start: Tensor) -> Posterior:
    """y ~ N(columns @ beta, sigma), with the first column of ones."""

    def program() -> None:
        beta = pyro.sample("beta", coefficients)
        scale = pyro.sample("sigma", sigma)
        mean = torch.linalg.vecdot(columns, beta[..., None, :])
        pyro.sample("y", dist.Normal(mean, scale[..., None]).to_event(1), obs=y)

    found = torch.linalg.lstsq(columns, y[:, None]).solution[:, 0]
    return Posterior(
        program,
        {"beta": found, "sigma": start},
        lambda d: {**_numbered("beta", d["beta"]), "sigma": d["sigma"]},
    )


def _flat(size: int) -> Any:
    return dist.ImproperUniform(constraints.real_vector, (), (size,))


def kidiq(data: Data) -> Posterior:
    y, iq = table(data, "kid_score", "mom_iq")
    columns = torch.stack([torch.ones_like(iq), iq], -1)
    return _linear(y, columns, _flat(2), dist.HalfCauchy(2.5), y.std())


def mesquite(data: Data) -> Posterior:
    names = ("diam1", "diam2", "canopy_height", "total_height", "density")
    weight, group, *sizes = table(data, "weight", "group", *names)
    columns = torch.stack([torch.ones_like(group), *(size.log() for size in sizes), group], -1)
    positive = dist.ImproperUniform(constraints.positive, (), ())
    return _linear(weight.log(), columns, _flat(7), positive, torch.tensor(0.5))


def autoregression(data: Data) -> Posterior:
    (y,) = table(data, "y")
    lags = [y[5 - lag : len(y) - lag] for lag in range(1, 6)]
    columns = torch.stack([torch.ones_like(lags[0]), *lags], -1)
    priors = dist.Normal(torch.zeros(6), 10.0).to_event(1)
    linear = _linear(y[5:], columns, priors, dist.HalfCauchy(2.5), y.std())

    def named(draws: Draws) -> Draws:
        alpha, beta = draws["beta"][..., 0], draws["beta"][..., 1:]
        return {"alpha": alpha, **_numbered("beta", beta), "sigma": draws["sigma"]}

    return linear._replace(named=named)


def gaussian_process(data: Data) -> Posterior:
    x, y = table(data, "x", "y")
    squared = (x[:, None] - x).square()

    def program() -> None:
        rho = pyro.sample("rho", dist.Gamma(25.0, 4.0))[..., None, None]
        alpha = pyro.sample("alpha", dist.HalfNormal(2.0))[..., None, None]
        sigma = pyro.sample("sigma", dist.HalfNormal(1.0))[..., None, None]
        kernel = alpha.square() * (-squared / (2 * rho.square())).exp()
        covariance = kernel + sigma * torch.eye(len(x))
        pyro.sample("y", dist.MultivariateNormal(torch.zeros(len(x)), covariance), obs=y)

    start = {"rho": torch.tensor(6.0), "alpha": torch.tensor(2.0), "sigma": torch.tensor(1.0)}
    return Posterior(program, start, lambda d: dict(d))


POSTERIORS: dict[str, Callable[[Data], Posterior]] = {
    "eight_schools-eight_schools_noncentered": eight_schools,
    "kidiq-kidscore_momiq": kidiq,
    "mesquite-logmesquite": mesquite,
    "gp_pois_regr-gp_regr": gaussian_process,
    "arK-arK": autoregression,
}
