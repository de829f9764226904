"""Discrete draws whose gradient is that of a relaxed draw: exact density, biased gradient."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

__all__ = ["StraightThroughBernoulli", "StraightThroughOneHotCategorical"]

_NO_SIZE = torch.Size()


class StraightThroughBernoulli(dist.Bernoulli):  # type: ignore[misc]  # Pyro's has no types
    r"""A Bernoulli whose draws carry the gradient of a relaxed Bernoulli's.

    With logistic noise :math:`g`, logits :math:`l` and temperature :math:`t` a draw is

    .. math:: z = 1[l + g > 0] + s - \mathrm{stop}(s), \qquad s = \sigma((l + g) / t)

    so its value is exactly 0 or 1, with exactly the Bernoulli's probabilities, and its
    derivative is that of :math:`s`. ``log_prob`` is the Bernoulli's own, which is linear in
    the value: bounds keep the value that they have under ``Bernoulli``, and only the gradient
    is biased. The bias falls with ``temperature`` while the variance rises.

    References:
        Bengio, Léonard, Courville (2013), *Estimating or propagating gradients through
        stochastic neurons*, arXiv:1308.3432, section 4.
        Maddison, Mnih, Teh (2016), *The Concrete distribution*, arXiv:1611.00712, appendix B,
        for the relaxed draw.

    Args:
        temperature: above 0, of the relaxed draw.
        logits: log-odds of 1, finite; batch shape ``(*,)``.
        validate_args: Pyro's setting where left out.

    Example:
        >>> logits = torch.zeros(3, requires_grad=True)
        >>> z = StraightThroughBernoulli(0.5, logits).rsample()
        >>> z.sum().backward()
        >>> z, logits.grad
        (tensor([...], grad_fn=<AddBackward0>), tensor([...]))
    """

    has_rsample = True

    def __init__(
        self, temperature: float, logits: Tensor, validate_args: bool | None = None
    ) -> None:
        self.temperature = temperature
        super().__init__(logits=logits, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> StraightThroughBernoulli:
        new = self._get_checked_instance(StraightThroughBernoulli, _instance)
        new.temperature = self.temperature
        expanded: StraightThroughBernoulli = super().expand(batch_shape, _instance=new)
        return expanded

    def rsample(self, sample_shape: Any = _NO_SIZE) -> Tensor:
        """Draws in {0, 1}, ``(*sample_shape, *batch)``, with the relaxed draws' gradient."""
        logits = self.logits.expand(self._extended_shape(sample_shape))
        scores = logits + _gumbel(logits) - _gumbel(logits)  # the difference is logistic
        relaxed = torch.sigmoid(scores / self.temperature)
        return _straight_through((scores > 0).to(relaxed), relaxed)


class StraightThroughOneHotCategorical(dist.OneHotCategorical):
    r"""A one-hot categorical whose draws carry the gradient of a relaxed one's.

    With Gumbel noise :math:`g_c`, logits :math:`l_c` and temperature :math:`t` a draw is

    .. math:: z = \mathrm{onehot}(\arg\max_c (l_c + g_c)) + s - \mathrm{stop}(s), \qquad
        s = \mathrm{softmax}((l + g) / t)

    so its value is exactly one-hot, with exactly the categorical's probabilities, and its
    derivative is that of :math:`s`. ``log_prob`` is the log-probability :math:`\sum_c z_c \log
    \pi_c`, linear in the value, so gradients reach the draw. Pyro's ``OneHotCategorical`` has
    the same values and no such gradient: a model for straight-through draws should have this
    distribution as its prior too, or the prior does not pull on the guide.
    ``pyro.distributions.RelaxedOneHotCategoricalStraightThrough`` scores the relaxed draw by its
    density, and a bound with it is not one on the discrete model's evidence.

    References:
        Jang, Gu, Poole (2016), *Categorical reparameterization with Gumbel-softmax*,
        arXiv:1611.01144, section 2.2.
        Maddison, Mnih, Teh (2016), *The Concrete distribution*, arXiv:1611.00712.

    Args:
        temperature: above 0, of the relaxed draw.
        logits: unnormalised log-probabilities, finite; batch ``(*,)``, event ``(C,)``.
        validate_args: Pyro's setting where left out.

    Example:
        >>> fn = StraightThroughOneHotCategorical(0.5, torch.zeros(2, 3))
        >>> fn.rsample().sum(-1), fn.log_prob(torch.eye(3)[:2])
        (tensor([1., 1.]), tensor([-1.0986, -1.0986]))
    """

    has_rsample = True

    def __init__(
        self, temperature: float, logits: Tensor, validate_args: bool | None = None
    ) -> None:
        self.temperature = temperature
        super().__init__(logits=logits, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> StraightThroughOneHotCategorical:
        base: Any = super()
        new = base._get_checked_instance(StraightThroughOneHotCategorical, _instance)
        new.temperature = self.temperature
        expanded: StraightThroughOneHotCategorical = base.expand(batch_shape, _instance=new)
        return expanded

    def rsample(self, sample_shape: Any = _NO_SIZE) -> Tensor:
        """One-hot draws, ``(*sample_shape, *batch, C)``, with the relaxed draws' gradient."""
        logits = self.logits.expand(self._extended_shape(sample_shape))
        scores = logits + _gumbel(logits)
        relaxed = torch.softmax(scores / self.temperature, -1)
        drawn = scores.argmax(-1, keepdim=True)
        return _straight_through(torch.zeros_like(relaxed).scatter(-1, drawn, 1.0), relaxed)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-probability ``(*batch,)`` of one-hot vectors, nats."""
        if self._validate_args:
            self._validate_sample(value)
        return (value * self.logits).sum(-1)


def _gumbel(like: Tensor) -> Tensor:
    return -torch.empty_like(like, memory_format=torch.contiguous_format).exponential_().log()


def _straight_through(drawn: Tensor, relaxed: Tensor) -> Tensor:
    """The value of ``drawn``, to the last bit, with the derivative of ``relaxed``."""
    return drawn + (relaxed - relaxed.detach())
