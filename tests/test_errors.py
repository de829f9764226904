"""Bad arguments, data and parameters: where, expected against got, what to try."""

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from explained import X, explained, guide, model
from pyro import poutine
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.autoguide import AutoNormal
from pyro.nn import PyroModule
from torch import Tensor

from pyro_lvm.annealing import LinearWarmup
from pyro_lvm.errors import (
    DataError,
    NonFiniteError,
    ParameterError,
    PlateError,
    ProgramError,
)
from pyro_lvm.objectives import CIWAE, CUBO, ELBO, IWAE, AlphaDivergence, Renyi

# Arguments.

ARGUMENTS: dict[str, tuple[Callable[[], Any], str, str, str, str]] = {
    "no particles": (lambda: ELBO(0), "num_particles", "an integer >= 1", "0", "num_particles=1"),
    "negative particles": (lambda: IWAE(-3), "num_particles", ">= 1", "-3", "num_particles=1"),
    "fractional particles": (lambda: IWAE(2.5), "num_particles", "integer", "2.5", "Pass"),  # type: ignore[arg-type]
    "unknown gradient": (
        lambda: IWAE(2, "iwae"),
        "gradient",
        "'dreg', 'ovis', 'reparam', 'score', 'stl', 'vimco'",
        "'iwae'",
        "gradient='reparam'",
    ),
    "vimco alone": (
        lambda: IWAE(1, "vimco"),
        "num_particles",
        "K >= 2 with gradient='vimco'",
        "1",
        "num_particles=5",
    ),
    "order one": (lambda: Renyi(alpha=1.0), "alpha", "other than 1", "1.0", "Use ELBO"),
    "endless order": (lambda: Renyi(alpha=float("inf")), "alpha", "finite", "inf", "ELBO"),
    "unknown order": (lambda: Renyi(alpha=float("nan")), "alpha", "finite", "nan", "ELBO"),
    "negative free bits": (
        lambda: ELBO(free_bits=-0.1),
        "free_bits",
        ">= 0",
        "-0.1",
        "free_bits=0.0",
    ),
    "free bits of nan": (
        lambda: ELBO(free_bits=float("nan")),
        "free_bits",
        ">= 0",
        "nan",
        "free_bits=0.0",
    ),
    "free bits in words": (
        lambda: ELBO(free_bits="1"),
        "free_bits",
        ">= 0",
        "'1'",
        "free_bits=0.0",
    ),
    "negative beta": (lambda: IWAE(beta=-0.1), "beta", ">= 0, or a function", "-0.1", "beta=1.0"),
    "beta of nan": (lambda: IWAE(beta=float("nan")), "beta", ">= 0", "nan", "beta=1.0"),
    "beta in words": (lambda: IWAE(beta="0.5"), "beta", "a function", "'0.5'", "beta=1.0"),
    "alpha in words": (lambda: Renyi(alpha="a"), "alpha", "other than 1", "'a'", "Use ELBO for 1"),
    "no alpha": (lambda: AlphaDivergence(2, alpha=None), "alpha", "finite", "None", "alpha=1.0"),
    "order in words": (lambda: CUBO(2, order="2"), "order", "above 1", "'2'", "order=2.0"),
    "weight in words": (lambda: CIWAE(2, elbo_weight="a"), "elbo_weight", "0 to 1", "'a'", "0.5"),
    "no steps of warm-up": (lambda: LinearWarmup(0), "num_steps", ">= 1", "0", "beta at 1.0"),
    "broken nesting": (
        lambda: IWAE(max_plate_nesting=1.5),
        "max_plate_nesting",
        "an integer >= 0",
        "1.5",
        "max_plate_nesting=1",
    ),
    "free bits under dreg": (
        lambda: IWAE(2, "dreg", free_bits=0.1),
        "free_bits",
        "0 with gradient='dreg' and K > 1",
        "0.1",
        "free_bits=0.0",
    ),
    "stl under iwae": (
        lambda: IWAE(2, "stl"),
        "IWAE(gradient='stl')",
        "unbiased",
        "biased for a non-linear bound",
        "gradient='dreg'",
    ),
    "stl under renyi": (
        lambda: Renyi(2, "stl"),
        "Renyi(gradient='stl')",
        "unbiased",
        "biased",
        "gradient='dreg'",
    ),
}


@pytest.mark.parametrize("case", ARGUMENTS)
def test_arguments(case: str) -> None:
    make, *texts = ARGUMENTS[case]
    with explained(ProgramError, *texts):
        make()


@pytest.mark.parametrize(
    "make", [lambda: ELBO(5, "stl"), lambda: IWAE(1, "stl"), lambda: ELBO(1, "score")]
)
def test_arguments_that_are_fine(make: Callable[[], Any]) -> None:
    assert make().num_particles >= 1


def test_all_errors_are_value_errors() -> None:
    """So that handlers written for Pyro's own checks go on working."""
    kinds = [DataError, NonFiniteError, ParameterError, PlateError, ProgramError]
    assert all(issubclass(kind, ValueError) for kind in kinds)


def test_no_single_trace() -> None:
    with pytest.raises(NotImplementedError, match=r"(?s)ELBO: expected .*Try: Call \.particles"):
        ELBO()._get_trace(model, guide, (X,), {})


# Data.

WRONG = torch.tensor([0.0, float("nan"), 1.0, float("inf"), 2.0, float("nan"), 0.0, -float("inf")])


@pytest.mark.parametrize("validation", [True, False])
@pytest.mark.parametrize("method", ["loss_and_grads", "module"])
def test_nonfinite_data(validation: bool, method: str) -> None:
    """Count and first indices, before anything is trained."""
    objective = IWAE(2)
    call = {"loss_and_grads": objective.loss_and_grads, "module": objective.differentiable_loss}
    with (
        pyro.validation_enabled(validation),
        explained(
            DataError,
            "observed site 'x'",
            "finite data",
            "4 values, first at [1], [3], [5]",
            "obs_mask (True = observed)",
        ),
    ):
        call[method](model, guide, WRONG)


@pytest.mark.parametrize("validation", [True, False])
def test_nonfinite_data_of_an_amortised_guide(validation: bool) -> None:
    """The data are to blame, not the ``loc`` that an encoder makes of them."""

    def amortised(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 2, 1.0))

    with (
        pyro.validation_enabled(validation),
        explained(DataError, "", "finite", "4 values, first at [1], [3], [5]", "Remove"),
    ):
        IWAE(2).loss_and_grads(model, amortised, WRONG)


def test_only_uncovered_entries_are_counted() -> None:
    observed = torch.tensor([True, False] + [True] * 6)

    def masked_model(x: Tensor) -> None:
        with poutine.mask(mask=observed):
            model(x)

    with explained(
        DataError, "observed site 'x'", "finite", "3 values, first at [3], [5], [7]", ""
    ):
        IWAE(2).loss_and_grads(masked_model, poutine.mask(guide, mask=observed), WRONG)


def test_nonfinite_entries_of_events() -> None:
    def vector_model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            pyro.sample("x", dist.Normal(z[..., None], torch.ones(2)).to_event(1), obs=x)

    x = torch.zeros(8, 2)
    x[3, 1] = torch.nan
    with explained(DataError, "observed site 'x'", "finite", "1 values, first at [3, 1]", ""):
        IWAE(2).loss_and_grads(vector_model, guide, x)


def test_empty_batch() -> None:
    """Pyro divides by zero."""
    with pytest.raises(ZeroDivisionError):
        Trace_ELBO().loss(model, guide, torch.zeros(0))
    with explained(DataError, "plate 'data'", "at least one datum", "an empty batch", "Drop"):
        ELBO().loss(model, guide, torch.zeros(0))


# Training.


def exploding() -> tuple[Callable[..., None], Callable[..., None]]:
    def guide(x: Tensor) -> None:
        loc = pyro.param("loc", torch.tensor(1.0))
        scale = pyro.param("scale", torch.tensor(2.0))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, scale))

    return model, guide


def test_nan_loss_leaves_parameters_untouched() -> None:
    """The site and its parameters' range are named, and the next step still works."""
    svi = SVI(*exploding(), pyro.optim.Adam({"lr": 0.1}), ELBO(3))
    store = pyro.get_param_store()
    with pyro.validation_enabled(False):
        svi.step(X)
        kept = store["loc"].item()
        healthy = store["scale"].detach().clone()
        store["scale"] = torch.tensor(float("nan"))
        with explained(
            NonFiniteError,
            "loss",
            "a finite number",
            "nan, from site 'z' of the guide, Normal with loc in [",
            "learning rate",
        ):
            svi.step(X)
        assert store["loc"].item() == kept
        store["scale"] = healthy
        svi.step(X)
    assert all(bool(torch.isfinite(value)) for value in store.values())


def test_svi_with_module_local_parameters() -> None:
    """``SVI.step`` cannot train an ``nn.Parameter`` then; Pyro says AttributeError."""

    class Shifted(PyroModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.shift = torch.nn.Parameter(torch.tensor(0.0))

        def forward(self, x: Tensor) -> None:
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(self.shift, 1.0))

    with pyro.settings.context(module_local_params=True):
        adam = pyro.optim.Adam({"lr": 0.1})
        with pytest.raises(AttributeError, match="unconstrained"):
            SVI(model, Shifted(), adam, Trace_ELBO()).step(X)
        with explained(
            ParameterError,
            "parameter 'shift'",
            "Pyro's store",
            "module_local_params is on",
            "objective(model, guide)",
        ):
            SVI(model, Shifted(), adam, ELBO()).step(X)


def test_svi_trains_pyro_parameters_of_modules() -> None:
    """Those of an AutoGuide are Pyro's own, whatever ``module_local_params`` says."""
    with pyro.settings.context(module_local_params=True):
        guide = AutoNormal(model)
        svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.1}), ELBO())
        svi.step(X)
        before = guide.locs.z.clone()
        svi.step(X)
        assert bool((guide.locs.z != before).all())


def test_stale_parameter() -> None:
    """Pyro's store silently prefers the old shape to the one the new code asks for."""
    pyro.param("a", torch.zeros(2))
    assert pyro.param("a", torch.zeros(3)).shape == (2,)

    def stale(x: Tensor) -> None:
        a = pyro.param("a", torch.zeros(3))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(a.sum(), 1.0))

    with explained(
        ParameterError, "parameter 'a'", "shape (3,)", "(2,)", "pyro.clear_param_store()"
    ):
        ELBO().loss(model, stale, X)
