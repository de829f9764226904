"""The data that ``fit`` takes, and those it refuses."""

from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset
from training_job import FEATURES, data, programs, train

from pyro_lvm import fit
from pyro_lvm.errors import DataError
from pyro_lvm.guides import AmortizedNormal
from pyro_lvm.models import FactorAnalysis
from pyro_lvm.objectives import ELBO
from pyro_lvm.training.inputs import as_dataset, split
from pyro_lvm.training.loader import Batches


class Rows(Dataset[Any]):
    def __init__(self, x: Tensor) -> None:
        self.x = x

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> Tensor:
        return self.x[index]


def test_all_forms_of_data_give_the_same_run() -> None:
    x = data()
    forms = [x, x.numpy(force=True), (x,), [x], {"x": x}, Rows(x), TensorDataset(x)]
    histories = [train(x=form).history for form in forms]
    assert all(history == histories[0] for history in histories)


def test_data_drawn_from_a_model_carry_no_graph() -> None:
    """They depend on its parameters, and a second step would go through a freed graph."""
    model = FactorAnalysis(3, 1)
    guide = AmortizedNormal(in_features=3, latent_features=1, hidden=(4,))
    x = model(size=8)
    assert x.requires_grad
    fit(model, guide, x, ELBO(), max_steps=2, batch_size=None, progress=False)


def test_a_dataloader_keeps_its_batches_and_is_reproducible() -> None:
    loader = DataLoader(TensorDataset(data()), batch_size=8, shuffle=True)
    runs = [train(x=loader, max_epochs=2, max_steps=None) for _ in range(2)]
    assert runs[0].history == runs[1].history
    assert runs[0].history["step"] == [*range(1, 11)]
    own = DataLoader(Rows(data()), batch_size=8, shuffle=True, generator=torch.Generator())
    assert train(x=own).history == train(x=own).history


@pytest.mark.parametrize(
    "form",
    [lambda x: x, TensorDataset, lambda x: DataLoader(TensorDataset(x), 4, shuffle=True)],
)
def test_the_default_device_changes_no_order(form: Any) -> None:
    def order() -> list[list[int]]:
        training, held_out = split(as_dataset(form(x), "data"), 0.5, seed=0)
        parts = [Batches(part, 4, seed=0) for part in (form(x), training, held_out)]
        return [batch.args[0].tolist() for part in parts for batch in part.epoch(0)]

    x = torch.arange(10, device="cpu")
    expected = order()
    with torch.device("meta"):
        assert order() == expected


def test_batches_cover_the_data_once_an_epoch_and_in_a_new_order() -> None:
    batches = Batches(torch.arange(10), 4, seed=0)
    first, second = ([b.args[0].tolist() for b in batches.epoch(e)] for e in (0, 1))
    assert [len(batch) for batch in first] == [4, 4, 2]
    for epoch in (first, second):
        assert sorted(row for batch in epoch for row in batch) == [*range(10)]
    assert first != second
    assert [b.args[0].tolist() for b in batches.epoch(1, start=1)] == second[1:]


def test_processes_share_each_batch_equally() -> None:
    shares = [Batches(torch.arange(11), 4, seed=0, rank=r, world_size=2) for r in (0, 1)]
    rows = [[b.args[0].tolist() for b in share.epoch(0)] for share in shares]
    assert [len(b) for b in rows[0]] == [len(b) for b in rows[1]] == [2, 2, 1]
    assert len({i for share in rows for batch in share for i in batch}) == 10


def test_batch_norm_leaves_out_a_batch_of_one() -> None:
    model, guide = programs(batch_norm=True)
    result = train(model, guide, data(21), max_steps=None, max_epochs=2)
    assert result.history["step"] == [1, 2, 3, 4]
    with pytest.raises(DataError, match="BatchNorm"):
        train(model, guide, data(), batch_size=1)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(0, FEATURES), "data: expected at least one datum"),
        (
            data().index_fill(0, torch.tensor([3]), float("nan")),
            r"data.*NaN or infinite.*at \[3, 0\]",
        ),
        ((data(), torch.zeros(7)), r"equal length, got data\[0\]: 40, data\[1\]: 7"),
        ((data(), 100), "a tuple of Tensor, int|a tuple of int, Tensor"),
        ("file.csv", "got a str"),
        (data().double(), "data: expected the dtype of the parameters, got torch.float64"),
    ],
)
def test_bad_data(x: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        train(x=x)


def test_a_mask_excuses_nan() -> None:
    def model(x: Tensor, observed: Tensor) -> None:
        loc = pyro.param("loc", torch.tensor(0.0))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(loc, 1.0))
            with pyro.poutine.mask(mask=observed):
                pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x: Tensor, observed: Tensor) -> None:
        shift = pyro.param("shift", torch.tensor(0.0))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(shift, 1.0))

    x = torch.linspace(1, 2, 10)
    x[4] = float("nan")
    observed = ~x.isnan()
    result = train(model, guide, {"x": x, "observed": observed}, max_steps=20, lr=0.1)
    assert result.history["skipped"][-1] == 0
    assert pyro.param("loc").item() > 0.1
    with pytest.raises(DataError, match="NaN"):
        train(model, guide, {"x": x, "observed": observed[:, None]})
