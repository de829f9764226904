"""From a fitted model and guide to ArviZ, in one call."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import torch

import pyro_lvm
from pyro_lvm.diagnostics.correction import correction_of
from pyro_lvm.diagnostics.drawing import Drawing
from pyro_lvm.diagnostics.labelled import labelled, labels_of
from pyro_lvm.diagnostics.observed_likelihood import without_missing
from pyro_lvm.diagnostics.restarts import joined, restarts
from pyro_lvm.errors import PyroLVMError, explain
from pyro_lvm.inference_data import as_container
from pyro_lvm.objective import Objective
from pyro_lvm.random_state import kept_random_state

__all__ = ["to_inference_data"]

Program = Callable[..., Any]


def to_inference_data(
    model: Program | Sequence[Program],
    guide: Program | Sequence[Program],
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
    objective: Objective | Sequence[Objective] | None = None,
    seed: int | None = None,
    **kwargs: Any,
) -> Any:
    r"""Draw from the guide and hand ArviZ everything it can use, without gradient.

    Groups: posterior, sample_stats (``log_p``, ``log_q``, ``log_weight`` per datum, nats),
    observed_data, constant_data (tensor arguments of the model that it does not observe)
    and, unless switched off, posterior_predictive, log_likelihood (per datum, nats), prior
    and prior_predictive. Dims are ``chain, draw``, then the plates by name, then event dims
    ``<site>_dim_0`` and so on. Draws are made in chunks and kept on the CPU in their dtype.
    Values of ``pyro.deterministic`` that follow from the latents are in posterior and prior.
    With a table, ``coords={"data": table.index, "feature": table.columns}`` and
    ``dims={"x": ["feature"]}`` label all of it.

    A guide's draws are independent, so R-hat and ESS look perfect *whatever the fit*. Look
    at :func:`pareto_khat` of ``log_weight`` per datum instead (:func:`log_evidence` gives it
    at more draws), or correct the draws. With ``correct="mh"`` they are proposals of
    Metropolis-Hastings chains whose limit is the exact posterior, each datum with chains of its
    own (:func:`pyro_lvm.metropolis.independence_chain`; 100 states of warm-up are dropped):
    R-hat and ESS then mean what they say, and ``acceptance_rate`` is in sample_stats. Restarts
    tell as well: of a list of guides, trained from different starts, each makes chains of its
    own, and R-hat is near 1 where they agree. With
    ``correct="psis"`` draws are resampled in proportion to Pareto-smoothed weights (Vehtari et
    al. 2024, arXiv:1507.02646). The attributes ``khat_max`` and ``khat_above_0.7`` tell how far
    to trust either; where k-hat is above 0.7, or chains accept less than 1 %, a warning says so.
    Both are exact for mixing variables too, whatever the number of their draws; see
    :class:`~pyro_lvm.mcmc.IndependentMetropolisHastings`.

    Where a guide or prior has no density, the discriminator of ``objective`` stands for it:
    ``log_q`` then has its estimate of the log-ratio of guide to prior, ``log_p`` leaves that
    prior out, and ``log_weight`` is an estimate. Without such an objective these are NaN. The
    attribute ``log_weight_is_exact`` is 0 in both cases, and where mixing variables are
    averaged over draws (those of ``objective``, by default 50), 1 otherwise; how good the
    discriminator is on these data is in the attributes that :meth:`RatioQuality.summary` names.

    ``az.loo`` and ``az.compare`` take the log-likelihood as it is: data of which nothing is
    observed (NaN in observed_data) are left out of it, and what is left lies along
    ``<site>_observed``, with the labels of its plates beside it. They speak of a datum left out
    where it shares its latents with others. A datum with latents of its own has their conditional
    likelihood there, whose leave-one-out weights have no finite variance as a rule (k-hat tells):
    compare such models by :func:`log_evidence`. Factors of ``poutine.scale`` are not in it: each
    datum counts once. ``az.loo_pit`` refuses data with holes; :func:`loo_pit` takes them.

    Args:
        model: generative program, called as ``model(*args, **kwargs)``, or a list, one for each
            guide.
        guide: its guide, or a list of them: restarts.
        num_samples: draws in all, the same number in each chain: one for each guide or, with
            ``correct="mh"``, ``num_chains``.
        chunk_size: draws at a time; by default as many as bound the memory.
        coords: labels by dim, e.g. a ``pandas.Index``; those of a plate for all its data or for
            the subsample in use. Plates have the indices of their data otherwise.
        dims: names of the event dims of a variable, by its name.
        posterior_predictive: whether to draw data anew from each posterior draw.
        prior: whether to draw latents and data from the model alone.
        log_likelihood: whether to score the data under each draw.
        correct: None, "mh" or "psis".
        num_chains: of ``correct="mh"``, of each guide.
        objective: what the programs were trained by, for the record and its discriminator; a
            list where each guide has its own.
        seed: makes the draws repeatable; the global random state is left as it was.

    Returns:
        ``arviz.InferenceData`` with ArviZ 0.x, ``xarray.DataTree`` from 1.0. Either has
        ``to_netcdf`` and ``to_zarr``; ArviZ 0.x needs ``.to_datatree().to_zarr(path)`` for
        zarr 3. With several guides, attributes that tell of the draws are lists.

    Raises:
        ValueError: programs that do not fit each other, ``dims`` or ``coords`` that do not
            fit the sites, a count below 1 or one that the chains do not divide, an unknown
            correction, one of weights that are not exact, or restarts on different data.

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
    fits = restarts(model, guide, objective)
    each = _share(num_samples, len(fits))
    correction = correction_of(correct)
    chains = num_chains if correction and correction.has_chains else 1
    switches = {
        "posterior_predictive": posterior_predictive,
        "prior": prior,
        "log_likelihood": log_likelihood,
    }
    wanted = {name for name, is_wanted in switches.items() if is_wanted}
    drawing = Drawing(args, kwargs, each, chunk_size, wanted, correction, chains)
    with _seeded(seed):
        drawn = [drawing.of(fit) for fit in fits]
    groups = labelled(joined([part.groups for part in drawn]), dims or {})
    labels = labels_of(drawn[0].chunks, groups, coords or {})
    groups = without_missing(groups, labels)
    attrs = _attrs(num_samples, fits[0].objective, seed) | _told([part.attrs for part in drawn])
    if correct:
        attrs["correction"] = correct
    return as_container(groups, labels, attrs, chains * len(fits))


def _share(num_samples: int, num_fits: int) -> int:
    each, rest = divmod(num_samples, num_fits)
    if rest:
        expected, found = f"a multiple of the {num_fits} guides", str(num_samples)
        hint = "Pass another number of draws."
        raise PyroLVMError(explain("num_samples", expected, found, hint))
    return each


def _told(parts: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Attributes of one restart as they are, of several in lists."""
    if len(parts) == 1:
        return dict(parts[0])
    lists: dict[str, list[float]] = defaultdict(list)
    for part in parts:
        for name, value in part.items():
            lists[name].append(value)
    return dict(lists)


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
    with kept_random_state():
        torch.manual_seed(seed)
        yield
