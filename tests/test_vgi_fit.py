"""Variational Gibbs inference under ``fit``: chains in checkpoints, models and tables."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor

from pyro_lvm import fit
from pyro_lvm.chains import gibbs_chains
from pyro_lvm.guides import AmortizedNormal, GibbsConditionals, GibbsGuide
from pyro_lvm.kept_chains import Chains
from pyro_lvm.missing import Completed, Schema, TableEncoder, hide, mcar
from pyro_lvm.models import VAE, FactorAnalysis, NormalizingFlow
from pyro_lvm.objectives import IWAE, VGI
from pyro_lvm.training import Callback, FitResult


def table(rows: int = 60) -> Tensor:
    torch.manual_seed(0)
    x = torch.randn(rows, 1) + 0.3 * torch.randn(rows, 4)
    return hide(x, mcar(x, 0.3))


def parts(x: Tensor) -> tuple[FactorAnalysis, GibbsGuide, VGI]:
    torch.manual_seed(1)
    guide = GibbsGuide(GibbsConditionals(4, hidden=(8,)))
    return FactorAnalysis(4, 1), guide, VGI(Chains(x, 3), warmup=4)


def trained(x: Tensor, **options: Any) -> tuple[FitResult, dict[str, Tensor]]:
    model, guide, objective = parts(x)
    data = x, torch.arange(len(x))
    how: dict[str, Any] = {"max_steps": 12, "batch_size": 16, "allow_nan": True} | options
    result = fit(Completed(model), guide, data, objective, progress=False, **how)
    state = dict(torch.nn.ModuleList([model, guide]).state_dict())
    return result, state | {"chains": objective.chains.values}


class StopAt(Callback):
    def on_step_end(self, state: Any) -> None:
        state.stop = state.step >= 7


@pytest.mark.parametrize("compile", [False, pytest.param("graph", marks=pytest.mark.slow)])
def test_a_checkpoint_resumes_exactly(compile: bool | str, tmp_path: Path) -> None:
    """Seven steps, an end, and five more in new objects are twelve steps, bit for bit."""
    x = table()
    _, straight = trained(x, compile=compile)
    saved: dict[str, Any] = {"compile": compile, "run_dir": tmp_path, "checkpoint_every": 1}
    trained(x, **saved, callbacks=[StopAt()])
    result, resumed = trained(x, **saved, resume=True)
    assert result.history["step"][-1] == 12
    for name, value in straight.items():
        assert torch.equal(resumed[name], value), name
    start = Chains(x, 3).values
    assert not torch.equal(resumed["chains"], start)


def test_validation_is_on_complete_rows() -> None:
    x = table()
    held_out = torch.randn(20, 4)
    result, _ = trained(x, validation=held_out, max_steps=6)
    model = result.model.model
    assert result.history["bound"][-1] is not None
    expected = model.log_evidence(held_out).mean().item()
    assert abs(result.history["bound"][-1] - expected) < 1e-5


def test_latents_and_an_inner_bound() -> None:
    x = table().sigmoid()
    model = VAE(4, 2, (8,), "gaussian")
    posterior = AmortizedNormal(in_features=4, latent_features=2, hidden=(8,))
    guide = GibbsGuide(GibbsConditionals(4, hidden=(8,), num_components=3), posterior)
    objective = VGI(Chains(x, 2), inner=IWAE(3, "dreg"), num_targets=2)
    before = {name: p.detach().clone() for name, p in guide.named_parameters()}
    data = x, torch.arange(len(x))
    fit(
        Completed(model),
        guide,
        data,
        objective,
        max_steps=3,
        batch_size=16,
        allow_nan=True,
        progress=False,
    )
    still = [name for name, p in guide.named_parameters() if torch.equal(p, before[name])]
    assert not still


def test_a_flow_learns_a_dependence_from_holes() -> None:
    """Of two columns with correlation 0.9, far above independence; 30 % missing."""
    torch.manual_seed(0)
    first = torch.randn(400, 1)
    x = torch.cat([first, 0.9 * first + 0.44 * torch.randn(400, 1)], 1)
    holed = hide(x, mcar(x, 0.3))
    model = NormalizingFlow(2, "maf", num_transforms=1, hidden=(16,))
    guide = GibbsGuide(GibbsConditionals(2, hidden=()))
    objective = VGI(Chains(holed, 3), warmup=20)
    data = holed, torch.arange(len(x))
    fit(
        Completed(model),
        guide,
        data,
        objective,
        max_epochs=60,
        lr=0.02,
        allow_nan=True,
        progress=False,
    )
    apart = torch.distributions.Normal(x.mean(0), x.std(0)).log_prob(x).sum(-1).mean()
    assert model.log_evidence(x).mean() > apart + 0.3


def test_a_table_of_mixed_columns() -> None:
    """From a frame with classes to imputations that are legal cells of it."""
    frame = pd.DataFrame(
        {"height": [1.6, None, 1.8, 1.7] * 4, "tall": [False, None, True, True] * 4}
    )
    frame["tall"] = frame["tall"].astype("boolean")
    frame["place"] = pd.Categorical(["sea", "town", None, "hill"] * 4)
    schema = Schema.of(frame)
    x = schema.encode(frame)
    encoder = TableEncoder(schema, (9,))
    counts = (0, 2, 3)
    posterior = AmortizedNormal(TableEncoder(schema, (9,)), encoder_features=9, latent_features=2)
    guide = GibbsGuide(GibbsConditionals(3, num_classes=counts, encoder=encoder), posterior)
    model = VAE(3, 2, (9,), schema.likelihood())
    data = x, torch.arange(len(x))
    objective = VGI(Chains(x, 4), warmup=2)
    fit(
        Completed(model),
        guide,
        data,
        objective,
        max_epochs=5,
        allow_nan=True,
        progress=False,
    )
    for completed in gibbs_chains(guide, x, num_chains=3, num_draws=1)[:, 0]:
        filled = schema.fill(frame, completed)
        assert filled.notna().all().all()
        assert list(filled.dtypes) == list(frame.dtypes)
