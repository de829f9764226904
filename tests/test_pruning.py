"""Pruned weights and predicted uncertainty, against counts and variances by hand."""

import pytest
import torch
from pyro.distributions import Normal
from torch import Tensor

from pyro_lvm.diagnostics import (
    PruningReport,
    Status,
    plot_predictive_bands,
    plot_pruning,
    predictive_bands,
    pruning_report,
)
from pyro_lvm.errors import PyroLVMError
from pyro_lvm.guides import NormalWeights
from pyro_lvm.models import BayesianLSTM, BayesianMLP

LOG_ALPHA = {"w1": torch.tensor([-4.0, 2.9, 3.1, 9.0]), "w2": torch.tensor([0.0, 5.0])}


def test_counts_and_compression() -> None:
    report = PruningReport(LOG_ALPHA, 3.0)
    assert report.counts == {"w1": (2, 4), "w2": (1, 2)}
    assert report.compression == 2.0
    assert report.summary() == {"compression": 2.0, "kept_w1": 0.5, "kept_w2": 0.5}
    assert report.kept["w1"].tolist() == [True, True, False, False]


def test_moments_of_a_guide_and_of_its_draws_agree(float64: torch.dtype) -> None:
    model = BayesianMLP(3, (5,))
    guide = NormalWeights(model.starts(), start_scale=0.5)
    exact = pruning_report(guide.moments())
    draws = {name: fn((100_000,)).detach() for name, fn in guide.distributions().items()}
    found = pruning_report({name: (d.mean(0), d.std(0)) for name, d in draws.items()})
    for name, log_alpha in exact.log_alpha.items():
        signal = (-0.5 * log_alpha).exp()  # to noise; its error is about (1 / draws) ** 0.5
        error = ((-0.5 * found.log_alpha[name]).exp() - signal).abs()
        assert (error < 5 * ((1 + signal**2) / 100_000) ** 0.5).all()


def test_a_pruned_weight_does_nothing() -> None:
    """The network of kept means is the whole one where the others were 0."""
    model = BayesianMLP(3, (5,), 4)
    means = {name: torch.randn(size) for name, size in model.latent_features.items()}
    report = pruning_report(
        {name: (mean, torch.full_like(mean, 2.0)) for name, mean in means.items()}
    )
    pruned = {name: mean * report.kept[name] for name, mean in means.items()}
    assert all((pruned[name] == 0)[report.log_alpha[name] > 3].all() for name in means)
    assert model.outcome(torch.zeros(2, 3), pruned).logits.isfinite().all()


@pytest.mark.parametrize(
    ("log_alpha", "status"),
    [
        (LOG_ALPHA, Status.PASS),
        ({"w1": torch.zeros(4)}, Status.WARN),
        (LOG_ALPHA | {"w2": torch.full((2,), 7.0)}, Status.FAIL),
    ],
)
def test_verdict(log_alpha: dict[str, Tensor], status: Status) -> None:
    report = PruningReport(log_alpha, 3.0)
    assert report.verdict().status == status
    assert bool(report.verdict().advice) == (status != Status.PASS)


def test_nothing_left_is_infinite_compression() -> None:
    report = PruningReport({"w1": torch.full((3,), 8.0)}, 3.0)
    assert report.compression == float("inf")
    assert report.verdict().status == Status.FAIL


@pytest.mark.parametrize("moments", [{}, {"w1": (torch.ones(2), torch.zeros(2))}])
def test_wrong_moments_are_explained(moments: dict[str, tuple[Tensor, Tensor]]) -> None:
    with pytest.raises(PyroLVMError, match="moments: expected mean and standard deviation above 0"):
        pruning_report(moments)


def test_bars_hold_all_weights() -> None:
    axes = plot_pruning(PruningReport(LOG_ALPHA, 3.0)).axes[0]
    assert axes.get_title() == "compression 2.0"
    edges = [patch.get_xy() for patch in axes.patches]
    areas = [0.4 * (corners[1:-1:2, 1]).sum() for corners in edges]
    assert areas == pytest.approx([1.0, 1.0])


def test_variances_add_up_to_those_of_outcomes(float64: torch.dtype) -> None:
    """Against draws of outcomes: within five standard errors of a standard deviation."""
    law = Normal(torch.randn(50, 4), 0.2 + torch.rand(50, 4))
    bands = predictive_bands(law)
    outcomes = law((4000,)).flatten(0, 1)
    error = bands.total / (2 * len(outcomes)) ** 0.5
    assert ((outcomes.std(0) - bands.total).abs() < 5 * error).all()
    assert ((outcomes.mean(0) - bands.mean).abs() < 5 * bands.total / len(outcomes) ** 0.5).all()
    assert set(bands.summary()) == {"aleatoric", "epistemic", "total"}


def test_bands_are_drawn_in_order() -> None:
    x = torch.tensor([2.0, 0.0, 1.0])
    bands = predictive_bands(Normal(torch.stack([x, 3 * x]), 0.1))
    line = plot_predictive_bands(x, bands).axes[0].lines[0]
    assert line.get_xdata().tolist() == [0.0, 1.0, 2.0]
    assert line.get_ydata().tolist() == [0.0, 2.0, 4.0]


def test_groups_of_a_recurrent_network_are_counted_with_its_weights() -> None:
    """A pruned gate leaves its bias, a pruned unit nothing that reads it."""
    model = BayesianLSTM(3, 4, 5, groups=True)
    means = model.starts()
    scales = {name: torch.full_like(mean, 1e-6) for name, mean in means.items()}
    scales["gates"][2], scales["units"][1] = 9.0, 9.0
    report = pruning_report({name: (means[name], scales[name]) for name in means})
    assert report.counts["gates"] == (15, 16)
    assert report.counts["units"] == (3, 4)
    kept = {name: mean * report.kept[name] for name, mean in means.items()}
    left = model.folded(model.matrices(kept))
    assert left["w1"][2, :-1].eq(0).all()
    assert left["w1"][2, -1] != 0
    assert left["w1"][:, 3 + 1].eq(0).all()
    assert left["w2"][:, 1].eq(0).all()
    assert sum(int(w.count_nonzero()) for w in left.values()) == 16 * 8 - 7 - 15 + 5 * 5 - 5
