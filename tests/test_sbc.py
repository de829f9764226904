"""Ranks, coverage and TARP of guides that are off by a known amount, against quadrature."""

from functools import cache

import pyro
import pyro.distributions as dist
import pytest
import torch
from conjugate_programs import model
from explained import explained
from torch import Tensor

from pyro_lvm.diagnostics import (
    Simulations,
    Status,
    coverage,
    plot_coverage,
    plot_sbc,
    plot_tarp,
    sbc,
    simulation_based_calibration,
    tarp,
)
from pyro_lvm.diagnostics.sbc import Shape
from pyro_lvm.errors import ProgramError, PyroLVMError

NUM_DRAWS = 99
POSTERIOR_SCALE = 0.5**0.5


@cache
def off_by(width: float, shift: float = 0.0, num_simulations: int = 4000) -> Simulations:
    """Of a guide whose width and shift are in units of the posterior's."""

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            loc = x / 2 + shift * POSTERIOR_SCALE
            pyro.sample("z", dist.Normal(loc, width * POSTERIOR_SCALE))

    return simulation_based_calibration(
        model,
        guide,
        torch.zeros(1000),
        num_simulations=num_simulations,
        num_draws=NUM_DRAWS,
        seed=0,
    )


def chances_of_ranks(width: float, shift: float) -> Tensor:  # (L + 1,)
    """Of a truth at the quantile t of the guide, L draws are below it Binomial(L, t) often."""
    truth = torch.linspace(-9, 9, 4001, dtype=torch.float64)
    mass = torch.softmax(-0.5 * truth**2, 0)
    below = dist.Normal(torch.tensor(shift, dtype=torch.float64), width).cdf(truth)
    draws = dist.Binomial(NUM_DRAWS, below.clamp(1e-15, 1 - 1e-15))
    ranks = torch.arange(NUM_DRAWS + 1.0, dtype=torch.float64)
    return (draws.log_prob(ranks[:, None]).exp() * mass).sum(1)


FAULTS = {
    "narrow": (0.6, 0.0, Shape.NARROW),
    "wide": (1.6, 0.0, Shape.WIDE),
    "high": (1.0, 0.5, Shape.HIGH),
    "low": (1.0, -0.5, Shape.LOW),
}


@pytest.mark.parametrize(("width", "shift", "shape"), FAULTS.values(), ids=FAULTS)
def test_ranks_have_the_published_shapes(width, shift, shape) -> None:
    """Talts et al. (2018), figures 3 to 5: a U, a hump, a slope; each bar as by quadrature."""
    result = sbc(off_by(width, shift))
    exact = chances_of_ranks(width, shift)
    total = len(result.ranks)
    counts = torch.bincount(result.ranks[:, 0], minlength=NUM_DRAWS + 1)
    error = (total * exact * (1 - exact)).sqrt()
    assert ((counts - total * exact).abs() < 5 * error + 1).all()
    bars = counts.reshape(20, 5).sum(1) / total * 20
    ends, middle = (bars[:2].mean(), bars[-2:].mean()), bars[9:11].mean()
    pictures = {
        Shape.NARROW: min(ends) > 1.3 and middle < 0.9,
        Shape.WIDE: max(ends) < 0.6 and middle > 1.1,
        Shape.HIGH: ends[0] > 1.5 and ends[1] < 0.5,
        Shape.LOW: ends[0] < 0.5 and ends[1] > 1.5,
    }
    assert pictures[shape]
    assert result.shape(0) == shape
    assert f"z: draws {shape}" in result.verdict().finding


@pytest.mark.parametrize(("width", "shift", "shape"), FAULTS.values(), ids=FAULTS)
def test_coverage_is_that_of_quadrature(width, shift, shape) -> None:
    """Central intervals; those of highest density are the same ones here, by other draws."""
    result = coverage(off_by(width, shift))
    exact = chances_of_ranks(width, shift)
    ends = torch.arange(1, (NUM_DRAWS + 1) // 2).flip(0)  # of the intervals, by level
    held = torch.stack([exact[end : NUM_DRAWS + 1 - end].sum() for end in ends])
    error = (held * (1 - held) / 4000).sqrt()
    torch.testing.assert_close(result.curves.promised, (100 - 2 * ends) / 100.0, check_dtype=False)
    assert ((result.curves.shares[:, 0] - held).abs() < 5 * error).all()
    assert result.verdict().status != Status.PASS
    sure = "too sure" in result.verdict().advice
    assert sure == (shape != Shape.WIDE)


@pytest.mark.parametrize("width", [0.6, 1.6])
def test_tarp_catches_widths(width) -> None:
    assert tarp(off_by(width)).verdict().status == Status.FAIL


def test_a_small_fault_is_a_warning() -> None:
    """A width of 0.85 moves no probability by 0.1 (by 0.04 at most)."""
    verdict = sbc(off_by(0.85)).verdict()
    assert verdict.status != Status.PASS
    central = sbc(off_by(0.85)).curves.errors[0]
    exact = chances_of_ranks(0.85, 0.0).cumsum(0)[:-1] - torch.arange(1, 100) / 100
    assert abs(central - exact.abs().max()) < 0.03


def test_what_only_densities_see() -> None:
    """A guide that is the prior: every scalar and every ball passes."""

    def prior(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))

    found = simulation_based_calibration(model, prior, torch.zeros(500), seed=0)
    assert coverage(found).verdict().status == Status.PASS
    assert tarp(found).verdict().status == Status.PASS
    assert sbc(found).curves.off == ["log p(x | z)", "log p(x, z)"]
    verdict = sbc(found).verdict()
    assert verdict.status == Status.FAIL
    assert "less likely than the truth" in verdict.advice


@pytest.mark.parametrize("check", [sbc, coverage, tarp])
def test_verdicts_and_summaries(check) -> None:
    right, wrong = check(off_by(1.0)), check(off_by(0.5))
    assert right.verdict().status == Status.PASS
    assert right.verdict().advice == ""
    assert wrong.verdict().status == Status.FAIL
    assert "p < 1e-10" in wrong.verdict().finding
    assert wrong.verdict().advice
    assert all(isinstance(value, float) for value in right.summary().values())
    assert right.summary().keys() == wrong.summary().keys()


def test_tests_of_many_scalars_share_their_false_alarms() -> None:
    """Uniform ranks of 10 scalars, 200 times: some scalar is off in 0.05 of them at most."""
    alarms = 0
    for _ in range(200):
        ranks = torch.randint(20, (100, 10))
        found = sbc(Simulations({"z": ranks}, {"distance": ranks[:, 0]}, num_draws=19))
        alarms += bool(found.curves.off)
    assert alarms / 200 < 0.05 + 3 * (0.05 * 0.95 / 200) ** 0.5


def test_pictures() -> None:
    wrong = off_by(0.6, num_simulations=1000)
    left, right = plot_sbc(sbc(wrong)).axes
    assert left.get_title() == "z: draws too narrow"
    assert len(left.patches) == 20
    assert len(right.lines) == 1 + len(sbc(wrong).labels)
    assert plot_sbc(sbc(wrong), "log p(x, z)").axes[0].get_title().startswith("log p(x, z)")
    with pytest.raises(ProgramError, match=r"expected one of \['z', .*got 'y'"):
        plot_sbc(sbc(wrong), "y")
    legend = plot_coverage(coverage(wrong)).axes[0].get_legend()
    assert {text.get_text() for text in legend.get_texts()} == {"z", "log q(z | x)"}
    assert plot_coverage(coverage(off_by(1.0, num_simulations=1000))).axes[0].get_legend() is None
    assert plot_tarp(tarp(wrong)).axes[0].get_legend() is not None


def test_one_draw_makes_no_interval() -> None:
    ranks = torch.tensor([[0], [1]])
    with explained(PyroLVMError, "num_draws", "2 or more", "1", "num_draws=99"):
        coverage(Simulations({"z": ranks}, {"distance": ranks[:, 0]}, num_draws=1))
