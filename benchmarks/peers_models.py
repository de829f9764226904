"""Models of the library that are timed: a ladder of five layers, and a hidden Markov model."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from benchmarks.peers_case import Case
from pyro_lvm.guides import HierarchicalNormal
from pyro_lvm.models import HiddenMarkov, HierarchicalVAE

__all__ = ["ladder", "markov"]

LAYERS, HIDDEN = (32, 16, 8, 4, 2), (100,)


def ladder() -> Case:
    model = HierarchicalVAE(64, LAYERS, HIDDEN)
    guide = HierarchicalNormal(in_features=64, latent_features=LAYERS, hidden=HIDDEN)
    return Case(
        title=f"five layers, 64-{'-'.join(map(str, LAYERS))}, batch 100",
        model=model,
        guide=guide,
        x=torch.rand(100, 64).round(),
        modules=nn.ModuleList([model, guide]),
    )


def markov() -> Case:
    """States summed out: there is nothing to draw, and K is 1."""
    model = HiddenMarkov(4, in_features=2, enumerate_latents=True)
    x = torch.randn(64, 16, 2)
    return Case(
        title="hidden Markov model, 4 states, 16 steps, batch 64",
        model=model,
        guide=nothing,
        x=x,
        modules=model,
        bound="ELBO",
        by_hand=lambda num_particles: -model.log_evidence(x).sum(),
        enumerates=True,
    )


def nothing(x: Tensor) -> None:
    """The guide of a model without draws."""
