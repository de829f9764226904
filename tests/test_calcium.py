"""Models of calcium imaging: cells, training, bad input."""

from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from calcium_models import each_model, one_spike, total
from explained import explained
from torch import Tensor, nn

from pyro_lvm.errors import DataError, ProgramError
from pyro_lvm.models import LinearCalcium, SaturatingCalcium
from pyro_lvm.objectives import IWAE

pytestmark = pytest.mark.usefixtures("float64")


@each_model
def test_each_cell_has_its_own_parameters(make: Any) -> None:
    model = make(30.0, num_cells=3)
    for parameter in model.parameters():
        parameter.data += 0.3 * torch.randn(3)
    x, spikes = torch.randn(4, 40), (torch.rand(4, 40) < 0.1).double()
    together = total(model, x, spikes, cell=[2, 0, 0, 1])
    alone = [total(model, x[[i]], spikes[[i]], [c]) for i, c in enumerate((2, 0, 0, 1))]
    torch.testing.assert_close(together, sum(alone))
    in_order = total(model, x[:3], spikes[:3])
    assert torch.equal(in_order, total(model, x[:3], spikes[:3], cell=torch.arange(3)))


def test_a_model_learnt_at_one_frame_rate_serves_another() -> None:
    model = SaturatingCalcium(60.0, drift=False)
    other = model.at(15.0)
    assert (model.rate, other.rate) == (60.0, 15.0)
    other.response(one_spike(50)).sum().backward()
    assert model.binding_unconstrained.grad is not None


def test_held_parameters_are_not_learnt() -> None:
    model = LinearCalcium(30.0)
    model.hold("amplitude", "firing_rate")
    held = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert held == {"amplitude_unconstrained", "firing_rate_unconstrained"}


# Objectives.


class LogitGuide(nn.Module):
    """Independent spikes, drawn or relaxed, linear in the trace."""

    def __init__(self, relaxed: bool) -> None:
        super().__init__()
        self.relaxed = relaxed
        self.map = nn.Linear(40, 40)

    def forward(self, x: Tensor) -> None:
        logits = self.map(x) - 3.0
        frames = dist.RelaxedBernoulli(torch.tensor(0.5), logits=logits)
        with pyro.plate("data", len(x), dim=-1):
            train = frames if self.relaxed else dist.Bernoulli(logits=logits)
            pyro.sample("spikes", train.to_event(1))


@pytest.mark.parametrize("gradient", ["score", "vimco", "reparam", "dreg"])
@each_model
def test_objectives_train_model_and_guide(make: Any, gradient: str) -> None:
    relaxed = gradient in ("reparam", "dreg")
    model = make(30.0, num_frames=40, spikes="relaxed" if relaxed else "bernoulli")
    guide = LogitGuide(relaxed)
    x = model(size=6).detach()
    objective = IWAE(num_particles=8, gradient=gradient)
    objective.differentiable_loss(model, guide, x).backward()
    for name, parameter in [*model.named_parameters(), *guide.named_parameters()]:
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


@each_model
def test_parameters_are_learnt_from_known_spikes(make: Any) -> None:
    """From the other indicator's; single parameters trade off, what they say together does not."""
    truth, model = make(30.0, "gcamp6s", num_frames=800), make(30.0)
    trace = pyro.poutine.trace(truth).get_trace(size=4)
    x, spikes = (trace.nodes[name]["value"].detach() for name in ("x", "spikes"))
    model.start_at(x)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(120):
        optimiser.zero_grad()
        (-total(model, x, spikes)).backward()
        optimiser.step()
    exact, found = truth.response(spikes), model.response(spikes)
    assert (found - exact).std() < 0.1 * exact.std()
    torch.testing.assert_close(model.noise_scale, truth.noise_scale, rtol=0.05, atol=0)


def test_batches_name_their_cells_to_both_programs() -> None:
    model = LinearCalcium(30.0, num_cells=5, num_data=5)
    model.baseline = torch.arange(5.0)
    x, cell = model(torch.zeros(5, 40)) + torch.arange(5.0)[:, None], torch.arange(5)
    objective = IWAE(num_particles=3, gradient="vimco")

    def guide(x: Tensor, cell: Tensor) -> None:
        with pyro.plate("data", 5, subsample=torch.arange(len(x))):
            pyro.sample("spikes", dist.Bernoulli(torch.full((len(x), 40), 1e-3)).to_event(1))

    whole = objective.bound(model, guide, x, cell)
    assert (whole > 0).all()  # each trace beside its own baseline
    assert (objective.bound(model, guide, x[:2], cell[3:]) < -1000).all()


def test_poisson_spikes_are_counts() -> None:
    model = LinearCalcium(7.5, spikes="poisson")
    model.firing_rate = torch.tensor([15.0])
    spikes = model.prior(20_000)["spikes"].sample()
    assert (spikes.mean() - 2.0).abs() < 5 * (2.0 / 20_000) ** 0.5
    bernoulli = LinearCalcium(7.5)
    bernoulli.firing_rate = torch.tensor([15.0])
    torch.testing.assert_close(
        bernoulli.prior(3)["spikes"].mean, (1 - torch.tensor([[-2.0]]).exp()).expand(1, 3)
    )


# Bad input.


@pytest.mark.parametrize(
    ("options", "where", "expected", "found"),
    [
        ({}, "rate", "a number above 0", "None"),
        ({"rate": 0.0}, "rate", "a number above 0", "0.0"),
        ({"rate": -30}, "rate", "a number above 0", "-30"),
        ({"rate": float("nan")}, "rate", "a number above 0", "nan"),
        ({"rate": "30"}, "rate", "a number above 0", "'30'"),
        ({"rate": 30, "indicator": "gcamp"}, "indicator", "one of ['gcamp6f'", "'gcamp'"),
        ({"rate": 30, "spikes": "binary"}, "spikes", "one of ['bernoulli'", "'binary'"),
        ({"rate": 30, "num_cells": 0}, "num_cells", "an integer >= 1", "0"),
        ({"rate": 30, "num_frames": 0}, "num_frames", "an integer >= 1", "0"),
        ({"rate": 30, "temperature": 0}, "temperature", "a number above 0", "0"),
        ({"rate": 30, "drift_period": -1}, "drift_period", "a number above 0", "-1"),
    ],
)
def test_wrong_arguments(options: Any, where: str, expected: str, found: str) -> None:
    with explained(ProgramError, where, expected, found, f" {where}"):
        LinearCalcium(**options)


@pytest.mark.parametrize("shape", [(3, 1), (40,), (0, 40), (3, 40, 1), (3, 0)])
def test_wrong_traces(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match="x: expected"):
        LinearCalcium(30.0)(torch.zeros(shape))


def test_one_frame_is_refused() -> None:
    where = "x", "shape (batch, frames >= 2)", "shape (3, 1)", "Put frames last"
    with explained(DataError, *where):
        LinearCalcium(30.0)(torch.zeros(3, 1))


def test_cells_must_be_known() -> None:
    model = LinearCalcium(30.0, num_cells=3)
    with explained(DataError, "cell", "the cell of each trace, 0 to 2", "none for 5", "Pass cell="):
        model(torch.zeros(5, 40))
    with explained(DataError, "cell", "shape (5,)", "shape (4,)", "one index a trace"):
        model(torch.zeros(5, 40), torch.arange(4))
    with explained(ProgramError, "name", "one of [", "'gain'", "Pass name="):
        model.hold("gain")
