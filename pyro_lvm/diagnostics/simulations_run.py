"""Simulation-based calibration: is the guide's posterior as sure as it should be?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import ceil
from pathlib import Path
from typing import Any

from pyro.infer.autoguide import AutoGuide, AutoMessenger
from tqdm.auto import tqdm  # type: ignore[import-untyped, unused-ignore]

from pyro_lvm.diagnostics.chunks import Chunks, check_count
from pyro_lvm.diagnostics.missing import UnknownRatio, mixing_of
from pyro_lvm.diagnostics.simulations import Simulations
from pyro_lvm.diagnostics.simulations_data import Simulator
from pyro_lvm.diagnostics.simulations_kept import KeptSimulations
from pyro_lvm.diagnostics.simulations_scores import Quantity
from pyro_lvm.dreams import Arguments
from pyro_lvm.errors import NotAmortizedError, explain
from pyro_lvm.objectives import DSIVI, ELBO
from pyro_lvm.training.rng import seeded

__all__ = ["simulation_based_calibration"]

Program = Callable[..., Any]


def simulation_based_calibration(
    model: Program,
    guide: Program,
    *args: Any,
    num_simulations: int = 1000,
    num_draws: int = 99,
    chunk_size: int | None = None,
    quantities: Mapping[str, Quantity] | None = None,
    arguments: Arguments | None = None,
    seed: int | None = None,
    path: str | Path | None = None,
    **kwargs: Any,
) -> Simulations:
    r"""Simulate data whose latents are known, and see where the guide puts them.

    Latents and data are drawn from the model, :math:`(z, x) \sim p(z, x)`, and L draws from
    the guide, :math:`z_l \sim q(z \mid x)`. If the guide is the posterior, the truth and its L
    draws are alike, so that the rank of the truth among them is uniform: of every latent, and
    of every function of latents and data. :func:`~pyro_lvm.diagnostics.sbc`,
    :func:`~pyro_lvm.diagnostics.coverage` and :func:`~pyro_lvm.diagnostics.tarp` judge the
    ranks, and say what is wrong. As nothing is fitted again, this takes seconds. No density of
    the guide is needed. What it cannot tell is whether the *model* is right: all data are its
    own.

    Where every site is in the data's plates, each datum is a simulation, and the batch is
    simulated as often as it takes; else (latents outside the plates) each data set is one, of
    which a local latent is that of one datum drawn at random. Take a batch like those that the
    guide was trained on. A subsampled plate keeps the indices of its first run.

    Args:
        model: generative program, called as ``model(*args, **kwargs)``; its data are drawn.
        guide: its guide, in evaluation mode.
        num_simulations: N at least, rounded up to whole batches.
        num_draws: L, draws a simulation.
        chunk_size: draws at a time; by default as many as bound the memory.
        quantities: further functions to rank: from latents ``(K, *plates, *event)`` and data
            ``(*plates, *event)`` by site to ``(K, *batch)``.
        arguments: makes the programs' arguments, one or a tuple, from simulated data by site. By
            default these take the place of the argument that the site observes.
        seed: makes the simulations repeatable; the global random state is left as it was.
        path: a file that keeps what is done. Called again, the simulations go on from there,
            and are those of a run that was never interrupted.

    Raises:
        ValueError: programs that do not fit each other, or a count below 1.
        NotAmortizedError: a guide of one data set, such as Pyro's AutoGuides, that would have to
            be fitted again.
        ProgramError: data that cannot be simulated: factors, ``obs_mask``, or a site whose data
            are no argument of the programs.
        CheckpointError: a file of another model, guide, data or call.

    References:
        Talts, Betancourt, Simpson, Vehtari, Gelman (2018), *Validating Bayesian inference
        algorithms with simulation-based calibration*, arXiv:1804.06788.
        Modrák et al. (2023), *Simulation-based calibration checking for Bayesian computation:
        the choice of test quantities shapes sensitivity*, arXiv:2211.02383.

    Example:
        A guide half as wide as the posterior.

        >>> import pyro, pyro.distributions as dist, torch
        >>> from pyro_lvm.diagnostics import sbc
        >>> def model(x):
        ...     with pyro.plate("data", len(x)):
        ...         z = pyro.sample("z", dist.Normal(0.0, 1.0))
        ...         pyro.sample("x", dist.Normal(z, 1.0), obs=x)
        >>> def guide(x):
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("z", dist.Normal(x / 2, 0.5**0.5 / 2))
        >>> simulations = simulation_based_calibration(model, guide, torch.zeros(100), seed=0)
        >>> print(sbc(simulations).verdict().finding)
        ranks of 3 of 3 quantities in 1000 simulations are not uniform. z: draws too narrow,
        ECDF off by 0.17 (p < 1e-10).
    """
    check_count("num_simulations", num_simulations)
    _check_amortized(guide)
    kept = KeptSimulations(path, seed)
    unknown = UnknownRatio()
    mixing = mixing_of(None, otherwise=DSIVI(num_mixing=0, num_prior_mixing=1))
    with seeded(kept.seed, "programs"):
        chunks = Chunks(ELBO, model, guide, args, kwargs, num_draws, chunk_size, unknown, mixing)
        simulator = Simulator(chunks, arguments, quantities or {})
    num_sets = ceil(num_simulations / simulator.num_simulations)
    _simulate(simulator, num_sets, kept)
    return kept.all().first(num_sets * simulator.num_simulations)


def _check_amortized(guide: Program) -> None:
    if isinstance(guide, AutoGuide | AutoMessenger):
        expected = "a guide that reads the data, to give each simulation its posterior"
        hint = "Use an amortized guide, such as AmortizedNormal, or look at pareto_khat."
        found = f"{type(guide).__name__}, which was fitted to one data set"
        raise NotAmortizedError(explain("guide", expected, found, hint))


def _simulate(simulator: Simulator, num_sets: int, kept: KeptSimulations) -> None:
    """Make the data sets that are not kept yet."""
    if kept.num_sets:
        with seeded(kept.seed, 0):
            kept.check(simulator())
    todo = range(kept.num_sets, num_sets)
    try:
        for number in tqdm(todo, "simulations", disable=None, unit="data set"):
            with seeded(kept.seed, number):
                kept.add(simulator())
    finally:
        kept.write()
