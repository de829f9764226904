"""A window of nine frames whose 512 spike trains are enumerated: log p(x) and posterior exact.

Exponential decay by .96 a frame, one spike 2.5 times the noise, a spike in a frame with
probability .1, no calcium before the first frame, no drift.
"""

from itertools import product
from math import log, log1p, pi, sqrt
from typing import Any

import torch
from torch import Tensor

from pyro_lvm.models import LinearCalcium

FRAMES = 9
RATE = 60.0  # Hz
DECAY = 0.96  # a frame
AMPLITUDE = 0.25  # dF/F
NOISE = 0.1  # dF/F
PROBABILITY = 0.1  # of a spike, a frame


def trains(like: Tensor) -> Tensor:
    """Every train of 0 and 1, ``(512, T)``."""
    return torch.tensor(list(product((0.0, 1.0), repeat=FRAMES)), dtype=like.dtype)


def response(spikes: Tensor) -> Tensor:
    """The noiseless trace of ``spikes`` ``(*, T)``."""
    lag = torch.arange(FRAMES)[:, None] - torch.arange(FRAMES)
    kernel = torch.where(lag >= 0, DECAY ** lag.to(spikes), 0.0)
    return AMPLITUDE * spikes @ kernel.mT


def draw_window(size: int) -> tuple[Tensor, Tensor]:
    """Traces and their spikes, ``(size, T)`` each."""
    spikes = (torch.rand(size, FRAMES) < PROBABILITY).to(torch.get_default_dtype())
    return response(spikes) + NOISE * torch.randn(size, FRAMES), spikes


def exact_window(x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of traces ``(B, T)``: log p(x) ``(B,)``, posterior mean of the spikes ``(B, T)``,
    every train ``(512, T)`` and its log-posterior ``(B, 512)``, nats.
    """
    spikes = trains(x)
    count = spikes.sum(-1)
    prior = torch.tensor([1 - PROBABILITY, PROBABILITY], dtype=x.dtype).log()
    log_prior = (FRAMES - count) * prior[0] + count * prior[1]
    noise = torch.distributions.Normal(response(spikes), NOISE)
    log_joint = log_prior + noise.log_prob(x.unsqueeze(1)).sum(-1)
    log_p = log_joint.logsumexp(-1)
    log_posterior = log_joint - log_p.unsqueeze(-1)
    return log_p, log_posterior.exp() @ spikes, spikes, log_posterior


def window_model(**options: Any) -> LinearCalcium:
    """The window's model: every parameter at its true value."""
    model = LinearCalcium(RATE, num_frames=FRAMES, drift=False, **options)
    model.decay = torch.tensor([-1 / (RATE * log(DECAY))])
    model.amplitude = torch.tensor([AMPLITUDE])
    model.noise_scale = torch.tensor([NOISE])
    model.firing_rate = torch.tensor([-RATE * log1p(-PROBABILITY)])
    return model


def factorised_elbo(x: Tensor, p: Tensor) -> Tensor:  # (B,)
    """The exact ELBO, nats, of independent spikes with probabilities ``p`` ``(B, T)``.

    The expected square of the residual is that of the mean train, plus the variance of each
    frame's spike times the sum of squares of its transient.
    """
    transients = response(torch.eye(FRAMES, dtype=x.dtype)).square().sum(-1)
    squares = (x - response(p)).square().sum(-1) + p * (1 - p) @ transients
    likelihood = -0.5 * squares / NOISE**2 - FRAMES * log(NOISE * sqrt(2 * pi))
    prior = torch.distributions.Bernoulli(torch.full_like(p, PROBABILITY))
    kl = torch.distributions.kl_divergence(torch.distributions.Bernoulli(p), prior)
    return likelihood - kl.sum(-1)
