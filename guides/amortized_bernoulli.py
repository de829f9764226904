"""Amortised Bernoulli guide: exact, relaxed or straight-through draws."""

from __future__ import annotations

from collections.abc import Sequence

import pyro.distributions as dist
from torch import Tensor, nn

from pyro_lvm.distributions.straight_through import StraightThroughBernoulli
from pyro_lvm.guides.amortized_discrete import AmortizedDiscrete, Variables

__all__ = ["AmortizedBernoulli"]


class AmortizedBernoulli(AmortizedDiscrete):
    r"""Independent Bernoulli variables whose log-odds a network computes from each datum.

    .. math:: q(z \mid x) = \prod_d \mathrm{Bernoulli}(z_d; \sigma(l_d(x)))

    How it is drawn decides which gradients there are, and which model it is for:

    ====================  ==============================================================
    draw                  value, density and gradient
    ====================  ==============================================================
    "exact"               {0, 1}, its probability; gradient="score" or "vimco", unbiased
    "relaxed"             (0, 1), the relaxed density; any gradient, unbiased. The model
                          needs ``RelaxedBernoulli`` priors, and the bound is on *that*
                          model's evidence
    "straight_through"    {0, 1}, its probability: the bound is the discrete model's.
                          Any gradient, but a biased one: that of the relaxed draw
    ====================  ==============================================================

    With straight-through draws "reparam" and "stl" have one mean for the ELBO, as the score
    that "stl" leaves out has mean 0. For K > 1 "dreg" has another mean than "reparam", since
    the identity between them holds for true path derivatives only; of the two biases its own
    was by far the smaller where a test measures both.

    References:
        Mnih, Gregor (2014), *Neural variational inference and learning in belief networks*,
        arXiv:1402.0030, for exact draws.
        Maddison, Mnih, Teh (2016), *The Concrete distribution*, arXiv:1611.00712, eq. 7 and
        appendix C.3, for relaxed draws in model and guide.
        Bengio, Léonard, Courville (2013), *Estimating or propagating gradients through
        stochastic neurons*, arXiv:1308.3432, for the straight-through gradient.

    Args:
        encoder: from a batch of data to ``(B, encoder_features)``; an MLP if left out.
        in_features: size of a datum, for the MLP; a given encoder takes rows of any shape.
        latent_features: number of variables of the site "z", or numbers by site; None for a
            site that is one variable and has no dim for it, as in ``{"c": None}``.
        hidden: hidden sizes of the MLP; none at all makes the log-odds linear.
        draw: "exact", "relaxed" or "straight_through".
        temperature: above 0, of relaxed and straight-through draws.
        encoder_features: size of a given encoder's output.
        num_data: N, the model's own ``num_data``.

    Raises:
        ProgramError: an unknown draw, a temperature of 0 or less, a size below 1, an encoder
            without ``encoder_features``.
        DataError: ``x`` has another number of features, or no rows.

    Example:
        >>> import torch
        >>> guide = AmortizedBernoulli(in_features=6, latent_features=3, hidden=(9,))
        >>> guide(torch.zeros(2, 6))["z"].shape
        torch.Size([2, 3])
        >>> guide.posterior(torch.zeros(2, 6))["z"].mean
        tensor([[0.5000, 0.5000, 0.5000],
                [0.5000, 0.5000, 0.5000]], grad_fn=<SigmoidBackward0>)
    """

    def __init__(
        self,
        encoder: nn.Module | None = None,
        *,
        in_features: int = 64,
        latent_features: Variables = 16,
        hidden: Sequence[int] = (200, 200),
        draw: str = "exact",
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
            logits_shape=(),
            draw=draw,
            temperature=temperature,
            num_data=num_data,
        )

    def variables(self, logits: Tensor) -> dist.TorchDistribution:
        """Bernoullis of batch ``(*,)`` from log-odds ``(*,)``."""
        if self.draw == "relaxed":
            temperature = logits.new_full((), self.temperature)
            relaxed: dist.TorchDistribution = dist.RelaxedBernoulli(temperature, logits=logits)
            return relaxed
        if self.draw == "straight_through":
            return StraightThroughBernoulli(self.temperature, logits)
        exact: dist.TorchDistribution = dist.Bernoulli(logits=logits)
        return exact
