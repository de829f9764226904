"""What a run is told: plain dataclasses, filled from the command line or a YAML file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from pyro_lvm.cli.catalog import default_gradient
from pyro_lvm.errors import PyroLVMError, explain
from pyro_lvm.nn import check_positive

__all__ = [
    "CommandConfig",
    "CompareConfig",
    "DataConfig",
    "EvaluationConfig",
    "FitConfig",
    "GuideConfig",
    "ModelConfig",
    "ObjectiveConfig",
    "RunConfig",
    "TrainConfig",
    "check_least",
]


_LEAST_TO_TRAIN = {
    **dict.fromkeys(("batch_size", "evaluate_every", "num_threads"), 1),
    **dict.fromkeys(("steps", "warm_up", "max_grad_norm"), 0),
}
_LEAST_TO_JUDGE = {
    **dict.fromkeys(("posterior_samples", "posterior_data", "ais_chains", "ais_temperatures"), 1),
    **{"num_samples": 2, "max_data": 0},
}


def check_least(part: str, config: Any, least: Mapping[str, int]) -> None:
    """Raise :class:`PyroLVMError` for the first setting below its least value."""
    for name, number in least.items():
        found = getattr(config, name)
        if not found >= number:
            where, expected = f"{part}{name}", f"at least {number}"
            hint = f"Pass --{where} {number} or more."
            raise PyroLVMError(explain(where, expected, f"{found}", hint))


@dataclass(frozen=True)
class DataConfig:
    """Which data, split into parts that never change.

    Args:
        name: a data set of `pyro-lvm list`, or module.function of your own that returns
            DataSplits.
        options: further arguments of its loader.
    """

    name: str = "digits"
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelConfig:
    """Which generative model; the number of features comes from the data.

    Args:
        name: a model of `pyro-lvm list`, or module.Class of your own: a PyroModule with an
            attribute latent_features, made of those of the arguments below, in_features and
            data_mean that it takes.
        latent_features: size of the latent variable, or sizes of several, from the data up.
        hidden: hidden sizes of its networks, if it has any.
        options: further arguments of the model's class.
    """

    name: str = "VAE"
    latent_features: int | list[int] = 16
    hidden: list[int] = field(default_factory=lambda: [100, 100])
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class GuideConfig:
    """Which family of guides; its sizes come from the data and the model.

    Args:
        name: a guide of `pyro-lvm list`, or module.Class of your own: a PyroModule, made of
            those of model, in_features, latent_features and hidden that it takes.
        hidden: hidden sizes of its networks, if it has any.
        options: further arguments of the guide's class.
    """

    name: str = "AmortizedNormal"
    hidden: list[int] = field(default_factory=lambda: [100, 100])
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ObjectiveConfig:
    """Which bound, with which gradient and how many draws.

    Args:
        name: an objective of `pyro-lvm list`, or module.Class of your own.
        gradient: reparam, stl, dreg, score, ...; by default dreg, or what the objective takes.
        num_particles: draws per datum in training, K.
        options: further arguments of the objective's class, such as alpha of Renyi.
    """

    name: str = "IWAE"
    gradient: str | None = None
    num_particles: int = 5
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """Short name for tables, figures and folders.

        Example:
            >>> ObjectiveConfig("Renyi", "reparam", 5, {"alpha": 0.5}).label
            'Renyi-reparam-K5-alpha0.5'
        """
        gradient = self.gradient or default_gradient(self.name)
        options = [f"{key}{value}" for key, value in sorted(self.options.items())]
        return "-".join([self.name, gradient, f"K{self.num_particles}", *options])


@dataclass(frozen=True)
class TrainConfig:
    """How long and how fast to train.

    Args:
        steps: optimiser steps.
        batch_size: data per step.
        learning_rate: of Adam; 5e-4 or less for objectives with a discriminator, which has to
            keep up.
        schedule: cosine, which falls to 0 over the run, or constant.
        warm_up: first steps, over which the KL rises from 0 to its whole, for deep models; the
            objective must take beta.
        max_grad_norm: gradients are cut to this norm; 0 for never.
        evaluate_every: steps between held-out evaluations, and between checkpoints.
        accelerator: auto, cpu, cuda, ...
        num_threads: of the CPU; small networks are fastest with one.
        compile: record and compile the step, half a minute at the start.
    """

    steps: int = 2000
    batch_size: int = 100
    learning_rate: float = 3e-3
    schedule: Literal["cosine", "constant"] = "cosine"
    warm_up: int = 0
    max_grad_norm: float = 0.0
    evaluate_every: int = 250
    accelerator: str = "auto"
    num_threads: int = 1
    compile: bool = False

    def __post_init__(self) -> None:
        check_positive("train.learning_rate", self.learning_rate, "1e-3")
        check_least("train.", self, _LEAST_TO_TRAIN)


@dataclass(frozen=True)
class EvaluationConfig:
    """How to judge a trained model on test data.

    Args:
        num_samples: draws per datum for the evidence, k-hat and ESS.
        ais_chains: chains per datum for the evidence where the guide has no density.
        ais_temperatures: of each chain.
        max_data: test data used, from the first; 0 for all.
        posterior_samples: draws per datum in posterior.nc.
        posterior_data: test data in posterior.nc, from the first.
    """

    num_samples: int = 5000
    ais_chains: int = 16
    ais_temperatures: int = 100
    max_data: int = 1000
    posterior_samples: int = 200
    posterior_data: int = 100

    def __post_init__(self) -> None:
        check_least("evaluation.", self, _LEAST_TO_JUDGE)


@dataclass(frozen=True, kw_only=True)
class CommandConfig:
    """What every command that trains and writes a run directory is told.

    Args:
        train: the training budget of each run
        out: run directory
        resume: go on with an interrupted run in it
        overwrite: delete an earlier run in it
    """

    train: TrainConfig = field(default_factory=TrainConfig)
    out: str = "runs/latest"
    resume: bool = False
    overwrite: bool = False

    @property
    def num_threads(self) -> int:
        """Of the CPU."""
        return self.train.num_threads

    def settings(self) -> dict[str, Any]:
        """Everything but what to do with an earlier run, as plain types."""
        return {k: v for k, v in asdict(self).items() if k not in ("resume", "overwrite")}


@dataclass(frozen=True, kw_only=True)
class RunConfig(CommandConfig):
    """What the commands are told that judge a model of rows on test data.

    Args:
        model: the generative model
        guide: the family of posteriors
        data: the data set
        evaluation: the judgement on test data
    """

    model: ModelConfig = field(default_factory=ModelConfig)
    guide: GuideConfig = field(default_factory=GuideConfig)
    data: DataConfig = field(default_factory=DataConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)


@dataclass(frozen=True, kw_only=True)
class FitConfig(RunConfig):
    """Train one model and write config, metrics, checkpoint, posterior.nc and figures.

    With `--model calcium` it is `pyro-lvm spikes`, which infers spikes from a recording of
    calcium: `pyro-lvm fit --model calcium --traces traces.csv --rate 30`. All other arguments
    are then those of `pyro-lvm spikes --help`.

    Args:
        objective: the bound
        seed: of the parameters, the batches and the draws
    """

    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    seed: int = 0


def _objectives() -> list[ObjectiveConfig]:
    return [
        ObjectiveConfig("ELBO", "reparam", 1),
        ObjectiveConfig("ELBO", "stl", 5),
        ObjectiveConfig("IWAE", "reparam", 5),
        ObjectiveConfig("IWAE", "dreg", 5),
        ObjectiveConfig("Renyi", "reparam", 5, {"alpha": 0.5}),
    ]


@dataclass(frozen=True, kw_only=True)
class CompareConfig(RunConfig):
    """Train one model under several objectives; print, plot and save one table.

    Every objective gets the same number of steps, the same start and the same batches. Gains
    are over the first objective, datum by datum and seed by seed.

    Args:
        objectives: what to compare, the first is the reference
        seeds: one run of each objective a seed
    """

    objectives: list[ObjectiveConfig] = field(default_factory=_objectives)
    seeds: list[int] = field(default_factory=lambda: [0, 1])
