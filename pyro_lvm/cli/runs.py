"""One run: programs from their configuration, trained and judged on test data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyro
from torch import Tensor, nn

from pyro_lvm.annealing import LinearWarmup
from pyro_lvm.cli.catalog import build, default_gradient, pick, read_data
from pyro_lvm.cli.configs import ObjectiveConfig, RunConfig
from pyro_lvm.cli.evaluation import Evaluation, evaluate
from pyro_lvm.cli.imported import is_path
from pyro_lvm.data import DataSplits
from pyro_lvm.errors import PyroLVMError, explain
from pyro_lvm.models import VAEAC
from pyro_lvm.models.fluorescence import FluorescenceModel
from pyro_lvm.nn import Discriminator, named_sizes
from pyro_lvm.objective import Objective
from pyro_lvm.training import FitResult, fit

__all__ = ["Plan", "Run"]

_SHARED = ("auxiliary_features", "top_down")
"""What a guide takes from a model that has it."""


@dataclass(frozen=True)
class Plan:
    """What the runs of one command share: the settings and the data."""

    config: RunConfig
    data: DataSplits

    @classmethod
    def of(cls, config: RunConfig, objectives: Sequence[ObjectiveConfig]) -> Plan:
        """Load the data, and try everything once, so that mistakes show before training.

        Raises:
            PyroLVMError: an unknown name, options that something does not take, or an objective
                that these programs cannot be trained by.
        """
        plan = cls(config, read_data(config.data.name, config.data.options))
        model, guide = plan.programs(seed=0)
        for objective in objectives:
            bound = plan.objective(objective, model)
            bound.differentiable_loss(model, guide, plan.test[:2])
            _check_per_datum(config.model.name, bound.bound(model, guide, plan.test[:2]))
        return plan

    @property
    def test(self) -> Tensor:  # (N, D)
        """The test data that are used."""
        return self.data.test[: self.config.evaluation.max_data or None]

    def programs(self, seed: int) -> tuple[Any, Any]:
        """A new model and guide; the same seed gives the same parameters."""
        pyro.set_rng_seed(seed)
        model = self._model()
        return model, self._guide(model)

    def objective(self, config: ObjectiveConfig, model: Any) -> Objective:
        """A new objective, with a discriminator of default size if it needs one."""
        maker = pick("objectives", config.name)
        context = self.data.train.shape[1] if getattr(maker, "sees_data", False) else None
        latents = sum(named_sizes(model.latent_features).values())
        options = {**_warm_up(self.config.train.warm_up), **config.options}
        bound: Objective = build(
            "objectives",
            config.name,
            options,
            discriminator=Discriminator(latents, context_features=context),
            num_particles=config.num_particles,
            gradient=config.gradient or default_gradient(config.name),
        )
        return bound

    def run(self, objective: ObjectiveConfig, seed: int, folder: Path) -> Run:
        """Train under ``objective`` in ``folder``, then judge.

        Raises:
            KeyboardInterrupt: Ctrl-C during training, after the checkpoint was written.
        """
        model, guide = self.programs(seed)
        bound = self.objective(objective, model)
        result = self._train(model, guide, bound, seed, folder)
        if result.interrupted:
            raise KeyboardInterrupt
        result.save(folder)
        model.eval()
        guide.eval()
        pyro.set_rng_seed(seed)
        evaluation = evaluate(
            bound,
            model,
            guide,
            self.test.to(next(model.parameters()).device),
            config=self.config.evaluation,
            seconds_per_step=result.seconds_per_step,
        )
        return Run(objective.label, bound, model, guide, result, evaluation)

    def _model(self) -> Any:
        rows, config = self.data.train, self.config.model
        _check_of_rows(config.name)
        model = build(
            "models",
            config.name,
            config.options,
            in_features=rows.shape[1],
            latent_features=config.latent_features,
            hidden=config.hidden,
            data_mean=rows.mean(0),
        )
        _check_module("model.name", config.name, model)
        if not hasattr(model, "latent_features"):
            hint = "Use pyro_lvm.fit in Python, or model.name=VAE here."
            if is_path(config.name):
                hint = "Give it latent_features: the size of 'z', or sizes by site in a dict."
            found = f"{config.name!r} without latent_features"
            raise PyroLVMError(explain("model.name", "a model with latents a row", found, hint))
        return model

    def _guide(self, model: Any) -> Any:
        config = self.config.guide
        guide = build(
            "guides",
            config.name,
            config.options,
            model=model,
            in_features=self.data.train.shape[1],
            latent_features=model.latent_features,
            hidden=config.hidden,
            **{name: getattr(model, name) for name in _SHARED if hasattr(model, name)},
        )
        _check_module("guide.name", config.name, guide)
        return guide

    def _train(
        self, model: Any, guide: Any, bound: Objective, seed: int, folder: Path
    ) -> FitResult:
        budget, data = self.config.train, self.data
        return fit(
            model,
            guide,
            data.train,
            bound,
            max_steps=budget.steps,
            batch_size=min(budget.batch_size, len(data.train)),
            validation=data.validation if len(data.validation) else None,
            lr=budget.learning_rate,
            lr_scheduler="cosine" if budget.schedule == "cosine" else None,
            compile=budget.compile,
            max_grad_norm=budget.max_grad_norm or None,
            seed=seed,
            transform=data.transform,
            accelerator=budget.accelerator,
            evaluate_every=budget.evaluate_every,
            checkpoint_every=budget.evaluate_every,
            log_every=50,
            run_dir=folder,
            resume=self.config.resume,
        )


def _warm_up(steps: int) -> dict[str, LinearWarmup]:
    return {"beta": LinearWarmup(steps)} if steps > 0 else {}


def _check_module(where: str, name: str, program: Any) -> None:
    if not isinstance(program, nn.Module):
        hint = "Write it as a pyro.nn.PyroModule whose forward is the program."
        found = f"a {type(program).__name__} from {name}"
        raise PyroLVMError(explain(where, "a class that makes an nn.Module", found, hint))


def _check_per_datum(name: str, bound: Tensor) -> None:
    if bound.shape != (2,):
        hint = "Open a plate over the rows around every latent, or use pyro_lvm.fit in Python."
        expected, found = "a bound for each of 2 rows", f"shape {tuple(bound.shape)}"
        raise PyroLVMError(explain(f"model {name}", expected, found, hint))


def _check_of_rows(model: str) -> None:
    maker = pick("models", model)
    if maker is VAEAC:
        hint = "Use pyro_lvm.fit in Python, with transform=RandomMasks(mcar)."
        found = "VAEAC, which learns from masks alone"
        raise PyroLVMError(explain("model.name", "a model of complete rows", found, hint))
    if isinstance(maker, type) and issubclass(maker, FluorescenceModel):
        hint = "Run pyro-lvm spikes --traces FILE --rate HZ, which takes recordings."
        raise PyroLVMError(explain("model.name", "a model of rows", f"{model}, of traces", hint))


@dataclass(frozen=True)
class Run:
    """A trained model and guide, and how good they are on test data."""

    label: str
    objective: Objective
    model: Any
    guide: Any
    result: FitResult
    evaluation: Evaluation

    def curve(self, quantity: str) -> tuple[list[float], list[float]]:
        """Steps and values of one column of the training history, where it has values."""
        history = self.result.history
        pairs = [
            (float(step), float(value))
            for step, value in zip(history["step"], history[quantity], strict=True)
            if step is not None and value is not None
        ]
        return [step for step, _ in pairs], [value for _, value in pairs]
