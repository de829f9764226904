"""Learned priors of convolution kernels: source networks, and a VAE of the kernels of each layer.

The sources learn the embedded Fashion-MNIST by weight decay and nothing Bayesian. Their kernels
are kept in ``runs``, as training them takes minutes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyro
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from pyro_lvm import fit
from pyro_lvm.data import DataSplits, fashion_mnist
from pyro_lvm.guides import KernelEncoder
from pyro_lvm.models import VAE, BayesianConvNet
from pyro_lvm.objectives import ELBO

__all__ = [
    "LATENTS",
    "QUIET",
    "SIZES",
    "Learned",
    "learn",
    "learned_priors",
    "rescale",
    "source_kernels",
    "xavier",
]

RUNS = Path(__file__).parents[1] / "runs"
SIZES = (7, 5)
CHANNELS = (64, 16)
LATENTS = 16
QUIET: dict[str, Any] = {"diagnostic_particles": 0, "progress": False, "accelerator": "cpu"}


@dataclass(frozen=True)
class Learned:
    """What the source networks leave of one layer.

    Attributes:
        vae: of its kernels, frozen, and
        encoder: the VAE's.
        kernels: ``(M, k * k)`` that the VAE was trained on.
    """

    vae: VAE
    encoder: KernelEncoder
    kernels: Tensor


def source_kernels(data: DataSplits, seed: int, epochs: int) -> list[Tensor]:
    """The kernels of a plain network with weight decay, ``(M, k * k)`` of each layer."""
    pyro.set_rng_seed(seed)
    x, y = data.train, data.labels["train"]
    network = BayesianConvNet(channels=CHANNELS, kernel_sizes=SIZES)
    weights = [nn.Parameter(w) for w in xavier(CHANNELS)]
    parameters = [*weights, *network.head.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=3e-3, weight_decay=1e-2)
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(64):
            optimizer.zero_grad()
            cross_entropy(network.logits(x[rows], weights), y[rows]).backward()
            optimizer.step()
    return [w.detach() for w in weights]


def learned_priors(sources: int, epochs: int, steps: int) -> list[Learned]:
    """Of each layer. The source networks take minutes, so their kernels are kept in ``runs``."""
    path = RUNS / f"fashion_kernels_{sources}_{epochs}.pt"
    if not path.is_file():
        data = fashion_mnist(binarization=None)
        networks = [source_kernels(data, seed, epochs) for seed in range(sources)]
        path.parent.mkdir(exist_ok=True)
        torch.save([torch.cat(layer) for layer in zip(*networks, strict=True)], path)
    pyro.set_rng_seed(0)
    return [learn(kernels, steps) for kernels in torch.load(path)]


def learn(kernels: Tensor, steps: int) -> Learned:
    """A VAE of kernels, those left out that weight decay has all but removed."""
    norms = kernels.norm(dim=-1)
    kept = kernels[norms > 0.1 * norms.max()]
    features = kept.shape[1]
    scale = kept.square().mean().sqrt()
    vae = VAE(features, LATENTS, (100,), "gaussian")
    encoder = KernelEncoder(features, LATENTS, (100,))
    rates = {"lr": 3e-3, "lr_scheduler": "cosine"}
    fit(vae, encoder, kept / scale, ELBO(), max_steps=steps, **rates, **QUIET)
    rescale(vae, encoder, scale)
    return Learned(vae.requires_grad_(False).eval(), encoder, kept)


@torch.no_grad()
def rescale(vae: VAE, encoder: KernelEncoder, scale: Tensor) -> None:
    """From kernels in units of ``scale`` to kernels as they are, by the outermost parameters."""
    for parameter in vae.decoder.layers[-1].parameters():
        parameter.mul_(scale)
    vae.likelihood.noise_scale = scale * vae.likelihood.noise_scale
    encoder.reverse.network.layers[0].weight.div_(scale)


def xavier(channels: Sequence[int]) -> list[Tensor]:
    """Kernels of each layer, ``(M, k * k)``."""
    counts = zip((1, *channels), channels, SIZES, strict=False)
    kernels = [torch.empty(outputs, inputs, k, k) for inputs, outputs, k in counts]
    return [nn.init.xavier_uniform_(w).flatten(0, 1).flatten(1) for w in kernels]
