"""Amortised categorical guide: exact, relaxed or straight-through draws."""

from __future__ import annotations

from collections.abc import Sequence

import pyro.distributions as dist
from torch import Tensor, nn

from pyro_lvm.distributions.straight_through import StraightThroughOneHotCategorical
from pyro_lvm.errors import ProgramError, explain
from pyro_lvm.guides.amortized_discrete import AmortizedDiscrete, Variables
from pyro_lvm.nn import check_size

__all__ = ["AmortizedCategorical"]


class AmortizedCategorical(AmortizedDiscrete):
    r"""Independent categorical variables whose logits a network computes from each datum.

    .. math:: q(z \mid x) = \prod_d \mathrm{Categorical}(z_d; \mathrm{softmax}(l_d(x)))

    A site is a one-hot vector for each variable, event ``(latents, categories)``, or with
    ``one_hot=False`` an integer for each, event ``(latents,)``. The choice of ``draw`` is that
    of :class:`~pyro_lvm.guides.amortized_bernoulli.AmortizedBernoulli`:

    ====================  ==============================================================
    draw                  the model's prior, and the gradients
    ====================  ==============================================================
    "exact"               ``OneHotCategorical`` (``Categorical`` for integers);
                          gradient="score" or "vimco", unbiased
    "relaxed"             ``RelaxedOneHotCategorical``; any gradient, unbiased. The bound
                          is on the relaxed model's evidence
    "straight_through"    ``StraightThroughOneHotCategorical``; any gradient, biased. The
                          bound is the discrete model's. A prior ``OneHotCategorical``
                          gives the same bound and no gradient of its own
    ====================  ==============================================================

    References:
        Jang, Gu, Poole (2016), *Categorical reparameterization with Gumbel-softmax*,
        arXiv:1611.01144.
        Maddison, Mnih, Teh (2016), *The Concrete distribution*, arXiv:1611.00712.

    Args:
        encoder: from a batch of data to ``(B, encoder_features)``; an MLP if left out.
        in_features: size of a datum, for the MLP; a given encoder takes rows of any shape.
        latent_features: number of variables of the site "z", or numbers by site; None for a
            site that is one variable and has no dim for it, as in ``{"c": None}``.
        num_categories: of each variable, C.
        hidden: hidden sizes of the MLP; none at all makes the logits linear.
        draw: "exact", "relaxed" or "straight_through".
        one_hot: False makes exact draws integers.
        temperature: above 0, of relaxed and straight-through draws.
        encoder_features: size of a given encoder's output.
        num_data: N, the model's own ``num_data``.

    Raises:
        ProgramError: an unknown draw, draws that cannot be integers, a temperature of 0 or
            less, a size below 1, an encoder without ``encoder_features``.
        DataError: ``x`` has another number of features, or no rows.

    Example:
        >>> import torch
        >>> sizes = dict(in_features=6, latent_features=2, num_categories=3)
        >>> AmortizedCategorical(**sizes)(torch.zeros(5, 6))["z"].shape
        torch.Size([5, 2, 3])
        >>> AmortizedCategorical(**sizes, one_hot=False)(torch.zeros(5, 6))["z"].shape
        torch.Size([5, 2])
        >>> sizes |= {"latent_features": {"c": None}}
        >>> AmortizedCategorical(**sizes, one_hot=False)(torch.zeros(5, 6))["c"].shape
        torch.Size([5])
    """

    def __init__(
        self,
        encoder: nn.Module | None = None,
        *,
        in_features: int = 64,
        latent_features: Variables = 4,
        num_categories: int = 10,
        hidden: Sequence[int] = (200, 200),
        draw: str = "exact",
        one_hot: bool = True,
        temperature: float = 0.5,
        encoder_features: int | None = None,
        num_data: int | None = None,
    ) -> None:
        super().__init__(
            encoder,
            encoder_features,
            in_features,
            hidden,
            latent_features,
            logits_shape=(check_size("num_categories", num_categories),),
            draw=draw,
            temperature=temperature,
            num_data=num_data,
        )
        self.one_hot = one_hot
        if draw != "exact" and not one_hot:
            hint = "Leave one_hot out, or pass draw='exact'."
            raise ProgramError(explain("one_hot", f"True with draw={draw!r}", "False", hint))

    def variables(self, logits: Tensor) -> dist.TorchDistribution:
        """Categoricals of batch ``(*,)`` from logits ``(*, num_categories)``."""
        if self.draw == "relaxed":
            temperature = logits.new_full((), self.temperature)
            relaxed: dist.TorchDistribution = dist.RelaxedOneHotCategorical(
                temperature, logits=logits
            )
            return relaxed
        if self.draw == "straight_through":
            return StraightThroughOneHotCategorical(self.temperature, logits)
        family = dist.OneHotCategorical if self.one_hot else dist.Categorical
        exact: dist.TorchDistribution = family(logits=logits)
        return exact
