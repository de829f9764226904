"""Masks: their rates, their seeds, what they may hide.

Rates are held to their own standard errors.
"""

from collections.abc import Callable
from functools import partial
from math import ceil, sqrt

import pytest
import torch
from explained import explained
from torch import Tensor

from pyro_lvm.errors import DataError, PyroLVMError
from pyro_lvm.missing import arbitrary, block, half, hide, mar, mcar, mnar, pixel, rectangle

NAN = torch.nan
Mask = Callable[..., Tensor]
TABLES: dict[str, Mask] = {
    "mcar": mcar,
    "mar": partial(mar, drivers=[1, 3]),
    "mnar": mnar,
    "mnar of small values": partial(mnar, slope=-1.0),
}
PICTURES: dict[str, Mask] = {
    "pixel": pixel,
    "block": partial(block, height=3, width=5),
    "half": half,
    "rectangle": rectangle,
    "arbitrary": arbitrary,
}
SHAPES = {**dict.fromkeys(TABLES, (50, 5)), **dict.fromkeys(PICTURES, (50, 2, 6, 8))}
MASKS = TABLES | PICTURES


def table(rows: int) -> Tensor:
    """Five dependent columns of different means and scales."""
    common = torch.randn(rows, 1)
    return 3 + torch.arange(1.0, 6.0) * (common + torch.randn(rows, 5))


@pytest.mark.parametrize("rate", [0.2, 0.7])
@pytest.mark.parametrize("name", TABLES)
def test_rate_of_every_column(name: str, rate: float) -> None:
    rows = 20_000
    missing = ~TABLES[name](table(rows), rate=rate)
    error = sqrt(rate * (1 - rate) / rows)
    columns = [0, 2, 4] if name == "mar" else list(range(5))
    shares = missing.float().mean(0)
    assert ((shares[columns] - rate).abs() < 4 * error).all()
    assert (shares[[c for c in range(5) if c not in columns]] == 0).all()


def rate_of_rectangles(least: float, rows: int, columns: int) -> float:
    """The expected share, by enumeration of heights and widths."""
    heights = range(ceil(least * rows), rows + 1)
    shares = []
    for height in heights:
        widths = range(ceil(round(least * rows * columns / height, 9)), columns + 1)
        shares.append(sum(height * width for width in widths) / len(widths))
    return sum(shares) / len(shares) / (rows * columns)


RECTANGLES = rate_of_rectangles(0.3, 6, 8)
RATES = {
    "pixel": 0.5,
    "block": 15 / 48,
    "half": 0.5,
    "rectangle": RECTANGLES,
    "arbitrary": (1 / 4 + 0.95 + 1 / 2) / 9 + RECTANGLES * 2 / 3,
}


@pytest.mark.parametrize("name", PICTURES)
def test_rate_of_pixels(name: str) -> None:
    missing = ~PICTURES[name](torch.zeros(20_000, 6, 8))
    shares = missing.float().mean((1, 2))
    error = float(shares.std()) / sqrt(len(shares))
    assert abs(shares.mean() - RATES[name]) < 4 * error + 1e-6
    if name in ("block", "half"):
        assert (shares == shares[0]).all()
    if name == "rectangle":
        assert (shares > 0.3 - 1e-6).all()


@pytest.mark.parametrize("name", MASKS)
def test_a_mask_follows_its_seed_alone(name: str) -> None:
    x = torch.randn(SHAPES[name])
    state = torch.get_rng_state()
    masks = [MASKS[name](x, seed=seed) for seed in (3, 3, 4)]
    assert torch.equal(torch.get_rng_state(), state)
    assert masks[0].shape == x.shape
    assert masks[0].dtype == torch.bool
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])


@pytest.mark.parametrize("name", MASKS)
def test_a_mask_is_the_same_in_any_precision(name: str, float64: torch.dtype) -> None:
    """But for entries whose probability is within rounding of their uniform number: none here."""
    x = torch.randn(SHAPES[name])
    assert torch.equal(MASKS[name](x), MASKS[name](x.float()))


@pytest.mark.parametrize("name", MASKS)
def test_what_is_missing_is_never_observed(name: str) -> None:
    x = torch.randn(SHAPES[name])
    x[::2, 0] = NAN
    assert not MASKS[name](x)[x.isnan()].any()


@pytest.mark.parametrize("name", PICTURES)
def test_channels_share_their_mask(name: str) -> None:
    observed = PICTURES[name](torch.zeros(50, 2, 6, 8))
    assert torch.equal(observed[:, 0], observed[:, 1])


def test_every_half_and_place_occurs() -> None:
    halves = half(torch.zeros(100, 4, 6)).flatten(1).int().unique(dim=0)
    assert len(halves) == 4
    places = block(torch.zeros(300, 3, 4), 2, 2).flatten(1).int().unique(dim=0)
    assert len(places) == 2 * 3


def test_missing_at_random_depends_on_drivers_alone() -> None:
    x, y = table(5000), table(5000)
    y[:, [1, 3]] = x[:, [1, 3]]
    observed = mar(x, [1, 3])
    assert torch.equal(observed, mar(y, [1, 3]))
    assert not torch.equal(observed, mar(table(5000), [1, 3]))
    for column in (0, 2, 4):
        gap = x[observed[:, column]][:, [1, 3]].mean(0) - x[~observed[:, column]][:, [1, 3]].mean(0)
        error = 2 * x[:, [1, 3]].std(0) / sqrt(len(x))
        assert (gap.abs() > 4 * error).any()


def test_missing_not_at_random_depends_on_the_value_itself() -> None:
    """Not on other columns; and its log-odds rise by the slope a standard deviation."""
    x, y = table(20_000), table(20_000)
    y[:, 2] = x[:, 2]
    assert torch.equal(mnar(x)[:, 2], mnar(y)[:, 2])
    value = (x[:, 2] - x[:, 2].mean()) / x[:, 2].std()
    missing = (~mnar(x, rate=0.5, slope=1.5))[:, 2].float()
    for low, high in [(-0.1, 0.1), (0.9, 1.1), (-1.1, -0.9)]:
        inside = (value > low) & (value < high)
        expected = torch.sigmoid(1.5 * value[inside]).mean()  # the rate 1/2 needs no intercept
        error = sqrt(expected * (1 - expected) / int(inside.sum()))
        assert abs(missing[inside].mean() - expected) < 4 * error + 0.02


@pytest.mark.parametrize("mask", [mcar, mnar, partial(mar, drivers=[0])])
@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1])
def test_rates_that_are_none(mask: Mask, rate: float) -> None:
    with explained(PyroLVMError, "rate", "between 0 and 1", str(rate), "rate=0.5"):
        mask(torch.zeros(5, 3), rate=rate)


def test_data_that_a_mask_is_not_for() -> None:
    with explained(DataError, "x", "(rows, columns)", "(5,)", "x.flatten(1)"):
        mnar(torch.zeros(5))
    with explained(DataError, "x", "(B, H, W)", "(5, 64)", "unflatten"):
        half(torch.zeros(5, 64))
    with explained(PyroLVMError, "block", "within 4 x 4", "5 x 1", "fit into"):
        block(torch.zeros(5, 4, 4), 5, 1)
    with explained(PyroLVMError, "drivers", "at least one", "none", "drivers=[0]"):
        mar(torch.zeros(5, 3), [])
    with explained(DataError, "drivers", "without NaN", "[1]", "complete"):
        mar(torch.tensor([[0.0, NAN], [1.0, 2.0]]), [0, 1])


# Data and mask in one.


def test_hide() -> None:
    x, mask = torch.tensor([[1.0, NAN], [3.0, 4.0]]), torch.tensor([[True, False], [False, True]])
    hidden = hide(x, mask)
    assert torch.equal(hidden.isnan(), ~mask)
    assert torch.equal(hidden[mask], x[mask])


def test_masks_that_do_not_fit() -> None:
    x = torch.tensor([[1.0, NAN], [3.0, 4.0]])
    with explained(DataError, "mask", "shape (2, 2), True", "shape (2,)", "~x.isnan()"):
        hide(x, torch.tensor([True, False]))
    with explained(DataError, "mask", "a bool tensor", "torch.float32", "~x.isnan()"):
        hide(x, torch.ones(2, 2))
    with explained(DataError, "mask", "False wherever x is NaN", "1 NaN", "True means observed"):
        hide(x, torch.ones(2, 2, dtype=torch.bool))
