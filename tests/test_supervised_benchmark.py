"""The benchmark of supervised encoders: its data, its judge, and a run of each kind."""

from copy import deepcopy

import pyro
import pytest
import torch

from benchmarks.supervised import (
    FEATURES,
    ROWS,
    RUNS,
    _criterion,
    draw,
    judged,
    limit,
    run,
    supervised,
)


def test_rows_share_their_loadings() -> None:
    """The covariance of 1000 rows is another draw's up to its own standard error."""
    (x, y), (other, _) = draw(3), draw(1003, 3)
    assert x.shape == (ROWS, FEATURES)
    assert y.shape == (ROWS,)
    assert not torch.equal(x, other)
    variances = x.var(0), other.var(0)
    standard_error = variances[0] * (4 / ROWS) ** 0.5  # of a difference of two variances
    assert ((variances[0] - variances[1]).abs() < 4 * standard_error).all()


def test_an_exact_encoder_has_no_divergence() -> None:
    model, (x, y) = supervised(1.0), draw(0)
    found = judged(model, model.model.posterior(x), x, y)
    assert abs(found["KL"]) < 1e-12
    assert found["R2, encoder"] == found["R2, posterior"]


def test_limit_is_a_maximum() -> None:
    """Steps of 1 % in random directions lower the criterion."""
    x, y = draw(0)
    model = limit(10.0, x[:100], y[:100])
    best = _criterion(model, 10.0, x[:100], y[:100])
    with torch.no_grad():
        for _ in range(10):
            near = deepcopy(model)
            for parameter in near.parameters():
                parameter.add_(0.01 * torch.randn_like(parameter))
            assert _criterion(near, 10.0, x[:100], y[:100]) < best


@pytest.mark.parametrize("name", ["VAE", "supervised VAE, weight 1", "SOS-VAE, weight 10"])
def test_runs(name: str) -> None:
    assert name in RUNS
    with pyro.settings.context(module_local_params=True):
        found = run(name, seed=0, steps=2)
    assert found.keys() == {"KL", "R2, encoder", "R2, posterior", "log p(x)"}
    assert found["KL"] > 0
