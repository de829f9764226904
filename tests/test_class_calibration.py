"""Calibration of classes: by hand, and of classes drawn as they were promised."""

from math import log, sqrt

import pytest
import torch
from torch import Tensor

from pyro_lvm.diagnostics import Status, class_calibration, plot_class_calibration
from pyro_lvm.errors import PyroLVMError

pytestmark = pytest.mark.usefixtures("float64")


def promised(count: int) -> Tensor:
    """Rows of three classes, of all degrees of sureness."""
    return (3 * torch.randn(count, 3)).softmax(1)


def drawn(probabilities: Tensor) -> Tensor:
    return torch.distributions.Categorical(probs=probabilities).sample()


def test_numbers_by_hand() -> None:
    """Two rows promise 0.9, of which one is right; one promises 0.6, and is."""
    probabilities = torch.tensor([[0.9, 0.1, 0.0], [0.05, 0.9, 0.05], [0.2, 0.2, 0.6]])
    found = class_calibration(probabilities, torch.tensor([0, 0, 2]))
    assert found.accuracy == pytest.approx(2 / 3)
    assert found.confidence == pytest.approx(0.8)
    assert found.error == pytest.approx((2 * 0.4 + 1 * 0.4) / 3)
    by_chance = sqrt(2 / torch.pi) * (sqrt(2 * 0.09) + sqrt(0.24)) / 3
    assert found.error_by_chance == pytest.approx(by_chance)
    deviation = sqrt((1 - 2 / torch.pi) * (2 * 0.09 + 0.24)) / 3
    assert found.deviation_by_chance == pytest.approx(deviation)
    assert found.log_likelihood == pytest.approx((log(0.9) + log(0.05) + log(0.6)) / 3)
    brier = (0.1**2 + 0.1**2 + 0.95**2 + 0.9**2 + 0.05**2 + 0.4**2 + 2 * 0.2**2) / 3
    assert found.brier == pytest.approx(brier)
    assert found.count[8] == 1
    assert found.count[13] == 2
    assert found.summary()["error"] == found.error


def test_a_bin_has_its_upper_end() -> None:
    probabilities = torch.tensor([[0.5, 0.5], [0.25, 0.75], [0.0, 1.0]])
    count = class_calibration(probabilities, torch.ones(3).long(), num_bins=4).count
    assert count.tolist() == [0, 1, 1, 1]


def test_chance_alone_is_as_reported() -> None:
    """Classes drawn as promised, 400 times: mean within four standard errors, deviation in 15 %."""
    probabilities = promised(300)
    runs = [class_calibration(probabilities, drawn(probabilities)) for _ in range(400)]
    errors = torch.tensor([run.error for run in runs])
    expected, deviation = runs[0].error_by_chance, runs[0].deviation_by_chance
    assert abs(errors.mean() - expected) < 4 * deviation / 20
    assert errors.std().item() == pytest.approx(deviation, rel=0.15)
    assert expected > 0.02  # of a perfect classifier, from 300 rows
    passed = [run.verdict().status == Status.PASS for run in runs]
    assert sum(passed) > 0.98 * len(runs)


def test_many_rows_have_little_chance() -> None:
    few, many = (class_calibration(p, drawn(p)) for p in (promised(100), promised(10_000)))
    assert many.error_by_chance < 0.2 * few.error_by_chance


@pytest.mark.parametrize(
    ("power", "status", "advice"),
    [
        (1.0, Status.PASS, ""),
        (1.6, Status.WARN, "ensemble"),
        (8.0, Status.FAIL, "ensemble"),
        (0.4, Status.FAIL, "prior's scale"),
    ],
)
def test_verdict(power: float, status: Status, advice: str) -> None:
    """Promises more or less sure than the probabilities by which the classes are drawn."""
    probabilities = promised(3000)
    surer = (probabilities.log() * power).softmax(1)
    verdict = class_calibration(surer, drawn(probabilities)).verdict()
    assert verdict.status == status, verdict
    assert advice in verdict.advice


WRONG = [
    (torch.rand(4, 5, 3).softmax(-1), torch.zeros(5).long(), r"shape \(4, 5, 3\)"),
    (torch.tensor([[1.5, -0.5]]), torch.zeros(1).long(), "expected none below 0"),
    (torch.eye(3).long(), torch.arange(3), "floats of shape.*got torch.int64"),
    (torch.ones(4, 3), torch.zeros(4).long(), "each row summing to 1, got a row that is off by 2"),
    (torch.full((4, 2), torch.nan), torch.zeros(4).long(), "off by nan"),
    (torch.ones(4, 2) / 2, torch.zeros(3).long(), r"labels: expected shape \(4,\)"),
    (torch.ones(4, 2) / 2, torch.full((4,), 2), "classes 0 to 1"),
]


@pytest.mark.parametrize(("probabilities", "labels", "text"), WRONG)
def test_wrong_arguments_are_explained(probabilities: Tensor, labels: Tensor, text: str) -> None:
    with pytest.raises(PyroLVMError, match=text):
        class_calibration(probabilities, labels)


@pytest.mark.parametrize("classes", [2, 10, 1000])
def test_rounded_probabilities_are_probabilities(classes: int) -> None:
    """Of any dtype, and as files have them."""
    probabilities = torch.randn(50, classes).softmax(1)
    four_decimals = probabilities.round(decimals=4)
    for rounded in (probabilities.bfloat16(), probabilities.float(), four_decimals):
        assert class_calibration(rounded, torch.zeros(50).long()).count.sum() == 50


def test_a_missing_hundredth_is_not_rounding() -> None:
    with pytest.raises(PyroLVMError, match=r"off by 0\.01"):
        class_calibration(0.99 * promised(50), torch.zeros(50).long())


def test_dots_are_the_bins_with_rows() -> None:
    probabilities = promised(200)
    found = class_calibration(probabilities, drawn(probabilities))
    axes = plot_class_calibration(found).axes[0]
    dots = axes.lines[-1]
    shown = found.count > 0
    assert torch.equal(torch.as_tensor(dots.get_ydata()), found.frequency[shown])
    assert axes.get_title().startswith(f"ECE {found.error:.3f}")
