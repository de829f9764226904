"""Distributions of chosen rows have the density of these rows."""

from collections.abc import Callable
from typing import Any

import pyro.distributions as dist
import pytest
import torch
from moved import moved
from torch import Tensor

from pyro_lvm.distributions import ConditionalFlow
from pyro_lvm.distributions.flow import FAMILIES
from pyro_lvm.distributions.mapped import mapped

pytestmark = pytest.mark.usefixtures("float64")

BATCH, SIZE = (5, 3, 4), 2


def full(**named: Tensor) -> dist.MultivariateNormal:
    """With all three matrices in its attributes, as after they were looked at."""
    made = dist.MultivariateNormal(torch.randn(*BATCH, SIZE), **named)
    assert made.scale_tril.shape == made.covariance_matrix.shape == made.precision_matrix.shape
    return made


def flow(family: str) -> Any:
    return moved(ConditionalFlow(SIZE, 3, family, hidden=(5,)))


MADE: dict[str, Callable[[], Any]] = {
    "Normal": lambda: dist.Normal(torch.randn(*BATCH, SIZE), torch.rand(SIZE) + 0.1).to_event(1),
    "scale_tril": lambda: full(scale_tril=torch.eye(SIZE).expand(*BATCH, SIZE, SIZE)),
    "covariance": lambda: full(covariance_matrix=torch.eye(SIZE) + 0.2),
    "low rank": lambda: dist.LowRankMultivariateNormal(
        torch.randn(*BATCH, SIZE), torch.randn(*BATCH, SIZE, 1), torch.rand(*BATCH, SIZE) + 0.1
    ),
    **{name: lambda name=name: flow(name)(torch.randn(*BATCH, 3)) for name in FAMILIES},
    "expanded": lambda: flow("maf")(torch.randn(5, 1, 4, 3)).expand(BATCH),
}


@pytest.mark.parametrize("make", MADE.values(), ids=MADE)
def test_rows(make: Callable[[], Any]) -> None:
    fn, z = make(), torch.randn(SIZE)
    row = mapped(fn, lambda parameter: parameter[1])
    assert (row.batch_shape, row.event_shape) == (BATCH[1:], (SIZE,))
    torch.testing.assert_close(row.log_prob(z), fn.log_prob(z)[1])
    assert row().untyped_storage().nbytes() <= 3 * 4 * SIZE * 8


def test_another_shape() -> None:
    fn, z = MADE["low rank"](), torch.randn(SIZE)
    flat = mapped(fn, lambda parameter: parameter.flatten(0, 2))
    torch.testing.assert_close(flat.log_prob(z), fn.log_prob(z).flatten())


def test_what_is_not_known() -> None:
    assert mapped(dist.Laplace(torch.zeros(5), 1.0), lambda parameter: parameter[1]) is None
    mixture = dist.MixtureSameFamily(
        dist.Categorical(torch.ones(5, 2)), dist.Normal(torch.zeros(5, 2), 1.0)
    )
    assert mapped(mixture, lambda parameter: parameter[1]) is None
