"""Train a model and a guide: one call from data to a :class:`FitResult`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyro

from pyro_lvm.objective import Objective
from pyro_lvm.training.compiled import CompiledLoss, make_loss
from pyro_lvm.training.compiled_step import CompiledStep
from pyro_lvm.training.evaluate import DatumCount, Evaluator
from pyro_lvm.training.fabric import Fabric, Strategy, steps_plainly
from pyro_lvm.training.inputs import Data
from pyro_lvm.training.loader import Transform
from pyro_lvm.training.loop import Limits, Loop
from pyro_lvm.training.metrics import MetricLog, Progress
from pyro_lvm.training.optimizers import (
    OptimizerSpec,
    SchedulerSpec,
    make_optimizer,
    make_scheduler,
)
from pyro_lvm.training.parts import Parts
from pyro_lvm.training.processes import check_can_share, sharing
from pyro_lvm.training.programs import Program, Programs
from pyro_lvm.training.result import FitResult
from pyro_lvm.training.resume import check_same_run, checkpoint_folder, starting_point
from pyro_lvm.training.rng import seeded
from pyro_lvm.training.rule import update_rule
from pyro_lvm.training.settings import check_covered, check_options, describe, launch
from pyro_lvm.training.snapshots import Snapshots
from pyro_lvm.training.state import Callback, TrainingState
from pyro_lvm.training.step import Stepper

__all__ = ["fit"]

SHORT_EPOCH = 50


def fit(
    model: Program,
    guide: Program,
    data: Data,
    objective: Objective,
    *,
    max_epochs: int | None = None,
    max_steps: int | None = None,
    batch_size: int | None = 128,
    validation: Data | float | None = None,
    optimizer: OptimizerSpec = "adam",
    lr: float = 1e-3,
    lr_scheduler: SchedulerSpec = None,
    max_grad_norm: float | None = None,
    patience: int | None = None,
    restore_best: bool = False,
    seed: int = 0,
    transform: Transform | None = None,
    allow_nan: bool = False,
    on_nonfinite: str = "raise",
    max_skips: int = 10,
    check_every_step: bool = False,
    accelerator: str = "auto",
    devices: int | str | list[int] = 1,
    strategy: str | Strategy = "auto",
    precision: str = "32-true",
    compile: bool | str = False,
    evaluate_every: int | None = None,
    diagnostic_particles: int = 100,
    log_every: int = 10,
    callbacks: Sequence[Callback] = (),
    progress: bool | None = None,
    run_dir: str | Path | None = None,
    checkpoint_every: int | None = None,
    resume: bool | str | Path = False,
    tensorboard: bool = False,
) -> FitResult:
    """Train ``model`` and ``guide`` by stochastic gradients of ``objective``.

    The loss is in nats per datum: the objective's loss over the number of data it speaks for
    (the batch, times the N/B scale of its plate). Step sizes and ``max_grad_norm`` therefore
    do not depend on the size of the data set or of the batch.

    Programs may be modules, methods of modules, or plain functions with ``pyro.param`` and
    ``pyro.module``. They are called as ``model(*batch)``, or ``model(**batch)`` for dicts,
    and trained in place; module parameters stay out of Pyro's parameter store.

    On the CPU a run that was killed and resumed gives the same numbers, bit for bit, as one
    that was not. Ctrl-C ends the run after the step, saves it, and says how to go on.
    The caller's random state is left as it was.

    Several processes, on one machine or more, run the same script: ``torchrun
    --nproc_per_node=2 script.py``. Each computes the gradient of its share of every batch, and
    the mean is that of the whole batch in one process, with other random numbers; ``batch_size``
    counts all of them. BatchNorm knows its own share only. If a process dies, the others end
    with an error, at once or, if it is merely gone, after the time-out (half an hour;
    ``strategy=DDPStrategy(timeout=...)`` of Fabric for another); ``resume=True`` goes on.
    Parameters and gradients are whole in each. The optimiser's state is in shares with
    ``optimizer=lambda parameters: ZeroRedundancyOptimizer(parameters, torch.optim.Adam, lr=1e-3)``
    (of ``torch.distributed.optim``), which takes Adam's steps; for checkpoints the first process
    holds all of it, in the CPU's memory.

    Args:
        model: the generative program.
        guide: the program that draws its latent variables.
        data: a tensor or array, a tuple or dict of them with one row per datum, a ``Dataset``,
            or a ``DataLoader`` (which keeps its own batches). A boolean one among them is a mask
            (True = observed) that excuses NaN in those of its shape. Of a ``numpy.memmap``, for
            data larger than the memory, a batch is read at a time.
        objective: what to maximise, for instance ``IWAE(num_particles=5)``.
        max_epochs: passes over the data; 100 if neither this nor ``max_steps`` is given.
        max_steps: optimiser steps.
        batch_size: data per step over all devices; None for all of them, in the given order.
            Batches with a single datum are left out where a network has BatchNorm.
        validation: held-out data, or the fraction of ``data`` to hold out.
        optimizer: "adam", "adamw", "sgd", or a function from parameters to an optimiser.
        lr: learning rate of a named optimiser.
        lr_scheduler: "cosine", or a function from the optimiser to a schedule; stepped once
            an update.
        max_grad_norm: the gradient is cut to this norm.
        patience: stop after so many evaluations without a better held-out bound.
        restore_best: end with the parameters of the best held-out bound.
        seed: decides every random number of the run.
        transform: function ``(batch, torch.Generator) -> batch``, for instance dynamic
            binarisation; held-out data are transformed with the same numbers each time.
        allow_nan: do not look for NaN and infinities in the data.
        on_nonfinite: "raise" on a loss or gradient that is not finite, or "skip" the update.
        max_skips: updates that may be skipped in a row before it is an error.
        check_every_step: let Pyro check arguments of distributions and values of sites at every
            step. Otherwise it does, where its validation is enabled, in the first epoch, which
            sees each datum once; a loss that is not finite is noticed always.
        accelerator: "auto", "cpu", "cuda", ...; this and the next three go to Lightning Fabric.
        devices: how many devices, or which; under ``torchrun`` as many as it starts processes.
        strategy: "auto", "ddp", ..., or a strategy of Fabric, with
            ``find_unused_parameters=True`` where a step leaves some parameters out. Not FSDP,
            which leaves a process shards of the parameters outside the wrapped loss, nor DeepSpeed,
            whose engine keeps gradients and the optimiser's state to itself.
        precision: "32-true", "64-true", ...; with "bf16-mixed" networks compute in bfloat16, and
            draws, densities, weights, parameters and their gradients stay in float32.
        compile: record and compile the step once for each kind of batch, True or one of the
            backends of :class:`~pyro_lvm.training.CompiledLoss`. ``result.compile_seconds`` is
            what it took; torch keeps compiled code on disk for later runs. On one device
            "inductor" compiles the optimiser's update too; see
            :class:`~pyro_lvm.training.CompiledStep`.
        evaluate_every: steps between evaluations; None for each epoch's end, or 50 where an
            epoch is one step.
        diagnostic_particles: draws per datum for the effective sample size and k-hat on a few
            data; 0 to leave them out.
        log_every: steps between rows of metrics.
        callbacks: see :class:`~pyro_lvm.training.Callback`.
        progress: show a progress bar; None for only on a terminal.
        run_dir: folder for metrics and checkpoints; None to write nothing.
        checkpoint_every: steps between checkpoints; None as for ``evaluate_every``.
        resume: True to go on from the latest checkpoint in ``run_dir``, if there is one; or a
            checkpoint file or a run directory to go on from. Data, seed, objective, optimiser and
            schedule must be those of the first time; limits and what is evaluated, logged and
            saved may be others.
        tensorboard: write TensorBoard files to ``run_dir`` too.

    Returns:
        The trained programs, the history, and where the best checkpoint is.

    Raises:
        DataError: empty data, unequal lengths, NaN or infinities.
        ParameterError: nothing to train, or stale parameters in Pyro's store.
        PlateError: a plate subsamples at random, or a global latent stands beside data that are
            not scaled up, while several processes train.
        ProgramError: an objective that keeps chains of rows while several processes train.
        NonFiniteError: a loss or gradient is not finite; the message names the site.
        CheckpointError: nothing to resume, a foreign file, a resumed run with other settings, or
            an earlier run in ``run_dir``.
        WriteError: a full disk, for instance; what was saved before is whole.

    Example:
        >>> import pyro, torch, pyro.distributions as dist
        >>> from pyro_lvm.objectives import ELBO
        >>> def model(x):
        ...     mean = pyro.param("mean", torch.tensor(0.0))
        ...     with pyro.plate("data", len(x)):
        ...         z = pyro.sample("z", dist.Normal(mean, 1.0))
        ...         pyro.sample("x", dist.Normal(z, 1.0), obs=x)
        >>> def guide(x):
        ...     shift = pyro.param("shift", torch.tensor(0.0))
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("z", dist.Normal(x / 2 + shift, 0.5**0.5))
        >>> x = 3.0 + torch.linspace(-1, 1, 100)
        >>> result = fit(model, guide, x, ELBO(num_particles=10), max_epochs=200, lr=0.1)
        >>> abs(pyro.param("mean").item() - 3.0) < 0.2
        True
        >>> result.history["loss"][-1] < result.history["loss"][0]
        True
    """
    options = dict(locals())
    check_options(options)
    fabric = launch(accelerator, devices, strategy, precision)
    check_can_share(objective, batch_size, fabric.world_size)
    run_path = None if run_dir is None else Path(run_dir)
    folder = checkpoint_folder(run_path)
    saved = fabric.broadcast(starting_point(resume, folder) if fabric.is_global_zero else None)
    with (
        seeded(seed, fabric.global_rank),
        pyro.settings.context(module_local_params=True),
        sharing(objective, fabric),
    ):
        programs = Programs(model, guide)
        programs.to(fabric)
        parts = Parts.of(
            data,
            validation,
            batch_size,
            seed=seed,
            transform=transform,
            allow_nan=allow_nan,
            min_size=2 if programs.has_batch_norm() else 1,
            fabric=fabric,
        )
        programs.discover(
            next(parts.train.epoch(0)), seed=seed, refuse_subsampling=fabric.world_size > 1
        )
        steps_per_epoch = parts.train.steps(0)
        every_epoch = SHORT_EPOCH if steps_per_epoch == 1 else None
        limits = Limits(
            max_epochs=100 if max_epochs is None and max_steps is None else max_epochs,
            max_steps=max_steps,
            patience=patience,
            evaluate_every=evaluate_every or every_epoch,
            log_every=log_every,
            checkpoint_every=checkpoint_every or every_epoch,
        )
        total_steps = limits.total_steps(steps_per_epoch)
        stepper, rule = _stepper(
            programs,
            objective,
            fabric,
            optimizer=optimizer,
            lr=lr,
            lr_scheduler=lr_scheduler,
            total_steps=total_steps,
            max_grad_norm=max_grad_norm,
            max_skips=max_skips if on_nonfinite == "skip" else 0,
            check_every_step=check_every_step,
            compile=compile,
            is_part=steps_per_epoch > 1,
        )
        state = TrainingState()
        config = describe(options) | {
            "batch_size": parts.train.batch_size,
            "num_data": parts.train.num_data,
            "data_checksum": parts.train.checksum,
            "world_size": fabric.world_size,
            "rule": rule,
        }
        snapshots = Snapshots(stepper, objective, state, config, folder)
        if saved is not None:
            check_same_run(saved, config)
            snapshots.restore(saved)
        loop = Loop(
            stepper=stepper,
            batches=parts.train,
            evaluator=Evaluator(
                objective,
                programs,
                held_out=parts.held_out,
                probe=parts.probe if diagnostic_particles else None,
                num_particles=diagnostic_particles,
                count=stepper.count,
                seed=seed,
                fabric=fabric,
            ),
            limits=limits,
            snapshots=snapshots,
            callbacks=callbacks,
            state=state,
            log=MetricLog(
                run_path if fabric.is_global_zero else None,
                state.rows(),
                tensorboard=tensorboard and fabric.is_global_zero,
            ),
            progress=Progress(
                total_steps, state.step, progress if fabric.is_global_zero else False
            ),
        )
        loop.run()
        if restore_best:
            snapshots.restore_best()
    if loop.interrupted and fabric.is_global_zero:
        print(_how_to_resume(state, run_path))
    return FitResult(
        model,
        guide,
        objective,
        state.history,
        config=config,
        best_checkpoint=folder.best if folder and folder.best.is_file() else None,
        interrupted=loop.interrupted,
        seconds_per_step=loop.seconds_per_step,
        compile_seconds=loop.compile_seconds,
        _programs=programs,
    )


def _stepper(
    programs: Programs,
    objective: Objective,
    fabric: Fabric,
    *,
    optimizer: OptimizerSpec,
    lr: float,
    lr_scheduler: SchedulerSpec,
    total_steps: int,
    max_grad_norm: float | None,
    max_skips: int,
    check_every_step: bool,
    compile: bool | str,
    is_part: bool,
) -> tuple[Stepper, dict[str, Any]]:
    """What takes the steps, and the rule by which it does."""
    parameters = programs.parameters()
    raw = make_optimizer(optimizer, parameters, lr)
    loss = make_loss(objective, programs, compile)
    check_covered(loss, parameters, fabric.world_size)
    scheduler = make_scheduler(lr_scheduler, raw, total_steps)
    compiled = None  # replayed operation by operation, an update is slower than torch's fused one
    if isinstance(loss, CompiledLoss) and loss.backend == "inductor" and steps_plainly(fabric):
        compiled = CompiledStep(loss, raw, max_grad_norm)
    rule = update_rule(objective, raw, scheduler)
    loss, wrapped = fabric.setup(loss, raw)
    stepper = Stepper(
        fabric,
        programs,
        loss,
        wrapped,
        scheduler,
        parameters,
        compiled,
        DatumCount(objective, programs, fabric.world_size > 1, is_part),
        max_grad_norm,
        max_skips,
        check_every_step,
    )
    return stepper, rule


def _how_to_resume(state: TrainingState, run_dir: Path | None) -> str:
    if run_dir is None:
        return f"Stopped after step {state.step}. Nothing was saved: no run_dir was given."
    return (
        f"Stopped after step {state.step} and saved. To go on, call fit with the same "
        f"arguments and run_dir={str(run_dir)!r}, resume=True."
    )
