"""Whole steps as graphs: the parameters move as by the optimiser's own steps."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from types import MethodType
from typing import Any

import pyro.optim
import pytest
import torch
import torch._inductor.config
from torch import Tensor, optim
from torch.optim import Optimizer, lr_scheduler

from pyro_lvm import fit
from pyro_lvm.annealing import LinearWarmup
from pyro_lvm.errors import PyroLVMError
from pyro_lvm.guides import AmortizedNormal
from pyro_lvm.models import VAE
from pyro_lvm.objectives import ELBO
from pyro_lvm.training import CompiledLoss, CompiledStep

pytestmark = [
    pytest.mark.usefixtures("float64"),
    pytest.mark.not_simulated(reason="its operations cannot be recorded"),
]

Make = Callable[[Sequence[Tensor]], Optimizer]

IN_GRAPH: dict[str, Make] = {
    "Adadelta": lambda p: optim.Adadelta(p),
    "Adagrad": lambda p: optim.Adagrad(p, lr_decay=0.1),
    "Adam": lambda p: optim.Adam(p, 0.01),
    "Adam, AMSGrad": lambda p: optim.Adam(p, 0.01, amsgrad=True, weight_decay=0.1),
    "Adam, fused": lambda p: optim.Adam(p, 0.01, fused=True),
    "Adamax": lambda p: optim.Adamax(p, 0.01),
    "AdamW": lambda p: optim.AdamW(p, 0.01, fused=True),
    "ASGD": lambda p: optim.ASGD(p, 0.01),
    "NAdam": lambda p: optim.NAdam(p, 0.01),
    "RAdam": lambda p: optim.RAdam(p, 0.01),
    "RMSprop": lambda p: optim.RMSprop(p, 0.01, momentum=0.5, centered=True),
    "Rprop": lambda p: optim.Rprop(p, 0.01),
    "SGD": lambda p: optim.SGD(p, 0.01),
    "SGD, momentum": lambda p: optim.SGD(p, 0.01, momentum=0.9, dampening=0.1, nesterov=False),
    "two groups": lambda p: optim.Adam([{"params": p[:3], "lr": 0.1}, {"params": p[3:]}], 0.01),
}


def losses(backend: str = "graph") -> tuple[CompiledLoss, CompiledLoss]:
    """The same programs twice, with parameters of their own."""
    model = VAE(6, 2, ())
    guide = AmortizedNormal(in_features=6, latent_features=2, hidden=())
    objective = ELBO(beta=LinearWarmup(3, 0.1))
    first = CompiledLoss(objective, model, guide, backend=backend)
    return first, CompiledLoss(deepcopy(objective), *deepcopy((model, guide)), backend=backend)


def by_hand(loss: CompiledLoss, optimizer: Optimizer, x: Tensor, max_norm: float | None) -> Tensor:
    """A step as a user writes it."""
    optimizer.zero_grad()
    value = loss.eagerly(x)
    value.backward()
    norm = torch.nn.utils.clip_grad_norm_(loss.parameters(), max_norm or float("inf"))
    optimizer.step()
    return torch.stack([value.detach(), norm])


class Both:
    """A compiled step and one by hand, on the same data with the same random numbers."""

    def __init__(self, make: Make, max_norm: float | None = None, backend: str = "graph") -> None:
        self.ours, self.theirs = losses(backend)
        self.optimizers = [make([*loss.parameters()]) for loss in (self.ours, self.theirs)]
        self.max_norm = max_norm
        self.step = CompiledStep(self.ours, self.optimizers[0], max_norm)
        self.own_steps = 0
        self._count(self.optimizers[0])

    def _count(self, optimizer: Any) -> None:
        step = optimizer.step

        def counted(_: Optimizer) -> None:
            self.own_steps += 1
            step()

        optimizer.step = MethodType(counted, optimizer)

    def check(self, steps: int = 4) -> None:
        for seed in range(steps):
            x = torch.rand(10, 6).round()
            torch.manual_seed(seed)
            found = self.step(x)
            torch.manual_seed(seed)
            torch.testing.assert_close(
                found, by_hand(self.theirs, self.optimizers[1], x, self.max_norm)
            )
        self.check_parameters()

    def check_parameters(self) -> None:
        for ours, theirs in zip(self.ours.parameters(), self.theirs.parameters(), strict=True):
            torch.testing.assert_close(ours, theirs)
            assert ours.grad is None


@pytest.mark.parametrize("name", IN_GRAPH)
def test_steps_are_those_of_the_optimiser(name: str) -> None:
    """Of which it takes itself the one at which its state is made."""
    both = Both(IN_GRAPH[name])
    both.check()
    assert both.own_steps == (name not in ("Adagrad", "SGD"))
    assert both.ours.num_graphs == 1


@pytest.mark.parametrize("name", ["Adam", "SGD"])
def test_gradients_are_cut_within_the_graph(name: str) -> None:
    both = Both(IN_GRAPH[name], max_norm=0.5)
    both.check()
    assert both.own_steps == (name == "Adam")


def test_the_state_is_that_of_the_optimiser() -> None:
    """A checkpoint of it is one of theirs."""
    both = Both(IN_GRAPH["Adam"])
    both.check()
    ours, theirs = (optimizer.state_dict() for optimizer in both.optimizers)
    torch.testing.assert_close(ours["state"], theirs["state"])
    assert ours["param_groups"] == theirs["param_groups"]


def test_it_goes_on_from_a_state_that_is_loaded() -> None:
    both = Both(IN_GRAPH["Adam"])
    both.check()
    both.optimizers[0].load_state_dict(deepcopy(both.optimizers[1].state_dict()))
    both.check()
    assert both.own_steps == 1
    assert both.ours.num_graphs == 2


def test_rates_follow_a_schedule_without_a_new_graph() -> None:
    both = Both(IN_GRAPH["Adam"])
    schedules = [lr_scheduler.ExponentialLR(optimizer, 0.5) for optimizer in both.optimizers]
    for _ in range(4):
        both.check(1)
        for schedule in schedules:
            schedule.step()
    assert both.optimizers[0].param_groups[0]["lr"] == 0.01 * 0.5**4
    assert both.ours.num_graphs == 1


def test_a_rate_in_a_tensor() -> None:
    both = Both(lambda p: optim.Adam(p, torch.tensor(0.01)))
    both.check()
    for optimizer in both.optimizers:
        optimizer.param_groups[0]["lr"].fill_(0.2)
    both.check()
    assert both.ours.num_graphs == 1


def test_a_schedule_of_more_than_the_rate() -> None:
    both = Both(lambda p: optim.SGD(p, 0.01, momentum=0.9))
    schedules = [lr_scheduler.OneCycleLR(o, 0.1, total_steps=8) for o in both.optimizers]
    for _ in range(4):
        both.check(1)
        for schedule in schedules:
            schedule.step()
    assert both.own_steps == 4


@pytest.mark.parametrize("reason", ["hook", "class", "values"])
def test_other_optimisers_take_their_own_steps(reason: str) -> None:
    class Own(optim.SGD):
        pass

    makes: dict[str, Make] = {
        "hook": IN_GRAPH["Adam"],
        "class": lambda p: Own(p, 0.01),
        "values": lambda p: optim.Adafactor(p),
    }
    both = Both(makes[reason])
    if reason == "hook":
        both.optimizers[0].register_step_post_hook(lambda *_: None)
        both.step = CompiledStep(both.ours, both.optimizers[0])
    both.check()
    assert both.own_steps == 4
    assert not both.ours.is_eager


@pytest.mark.parametrize("name", ["Adam", "SGD, momentum"])
def test_a_step_that_is_not_finite_is_not_taken(name: str) -> None:
    """Nor noticed by later ones: no moment and no count of steps has seen it."""
    both = Both(IN_GRAPH[name])
    both.check()
    value, norm = both.step(torch.full((10, 6), 1e308))
    assert not (value.isfinite() and norm.isfinite())
    both.check_parameters()
    both.check()
    assert both.own_steps == 1


def test_a_step_outside_the_graph_that_is_not_finite_is_not_taken() -> None:
    both = Both(lambda p: optim.Adafactor(p))
    both.check()
    both.step(torch.full((10, 6), 1e308))
    both.check_parameters()
    both.check()


def test_frozen_parameters_stay() -> None:
    loss, _ = losses()
    loss.eval()  # Pyro warns of frozen parameters in training
    frozen = next(loss.parameters()).requires_grad_(False)
    before = frozen.clone()
    step = CompiledStep(loss, optim.Adam(loss.parameters(), 0.1))
    for _ in range(3):
        step(torch.rand(10, 6).round())
    assert torch.equal(frozen, before)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # torch's own
@pytest.mark.parametrize(
    "options", [{"max_grad_norm": 0.1}, {"optimizer": "sgd", "lr_scheduler": "cosine"}]
)
def test_fit_takes_them(options: dict[str, Any]) -> None:
    x, histories = torch.rand(30, 6).round(), []
    settings = {"max_steps": 9, "batch_size": 15, "log_every": 1, "accelerator": "cpu", **options}
    for compile in (False, True):
        torch.manual_seed(0)
        model, guide = VAE(6, 2, (8,)), AmortizedNormal(in_features=6, latent_features=2)
        with torch._inductor.config.patch(fallback_random=True):
            result = fit(model, guide, x, ELBO(), compile=compile, **settings)
        histories.append([*result.history["loss"], *result.history["grad_norm"]])
    torch.testing.assert_close(*(torch.tensor(history) for history in histories))


def test_arguments_of_another_kind_are_named() -> None:
    loss, _ = losses()
    with pytest.raises(PyroLVMError, match="loss: expected CompiledLoss, got ELBOModule"):
        CompiledStep(loss.loss, optim.SGD(loss.parameters()))
    with pytest.raises(PyroLVMError, match="optimizer: expected Optimizer, got PyroOptim"):
        CompiledStep(loss, pyro.optim.Adam({"lr": 0.1}))  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # torch's own
@pytest.mark.parametrize("name", ["Adam, fused", "SGD, momentum"])
def test_inductor_gives_the_same_numbers(name: str) -> None:
    with torch._inductor.config.patch(fallback_random=True):
        both = Both(IN_GRAPH[name], 0.5, backend="inductor")
        both.check()
    assert both.own_steps == 1
    assert not both.ours.is_eager
