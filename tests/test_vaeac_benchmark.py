"""The judges of the benchmark of conditional models are right, and its runs give their columns."""

from collections.abc import Iterator
from pathlib import Path

import pyro
import pytest
import torch
from pyro.distributions import MultivariateNormal

from benchmarks import inpainting, not_miwae, vaeac, vaeac_gaussian
from pyro_lvm.missing import mcar


@pytest.fixture(autouse=True)
def local_parameters() -> Iterator[None]:
    """As the benchmark itself has it: several models of one class, one after the other."""
    with pyro.settings.context(module_local_params=True):
        yield


def test_conditionals_follow_from_the_joint() -> None:
    torch.manual_seed(0)
    x = vaeac_gaussian.draws(200)
    observed, joint = mcar(x, seed=1), vaeac_gaussian.covariance()
    torch.testing.assert_close(joint.diagonal(), torch.ones(6, dtype=torch.float64))
    seen = torch.zeros(200, dtype=torch.long)
    for rows, t, normal in vaeac_gaussian.conditionals(x, observed):
        whole = MultivariateNormal(torch.zeros(6).double(), joint).log_prob(x[rows].double())
        o = ~t
        part = torch.zeros(len(rows)).double()
        if o.any():
            marginal = MultivariateNormal(torch.zeros(int(o.sum())).double(), joint[o][:, o])
            part = marginal.log_prob(x[rows][:, o].double())
        given = normal.log_prob(x[rows][:, t].double())
        torch.testing.assert_close(given, whole - part)
        assert (observed[rows] == o).all()
        seen[rows] += 1
    assert torch.equal(seen, (~observed).any(1).long())


@pytest.mark.slow
@pytest.mark.parametrize("part", vaeac.SUITE.parts)
def test_runs_are_kept(part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inpainting, "DRAWS", 3)
    path = tmp_path / "kept.json"
    for name in vaeac.SUITE.parts[part].RUNS:
        first = vaeac.SUITE.outcome(path, part, name, seed=0, steps=2)
        assert vaeac.SUITE.outcome(path, part, name, seed=0, steps=2) == first
        assert all(isinstance(value, float) for value in first.values())


@pytest.mark.slow
def test_bias_of_miwae_is_removed() -> None:
    """High values of the third column go missing; two others tell part of them."""
    ignored, modelled = (
        not_miwae.run(name, seed=0, steps=800) for name in ("MIWAE", "not-MIWAE, high values")
    )
    # Over seeds -0.38 and -0.76 where the mask is ignored, -0.03 to -0.05 and -0.05 to -0.10 else.
    assert ignored["mean (0)"] < -0.3
    assert abs(modelled["mean (0)"]) < 0.1
    assert ignored["mean error of imputations"] < -0.6
    assert abs(modelled["mean error of imputations"]) < 0.2


@pytest.mark.slow
def test_latent_carries_dependence_where_the_scale_is_learned() -> None:
    """Acceptance: near the exact conditionals, beyond any model of independent entries.

    Limits are 4.4 to 4.9 standard deviations over seeds from their mean, at least 4 standard errors
    of the 2000 test rows.
    """
    learned, unit = (vaeac_gaussian.run(name, seed=0) for name in vaeac_gaussian.RUNS)
    gained, lost = (
        run["IWAE bound, K = 100"] - run["product of one-variable conditionals"]
        for run in (learned, unit)
    )
    assert learned["below exact"] < 0.06  # seeds 0.024 ± 0.008, rows 0.005
    assert gained > 0.42  # 0.60 ± 0.04, 0.03
    assert learned["KL(q, prior network)"] > 0.76  # 0.86 ± 0.02, 0.02
    assert 0.82 < learned["90 % intervals cover"] < 0.95  # 0.886 ± 0.015, 0.005
    assert unit["KL(q, prior network)"] < 0.075  # 0.025 ± 0.011, 0.002
    assert lost < -1.08  # -1.22 ± 0.03, 0.03
