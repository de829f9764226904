"""A guide with free parameters for each datum, around what its encoder says."""

from __future__ import annotations

from collections.abc import Callable
from inspect import Parameter, signature
from typing import Any

import torch
from pyro.distributions import MaskedDistribution, constraints
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import Distribution, Independent, TransformedDistribution, transform_to

from pyro_lvm.distributions.autoregressive import Autoregressive
from pyro_lvm.distributions.flow import FlowDistribution
from pyro_lvm.errors import ProgramError, explain

__all__ = ["LocalGuide"]

Program = Callable[..., Any]
Move = Callable[[str, Tensor, Any], Tensor]

_REDUNDANT = {
    "logits": ("probs",),
    "scale_tril": ("covariance_matrix", "precision_matrix"),
}
"""Parameters that say the same as another, by that one."""

_NAMED = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)


class LocalGuide:
    r"""The same family for each datum, with parameters of its own.

    Every distribution that the guide draws a latent site from gets an offset to each of its
    parameters, in unconstrained space: :math:`T(T^{-1}(\lambda(x_n)) + \delta_n)`. A flow has
    them at its context, as the encoder's output is there. All offsets start at 0, where this is
    the guide itself. Where a site depends on draws before it, as in a hierarchy, the offset is
    added to what the guide makes of these: the family is then a part of all that a datum's own
    network could be.

    Args:
        guide: any guide whose distributions have parameters.
        args: what it is called with, of the data that are to have offsets.
        kwargs: keyword arguments of it.

    Attributes:
        offsets: tensors that require a gradient, by site and parameter.

    Raises:
        ProgramError: a latent site of a distribution without parameters to move.

    Example:
        >>> import pyro, pyro.distributions as dist
        >>> def guide(x):
        ...     with pyro.plate("data", len(x)):
        ...         return pyro.sample("z", dist.Normal(x, 0.1))
        >>> local = LocalGuide(guide, (torch.zeros(3),), {})
        >>> {name: offset.shape for name, offset in local.offsets.items()}
        {'z.loc': torch.Size([3]), 'z.scale': torch.Size([3])}
    """

    def __init__(self, guide: Program, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.guide = guide
        self.offsets: dict[str, Tensor] = {}
        with torch.no_grad():
            self(*args, **kwargs)
        if not self.offsets:
            hint = "Pass a guide that draws the model's latent sites."
            raise ProgramError(explain("guide", "a latent site with parameters", "none", hint))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with _Moved(self._move):
            return self.guide(*args, **kwargs)

    def _move(self, name: str, value: Tensor, constraint: Any) -> Tensor:
        to_parameter = transform_to(constraint)
        raw = to_parameter.inv(value)
        if name not in self.offsets:
            self.offsets[name] = torch.zeros_like(raw).requires_grad_()
        moved: Tensor = to_parameter(raw + self.offsets[name])
        return moved


class _Moved(Messenger):
    """Draws latent sites from distributions whose parameters ``move`` has moved."""

    def __init__(self, move: Move) -> None:
        super().__init__()
        self.move = move

    def _pyro_sample(self, msg: Any) -> None:
        if not msg["is_observed"] and type(msg["fn"]).__name__ not in ("_Subsample", "Delta"):
            msg["fn"] = _moved(msg["name"], msg["fn"], self.move)


def _moved(name: str, fn: Any, move: Move) -> Any:
    """``fn`` with its parameters moved, those named ``<name>.<parameter>``."""
    if isinstance(fn, Independent):
        return _moved(name, fn.base_dist, move).to_event(fn.reinterpreted_batch_ndims)
    if isinstance(fn, MaskedDistribution):
        return _moved(name, fn.base_dist, move).mask(fn._mask)
    if isinstance(fn, FlowDistribution) and fn.given:
        of_context, context = fn.given
        return of_context(move(f"{name}.context", context, constraints.real))
    if isinstance(fn, Autoregressive):
        context = move(f"{name}.context", fn.context, constraints.real)
        return Autoregressive(fn.network, context, fn.entries)
    if type(fn) is not TransformedDistribution and (parameters := _parameters(fn)):
        values = {n: move(f"{name}.{n}", getattr(fn, n), c) for n, c in parameters.items()}
        return type(fn)(**values)
    found = f"{type(fn).__name__}, which has none that are known"
    hint = "Draw it from a distribution with parameters, such as Normal, or from a flow."
    expected = "a distribution whose parameters can be moved"
    raise ProgramError(explain(f"site '{name}' of the guide", expected, found, hint))


def _parameters(fn: Distribution) -> dict[str, Any]:
    """Constraints of the parameters that make ``fn``, each thing once; none if one is not free."""
    known = dict(fn.arg_constraints)
    for name, others in _REDUNDANT.items():
        if name in known:
            known = {n: c for n, c in known.items() if n not in others}
    takes = signature(type(fn)).parameters.values()
    needed = {each.name for each in takes if each.default is each.empty and each.kind in _NAMED}
    free = needed <= set(known) and all(map(_is_free, known.values()))
    return known if free else {}


def _is_free(constraint: Any) -> bool:
    try:
        transform_to(constraint)
    except NotImplementedError:
        return False
    return True
