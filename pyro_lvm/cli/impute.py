"""``pyro-lvm impute``: completed copies of a table with holes, from a CSV file."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pandas as pd  # type: ignore[import-untyped]

from pyro_lvm.cli.configs import CommandConfig, TrainConfig
from pyro_lvm.cli.folders import list_files, open_folder
from pyro_lvm.cli.impute_report import summary, write_imputations
from pyro_lvm.imputation import LatentImputer
from pyro_lvm.missing import read_frame
from pyro_lvm.nn import check_size

__all__ = ["ImputeConfig", "impute_table"]


def _budget() -> TrainConfig:
    return TrainConfig(
        steps=2000, batch_size=128, learning_rate=2e-3, max_grad_norm=10.0, evaluate_every=100
    )


@dataclass(frozen=True, kw_only=True)
class ImputeConfig(CommandConfig):
    """Complete a table with holes: several completed copies, the best guess, and pictures.

    Columns of text are categories, columns of whole numbers counts, other numbers real. A latent
    variable model of the rows is trained on what is there; missing cells are drawn given the
    rest of their row. Analyse each copy in the same way and pool the results: their spread is
    what the holes cost. Observed cells are written as they were, letter by letter.

    Args:
        table: CSV file with a first row of names; may come first, without its name
        missing: what stands for a missing cell, beside nothing, NA and NaN, such as ["?"]
        categories: columns of numbers that are names of classes
        kinds: of columns of numbers by name, real, positive, nonnegative, count or binary
        family: the model and how it is trained
        latent_features: size of the latent variable
        hidden: hidden sizes of the networks
        num_particles: draws per row in training (miwae)
        num_draws: draws per row that imputations are weighed or averaged over
        num_imputations: completed copies to write
        seed: of the parameters, the batches and the draws
    """

    table: str
    missing: list[str] = field(default_factory=list)
    categories: list[str] = field(default_factory=list)
    kinds: dict[str, str] = field(default_factory=dict)
    family: Literal["miwae", "vaeac", "vgi"] = "miwae"
    latent_features: int = 8
    hidden: list[int] = field(default_factory=lambda: [128, 128])
    num_particles: int = 10
    num_draws: int = 500
    num_imputations: int = 10
    train: TrainConfig = field(default_factory=_budget)
    seed: int = 0
    out: str = "runs/impute"


def impute_table(config: ImputeConfig) -> None:
    """Read the table, train, and write completed copies, draws and figures to ``config.out``."""
    frame = read_frame(config.table, missing=config.missing, categories=config.categories)
    cells = _cells(config.table, list(frame.columns))
    imputer = _imputer(config)
    codec = imputer.codec_of(frame)  # what cannot be imputed is told before training
    check_size("num_imputations", config.num_imputations)
    folder = open_folder(config)
    print(f"{config.table}: {summary(frame, codec)}", flush=True)
    _train(imputer, frame, config, folder)
    imputed = write_imputations(imputer, frame, cells, folder)
    print(f"\n{imputed}\n\n{list_files(folder)}")


def _cells(table: str, names: list[str]) -> Any:
    """Every cell as it stands in the file."""
    return pd.read_csv(
        table,
        names=names,
        header=0,
        index_col=False,
        dtype=str,
        keep_default_na=False,
        compression=None,
    )


def _imputer(config: ImputeConfig) -> LatentImputer:
    return LatentImputer(
        config.family,
        latent_features=config.latent_features,
        hidden=config.hidden,
        max_steps=config.train.steps,
        batch_size=config.train.batch_size,
        learning_rate=config.train.learning_rate,
        num_particles=config.num_particles,
        num_draws=config.num_draws,
        num_imputations=config.num_imputations,
        kinds=config.kinds,
        random_state=config.seed,
        device=config.train.accelerator,
        progress=True,
    )


def _train(imputer: LatentImputer, frame: Any, config: ImputeConfig, folder: Path) -> None:
    budget = config.train
    imputer.fit(
        frame,
        lr_scheduler="cosine" if budget.schedule == "cosine" else None,
        max_grad_norm=budget.max_grad_norm or None,
        compile=budget.compile,
        evaluate_every=budget.evaluate_every,
        checkpoint_every=budget.evaluate_every,
        run_dir=folder,
        resume=config.resume,
    )
