"""Data sets, binarisation, and checks of a user's own data."""

import gzip
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from pyro_lvm import data
from pyro_lvm.data import Binarize, archives, check_data, digits, mnist, standardize
from pyro_lvm.data.tables import TABLES
from pyro_lvm.errors import DataError, ProgramError

NAN, INF = float("nan"), float("inf")


# Digits.


def test_digits_are_split_once_and_for_all() -> None:
    parts = digits(None)
    assert [len(p) for p in (parts.train, parts.validation, parts.test)] == [1300, 100, 397]
    assert parts.feature_shape == (8, 8)
    every = torch.cat([parts.train, parts.validation, parts.test])
    assert every.shape == (1797, 64)
    torch.testing.assert_close(every * 16, (every * 16).round())  # grey values 0 ... 16
    from sklearn.datasets import load_digits

    labels = torch.cat([parts.labels[part] for part in ("train", "validation", "test")])
    rows = torch.cat([every * 16, labels[:, None]], 1).round()
    original = load_digits()
    expected = np.column_stack([original.data, original.target])
    assert sorted(map(tuple, rows.tolist())) == sorted(map(tuple, expected.tolist()))
    again = digits(None, num_validation=0)
    assert len(again.validation) == 0
    assert torch.equal(again.train, torch.cat([parts.train, parts.validation]))
    assert torch.equal(again.test, parts.test)
    both = (parts.labels["train"], parts.labels["validation"])
    assert torch.equal(again.labels["train"], torch.cat(both))
    assert parts.licence
    assert parts.source


def test_digits_take_the_default_dtype(float64: torch.dtype) -> None:
    assert digits().train.dtype == torch.float64


def test_fixed_binarisation_is_the_same_each_time() -> None:
    first, second = digits("fixed"), digits("fixed")
    torch.manual_seed(7)
    assert first.transform is None
    for part in ("train", "validation", "test"):
        pixels = getattr(first, part)
        assert set(pixels.unique().tolist()) == {0.0, 1.0}
        assert torch.equal(pixels, getattr(second, part))


def test_dynamic_binarisation_is_of_training_batches_only() -> None:
    parts, fixed = digits("dynamic"), digits("fixed")
    assert torch.equal(parts.train, digits(None).train)
    assert torch.equal(parts.test, fixed.test)
    assert torch.equal(parts.validation, fixed.validation)
    assert parts.transform is not None
    generator = torch.Generator().manual_seed(1)
    first, second = (parts.transform(parts.train[:50], generator) for _ in range(2))
    assert not torch.equal(first, second)
    repeated = parts.transform(parts.train[:50], torch.Generator().manual_seed(1))
    assert torch.equal(first, repeated)


def test_binarised_pixels_have_the_grey_values_as_means() -> None:
    grey = torch.tensor([0.0, 0.25, 0.7, 1.0])
    draws = Binarize()(grey.expand(10_000, 4), torch.Generator().manual_seed(0))
    error = (draws.mean(0) - grey).abs()
    assert (error <= 5 * (grey * (1 - grey) / 10_000).sqrt()).all()


@pytest.mark.parametrize(
    ("load", "error", "message"),
    [
        (lambda: digits("static"), ProgramError, "binarization: .* got 'static'"),
        (lambda: digits(num_validation=1400), DataError, "num_validation: expected from 0 to 1399"),
        (lambda: digits(num_validation=-1), DataError, "num_validation: .* got -1"),
        (lambda: data.load("digit"), DataError, "one of .* got 'digit'.\nTry: Pass 'digits'"),
    ],
)
def test_wrong_options(load: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        load()


def test_registry() -> None:
    assert {"digits", "mnist", *TABLES} <= set(data.available())
    for name in set(data.available()) - set(TABLES):
        assert callable(getattr(data, name))


# MNIST.


def _pictures(count: int) -> Any:
    return np.random.RandomState(count).randint(0, 256, (count, 28, 28)).astype(np.uint8)


TRAIN, TEST = _pictures(12), _pictures(5)
TRAIN_LABELS, TEST_LABELS = np.arange(12, dtype=np.uint8) % 10, np.arange(5, dtype=np.uint8)


@pytest.fixture(autouse=True)
def no_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No data of the machine's user; torchvision, if there is any, is hidden."""
    monkeypatch.delenv("PYRO_LVM_DATA", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(archives, "find_spec", lambda name: None)


def _write_npz(folder: Path, **arrays: Any) -> Path:
    np.savez(folder / "mnist.npz", **(arrays or {"x_train": TRAIN, "x_test": TEST}))
    return folder / "mnist.npz"


def _idx(array: Any) -> bytes:
    header = np.array([0x800 + array.ndim, *array.shape], dtype=">i4").tobytes()
    return bytes(header + array.tobytes())


def _write_idx(folder: Path, compressed: bool, labels: bool = False) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    files = {"train-images-idx3-ubyte": TRAIN, "t10k-images-idx3-ubyte": TEST}
    if labels:
        files |= {"train-labels-idx1-ubyte": TRAIN_LABELS, "t10k-labels-idx1-ubyte": TEST_LABELS}
    for name, array in files.items():
        raw = _idx(array)
        path = folder / (name + ".gz" if compressed else name)
        path.write_bytes(gzip.compress(raw) if compressed else raw)


def _check_parts(parts: Any) -> None:
    assert [len(p) for p in (parts.train, parts.validation, parts.test)] == [8, 4, 5]
    assert parts.feature_shape == (28, 28)
    torch.testing.assert_close(parts.train, torch.tensor(TRAIN[:8] / 255.0).flatten(1).float())
    torch.testing.assert_close(parts.test, torch.tensor(TEST / 255.0).flatten(1).float())


def _check_labels(parts: Any) -> None:
    assert parts.labels["train"].tolist() == TRAIN_LABELS[:8].tolist()
    assert parts.labels["validation"].tolist() == TRAIN_LABELS[8:].tolist()
    assert parts.labels["test"].tolist() == TEST_LABELS.tolist()
    assert parts.labels["test"].dtype == torch.long


def test_mnist_from_npz(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = _write_npz(tmp_path)
    _check_parts(mnist(file, None, num_validation=4))
    _check_parts(mnist(str(tmp_path), None, num_validation=4))
    monkeypatch.setenv("PYRO_LVM_DATA", str(tmp_path))
    _check_parts(mnist(binarization=None, num_validation=4))
    assert mnist(num_validation=4).transform is not None
    assert set(mnist(binarization="fixed", num_validation=4).train.unique().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("folder", ["", "MNIST/raw"])
def test_mnist_from_idx(tmp_path: Path, folder: str, compressed: bool) -> None:
    _write_idx(tmp_path / folder, compressed)
    _check_parts(mnist(tmp_path, None, num_validation=4))


def test_mnist_has_the_labels_of_its_files(tmp_path: Path) -> None:
    arrays = {"x_train": TRAIN, "x_test": TEST}
    assert mnist(_write_npz(tmp_path, **arrays), num_validation=4).labels == {}
    labels = {"y_train": TRAIN_LABELS, "y_test": TEST_LABELS}
    _check_labels(mnist(_write_npz(tmp_path, **arrays, **labels), num_validation=4))
    _write_idx(tmp_path / "idx", compressed=True, labels=True)
    _check_labels(mnist(tmp_path / "idx", num_validation=4))


def test_mnist_by_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets: Any = ModuleType("torchvision.datasets")

    def load(root: str, train: bool, download: bool) -> Any:
        pictures, labels = (TRAIN, TRAIN_LABELS) if train else (TEST, TEST_LABELS)
        return SimpleNamespace(data=torch.from_numpy(pictures), targets=torch.from_numpy(labels))

    datasets.MNIST = load
    monkeypatch.setitem(sys.modules, "torchvision.datasets", datasets)
    monkeypatch.setattr(archives, "find_spec", lambda name: object())
    parts = mnist(binarization=None, num_validation=4)
    _check_parts(parts)
    _check_labels(parts)


def test_mnist_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    advice = r"Try: Put mnist\.npz.*PYRO_LVM_DATA; or pip install torchvision"
    with pytest.raises(DataError, match=rf"got none in {tmp_path}\.\n{advice}"):
        mnist(tmp_path)
    with pytest.raises(DataError, match=rf"got none in root or PYRO_LVM_DATA.*\n{advice}"):
        mnist()
    monkeypatch.setenv("PYRO_LVM_DATA", str(tmp_path / "elsewhere"))
    with pytest.raises(DataError, match=r"got none in .*elsewhere"):
        mnist()


def _cut_npz(folder: Path) -> None:
    file = _write_npz(folder)
    file.write_bytes(file.read_bytes()[:3000])


def _cut_idx(folder: Path) -> None:
    _write_idx(folder, compressed=False)
    (folder / "t10k-images-idx3-ubyte").write_bytes(_idx(TEST)[:-100])


def _cut_gzip(folder: Path) -> None:
    _write_idx(folder, compressed=True)
    (folder / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(_idx(TEST))[:-100])


def _labels_for_pictures(folder: Path) -> None:
    _write_idx(folder, compressed=False)
    (folder / "t10k-images-idx3-ubyte").write_bytes(_idx(TEST_LABELS))


def _cut_labels(folder: Path) -> None:
    _write_idx(folder, compressed=True, labels=True)
    (folder / "t10k-labels-idx1-ubyte.gz").write_bytes(b"")


@pytest.mark.parametrize(
    "damage",
    [
        _cut_npz,
        _cut_idx,
        _cut_gzip,
        _labels_for_pictures,
        _cut_labels,
        lambda folder: _write_npz(folder, x_train=TRAIN),
        lambda folder: _write_npz(folder, x_train=TRAIN / 255.0, x_test=TEST / 255.0),
        lambda folder: (folder / "mnist.npz").write_bytes(b"not a file of arrays"),
        lambda folder: (folder / "mnist.npz").write_bytes(b""),
    ],
)
def test_damaged_mnist_is_named(damage: Callable[[Path], Any], tmp_path: Path) -> None:
    damage(tmp_path)
    with pytest.raises(DataError, match=rf"^{tmp_path}/\S+: expected a whole MNIST file, got "):
        mnist(tmp_path)


def test_labels_are_one_for_each_picture(tmp_path: Path) -> None:
    _write_npz(tmp_path, x_train=TRAIN, x_test=TEST, y_train=TRAIN_LABELS, y_test=TEST_LABELS[1:])
    message = r"mnist test labels: expected one for each of 5 rows, got shape \(4,\)\.\nTry: "
    with pytest.raises(DataError, match=message):
        mnist(tmp_path, num_validation=4)


# A user's own data.


def test_good_data_pass() -> None:
    check_data(torch.zeros(1), "x")
    check_data(torch.zeros(3, 2, dtype=torch.long), "x")
    check_data(torch.ones(3, dtype=torch.bool), "x")


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_nonfinite_data_are_counted_and_placed(bad: float) -> None:
    x = torch.zeros(9, 3)
    x[2, 1] = x[3, 0] = x[7, 2] = x[8, 2] = bad
    found = r"pixels: expected finite data, got NaN or infinite: 4 values, first at \[2, 1\], "
    with pytest.raises(DataError, match=found + r"\[3, 0\], \[7, 2\]\.\nTry: .*True = observed"):
        check_data(x, "pixels")


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0)])
def test_empty_data(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match=r"x: expected at least one datum, got an empty batch"):
        check_data(torch.zeros(shape), "x")


def test_masked_nan_is_allowed() -> None:
    x = torch.tensor([[1.0, NAN], [NAN, 2.0]])
    check_data(x, "x", mask=~x.isnan())
    check_data(torch.tensor([[NAN, 1.0]] * 3), "x", mask=torch.tensor([False, True]))
    mask = torch.tensor([[True, True], [False, True]])
    with pytest.raises(DataError, match=r"1 values, first at \[0, 1\]"):
        check_data(x, "x", mask=mask)


@pytest.mark.parametrize(
    "mask", [torch.ones(2, 3, dtype=torch.bool), torch.ones(2, 2)], ids=["shape", "dtype"]
)
def test_wrong_mask(mask: torch.Tensor) -> None:
    with pytest.raises(DataError, match=r"mask of x: expected a bool tensor broadcastable to"):
        check_data(torch.zeros(2, 2), "x", mask=mask)


def test_standardized_columns(float64: torch.dtype) -> None:
    x = 3 * torch.randn(50, 4) + 100
    z, mean, scale = standardize(x)
    torch.testing.assert_close(z.mean(0), torch.zeros(4), rtol=0, atol=1e-12)
    torch.testing.assert_close(z.var(0, correction=0), torch.ones(4))
    torch.testing.assert_close(z * scale + mean, x)
    assert standardize(torch.tensor([[1], [3]]))[0].tolist() == [[-1.0], [1.0]]


@pytest.mark.parametrize(
    ("x", "names", "message"),
    [
        ([[1.0, 0.1, 2.0], [2.0, 0.1, 2.0]], None, r"column 1: .* in all 2 rows of 1, 2\."),
        ([[1.0, 5.0], [2.0, 5.0]], ["age", "sex"], r"column 'sex': expected values that vary"),
        ([[1.0, NAN], [2.0, 5.0]], None, r"x: expected finite data, .* first at \[0, 1\]"),
        ([1.0, 2.0], None, r"x: expected shape \(rows, columns\), got shape \(2,\)"),
        ([[1.0, 5.0], [2.0, 5.0]], ["age"], r"got shape \(2, 2\) and 1 names"),
    ],
)
def test_columns_that_cannot_be_standardized(x: Any, names: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        standardize(torch.tensor(x), names)


@pytest.mark.parametrize("value", [-0.1, 16.0])
def test_pictures_must_be_probabilities(value: float) -> None:
    grey = torch.rand(4, 2, 2)
    grey[0, 0, 0] = value
    options: Any = {"binarization": None, "num_validation": 1, "licence": "", "source": ""}
    with pytest.raises(DataError, match=r"toy train: expected pixel probabilities in \[0, 1\]"):
        data.DataSplits.of_pictures("toy", grey, grey[:1].clamp(0, 1), **options)
