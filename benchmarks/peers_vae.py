"""Variational autoencoders of three sizes: in Pyro, by hand, in NumPyro and in pythae."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from benchmarks import peers_numpyro, peers_pythae
from benchmarks.peers_case import Case
from benchmarks.programs import BY_HAND, NETWORKS, Guide, Model, Sizes, data

__all__ = ["SIZES", "vae"]

SIZES = {"tiny": Sizes(16, (32, 32), 4, 32), "small": NETWORKS["digits"], **NETWORKS}


def vae(name: str) -> Case:
    """The network of ``SIZES``, its decoder and encoder of tanh layers."""
    sizes = SIZES[name]
    model, guide = Model(sizes), Guide(sizes)
    x = data(sizes, torch.device("cpu")).to(torch.get_default_dtype())
    networks = nn.ModuleDict({"decoder": model.decoder, "encoder": guide.encoder})
    return Case(
        title=f"VAE {sizes}, batch {sizes.batch_size}",
        model=model,
        guide=guide,
        x=x,
        modules=networks,
        by_hand=partial(BY_HAND["IWAE", "reparam"], model.decoder, guide.encoder, x),
        peers=peers_numpyro.steps("vae", networks, x, "IWAE") | peers_pythae.steps(networks, x),
    )
