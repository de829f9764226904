"""Random walks as Markov proposals."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import log
from typing import Any

import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn
from torch.distributions import biject_to

from pyro_lvm.errors import ProgramError, explain

__all__ = ["RandomWalk"]


class RandomWalk(PyroModule):
    r"""Proposes a step from where a chain is, of one length in all directions.

    .. math:: T(z') = T(z) + s \epsilon, \quad \epsilon \sim N(0, I)

    with T from each site's support to the real numbers. The guide it is made of says where chains
    start, and in which plates and supports its sites are. For
    :class:`~pyro_lvm.mcmc.MarkovMetropolisHastings`, as the baseline of learned proposals;
    :class:`~pyro_lvm.objectives.MarkovAcceptance` learns s.

    Args:
        guide: any guide of the model; the start of chains.
        scale: s at first.

    Raises:
        ProgramError: ``scale`` is not above 0, or a site is discrete.

    Example:
        >>> import pyro
        >>> def guide():
        ...     pyro.sample("rate", dist.Gamma(2.0, 1.0))
        >>> walk = RandomWalk(guide, scale=0.1)
        >>> with pyro.poutine.trace() as tracer:
        ...     walk(current={"rate": torch.tensor([0.1, 1.0, 10.0])})
        >>> bool((tracer.trace.nodes["rate"]["value"] > 0).all())
        True
    """

    def __init__(self, guide: Callable[..., Any], scale: float = 0.5) -> None:
        super().__init__(name=type(self).__name__)
        if not scale > 0:
            raise ProgramError(explain("scale", "a number > 0", repr(scale), "Pass scale=0.5."))
        self.guide = guide
        self.log_scale = nn.Parameter(torch.tensor(log(scale)))

    @property
    def scale(self) -> Tensor:
        """s, a scalar."""
        return self.log_scale.exp()

    def forward(
        self, *args: Any, current: Mapping[str, Tensor] | None = None, **kwargs: Any
    ) -> Any:
        """The guide's own draws, or steps from ``current`` ``(K, *plates, *event)`` by site."""
        if current is None:
            return self.guide(*args, **kwargs)
        with _Steps(current, self.scale):
            return self.guide(*args, **kwargs)


class _Steps(Messenger):
    """Puts a Normal around the current value in the place of each site's distribution."""

    def __init__(self, current: Mapping[str, Tensor], scale: Tensor) -> None:
        super().__init__()
        self.current, self.scale = current, scale

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        value = self.current.get(msg["name"])
        if value is not None and not msg["is_observed"]:
            msg["fn"] = _around(value, msg["name"], msg["fn"], self.scale)


def _around(value: Tensor, name: str, fn: Any, scale: Tensor) -> Any:
    if fn.support.is_discrete:
        hint = "Sum it out, or write a guide that takes current= itself."
        raise ProgramError(explain(f"site '{name}'", "a real or positive one", "discrete", hint))
    to_support = biject_to(fn.support)
    centre = to_support.inv(value)
    event_dim = centre.dim() - (value.dim() - fn.event_dim)
    steps = dist.Normal(centre, scale.to(centre)).to_event(event_dim)
    return dist.TransformedDistribution(steps, [to_support])
