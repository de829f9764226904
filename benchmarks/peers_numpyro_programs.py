"""The programs of the comparison in NumPyro, on arrays named as the PyTorch parameters are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax import Array

__all__ = ["PROGRAMS"]

Values = Mapping[str, Array]


def _linear(values: Values, name: str, x: Array) -> Array:
    return x @ values[f"{name}.weight"].T + values[f"{name}.bias"]


def _mlp(values: Values, name: str, x: Array) -> Array:
    layers = sum(key.startswith(f"{name}.") for key in values) // 2
    for layer in range(layers):
        x = _linear(values, f"{name}.{2 * layer}", x if layer == 0 else jnp.tanh(x))
    return x


def vae_model(values: Values, x: Array) -> None:
    latent = values["decoder.0.weight"].shape[1]
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", dist.Normal(jnp.zeros(latent), 1.0).to_event(1))
        logits = _mlp(values, "decoder", z)
        numpyro.sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=x)


def vae_guide(values: Values, x: Array) -> None:
    loc, log_scale = jnp.split(_mlp(values, "encoder", x), 2, -1)
    with numpyro.plate("data", len(x)):
        numpyro.sample("z", dist.Normal(loc, jnp.exp(log_scale)).to_event(1))


def _normal(values: Values, guide: str, name: str) -> Any:
    return dist.Normal(values[f"{guide}.loc.{name}"], jnp.exp(values[f"{guide}.log_scale.{name}"]))


def answers_model(values: Values, y: Array) -> None:
    items, people = (
        numpyro.plate("items", y.shape[1], dim=-1),
        numpyro.plate("people", len(y), dim=-2),
    )
    with items:
        log_slope = numpyro.sample("log_slope", dist.Normal(0.0, 0.5))
        difficulty = numpyro.sample("difficulty", dist.Normal(0.0, 1.0))
    with people:
        ability = numpyro.sample("ability", dist.Normal(0.0, 1.0))
        with items:
            logits = jnp.exp(log_slope) * (ability - difficulty)
            numpyro.sample("y", dist.Bernoulli(logits=logits), obs=y)


def answers_guide(values: Values, y: Array) -> None:
    with numpyro.plate("items", y.shape[1], dim=-1):
        for name in ("log_slope", "difficulty"):
            numpyro.sample(name, _normal(values, "normals", name))
    with numpyro.plate("people", len(y), dim=-2):
        numpyro.sample("ability", _normal(values, "normals", "ability"))


def factors_model(values: Values, x: Array) -> None:
    columns, factors = values["guide.normals.loc.loading"].shape
    origin = jnp.zeros(factors)
    with numpyro.plate("columns", columns):
        loading = numpyro.sample("loading", dist.Normal(origin, 1.0).to_event(1))
    with numpyro.plate("rows", len(x)):
        z = numpyro.sample("z", dist.Normal(origin, 1.0).to_event(1))
        noise = dist.Normal(z @ loading.T, jnp.exp(values["model.log_noise"])).to_event(1)
        numpyro.sample("x", noise, obs=x)


def factors_guide(values: Values, x: Array) -> None:
    with numpyro.plate("columns", x.shape[1]):
        numpyro.sample("loading", _normal(values, "guide.normals", "loading").to_event(1))
    with numpyro.plate("rows", len(x)):
        numpyro.sample("z", _normal(values, "guide.normals", "z").to_event(1))


def states_model(values: Values, x: Array) -> None:
    scale, noise = jnp.exp(values["model.log_scale"]), jnp.exp(values["model.log_noise"])
    loc = jnp.zeros_like(scale)
    with numpyro.plate("data", len(x)):
        for t in range(x.shape[1]):
            z = numpyro.sample(f"z_{t}", dist.Normal(loc, scale).to_event(1))
            seen = dist.Normal(_linear(values, "model.emission", z), noise).to_event(1)
            numpyro.sample(f"x_{t}", seen, obs=x[:, t])
            loc = jnp.tanh(_linear(values, "model.transition", z))


def states_guide(values: Values, x: Array) -> None:
    given = _mlp(values, "guide.encoder", x)
    before = 0.0
    with numpyro.plate("data", len(x)):
        for t in range(x.shape[1]):
            loc, log_scale = jnp.split(given[:, t] + before, 2, -1)
            z = numpyro.sample(f"z_{t}", dist.Normal(loc, jnp.exp(jnp.tanh(log_scale))).to_event(1))
            before = _linear(values, "guide.before", z)


PROGRAMS = {
    "vae": (vae_model, vae_guide),
    "answers": (answers_model, answers_guide),
    "factors": (factors_model, factors_guide),
    "states": (states_model, states_guide),
}
