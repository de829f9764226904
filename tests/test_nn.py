"""Building blocks: networks, positive scales, inputs, the data plate."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

from pyro_lvm.errors import DataError, PlateError, ProgramError
from pyro_lvm.nn import (
    MLP,
    ConditionalNormal,
    as_batch,
    data_plate,
    diagonal_normal,
    hidden_by_layer,
    named_sizes,
    positive_scale,
    widen,
)

PARAMETER = torch.zeros(1)


@pytest.mark.parametrize("hidden", [(), (7,), (7, 5)])
def test_mlp_maps_the_last_dim_for_any_left_dims(hidden: tuple[int, ...]) -> None:
    network = MLP(3, 2, hidden)
    x = torch.randn(4, 6, 3)
    together = network(x)
    assert together.shape == (4, 6, 2)
    torch.testing.assert_close(together[1, 2], network(x[1, 2]))
    assert len([m for m in network.modules() if isinstance(m, nn.Linear)]) == len(hidden) + 1


def test_mlp_without_output_layer_ends_with_an_activation() -> None:
    assert MLP(3, None, (7,)).out_features == 7
    assert MLP(3, None, (7,))(1e3 * torch.randn(5, 3)).abs().max() <= 1
    x = torch.randn(5, 3)
    assert torch.equal(MLP(3, None, ())(x), x)


def test_mlp_activation_and_initialisation() -> None:
    assert (MLP(3, None, (7,), nn.ReLU)(torch.randn(5, 3)) >= 0).all()
    glorot = MLP(300, 300, ())
    bound = (6 / 600) ** 0.5
    assert (glorot.bias == 0).all()
    assert 0.99 * bound < glorot.layers[0].weight.abs().max() <= bound
    assert (MLP(300, 300, (), init="torch").bias != 0).all()


def test_densities_see_float32_under_autocast() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert nn.Linear(3, 2)(torch.randn(5, 3)).dtype == torch.bfloat16
        assert MLP(3, 2)(torch.randn(5, 3)).dtype == torch.float32
        normal = ConditionalNormal(3, 2)(torch.randn(5, 3))
        assert normal.rsample().dtype == normal.base_dist.scale.dtype == torch.float32
    assert widen(torch.zeros(1, dtype=torch.float64)).dtype == torch.float64


@pytest.mark.parametrize("transform", ["softplus", "exp"])
def test_scales_are_positive_and_increase(transform: str) -> None:
    scale = positive_scale(torch.linspace(-500.0, 80.0, 50), transform)
    assert torch.isfinite(scale).all()
    assert (scale >= 1e-6).all()
    assert (scale.diff() >= 0).all()
    assert scale[-1] >= 80


def test_conditional_normal_is_diagonal() -> None:
    x = torch.randn(5, 3)
    normal = ConditionalNormal(3, 2, transform="exp")(x)
    same = diagonal_normal(normal.mean, normal.variance.sqrt())
    value = torch.randn(5, 2)
    torch.testing.assert_close(normal.log_prob(value), same.log_prob(value))


@pytest.mark.parametrize(
    "x",
    [[[1, 2]], np.array([[1, 2]]), np.array([[1.0, 2.0]]), torch.tensor([[1, 2]])],
    ids=["list", "integers", "float64", "tensor"],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_batches_take_the_dtype_of_the_program(x: Any, dtype: torch.dtype) -> None:
    batch = as_batch(x, 2, like=torch.zeros(1, dtype=dtype))
    assert torch.equal(batch, torch.tensor([[1.0, 2.0]], dtype=dtype))


def test_batches_of_any_rows_keep_integers() -> None:
    assert as_batch(np.ones((2, 3, 3)), None, PARAMETER).dtype == torch.float32
    assert as_batch(np.array([[1, 2]]), None, PARAMETER).dtype == torch.int64


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(3), r"x: expected shape \(batch, 2\), got shape \(3,\)\.\nTry: .*x\[None\]"),
        (torch.zeros(4, 3), r"expected shape \(batch, 2\), got shape \(4, 3\)\.\nTry: .*in_feat"),
        (torch.zeros(4, 1, 2), r"got shape \(4, 1, 2\)\.\nTry: .*x\.flatten\(1\)"),
        (torch.zeros(0, 2), r"expected at least one datum, got an empty batch \(0, 2\)"),
    ],
)
def test_wrong_batches_are_refused(x: torch.Tensor, message: str) -> None:
    with pytest.raises(DataError, match=message):
        as_batch(x, 2, PARAMETER)


def _frame_and_scale(num_data: int | None) -> tuple[Any, Any]:
    def program() -> None:
        with data_plate(4, num_data):
            pyro.sample("z", dist.Normal(0.0, 1.0))

    site = pyro.poutine.trace(program).get_trace().nodes["z"]
    return site["cond_indep_stack"][0], site["scale"]


@pytest.mark.parametrize(("num_data", "scale"), [(None, 1.0), (4, 1.0), (10, 2.5)])
def test_data_plate_scales_by_n_over_b(num_data: int | None, scale: float) -> None:
    frame, found = _frame_and_scale(num_data)
    assert (frame.name, frame.dim, frame.size, float(found)) == ("data", -1, 4, scale)


def test_data_plate_draws_no_index() -> None:
    before = torch.get_rng_state()
    with data_plate(4, 10) as indices:
        assert indices.tolist() == [0, 1, 2, 3]
    assert torch.equal(torch.get_rng_state(), before)


def test_data_plate_smaller_than_its_batch() -> None:
    with pytest.raises(PlateError, match=r"num_data: expected at least the batch size 4, got 3"):
        data_plate(4, 3)


WRONG: list[tuple[Callable[[], Any], str]] = [
    (lambda: MLP(0, 1), r"in_features: expected an integer >= 1, got 0"),
    (lambda: MLP(1, -2), r"out_features: expected an integer >= 1, got -2"),
    (lambda: MLP(1, 1, (3, 0)), r"hidden: expected an integer >= 1, got 0"),
    (lambda: MLP(1, 1, (3.0,)), r"hidden: expected an integer >= 1, got 3\.0"),
    (lambda: MLP(1, 1, init="he"), r"init: expected one of \['glorot', 'torch'\], got 'he'"),
    (lambda: positive_scale(PARAMETER, "relu"), r"transform: expected one of .* got 'relu'"),
    (lambda: ConditionalNormal(1, 1, transform="relu"), r"transform: .* got 'relu'"),
    (lambda: named_sizes(()), r"latent_features: expected at least one size, got none"),
    (lambda: named_sizes({}), r"latent_features: expected at least one size, got none"),
    (lambda: named_sizes((3, 0)), r"latent_features of 'z2': expected an integer >= 1, got 0"),
    (lambda: hidden_by_layer([(3,)], 2), r"hidden: expected .* each of 2 stochastic layers"),
    (lambda: hidden_by_layer([(3,), 4], 2), r"hidden: expected .* each of 2"),
]


@pytest.mark.parametrize(("make", "message"), WRONG)
def test_wrong_arguments(make: Callable[[], Any], message: str) -> None:
    with warnings.catch_warnings(), pytest.raises(ProgramError, match=message) as error:
        make()
    assert "\nTry: " in str(error.value)


def test_one_layer_has_one_name() -> None:
    assert named_sizes((5,)) == named_sizes(5) == {"z": 5}
