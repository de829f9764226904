"""``pyro-lvm impute``: what it writes, and what it says of tables that it cannot complete."""

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from explained import explained
from test_cli import refused

from pyro_lvm.cli.impute_report import summary
from pyro_lvm.cli.main import main
from pyro_lvm.errors import DataError
from pyro_lvm.imputation import TableCodec
from pyro_lvm.missing import read_frame, with_categories

pytestmark = pytest.mark.usefixtures("no_default_device")

ROWS = 40


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every kind of column, one constant, with holes; the first row is nothing else."""
    random = np.random.RandomState(0)
    frame = pd.DataFrame(
        {
            "height": random.normal(1.7, 0.1, ROWS).round(3),
            "visits": random.poisson(3.0, ROWS),
            "place": random.choice(["sea", "town"], ROWS),
            "member": random.choice(["true", "false"], ROWS),
            "code": random.choice([1, 2, 3], ROWS),
            "year": 2020,
        }
    ).astype(object)
    holes = random.rand(*frame.shape) < 0.2
    holes[0] = True
    path = tmp_path_factory.mktemp("tables") / "people.csv"
    frame.mask(holes, "?").to_csv(path, index=False)
    return path


READ = ("--missing", '["?"]', "--categories", "[code]")


def run(out: Path, table: Path, *arguments: str) -> None:
    small = ("--train.steps", "3", "--num_imputations", "4", "--num_draws", "20")
    sizes = ("--hidden", "[5]", "--latent_features", "2", "--train.accelerator", "cpu")
    assert main(["impute", str(table), "--out", str(out), *READ, *small, *sizes, *arguments]) == 0


@pytest.fixture(scope="module")
def completed(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("impute") / "run"
    run(out, table)
    return out


def test_completed_tables(table: Path, completed: Path) -> None:
    """The mean one and four copies: observed cells as they were, kinds of cells too."""
    original = pd.read_csv(table, na_values="?", dtype=str)
    copies = sorted(completed.glob("imputation_*.csv"))
    assert len(copies) == 4
    for path in [completed / "completed.csv", *copies]:
        filled = pd.read_csv(path)
        assert filled.notna().all(axis=None)
        assert filled.columns.tolist() == original.columns.tolist()
        assert (filled["year"] == 2020).all()
        assert filled["place"].isin(["sea", "town"]).all()
        assert filled["code"].isin([1, 2, 3]).all()
        assert pd.api.types.is_integer_dtype(filled["visits"])
        known = original["height"].notna()
        assert (filled["height"][known] == original["height"][known].astype(float)).all()
    assert copies[0].read_text() != copies[1].read_text()


def test_cells_are_written_as_they_were_read(tmp_path: Path) -> None:
    """Digits, words, zeros in front; what is filled in is spelled like the others."""
    path, out = tmp_path / "x.csv", tmp_path / "run"
    ids = [f"{2**53 + 1 + 2 * row}" for row in range(8)]
    path.write_text(
        "id,fever,code,dose,right\n"
        + "".join(f"{i},TRUE,01,1.50e0,{n % 2}\n" for n, i in enumerate(ids[:4]))
        + "".join(f"{i},FALSE,02, 2.0,{n % 2}\n" for n, i in enumerate(ids[4:]))
        + ",,,,\n"
    )
    run(out, path, "--categories", "[code]", "--missing", "[]")
    cells = pd.read_csv(path, dtype=str, keep_default_na=False)
    copies = [out / "completed.csv", *sorted(out.glob("imputation_*.csv"))]
    for copy in copies:
        filled = pd.read_csv(copy, dtype=str, keep_default_na=False)
        assert filled[:-1].equals(cells[:-1])
        assert filled.iloc[-1]["fever"] in ("TRUE", "FALSE")
        assert filled.iloc[-1]["code"] in ("01", "02")
        assert filled.iloc[-1]["right"] in ("0", "1"), "no count"


def test_copies_of_an_earlier_run_do_not_stay(table: Path, tmp_path: Path) -> None:
    run(tmp_path / "run", table)
    run(tmp_path / "run", table, "--num_imputations", "2", "--resume")
    assert len(list((tmp_path / "run").glob("imputation_*.csv"))) == 2


def test_a_table_within_the_run_is_not_deleted_with_it(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    run(out, table)
    within = str(out / "completed.csv")
    capsys.readouterr()
    says = refused(capsys, "impute", within, "--out", str(out), "--overwrite")
    assert f"table: expected an input outside of {out}" in says
    assert Path(within).is_file()


def test_draws_for_arviz(completed: Path) -> None:
    file = completed / "imputations.nc"
    with xr.open_dataset(file, group="posterior", engine="h5netcdf") as draws:
        assert draws["x"].dims == ("chain", "draw", "row", "column")
        assert draws["x"].shape == (1, 4, ROWS, 5)
        assert draws["column"].values.tolist() == ["height", "visits", "place", "member", "code"]
        assert draws["x"].notnull().all()
    with xr.open_dataset(file, group="constant_data", engine="h5netcdf") as constant:
        assert not constant["observed"].sel(row=0).any()
        assert constant["khat"].shape == (ROWS,)


def test_figures_and_curves(completed: Path) -> None:
    figures = sorted(path.stem for path in (completed / "figures").glob("*.png"))
    assert figures == ["columns", "intervals", "training_curves"]
    assert (completed / "metrics.csv").is_file()
    assert list((completed / "checkpoints").glob("*.ckpt"))


def test_what_it_tells(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path / "run", table, "--num_imputations", "1")
    shown = capsys.readouterr().out
    assert f"{ROWS} rows, 6 columns" in shown
    assert "1 rows without any observed cell" in shown
    assert "constant columns, filled with their value: year" in shown
    assert (
        "\nnumbers: height\ncounts: visits\ncategories (how many): place (2), code (3)\n" in shown
    )
    assert "names of rows" not in shown
    assert "rows completed 1 times; k-hat above 0.7" in shown


def test_names_of_rows_are_noticed() -> None:
    frame = pd.DataFrame({"id": range(30), "who": [f"p{n}" for n in range(30)], "age": [7, 8] * 15})
    frame["who"] = frame["who"].astype("category")
    told = summary(frame, TableCodec.of(frame))
    assert told.endswith("\nnames of rows, better left out of the table: id, who")
    few = frame[:10]
    assert "names of rows" not in summary(few, TableCodec.of(few))


@pytest.mark.parametrize("family", ["vaeac", "vgi"])
def test_other_families(table: Path, tmp_path: Path, family: str) -> None:
    run(tmp_path / "run", table, "--family", family)
    assert (tmp_path / "run" / "completed.csv").is_file()


def test_config_gives_the_same_run(completed: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    assert main(["impute", "--config", str(completed / "config.yaml"), "--out", str(again)]) == 0
    for name in ("completed.csv", "imputation_03.csv"):
        assert (again / name).read_text() == (completed / name).read_text()


def test_complete_table(tmp_path: Path) -> None:
    """Nothing to fill: the copies are the table."""
    path = tmp_path / "x.csv"
    path.write_text("a,b\n1.5,2\n2.5,3\n3.5,5\n")
    run(tmp_path / "run", path, "--categories", "[]")
    assert pd.read_csv(tmp_path / "run" / "completed.csv").equals(pd.read_csv(path))


BAD = {
    "empty file": ("", "expected a first row of names, then data, got an empty file"),
    "names alone": ("a,b\n", "got a first row of names and no other"),
    "twice": ("a,b,a\n1,2,3\n2,3,4\n", "expected one column of each name, got two ['a']"),
    "a bad cell": ("a\n1.5\n2.5\noops\n", "column 'a': expected numbers, got 'oops' in line 4"),
    "never observed": ("a,b\n1.5,\n2.5,\n", "column 'b': expected observed cells, got none"),
    "constant": ("a,b\n1.5,x\n1.5,x\n", "expected columns that vary, got 2 constant ones"),
    "semicolons": ("a;b\n1;2\n2;3\n", "expected commas between names, got ';' in the only name"),
    "tabs": ("a\tb\n1\t2\n2\t3\n", r"got '\t' in the only name, 'a\tb'"),
    "ragged": ("a,b\n1,2\n1,2,3\n", "expected rows of 2 cells, got a row of 3 cells"),
}


@pytest.mark.parametrize("name", BAD)
def test_tables_that_it_refuses(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is trained or written."""
    text, says = BAD[name]
    path, out = tmp_path / "x.csv", tmp_path / "run"
    path.write_text(text)
    assert says in refused(capsys, "impute", str(path), "--out", str(out))
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("", "table"),
        ("nowhere.csv", "nowhere.csv: expected a CSV file, got no such file"),
        ("{} --family mice", "family"),
        ("{} --num_imputations 0", "num_imputations: expected an int"),
        ("{} --kinds.height reel", "kinds: expected one of"),
        ("{} --kinds.weight real", "kinds: expected columns among"),
        ("{} --categories [weight]", "categories: expected columns among"),
    ],
)
def test_mistakes_are_explained(
    arguments: str,
    says: str,
    table: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    given = arguments.replace("{}", f'{table} --missing ["?"]').split()
    assert says in refused(capsys, "impute", *given)
    assert not list(tmp_path.iterdir())


# Reading.


def test_kinds_of_columns(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("a, b ,c,d,e\n1,1.0,TRUE,x,1\n,2.0, ,y,b\n-3,NA,false,,c\n")
    frame = read_frame(path)
    assert [str(dtype) for dtype in frame.dtypes] == [
        *("Int64", "float64", "boolean", "category", "category")
    ]
    assert frame.columns.tolist() == ["a", "b", "c", "d", "e"]
    assert frame["a"].tolist()[::2] == [1, -3]
    assert frame.isna().sum().tolist() == [1, 1, 1, 1, 0]


def test_long_whole_numbers_keep_their_digits(tmp_path: Path) -> None:
    """Beside a missing cell too, where pandas would make them float64."""
    path = tmp_path / "x.csv"
    longest = [2**62 + 1, -(2**53) - 1]
    path.write_text(f"a\n{longest[0]}\nNA\n{longest[1]}\n")
    assert read_frame(path)["a"].tolist() == [longest[0], pd.NA, longest[1]]
    path.write_text(f"a\n1\n{2**63}\n")
    with explained(DataError, "column 'a'", "2**63", f"'{2**63}' in line 3 (1 of 2", "category"):
        read_frame(path)


def test_files_that_are_no_text(tmp_path: Path) -> None:
    """In another encoding, or packed, whatever the name: pandas would unpack all but the names."""
    for name, written in {
        "x.csv": b"a,b\n\xff\xfe,2\n",
        "x.csv.gz": gzip.compress(b"a\n1\n"),
    }.items():
        path = tmp_path / name
        path.write_bytes(written)
        with explained(DataError, name, "a table", "decode", "UTF-8"):
            read_frame(path)


def test_columns_of_objects() -> None:
    frame = pd.DataFrame(
        {
            "a": ["x", None],
            "b": [True, None],
            "bits": [np.True_, None],
            "c": [10**17 + 1, None],
            "e": [1.5, 2],
            "d": [None, None],
        },
        dtype=object,
        index=[7, 7],
    )
    made = with_categories(frame)
    kinds = {"a": "category", "b": "boolean", "bits": "boolean", "c": "Int64", "e": "float64"}
    assert {name: str(made[name].dtype) for name in kinds} == kinds
    assert made["c"].tolist() == [10**17 + 1, pd.NA]
    assert made.index.tolist() == [7, 7]
    assert made["d"].isna().all()
    with explained(
        DataError, "column 'c'", "2**63", f"{2**63} in row 7 (1 of 1 cells)", "category"
    ):
        with_categories(pd.DataFrame({"c": [2**63]}, dtype=object, index=[7]))
    with explained(DataError, "column 'a'", "numbers", "'x' in row 1", "missing="):
        with_categories(pd.DataFrame({"a": [1.5, "x"]}, dtype=object))
