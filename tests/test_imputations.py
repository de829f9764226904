"""Imputations for ArviZ and pandas: labels, groups, completed frames."""

from typing import Any

import arviz
import numpy as np
import pandas as pd
import pytest
import torch
from explained import explained

from pyro_lvm.diagnostics import Imputations
from pyro_lvm.errors import DataError
from pyro_lvm.missing import Schema

pytestmark = pytest.mark.usefixtures("float64")


def table() -> tuple[pd.DataFrame, Schema, Imputations]:
    made = pd.DataFrame({"height": [1.6, None, 1.8], "visits": [3, 1, 0]}, index=list("abc"))
    made["place"] = pd.Categorical(["sea", "town", None])
    schema = Schema.of(made)
    x = schema.encode(made)
    values = torch.stack([x.nan_to_num(value) for value in (0.0, 1.0, 0.0, 1.0)])
    quality = torch.tensor([0.1, 0.2, 0.3])
    return made, schema, Imputations(values, ~x.isnan(), khat=quality, num_chains=2)


def test_labels_of_rows_and_columns() -> None:
    made, schema, imputed = table()
    x = imputed.to_xarray(made, schema)
    assert x.dims == ("chain", "draw", "row", "column")
    assert dict(x.sizes) == {"chain": 2, "draw": 2, "row": 3, "column": 3}
    assert x.sel(row="b", column="height").values.ravel().tolist() == pytest.approx(
        [1.7, 1.8, 1.7, 1.8]
    )
    assert x.sel(row="c", column="place").values.ravel().tolist() == [0, 1, 0, 1]
    assert x.sel(row="a", column="visits").values.ravel().tolist() == [3, 3, 3, 3]
    assert imputed.to_xarray(made).sel(row="b", column="height")[0, 1] == 1.0, "not in units"
    assert imputed.to_xarray()["row"].values.tolist() == [0, 1, 2]


def test_groups_for_arviz(tmp_path: Any) -> None:
    made, schema, imputed = table()
    container = imputed.to_inference_data(made, schema)
    container.to_netcdf(str(tmp_path / "x.nc"), engine="h5netcdf")
    observed = container["observed_data"]["x"]
    assert np.isnan(observed.values).tolist() == made.isna().to_numpy().tolist()
    assert container["constant_data"]["khat"].sel(row="c").item() == pytest.approx(0.3)
    assert not container["constant_data"]["observed"].sel(row="b", column="height")
    assert container.attrs["categories"] == '{"place": ["sea", "town"]}'
    assert arviz.rhat(container["posterior"]) is not None


def test_completed_frames() -> None:
    made, schema, imputed = table()
    first, second, *_ = imputed.frames(made, schema)
    assert first["place"].tolist() == ["sea", "town", "sea"]
    assert second["place"].tolist() == ["sea", "town", "town"]
    assert (second.dtypes == made.dtypes).all()
    with explained(DataError, "frame", "3 rows", "2", "imputed"):
        imputed.frames(made.iloc[:2], schema)


def test_one_below_the_other() -> None:
    imputed = table()[-1]
    joined = Imputations.joined([imputed, imputed])
    assert joined.values.shape == (4, 6, 3)
    assert joined.khat is not None
    assert joined.khat.shape == (6,)
    assert joined.acceptance is None
