"""From a fitted model and guide to ArviZ, in one call."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor

import pyro_lvm
from pyro_lvm.adversarial import AdversarialObjective
from pyro_lvm.diagnostics.chunks import Chunks, Plated
from pyro_lvm.diagnostics.correction import corrected, correction_of
from pyro_lvm.diagnostics.inference_data import DATA_GROUPS, Groups, Variable, as_container
from pyro_lvm.diagnostics.missing import UnknownRatio, mixing_of, ratio_of
from pyro_lvm.diagnostics.predictive import collect
from pyro_lvm.diagnostics.ratio_quality import ratio_quality
from pyro_lvm.errors import PyroLVMError, explain
from pyro_lvm.objective import Objective
from pyro_lvm.objectives import DSIVI, ELBO

__all__ = ["to_inference_data"]

Program = Callable[..., Any]
Draws = dict[str, Plated]


def to_inference_data(
    model: Program,
    guide: Program,
    *args: Any,
    num_samples: int = 1000,
    chunk_size: int | None = None,
    coords: Mapping[str, Sequence[Any]] | None = None,
    dims: Mapping[str, Sequence[str]] | None = None,
    posterior_predictive: bool = True,
    prior: bool = True,
    log_likelihood: bool = True,
    correct: str | None = None,
    num_chains: int = 4,
    objective: Objective | None = None,
    seed: int | None = None,
    **kwargs: Any,
) -> Any:
    r"""Draw from the guide and hand ArviZ everything it can use, without gradient.

    Groups: posterior, sample_stats (``log_p``, ``log_q``, ``log_weight`` per datum, nats),
    observed_data, constant_data (tensor arguments of the model that it does not observe)
    and, unless switched off, posterior_predictive, log_likelihood (per datum, nats), prior
    and prior_predictive. Dims are ``chain, draw``, then the plates by name, then event dims
    ``<site>_dim_0`` and so on. Draws are made in chunks and kept on the CPU in their dtype.

    A guide's draws are independent, so R-hat and ESS look perfect *whatever the fit*. Look
    at :func:`pareto_khat` of ``log_weight`` per datum instead (:func:`log_evidence` gives it
    at more draws), or correct the draws. With ``correct="mh"`` they are proposals of
    Metropolis-Hastings chains whose limit is the exact posterior, each datum with chains of its
    own (:func:`pyro_lvm.metropolis.independence_chain`; 100 states of warm-up are dropped):
    R-hat and ESS then mean what they say, and ``acceptance_rate`` is in sample_stats. With
    ``correct="psis"`` draws are resampled in proportion to Pareto-smoothed weights (Vehtari et
    al. 2024, arXiv:1507.02646). The attributes ``khat_max`` and ``khat_above_0.7`` tell how far
    to trust either; where k-hat is above 0.7, or chains accept less than 1 %, a warning says so.

    Where a guide or prior has no density, the discriminator of ``objective`` stands for it:
    ``log_q`` then has its estimate of the log-ratio of guide to prior, ``log_p`` leaves that
    prior out, and ``log_weight`` is an estimate. Without such an objective these are NaN. The
    attribute ``log_weight_is_exact`` is 0 in both cases, and where mixing variables are
    averaged over draws (those of ``objective``, by default 50), 1 otherwise; how good the
    discriminator is on these data is in the attributes that :meth:`RatioQuality.summary` names.

    Args:
        model: generative program, called as ``model(*args, **kwargs)``.
        guide: its guide.
        num_samples: draws in all, in one chain or, with ``correct="mh"``, in ``num_chains``.
        chunk_size: draws at a time; by default as many as bound the memory.
        coords: labels by dim; plates have the indices of their data otherwise.
        dims: names of the event dims of a variable, by its name.
        posterior_predictive: whether to draw data anew from each posterior draw.
        prior: whether to draw latents and data from the model alone.
        log_likelihood: whether to score the data under each draw.
        correct: None, "mh" or "psis".
        num_chains: of ``correct="mh"``; a divisor of ``num_samples``.
        objective: what the programs were trained by, for the record and its discriminator.
        seed: makes the draws repeatable; the global random state is left as it was.

    Returns:
        ``arviz.InferenceData`` with ArviZ 0.x, ``xarray.DataTree`` from 1.0; either has
        ``to_netcdf``.

    Raises:
        ValueError: programs that do not fit each other, ``dims`` or ``coords`` that do not
            fit the sites, a count below 1, an unknown correction, or one of weights that are
            not exact.

    Example:
        >>> import pyro, pyro.distributions as dist
        >>> def model(x):
        ...     with pyro.plate("data", len(x)):
        ...         z = pyro.sample("z", dist.Normal(0.0, 1.0))
        ...         pyro.sample("x", dist.Normal(z, 1.0), obs=x)
        >>> def guide(x):
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("z", dist.Normal(x / 2, 0.5**0.5))
        >>> container = to_inference_data(model, guide, torch.tensor([-1.0, 2.0]), num_samples=50)
        >>> dict(container["posterior"].sizes)
        {'chain': 1, 'draw': 50, 'data': 2}
    """
    correction = correction_of(correct)
    num_chains = num_chains if correction and correction.has_chains else 1
    num_draws = correction.num_draws(num_samples, num_chains) if correction else num_samples
    with _seeded(seed):
        ratio = ratio_of(objective, otherwise=UnknownRatio())
        mixing = mixing_of(objective, otherwise=DSIVI())
        chunks = Chunks(ELBO, model, guide, args, kwargs, num_draws, chunk_size, ratio, mixing)
        switches = {
            "posterior_predictive": posterior_predictive,
            "prior": prior,
            "log_likelihood": log_likelihood,
        }
        plated = collect(chunks, {name for name, wanted in switches.items() if wanted})
        attrs = _attrs(num_samples, objective, seed)
        attrs["log_weight_is_exact"] = int(not (chunks.uses_ratio or chunks.mixes))
        if correction:
            plated, told = corrected(plated, correction, chunks, num_chains)
            attrs |= {"correction": correct, **told}
        if isinstance(objective, AdversarialObjective):
            judged = ratio_quality(
                objective, model, guide, *args, num_samples=num_samples, **kwargs
            )
            attrs |= judged.summary()
    _check_dims(dims or {}, plated)
    groups = {
        group: {n: _variable(n, draws, dims or {}, group) for n, draws in variables.items()}
        for group, variables in plated.items()
    }
    labels = {**_plate_labels(chunks, groups), **(coords or {})}
    return as_container(groups, labels, attrs, num_chains)


def _plate_labels(chunks: Chunks, groups: Groups) -> dict[str, Any]:
    used = {dim for variables in groups.values() for v in variables.values() for dim in v.dims}
    indices = chunks.plates.indices
    return {plate: _numpy(torch.as_tensor(indices[plate])) for plate in used & set(indices)}


def _variable(name: str, draws: Plated, dims: Mapping[str, Sequence[str]], group: str) -> Variable:
    values = _numpy(draws.values[0] if group in DATA_GROUPS else draws.values)
    default = [f"{name}_dim_{i}" for i in range(_event_dim(draws))]
    return Variable((*draws.plates, *(dims.get(name, default) if default else ())), values)


def _event_dim(draws: Plated) -> int:
    return draws.values.dim() - 1 - len(draws.plates)


def _check_dims(dims: Mapping[str, Sequence[str]], groups: Mapping[str, Draws]) -> None:
    event_dims: dict[str, int] = defaultdict(int)
    for variables in groups.values():
        for name, draws in variables.items():
            event_dims[name] = max(event_dims[name], _event_dim(draws))
    for name, given in dims.items():
        if name not in event_dims:
            raise _bad_dims(name, f"a variable among {sorted(event_dims)}", "no such variable")
        if len(given) != event_dims[name]:
            raise _bad_dims(name, f"{event_dims[name]} names", f"{list(given)}")


def _bad_dims(name: str, expected: str, found: str) -> PyroLVMError:
    hint = "Name the event dims only, left to right; plates have their own names."
    return PyroLVMError(explain(f"dims of '{name}'", expected, found, hint))


def _numpy(values: Tensor) -> Any:
    values = values.detach().cpu()
    return (values.float() if values.dtype == torch.bfloat16 else values).numpy()


def _attrs(num_samples: int, objective: Objective | None, seed: int | None) -> dict[str, Any]:
    attrs: dict[str, Any] = {
        "created_at": datetime.now(UTC).isoformat(),
        "inference_library": "pyro_lvm",
        "inference_library_version": pyro_lvm.__version__,
        "num_samples": num_samples,
    }
    attrs |= {f"{name}_version": version(name) for name in ("arviz", "pyro-ppl", "torch")}
    if objective is not None:
        attrs |= {
            "objective": type(objective).__name__,
            "gradient": objective.gradient,
            "num_particles": objective.num_particles,
        }
    return attrs if seed is None else attrs | {"seed": seed}


@contextmanager
def _seeded(seed: int | None) -> Iterator[None]:
    if seed is None:
        yield
        return
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        yield
