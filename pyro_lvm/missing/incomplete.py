"""Any model on incomplete data: NaN in an observed site takes no part in its likelihood."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from pyro.distributions import MaskedDistribution, Unit
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn
from torch.distributions import Independent

from pyro_lvm.errors import DataError, ProgramError, explain

__all__ = ["Incomplete", "hide", "observed_part"]


def hide(x: Tensor, mask: Tensor) -> Tensor:
    """``x`` with NaN wherever ``mask`` is False: one form for data and their mask.

    Args:
        x: data ``(B, *)``; integers become floating point.
        mask: bool, of the shape of ``x``, True = observed.

    Raises:
        DataError: a mask of another dtype or shape, or one that marks a NaN as observed.

    Example:
        >>> hide(torch.tensor([[1, 2]]), torch.tensor([[True, False]]))
        tensor([[1., nan]])
    """
    if mask.dtype != torch.bool or mask.shape != x.shape:
        found = f"{mask.dtype} of shape {tuple(mask.shape)}"
        expected = f"a bool tensor of shape {tuple(x.shape)}, True = observed"
        raise DataError(explain("mask", expected, found, "Make it as ~x.isnan()."))
    number = x if x.is_floating_point() else x.to(torch.get_default_dtype())
    wrong = mask & number.isnan()
    if bool(wrong.any()):
        found = f"{int(wrong.sum())} NaN marked as observed, first at {wrong.nonzero()[0].tolist()}"
        hint = "In a mask True means observed; turn yours around, or pass mask & ~x.isnan()."
        raise DataError(explain("mask", "False wherever x is NaN", found, hint))
    return torch.where(mask, number, torch.nan)


class Incomplete(nn.Module):
    r"""A model whose data may be NaN: those entries are left out of its likelihood.

    .. math:: p(x_{\mathrm{obs}}, z) = p(z) \prod_{j\, \mathrm{observed}} p(x_j \mid z)

    is the exact marginal where the entries are independent given the latents, so bounds of the
    wrapped model are bounds on the log-probability of what is observed. It is the likelihood to
    maximise where entries are missing (completely) at random. A row without any observed entry
    has evidence 1. The wrapped model is not changed, and may be trained before or after. Under
    :class:`~pyro_lvm.objectives.IWAE` this is MIWAE.

    References:
        Mattei, Frellsen (2019), *MIWAE: deep generative modelling and imputation of incomplete
        data sets*, arXiv:1812.02633.

    Args:
        model: generative program with sites observed by ``obs=``.

    Raises:
        ProgramError: entries of an observed site are dependent given the latents, as those of
            a MultivariateNormal.

    Example:
        >>> from pyro_lvm.guides import AmortizedNormal
        >>> from pyro_lvm.models import ProbabilisticPCA
        >>> from pyro_lvm.nn import MLP, ZeroImputing
        >>> from pyro_lvm.objectives import IWAE
        >>> model = Incomplete(ProbabilisticPCA(in_features=3, latent_features=2))
        >>> encoder = ZeroImputing(MLP(6, None, (9,)))
        >>> guide = AmortizedNormal(encoder, encoder_features=9, latent_features=2)
        >>> x = torch.tensor([[0.0, float("nan"), 1.0], [0.5, 1.0, 2.0]])
        >>> IWAE(5).bound(model, guide, x).shape
        torch.Size([2])
    """

    def __init__(self, model: Callable[..., Any]) -> None:
        super().__init__()
        self.model = model

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """As the model's own."""
        with _ScoreObserved():
            return self.model(*args, **kwargs)


def observed_part(fn: Any, observed: Tensor, name: str = "x") -> Any:
    """``fn`` that scores only the entries where ``observed`` is True.

    For a model that masks by itself: ``pyro.sample("x", observed_part(fn, ~x.isnan()), obs=x)``.

    Args:
        fn: distribution of independent entries.
        observed: bool, of the shape of a value.
        name: of the site, for errors.

    Raises:
        ProgramError: the entries of an event are dependent.

    Example:
        >>> import pyro.distributions as dist
        >>> row = dist.Normal(torch.zeros(2), 1.0).to_event(1)
        >>> observed_part(row, torch.tensor([True, False])).log_prob(torch.zeros(2))
        tensor(-0.9189)
    """
    if isinstance(fn, Independent):
        part = observed_part(fn.base_dist, observed, name)
        return part.to_event(fn.reinterpreted_batch_ndims)
    if isinstance(fn, MaskedDistribution):
        return observed_part(fn.base_dist, observed, name).mask(fn._mask)
    if fn.event_dim:
        found = f"{type(fn).__name__} of event shape {tuple(fn.event_shape)}"
        expected = "entries that are independent given the latents, to leave some out"
        hint = "Use such a likelihood, Normal(loc, scale).to_event(1), say."
        raise ProgramError(explain(f"observed site '{name}'", expected, found, hint))
    return fn.mask(observed)


class _ScoreObserved(Messenger):
    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        value = msg["value"]
        is_number = isinstance(value, Tensor) and value.is_floating_point()
        if msg["is_observed"] and is_number and not isinstance(msg["fn"], Unit):
            msg["fn"] = observed_part(msg["fn"], ~value.isnan(), msg["name"])
