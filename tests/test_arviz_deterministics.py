"""Values of ``pyro.deterministic`` beside the latents that they follow from."""

import warnings

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.reparam import LocScaleReparam
from torch import Tensor

from pyro_lvm.diagnostics import to_inference_data

pytestmark = pytest.mark.usefixtures("float64")

X = torch.linspace(-1.0, 1.0, 5, dtype=torch.float64)


def model(x: Tensor) -> None:
    scale = pyro.sample("scale", dist.Normal(torch.zeros(3), 1.0).to_event(1))
    pyro.deterministic("odds", scale.exp())
    pyro.deterministic("total", scale.sum(-1), event_dim=0)
    pyro.deterministic("centred", x - x.mean())  # follows from data alone
    with pyro.plate("person", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.deterministic("within", z.exp())
        pyro.deterministic("pair", torch.stack([z, z * x], -1), event_dim=1)
        pyro.deterministic("residual", x - z)
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)
    pyro.deterministic("outside", z * 2.0)
    pyro.deterministic("mean", z.mean(-1))


def guide(x: Tensor) -> None:
    pyro.sample("scale", dist.Normal(torch.zeros(3), 1.0).to_event(1))
    with pyro.plate("person", len(x)):
        pyro.sample("z", dist.Normal(x / 2, 0.7))


@pytest.mark.parametrize("chunk_size", [1, 3, None])
def test_they_are_where_their_latents_are(chunk_size: int | None) -> None:
    labels = {"person": list("abcde")}
    found = to_inference_data(
        model, guide, X, num_samples=7, chunk_size=chunk_size, coords=labels, dims={"pair": ["two"]}
    )
    draw = ("chain", "draw")
    for group in ("posterior", "prior"):
        drawn = found[group]
        assert {name: values.dims for name, values in drawn.data_vars.items()} == {
            "scale": (*draw, "scale_dim_0"),
            "odds": (*draw, "odds_dim_0"),
            "total": draw,
            "z": (*draw, "person"),
            "within": (*draw, "person"),
            "pair": (*draw, "person", "two"),
            "residual": (*draw, "person"),
            "outside": (*draw, "person"),
            "mean": draw,
        }
        z, scale = drawn["z"].values, drawn["scale"].values
        np.testing.assert_allclose(drawn["odds"], np.exp(scale))
        np.testing.assert_allclose(drawn["total"], scale.sum(-1))
        np.testing.assert_allclose(drawn["within"], np.exp(z))
        np.testing.assert_allclose(drawn["pair"], np.stack([z, z * X.numpy()], -1))
        np.testing.assert_allclose(drawn["outside"], 2 * z)
        np.testing.assert_allclose(drawn["mean"], z.mean(-1))
        np.testing.assert_allclose(drawn["residual"], X.numpy() - z)


def test_draws_do_not_depend_on_them() -> None:
    def plain(x: Tensor) -> None:
        with pyro.poutine.block(hide_fn=lambda msg: msg["infer"].get("_deterministic", False)):
            model(x)

    with_them, without = (
        to_inference_data(program, guide, X, num_samples=4, seed=1) for program in (model, plain)
    )
    for group in ("posterior", "prior", "posterior_predictive"):
        for name, values in without[group].data_vars.items():
            np.testing.assert_array_equal(values, with_them[group][name])


def by_person(x: Tensor) -> None:
    with pyro.plate("person", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.deterministic("within", z.exp())
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)
    pyro.deterministic("mean", z.mean(-1))


def guide_by_person(x: Tensor) -> None:
    with pyro.plate("person", len(x)):
        pyro.sample("z", dist.Normal(x / 2, 0.7))


@pytest.mark.parametrize("correct", ["mh", "psis"])
def test_they_are_corrected_with_their_latents(correct: str) -> None:
    with pytest.warns(UserWarning, match=r"'mean' under correct=.*plates \['person'\]") as caught:
        found = to_inference_data(by_person, guide_by_person, X, num_samples=200, correct=correct)
    assert len(caught) == 1
    np.testing.assert_allclose(found["posterior"]["within"], np.exp(found["posterior"]["z"]))
    assert "mean" not in found["posterior"]


def test_what_a_reparameterisation_has_replaced_is_there() -> None:
    def hierarchy(x: Tensor) -> None:
        loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
        with pyro.plate("person", len(x)):
            z = pyro.sample("z", dist.Normal(loc, 2.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def decentred(x: Tensor) -> None:
        pyro.sample("loc", dist.Normal(0.0, 1.0))
        with pyro.plate("person", len(x)):
            pyro.sample("z_decentered", dist.Normal(0.0, 1.0))

    changed = pyro.poutine.reparam(hierarchy, {"z": LocScaleReparam(centered=0.0)})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # Pyro's own
        drawn = to_inference_data(changed, decentred, X, num_samples=6)["posterior"]
    wanted = drawn["loc"].values[..., None] + 2 * drawn["z_decentered"].values
    np.testing.assert_allclose(drawn["z"], wanted)
