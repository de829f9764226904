"""Where a decoder starts: at the mean of the data, whatever its latents."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_lvm.distributions.likelihoods import Likelihood
from pyro_lvm.errors import ProgramError, explain
from pyro_lvm.nn import MLP

__all__ = ["start_at_mean"]


def start_at_mean(
    network: MLP, likelihood: Likelihood, data_mean: Tensor, num_columns: int
) -> None:
    """Set the output bias of ``network`` so that the likelihood's mean is that of the data.

    Args:
        network: whose outputs are the likelihood's parameters.
        likelihood: of a row.
        data_mean: ``(D,)``, or of any shape with D entries.
        num_columns: D.

    Raises:
        ProgramError: another number of means.

    References:
        Burda, Grosse, Salakhutdinov (2016), *Importance weighted autoencoders*,
        arXiv:1509.00519, section 5.

    Example:
        >>> from pyro_lvm.distributions import BernoulliLikelihood
        >>> network, likelihood = MLP(2, 3, ()), BernoulliLikelihood(3)
        >>> start_at_mean(network, likelihood, torch.tensor([0.2, 0.5, 0.8]), 3)
        >>> likelihood(network(torch.zeros(2))).mean
        tensor([0.2000, 0.5000, 0.8000], grad_fn=<SigmoidBackward0>)
    """
    mean = torch.as_tensor(data_mean).flatten()
    if len(mean) != num_columns:
        expected, hint = f"{num_columns} means", "Pass data.mean(0)."
        raise ProgramError(explain("data_mean", expected, str(len(mean)), hint))
    with torch.no_grad():
        network.bias.copy_(likelihood.start(mean))
