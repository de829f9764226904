"""The models that complete tables: their programs, and how they are trained and drawn from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from pyro_lvm.guides import AmortizedNormal, ConditioningGuide, GibbsConditionals, GibbsGuide
from pyro_lvm.kept_chains import Chains
from pyro_lvm.missing import (
    BinaryColumn,
    Completed,
    Incomplete,
    RandomMasks,
    Schema,
    TableEncoder,
    TableFeatures,
    mcar,
)
from pyro_lvm.models import VAE, VAEAC
from pyro_lvm.objective import Objective
from pyro_lvm.objectives import ELBO, IWAE, VGI

__all__ = ["FAMILIES", "Programs", "Sizes"]

_MASK_RATE = 0.5
"""Share of the known entries that VAEAC learns to predict, in each batch anew."""
_KEPT_CHAINS = 5
_REST = 0.1
"""Share of the steps before the chains of VGI move."""


@dataclass(frozen=True)
class Sizes:
    """How large the networks are, and how long they are trained.

    Attributes:
        latent_features: of z.
        hidden: sizes of hidden layers.
        num_particles: draws per row in training.
        max_steps: of training.
    """

    latent_features: int
    hidden: Sequence[int]
    num_particles: int
    max_steps: int


@dataclass(frozen=True)
class Programs:
    """What is trained, on what and by what, and what imputes.

    Attributes:
        model: the generative program, and
        guide: its guide in training.
        objective: of both.
        data: what batches are made of.
        imputer: the guide that imputations are drawn by.
        sweeps: whether it draws them by conditionals of its own, not by weight.
        transform: of batches.
        judged: whether rows with missing entries can be held out to judge the model.
    """

    model: Any
    guide: Any
    objective: Objective
    data: Any
    imputer: Any
    sweeps: bool = False
    transform: Callable[..., Any] | None = None
    judged: bool = True


def _miwae(schema: Schema, x: Tensor, sizes: Sizes) -> Programs:
    """Mattei, Frellsen (2019), arXiv:1812.02633: the importance-weighted bound of what is seen."""
    model, guide = Incomplete(_vae(schema, x, sizes)), _guide(schema, sizes)
    return Programs(model, guide, IWAE(sizes.num_particles, "dreg"), x, guide)


def _vaeac(schema: Schema, x: Tensor, sizes: Sizes) -> Programs:
    """Ivanov, Figurnov, Vetrov (2019), arXiv:1806.02382: any entries given any others."""
    shape: dict[str, Any] = {
        "latent_features": sizes.latent_features,
        "width": sizes.hidden[-1],
        "depth": len(sizes.hidden),
    }
    features = TableFeatures(schema.columns)
    model = VAEAC(len(schema), likelihood=schema.likelihood(), features=features, **shape)
    guide = ConditioningGuide(in_features=len(schema), features=features, **shape)
    masks = RandomMasks(mcar, rate=_MASK_RATE)
    return Programs(model, guide, ELBO(), x, model.prior_guide, transform=masks)


def _vgi(schema: Schema, x: Tensor, sizes: Sizes) -> Programs:
    """Simkus, Rhodes, Gutmann (2023), arXiv:2111.13180: one conditional for each column."""
    encoder = TableEncoder(schema, sizes.hidden)
    conditionals = GibbsConditionals(
        len(schema), num_classes=[_classes(column) for column in schema.columns], encoder=encoder
    )
    guide = GibbsGuide(conditionals, _guide(schema, sizes))
    objective = VGI(Chains(x, _KEPT_CHAINS), inner=ELBO(), warmup=round(_REST * sizes.max_steps))
    data = (x, torch.arange(len(x)))
    model = Completed(_vae(schema, x, sizes))
    return Programs(model, guide, objective, data, guide, sweeps=True, judged=False)


def _vae(schema: Schema, x: Tensor, sizes: Sizes) -> VAE:
    start = x.nanmean(0)
    likelihood = schema.likelihood()
    return VAE(len(schema), sizes.latent_features, sizes.hidden, likelihood, data_mean=start)


def _guide(schema: Schema, sizes: Sizes) -> AmortizedNormal:
    encoder = TableEncoder(schema, sizes.hidden)
    features = encoder.out_features
    return AmortizedNormal(
        encoder, encoder_features=features, latent_features=sizes.latent_features
    )


def _classes(column: Any) -> int:
    return 2 if isinstance(column, BinaryColumn) else int(column.num_classes)


FAMILIES: Mapping[str, Callable[[Schema, Tensor, Sizes], Programs]] = MappingProxyType(
    {"miwae": _miwae, "vaeac": _vaeac, "vgi": _vgi}
)
"""By name."""
