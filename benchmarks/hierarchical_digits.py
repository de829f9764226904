"""Layers on digits: one, two and five, bottom-up and ladder, and auxiliary variables.

8 by 8 digits, binarised anew for each batch; the same number of Adam steps for all. Judged on
test digits by importance-weighted draws, and by the KL and the active units of each layer.

References:
    Sønderby, Raiko, Maaløe, Sønderby, Winther (2016), *Ladder variational autoencoders*,
    arXiv:1602.02282.
    Maaløe, Sønderby, Sønderby, Winther (2016), *Auxiliary deep generative models*,
    arXiv:1602.05473.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyro
import torch

from pyro_lvm import fit
from pyro_lvm.annealing import LinearWarmup
from pyro_lvm.data import digits
from pyro_lvm.diagnostics import collapse_report, log_evidence
from pyro_lvm.guides import AuxiliaryNormal, HierarchicalNormal, LadderNormal
from pyro_lvm.models import ADGM, SDGM, HierarchicalVAE
from pyro_lvm.objectives import ELBO, IWAE

__all__ = ["RUNS", "run"]

PIXELS = 64
ONE, TWO, FIVE = (16,), (16, 8), (16, 12, 8, 6, 4)
HIDDEN = (100,)
STEPS, BATCH, RATE = 1000, 100, 2e-3
EVERY, DRAWS = 2, 1000  # of the test digits each so-manieth is used, with so many draws

Programs = tuple[Any, Any]


def bottom_up(sizes: tuple[int, ...], *, batch_norm: bool = False) -> Programs:
    model = HierarchicalVAE(PIXELS, sizes, HIDDEN, batch_norm=batch_norm)
    return model, HierarchicalNormal(in_features=PIXELS, latent_features=sizes, hidden=HIDDEN)


def ladder(sizes: tuple[int, ...], *, batch_norm: bool = False) -> Programs:
    model = HierarchicalVAE(PIXELS, sizes, HIDDEN, batch_norm=batch_norm)
    options = {"in_features": PIXELS, "hidden": HIDDEN, "batch_norm": batch_norm}
    return model, LadderNormal(model.top_down, **options)


def auxiliary(make: Callable[..., Any]) -> Programs:
    guide = AuxiliaryNormal(
        in_features=PIXELS, hidden=HIDDEN, context_features=100, conditional_hidden=HIDDEN
    )
    return make(PIXELS, hidden=HIDDEN), guide


@dataclass(frozen=True)
class Run:
    """What is trained and how.

    Attributes:
        programs: makes the model and its guide.
        num_particles: of the bound.
        warms_up: whether the KL is warmed up, over the first quarter of the steps.
        free_bits: of each layer, nats.
    """

    programs: Callable[[], Programs]
    num_particles: int = 1
    warms_up: bool = False
    free_bits: float = 0.0


RUNS = {
    "1 layer": Run(partial(ladder, ONE)),
    "1 layer, IWAE, K = 5": Run(partial(ladder, ONE), num_particles=5),
    "ADGM": Run(partial(auxiliary, ADGM)),
    "SDGM": Run(partial(auxiliary, SDGM)),
    "2 layers, bottom-up": Run(partial(bottom_up, TWO)),
    "2 layers, ladder": Run(partial(ladder, TWO)),
    "5 layers, bottom-up": Run(partial(bottom_up, FIVE)),
    "5 layers, bottom-up, warm-up, batch norm": Run(
        partial(bottom_up, FIVE, batch_norm=True), warms_up=True
    ),
    "5 layers, ladder": Run(partial(ladder, FIVE)),
    "5 layers, ladder, warm-up": Run(partial(ladder, FIVE), warms_up=True),
    "5 layers, ladder, warm-up, batch norm": Run(
        partial(ladder, FIVE, batch_norm=True), warms_up=True
    ),
    "5 layers, ladder, warm-up, batch norm, free bits": Run(
        partial(ladder, FIVE, batch_norm=True), warms_up=True, free_bits=0.5
    ),
}


def run(name: str, seed: int, steps: int | None = None) -> dict[str, float]:
    """Train one pair and judge it on test digits; nats per digit, and numbers of units."""
    pyro.set_rng_seed(seed)
    chosen, steps = RUNS[name], steps or STEPS
    data = digits(num_validation=0)
    model, guide = chosen.programs()
    beta = LinearWarmup(steps // 4) if chosen.warms_up else 1.0
    many = chosen.num_particles > 1
    fit(
        model,
        guide,
        data.train.flatten(1),
        IWAE(chosen.num_particles, "dreg") if many else ELBO(beta=beta, free_bits=chosen.free_bits),
        max_steps=steps,
        batch_size=BATCH,
        lr=RATE,
        lr_scheduler="cosine",
        transform=data.transform,
        seed=seed,
        accelerator="cpu",
        evaluate_every=10**9,
        diagnostic_particles=0,
        progress=False,
    )
    test = data.transform(data.test[::EVERY].flatten(1), torch.Generator().manual_seed(0))
    pyro.set_rng_seed(0)
    evidence = log_evidence(model.eval(), guide.eval(), test, num_samples=DRAWS)
    return {
        "NLL": -evidence.mean().item(),
        "-ELBO": -ELBO(50).bound(model, guide, test).mean().item(),
        **collapse_report(model, guide, test).summary(),
    }
