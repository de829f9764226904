"""The data sets beside MNIST: their parts, their files, and that the shipped ones are shipped."""

import configparser
import io
import shutil
import subprocess
import sys
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pyro_lvm import data
from pyro_lvm.data import DataSplits, _embed, archives, fashion_mnist, frey_faces, omniglot, table
from pyro_lvm.data.files import EMBEDDED
from pyro_lvm.data.tables import TABLES
from pyro_lvm.errors import DataError

ROOT = Path(__file__).parents[1]
PARTS = ("train", "validation", "test")


@pytest.fixture(autouse=True)
def no_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """No data of the machine's user, and no torchvision."""
    monkeypatch.delenv("PYRO_LVM_DATA", raising=False)
    monkeypatch.setattr(archives, "find_spec", lambda name: None)


def _rows(parts: DataSplits) -> list[tuple[float, ...]]:
    return [tuple(row) for part in PARTS for row in getattr(parts, part).tolist()]


# Fashion-MNIST.


def test_embedded_clothes() -> None:
    parts = fashion_mnist(binarization=None)
    assert [len(getattr(parts, part)) for part in PARTS] == [1400, 200, 400]
    assert parts.feature_shape == (28, 28)
    for part, number in zip(PARTS, (140, 20, 40), strict=True):
        assert parts.labels[part].bincount().tolist() == [number] * 10
    assert len(set(_rows(parts))) == 2000
    assert torch.equal((parts.train * 255).round() / 255, parts.train)
    assert fashion_mnist().transform is not None


def _write_clothes(folder: Path, per_class: int) -> dict[str, Any]:
    random = np.random.RandomState(0)
    labels = np.arange(10 * per_class, dtype=np.uint8) % 10
    pictures = random.randint(0, 256, (len(labels), 28, 28)).astype(np.uint8)
    arrays = {"x_train": pictures, "x_test": pictures, "y_train": labels, "y_test": labels}
    np.savez(folder / "fashion_mnist.npz", **arrays)
    return arrays


def test_all_clothes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = _write_clothes(tmp_path, 30)
    parts = fashion_mnist(tmp_path, None)
    assert (parts.name, len(parts.train), len(parts.test)) == ("fashion_mnist", 100, 300)
    assert parts.labels["test"].tolist() == arrays["y_test"].tolist()
    monkeypatch.setenv("PYRO_LVM_DATA", str(tmp_path))
    assert torch.equal(fashion_mnist(None, None, full=True).train, parts.train)
    assert len(fashion_mnist().test) == 400  # the variable does not change the default


def test_idx_files_of_mnist_are_not_taken_for_clothes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The names are the same, so a shared folder counts only where the user names it."""
    for name in ("train-images-idx3-ubyte", "t10k-images-idx3-ubyte"):
        header = np.array([2051, 300, 1, 1], dtype=">i4").tobytes()
        (tmp_path / name).write_bytes(header + bytes(300))
    assert len(fashion_mnist(tmp_path).test) == 300
    monkeypatch.setenv("PYRO_LVM_DATA", str(tmp_path))
    message = r"Fashion-MNIST: .* got none in .*\nTry: Get the four .*zalandoresearch/fashion-mnist"
    with pytest.raises(DataError, match=message):
        fashion_mnist(full=True)


def test_the_subset_is_drawn_as_it_says(tmp_path: Path) -> None:
    arrays = _write_clothes(tmp_path, 200)
    _embed.main(tmp_path, tmp_path / "subset.npz")
    with np.load(tmp_path / "subset.npz") as subset:
        for part, number in (("train", 160), ("test", 40)):
            labels, pictures = subset[f"y_{part}"], subset[f"x_{part}"]
            assert labels.tolist() == list(range(10)) * number
            known = {p.tobytes(): c for p, c in zip(arrays[f"x_{part}"], arrays[f"y_{part}"])}
            assert [known.pop(p.tobytes()) for p in pictures] == labels.tolist()  # no picture twice


# Omniglot and the Frey faces.


def _png(ink: int) -> bytes:
    """A picture whose first ``ink`` columns are black."""
    grey = np.full((105, 105), 255, np.uint8)
    grey[:, :ink] = 0
    stream = io.BytesIO()
    Image.fromarray(grey).convert("1").save(stream, "png")
    return stream.getvalue()


def _write_zips(folder: Path) -> None:
    """Two sets of two characters that share one; drawer d blackens 5 d columns of all."""
    for number, names in ((1, ("Greek/c1", "Latin/c1")), (2, ("Latin/c1", "Balinese/c1"))):
        path = folder / f"images_background_small{number}.zip"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("__MACOSX/images/Greek/c1/._0001_01.png", b"")
            for name in names:
                for drawer in range(20, 0, -1):
                    entry = f"images_background_small{number}/{name}/000{number}_{drawer:02}.png"
                    archive.writestr(entry, _png(5 * drawer))


def test_characters_are_split_by_drawer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write_zips(tmp_path)
    parts = omniglot(tmp_path, None, num_validation=6)
    ink = {part: getattr(parts, part).mean(1) * 105 / 5 for part in PARTS}  # the drawer's number
    drawers = {part: sorted(Counter(ink[part].round().int().tolist()).items()) for part in PARTS}
    assert drawers["train"] == [(d, 3) for d in range(1, 15)]
    assert drawers["validation"] == [(d, 3) for d in (15, 16)]
    assert drawers["test"] == [(d, 3) for d in (17, 18, 19, 20)]
    assert parts.labels["test"].tolist() == [0, 1, 2] * 4
    monkeypatch.setenv("PYRO_LVM_DATA", str(tmp_path))
    assert torch.equal(omniglot(binarization=None, num_validation=6).test, parts.test)


def test_characters_of_an_npz_file(tmp_path: Path) -> None:
    characters = np.repeat(["Latin/c1", "Greek/c1"], 20)  # not in order of the alphabet
    pictures = np.arange(40, dtype=np.uint8)[:, None, None].repeat(28, 1).repeat(28, 2)
    np.savez(tmp_path / "omniglot_small_28.npz", x=pictures, character=characters)
    parts = omniglot(tmp_path, None, num_validation=4)
    assert (parts.test[:, 0] * 255).round().tolist() == [36, 16, 37, 17, 38, 18, 39, 19]
    assert parts.labels["test"].tolist() == [0, 1] * 4


def _write_frames(folder: Path, number: int = 1965) -> None:
    frames = np.arange(number)[:, None, None].repeat(28, 1).repeat(20, 2)
    first, second = frames // 256, frames % 256  # the frame's number in two pixels
    frames[:, 0, 0], frames[:, 0, 1] = first[:, 0, 0], second[:, 0, 0]
    np.savez(folder / "frey_faces.npz", x=frames.astype(np.uint8))


def test_faces_are_split_in_blocks(tmp_path: Path) -> None:
    _write_frames(tmp_path)
    parts = frey_faces(tmp_path)
    assert parts.feature_shape == (28, 20)
    assert parts.transform is None
    frames = {p: (getattr(parts, p) * 255).round()[:, :2] @ torch.tensor([256.0, 1]) for p in PARTS}
    assert torch.cat(list(frames.values())).sort().values.tolist() == list(range(1965))
    for part, blocks in zip(PARTS, (11, 2, 2), strict=True):
        starts = frames[part].reshape(blocks, 131)
        assert (starts[:, 0] % 131 == 0).all()
        assert (starts.diff(dim=1) == 1).all()


@pytest.mark.parametrize(
    ("load", "message"),
    [
        (omniglot, r"Omniglot: expected omniglot_small_28\.npz or .*got none in .*\nTry: Put im"),
        (frey_faces, r"Frey faces: expected frey_faces\.npz, got none .*\nTry: Get frey_raw"),
    ],
)
def test_files_are_not_there(load: Callable[..., Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        load(tmp_path)
    with pytest.raises(DataError, match=r"got none in root or PYRO_LVM_DATA, both empty\.\nTry: "):
        load()


def _one_zip(folder: Path) -> None:
    _write_zips(folder)
    (folder / "images_background_small2.zip").unlink()


def _cut_zip(folder: Path) -> None:
    _write_zips(folder)
    path = folder / "images_background_small1.zip"
    path.write_bytes(path.read_bytes()[:3000])


def _missing_drawer(folder: Path) -> None:
    pictures = np.zeros((39, 28, 28), np.uint8)
    characters = np.repeat(["Latin/c1", "Greek/c1"], 20)[:39]
    np.savez(folder / "omniglot_small_28.npz", x=pictures, character=characters)


@pytest.mark.parametrize(
    ("load", "damage", "found"),
    [
        (omniglot, _one_zip, "FileNotFoundError: .*small2.zip"),
        (omniglot, _cut_zip, "BadZipFile"),
        (omniglot, _missing_drawer, "ValueError: not 20 pictures of each of 2 characters"),
        (frey_faces, lambda folder: _write_frames(folder, 1964), r"ValueError: shape \(1964, 28, "),
        (frey_faces, lambda folder: (folder / "frey_faces.npz").write_bytes(b"PK"), "ValueError"),
    ],
)
def test_damaged_files_are_named(
    load: Callable[..., Any], damage: Callable[[Path], Any], found: str, tmp_path: Path
) -> None:
    damage(tmp_path)
    with pytest.raises(DataError, match=rf"^{tmp_path}/\S+: expected a whole .* file, got {found}"):
        load(tmp_path)


# Tables.

SHAPES = {
    "breast_cancer": (569, 30),
    "concrete": (1030, 9),
    "diabetes": (442, 11),
    "wine": (178, 13),
    "wine_quality": (1599, 12),
}


@pytest.mark.parametrize("name", TABLES)
def test_tables_are_standardised_by_training_rows(name: str, float64: torch.dtype) -> None:
    parts = data.load(name)
    number, columns = SHAPES[name]
    rows = _rows(parts)
    assert (len(rows), parts.feature_shape) == (number, (columns,))
    assert 0.75 < len(parts.train) / number < 0.85
    assert 0.07 < len(parts.test) / number < 0.13
    torch.testing.assert_close(parts.train.mean(0), torch.zeros(columns), rtol=0, atol=1e-12)
    torch.testing.assert_close(parts.train.var(0, correction=0), torch.ones(columns))
    assert set(parts.labels) == (set(PARTS) if TABLES[name].classes else set())


@pytest.mark.parametrize("name", TABLES)
def test_equal_rows_stay_together(name: str, float64: torch.dtype) -> None:
    parts = table(name)
    held = [set(map(tuple, getattr(parts, part).tolist())) for part in PARTS]
    assert not held[0] & held[1]
    assert not held[0] & held[2]
    assert not held[1] & held[2]


def test_shipped_tables_are_those_of_the_sources() -> None:
    wine = np.loadtxt(EMBEDDED / "wine_quality.csv.gz", delimiter=",", skiprows=1)
    counts = {3: 10, 4: 53, 5: 681, 6: 638, 7: 199, 8: 18}
    assert Counter(wine[:, -1].astype(int).tolist()) == counts
    concrete = np.loadtxt(EMBEDDED / "concrete.csv.gz", delimiter=",", skiprows=1)
    low, high = [102, 0, 0, 121.75, 0, 801, 594], [540, 359.4, 200.1, 247, 32.2, 1145, 992.6]
    np.testing.assert_allclose(concrete[:, :7].min(0), low, atol=0.0501)  # UCI's ranges, and one
    np.testing.assert_allclose(concrete[:, :7].max(0), high, atol=0.0501)  # decimal in the copy


def test_labels_follow_their_rows(float64: torch.dtype) -> None:
    from sklearn.datasets import load_wine

    rows, target = load_wine(return_X_y=True)
    parts = table("wine")
    order = np.lexsort(np.array(_rows(parts)).T)
    labels = torch.cat([parts.labels[part] for part in PARTS])
    assert labels[order].tolist() == target[np.lexsort(rows.T)].tolist()  # scaling keeps the order


def test_unknown_table() -> None:
    with pytest.raises(DataError, match=r"table: expected one of .* got 'wines'\.\nTry: Pass 'win"):
        table("wines")


# What is shipped.


def test_shipped_files_are_listed_and_small() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    assert setup["options.package_data"]["pyro_lvm.data"] == "embedded/*"
    files = {path.name: path.stat().st_size for path in EMBEDDED.iterdir()}
    assert {"README.md", "fashion_mnist.LICENSE"} < set(files)
    assert sum(files.values()) < 1.2e6
    about = (EMBEDDED / "README.md").read_text()
    assert all(f"`{name}`" in about for name in files if name != "README.md")


@pytest.mark.slow
def test_the_wheel_has_the_data(tmp_path: Path) -> None:
    source = tmp_path / "source"  # setuptools leaves its build beside the sources
    source.mkdir()
    for folder in ("pyro_lvm", "models", "guides"):
        shutil.copytree(ROOT / folder, source / folder)
    for file in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, source)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(tmp_path)]
    subprocess.run([*command, str(source)], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        packed = {Path(name).name for name in archive.namelist() if "data/embedded/" in name}
    assert packed == {path.name for path in EMBEDDED.iterdir()}
