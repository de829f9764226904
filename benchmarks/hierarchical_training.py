"""Hierarchies on pictures: the pairs of model and guide, how they are trained and judged.

References:
    Sønderby, Raiko, Maaløe, Sønderby, Winther (2016), *Ladder variational autoencoders*,
    arXiv:1602.02282.
    Maaløe, Sønderby, Sønderby, Winther (2016), *Auxiliary deep generative models*,
    arXiv:1602.05473.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

import pyro
from torch import Tensor

from pyro_lvm import fit
from pyro_lvm.annealing import LinearWarmup
from pyro_lvm.data import DataSplits
from pyro_lvm.diagnostics import collapse_report, log_evidence
from pyro_lvm.guides import AuxiliaryNormal, HierarchicalNormal, LadderNormal
from pyro_lvm.models import HierarchicalVAE
from pyro_lvm.nn import Hidden
from pyro_lvm.objective import Objective
from pyro_lvm.objectives import ELBO, IWAE

__all__ = [
    "Programs",
    "Run",
    "Schedule",
    "auxiliary",
    "bottom_up",
    "judged",
    "ladder",
    "table",
    "train",
]

Programs = tuple[Any, Any]
"""Model and guide."""


def bottom_up(
    pixels: int, sizes: Sequence[int], hidden: Hidden, *, batch_norm: bool = False
) -> Programs:
    """Batch normalisation in the model: this guide has none."""
    model = HierarchicalVAE(pixels, sizes, hidden, batch_norm=batch_norm)
    return model, HierarchicalNormal(in_features=pixels, latent_features=sizes, hidden=hidden)


def ladder(
    pixels: int, sizes: Sequence[int], hidden: Hidden, *, batch_norm: bool = False
) -> Programs:
    model = HierarchicalVAE(pixels, sizes, hidden, batch_norm=batch_norm)
    options: dict[str, Any] = {"hidden": hidden, "batch_norm": batch_norm}
    return model, LadderNormal(model.top_down, in_features=pixels, **options)


def auxiliary(
    make: Callable[..., Any],
    pixels: int,
    size: int,
    width: int,
    *,
    data_mean: Tensor | None = None,
) -> Programs:
    """ADGM or SDGM with two hidden layers of ``width`` from the data to z."""
    guide = AuxiliaryNormal(
        in_features=pixels,
        latent_features=size,
        auxiliary_features=size,
        hidden=(width,),
        context_features=width,
        conditional_hidden=(width,),
    )
    return make(pixels, size, size, hidden=(width,), data_mean=data_mean), guide


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

    def objective(self, steps: int) -> Objective:
        if self.num_particles > 1:
            return IWAE(self.num_particles, "dreg")
        beta = LinearWarmup(max(1, steps // 4)) if self.warms_up else 1.0
        return ELBO(beta=beta, free_bits=self.free_bits)


@dataclass(frozen=True)
class Schedule:
    """The same for every run of a table.

    Attributes:
        steps: of Adam.
        batch_size: data a step.
        rate: at first; it falls to 0.
        every: of the test pictures, each so-manieth is used.
        num_samples: draws for the evidence of each.
    """

    steps: int
    batch_size: int
    rate: float
    every: int
    num_samples: int


def train(run: Run, data: DataSplits, schedule: Schedule, seed: int) -> Programs:
    """Model and guide in evaluation mode; the seed decides every number."""
    pyro.set_rng_seed(seed)
    model, guide = run.programs()
    fit(
        model,
        guide,
        data.train,
        run.objective(schedule.steps),
        max_steps=schedule.steps,
        batch_size=schedule.batch_size,
        lr=schedule.rate,
        lr_scheduler="cosine",
        transform=data.transform,
        seed=seed,
        accelerator="cpu",
        evaluate_every=10**9,
        diagnostic_particles=0,
        progress=False,
    )
    return model.eval(), guide.eval()


def judged(programs: Programs, data: DataSplits, schedule: Schedule) -> dict[str, float]:
    """Nats per test picture, and numbers of units."""
    test = data.test[:: schedule.every]
    pyro.set_rng_seed(0)
    evidence = log_evidence(*programs, test, num_samples=schedule.num_samples)
    return {
        "NLL": -evidence.mean().item(),
        "-ELBO": -ELBO(50).bound(*programs, test).mean().item(),
        "k-hat > 0.7": (evidence.khat > 0.7).float().mean().item(),
        **collapse_report(*programs, test).summary(),
    }


def table(outcomes: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
    """One line for each kind of run: means over seeds, and the standard error of the NLL.

    Layers from the data up. The least KL of a layer is given for each seed.
    """
    lines = [
        "| | NLL | -ELBO | k-hat > 0.7 | KL by layer | least KL, by seed | active units |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, runs in outcomes.items():
        least = [min(_of_layers(run, "kl_").values()) for run in runs]
        cells = [
            _with_error([run["NLL"] for run in runs]),
            f"{mean(run['-ELBO'] for run in runs):.2f}",
            f"{mean(run['k-hat > 0.7'] for run in runs):.2f}",
            _by_layer(runs, "kl_", "z.2f"),
            ", ".join(f"{value:z.3f}" for value in least),
            _by_layer(runs, "active_units_", ".1f"),
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _with_error(values: Sequence[float]) -> str:
    error = f" ± {stdev(values) / len(values) ** 0.5:.2f}" if len(values) > 1 else ""
    return f"{mean(values):.2f}{error}"


def _by_layer(runs: Sequence[Mapping[str, float]], prefix: str, digits: str) -> str:
    layers = [_of_layers(run, prefix) for run in runs]
    return ", ".join(
        format(mean(run[site] for run in layers), digits) for site in sorted(layers[0])
    )


def _of_layers(run: Mapping[str, float], prefix: str) -> dict[str, float]:
    return {k.removeprefix(prefix): value for k, value in run.items() if k.startswith(prefix)}
