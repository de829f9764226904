"""What several processes share beside the parameters of the programs, and what they cannot."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from pyro_lvm.adversarial import AdversarialObjective
from pyro_lvm.critic import Critic
from pyro_lvm.errors import ProgramError, PyroLVMError, explain
from pyro_lvm.game import GameObjective
from pyro_lvm.objective import Objective
from pyro_lvm.training.fabric import Fabric

__all__ = ["check_can_share", "sharing"]


def check_can_share(objective: Objective, batch_size: int | None, world_size: int) -> None:
    """Refuse what would go wrong in several processes, each with a share of every batch.

    Raises:
        ProgramError: the objective keeps chains of rows, which would be left behind in the
            process that saw the row last.
        PyroLVMError: programs that may know all rows, and only them, would see a share.
    """
    if world_size == 1:
        return
    if "chains" in objective.state_dict():
        expected = "an objective without chains, when several processes train together"
        found = "one that keeps a chain of each row"
        raise ProgramError(
            explain(type(objective).__name__, expected, found, "Train in one process.")
        )
    if batch_size is None:
        expected = "a number of rows to share out, when several processes train together"
        hint = "Pass batch_size=; programs with a parameter for each row need one process."
        raise PyroLVMError(explain("batch_size", expected, "None", hint))


@contextmanager
def sharing(objective: Objective, fabric: Fabric) -> Iterator[None]:
    """Begin with the first process's objective, and train its critics alike in all of them."""
    with ExitStack() as stack:
        if fabric.world_size > 1:
            objective.load_state_dict(fabric.broadcast(objective.state_dict()))
            for critic in _critics(objective):
                if critic.own_step is not None:
                    optimizer = critic.own_step.optimizer
                    stack.callback(optimizer.register_step_pre_hook(_averaging(fabric)).remove)
        yield


def _critics(objective: Objective) -> list[Critic]:
    if isinstance(objective, AdversarialObjective):
        return [objective.ratio.critic]
    return [*objective.critics.values()] if isinstance(objective, GameObjective) else []


def _averaging(fabric: Fabric) -> Any:
    """What an optimiser calls before its step: gradients become their mean over processes."""

    def average(optimizer: Any, args: Any, kwargs: Any) -> None:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.grad = fabric.all_reduce(parameter.grad, reduce_op="mean")

    return average
