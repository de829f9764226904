"""Metropolis-Hastings with independent proposals, many chains at once."""

from __future__ import annotations

from math import inf
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Chain", "independence_chain"]


class Chain(NamedTuple):
    """States of chains, as rows of their proposals.

    Attributes:
        rows: long ``(S, *batch)``, which proposal each state is.
        acceptance: ``(S, *batch)``, the probability that proposal s was accepted with; 1 for
            the first, which is the start.
    """

    rows: Tensor
    acceptance: Tensor


def independence_chain(log_weights: Tensor) -> Chain:
    r"""Chains with the target as limit, from independent proposals and their weights.

    .. math:: \alpha_s = \min\Bigl(1, \frac{w(z_s)}{w(z)}\Bigr), \quad w(z) = \frac{p(x, z)}{q(z)}

    with z where the chain is. The chain starts at the first proposal. Its rate of convergence
    is geometric if and only if w is bounded. A weight that is no number is never accepted.

    Args:
        log_weights: ``(S, *batch)`` nats; every entry of the batch is a chain of its own.

    References:
        Tierney (1994), *Markov chains for exploring posterior distributions*, section 2.3.3.
        Mengersen, Tweedie (1996), *Rates of convergence of the Hastings and Metropolis
        algorithms*, theorem 2.1.

    Example:
        The target gives twice the weight to proposals above zero.

        >>> _ = torch.manual_seed(0)
        >>> z = torch.randn(2000, 4)
        >>> rows, acceptance = independence_chain((z > 0) * torch.log(torch.tensor(2.0)))
        >>> round((z.gather(0, rows) > 0).double().mean().item(), 2)
        0.67
    """
    log_weights = log_weights.nan_to_num(nan=-inf, posinf=inf, neginf=-inf)
    noise = torch.rand_like(log_weights).log()
    row = torch.zeros_like(log_weights[0], dtype=torch.long)
    current, rows = log_weights[0], [row]
    acceptance = [torch.ones_like(current)]
    for step, proposed in enumerate(log_weights[1:], 1):
        log_probability = (proposed - current).clamp(max=0.0).nan_to_num(-inf, neginf=-inf)
        accepted = noise[step] < log_probability
        current = torch.where(accepted, proposed, current)
        row = torch.where(accepted, step, row)
        rows.append(row)
        acceptance.append(log_probability.exp())
    return Chain(torch.stack(rows), torch.stack(acceptance))
