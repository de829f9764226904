"""Data missing not at random: any model, with the mask as data that depend on what is missing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn
from torch.nn.functional import softplus

from pyro_lvm.errors import ProgramError, explain
from pyro_lvm.missing.incomplete import observed_part
from pyro_lvm.nn import check_choice, check_size

__all__ = ["NotAtRandom", "SelfMasking"]

_SIGNS = {"any": None, "high": -1.0, "low": 1.0}


class SelfMasking(nn.Module):
    r"""Each entry is observed by a logistic function of its own value, one for each column.

    .. math:: P(s_j = 1 \mid x) = \sigma(w_j x_j + b_j)

    References:
        Ipsen, Mattei, Frellsen (2021), *not-MIWAE*, arXiv:2006.12871, "self-masking" and
        "self-masking known".

    Args:
        features: number of columns, D.
        missing: which values tend to be missing: "high", "low", or "any" if that is not known.
            To know it is worth much: the sign is what data tell least.

    Raises:
        ProgramError: a size below 1, an unknown ``missing``.

    Example:
        >>> high_ones = SelfMasking(2, missing="high")
        >>> high_ones(torch.tensor([[-3.0, 3.0]])).sigmoid()
        tensor([[0.8889, 0.1111]], grad_fn=<SigmoidBackward0>)
    """

    def __init__(self, features: int, missing: str = "any") -> None:
        super().__init__()
        check_choice("missing", missing, _SIGNS)
        self.sign = _SIGNS[missing]
        self.raw_slope = nn.Parameter(torch.zeros(check_size("features", features)))
        self.intercept = nn.Parameter(torch.zeros(features))

    @property
    def slope(self) -> Tensor:
        """w, ``(D,)``, in log-odds a unit of x."""
        return self.raw_slope if self.sign is None else self.sign * softplus(self.raw_slope)

    def forward(self, x: Tensor) -> Tensor:
        """Log-odds ``(*, D)`` of being observed of complete rows ``(*, D)``."""
        return self.slope * x + self.intercept


class NotAtRandom(nn.Module):
    r"""A model of data that are missing for what they would have been, and of their mask.

    .. math:: p(x_o, s, z) = p(z) \int p(x_o, x_m \mid z)\, p(s \mid x_o, x_m)\, dx_m

    with s = 1 where x is not NaN. With :class:`~pyro_lvm.objectives.IWAE` it is not-MIWAE; all
    other objectives and guides of the model itself may be used too. What is missing is drawn
    with every particle, in the site "x_unobserved", by the model itself. The mask is the
    observed site "x_mask". ``impute`` draws missing entries in proportion to the particles'
    weights, so the mask tells on them.

    What a mechanism is cannot be found from data alone: choose the form by what is known of
    how the data were taken. With a mechanism that does not read its argument this is
    :class:`~pyro_lvm.missing.Incomplete`.

    References:
        Ipsen, Mattei, Frellsen (2021), *not-MIWAE: deep generative modelling with missing not at
        random data*, arXiv:2006.12871, eq. 8.

    Args:
        model: generative program with an observed site of independent entries given its latents.
        mechanism: from complete rows ``(*, D)``, any left dims, to the log-odds ``(*, D)`` of
            each entry being observed: :class:`SelfMasking`; ``nn.Linear(D, D)`` and
            ``MLP(D, D)`` are the other two of the paper.
        site: the observed site.

    Raises:
        ProgramError: entries of the site are dependent given the latents, the mechanism gives
            log-odds of another shape, or the model does not observe the site.

    Example:
        >>> from pyro_lvm import impute
        >>> from pyro_lvm.guides import AmortizedNormal
        >>> from pyro_lvm.models import ProbabilisticPCA
        >>> from pyro_lvm.nn import MLP, ZeroImputing
        >>> from pyro_lvm.objectives import IWAE
        >>> model = NotAtRandom(ProbabilisticPCA(3, 2), SelfMasking(3, missing="high"))
        >>> encoder = ZeroImputing(MLP(6, None, (9,)))
        >>> guide = AmortizedNormal(encoder, encoder_features=9, latent_features=2)
        >>> x = torch.tensor([[0.0, float("nan"), 1.0], [0.5, 1.0, 2.0]])
        >>> IWAE(5).bound(model, guide, x).shape
        torch.Size([2])
        >>> impute(model, guide, x).values.shape
        torch.Size([10, 2, 3])
    """

    def __init__(self, model: Callable[..., Any], mechanism: nn.Module, *, site: str = "x") -> None:
        super().__init__()
        self.model = model
        self.mechanism = mechanism
        self.site = site

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """As the model's own."""
        with _WithMask(self.mechanism, self.site):
            return self.model(*args, **kwargs)


class _WithMask(Messenger):
    """Completes the rows of a site by the model itself, and observes their mask."""

    def __init__(self, mechanism: nn.Module, site: str) -> None:
        super().__init__()
        self.mechanism, self.site = mechanism, site

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        if msg["name"] != self.site or not msg["is_observed"]:
            return
        fn, value = msg["fn"], msg["value"]
        observed = ~value.isnan()
        rest = observed_part(fn, ~observed, self.site)
        drawn = pyro.sample(f"{self.site}_unobserved", rest)
        row = torch.where(observed, value, drawn)
        mask = dist.Bernoulli(logits=self._log_odds(row)).to_event(fn.event_dim)
        pyro.sample(f"{self.site}_mask", mask, obs=observed.to(value))
        msg["fn"] = observed_part(fn, observed, self.site)

    def _log_odds(self, row: Tensor) -> Tensor:
        log_odds: Tensor = self.mechanism(row)
        if log_odds.shape != row.shape:
            found = f"{tuple(log_odds.shape)}"
            expected = f"log-odds of shape {tuple(row.shape)}, one for each entry"
            hint = "Give it as many outputs as columns, and let it broadcast over left dims."
            raise ProgramError(explain("mechanism", expected, found, hint))
        return log_odds
