"""What must hold between a model and a guide, each with an error that says what to try."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor

from pyro_lvm.enumeration import is_enumerated
from pyro_lvm.errors import (
    DataError,
    MixingError,
    PlateError,
    ProgramError,
    PyroLVMError,
    explain,
)
from pyro_lvm.masking import fill_masked
from pyro_lvm.tracing import Program, Recorder, Site, record, unplated

__all__ = [
    "check_masks",
    "check_mixing",
    "check_programs",
    "check_site",
    "first_indices",
    "is_imputed",
    "nonfinite_data",
    "record_checked",
]

Sites = Mapping[str, Site]


def is_imputed(site: Site) -> bool:
    """Whether ``obs_mask`` made the site: a latent that may be absent from the guide."""
    return not site.is_observed and site.name.endswith("_unobserved")


def check_programs(model: Sites, guide: Sites, mixes: bool = False) -> None:
    """Raise where site names, plates, event shapes or auxiliary sites do not fit.

    ``mixes`` tells that auxiliary sites of one program are averaged out.
    """
    if not model:
        raise _nothing_sampled()
    _check_names(model, guide, mixes)
    _check_frames([*model.values(), *guide.values()])
    if not mixes:
        check_mixing(guide)
    _check_not_enumerated(guide)


def check_site(site: Site, sizes: Mapping[int, int]) -> None:
    """Raise :class:`PlateError` if a batch dim has no plate, and for a misshapen value or mask.

    ``sizes`` are those of the dims that need none, by dim.
    """
    known = {frame.dim for frame in site.frames}.union(site.infer.get("_dim_to_id", ()))
    for dim, size in enumerate(site.fn.batch_shape, start=-len(site.fn.batch_shape)):
        if dim not in known and size not in (1, sizes.get(dim, 1)):
            raise unplated(site.name, site.fn, dim)
    event_dim = site.fn.event_dim
    event = site.value.shape[site.value.dim() - event_dim :]
    if tuple(event) != tuple(site.fn.event_shape):
        raise PlateError(
            explain(
                f"site '{site.name}'",
                f"a value of event shape {tuple(site.fn.event_shape)}",
                f"{tuple(event)} in a value of shape {tuple(site.value.shape)}",
                "Make the guide's and the model's distribution agree on to_event(n) and sizes.",
            )
        )
    if site.is_observed:
        _check_fits("data", site, site.value.shape[: site.value.dim() - event_dim], sizes)
    if isinstance(site.mask, Tensor):
        _check_fits("a mask", site, site.mask.shape, sizes)


def _check_fits(what: str, site: Site, shape: torch.Size, sizes: Mapping[int, int]) -> None:
    """A dim more would be taken for that of the particles."""
    batch = tuple(site.fn.batch_shape)
    own = (1,) * (len(shape) - len(batch)) + batch
    for dim, size in enumerate(shape, start=-len(shape)):
        if size not in (1, own[dim], sizes.get(dim, 1)):
            raise PlateError(
                explain(
                    f"site '{site.name}'",
                    f"{what} of batch shape {batch} or broadcastable to it",
                    f"{tuple(shape)}",
                    "Reshape it, as by x[:, 0] or x.squeeze(-1); or open a plate for each batch "
                    "dim, and declare the others event dims with .to_event(n).",
                )
            )


def record_checked(program: Program, args: Any, kwargs: Any, recorder: Recorder) -> Recorder:
    """Record a run, blaming the data for what the program makes of NaN in them."""
    try:
        return record(program, args, kwargs, recorder)
    except PyroLVMError:
        raise
    except ValueError as error:
        raise (_nonfinite_argument({**dict(enumerate(args)), **kwargs}) or error) from error


def _nonfinite_argument(arguments: Mapping[Any, Any]) -> DataError | None:
    for name, value in arguments.items():
        if isinstance(value, Tensor) and not bool(torch.isfinite(value).all()):
            return DataError(
                explain(
                    f"argument {name!r} of the programs",
                    "finite data",
                    f"NaN or infinite entries: {first_indices(~torch.isfinite(value))}",
                    "Remove them; where a mask hides them from the model, fill them before "
                    "they enter the guide.",
                )
            )
    return None


def _nothing_sampled() -> ProgramError:
    return ProgramError(
        explain("model", "a sample statement", "none", "Write pyro.sample(..., obs=data) in it.")
    )


def _check_names(model: Sites, guide: Sites, mixes: bool) -> None:
    hidden = {n for n, s in model.items() if s.is_auxiliary and not s.is_observed}
    mixing = hidden - guide.keys()
    if mixing and not mixes:
        raise _not_averaged(min(mixing), "model")
    optional = mixing | {n for n, s in model.items() if is_imputed(s) or is_enumerated(s)}
    latent = {n for n, s in model.items() if not s.is_observed} - optional
    known = {n for n, s in model.items() if not s.is_observed}
    drawn = {n for n, s in guide.items() if not s.is_observed and not s.is_auxiliary}
    if missing := sorted(latent - set(guide)):
        raise _names_differ("model", "guide", missing, latent, drawn)
    if given := sorted(drawn & (model.keys() - known)):
        raise _given_in_the_model(given[0])
    if extra := sorted(drawn - known):
        raise _names_differ("guide", "model", extra, drawn, latent)
    observed = {n for n, s in guide.items() if s.is_observed and not s.is_factor}
    if strange := sorted(observed - set(model)):
        raise _observed_by_the_guide(strange[0])
    if held := sorted(observed & known):
        raise _held_by_the_guide(held[0])


def _given_in_the_model(name: str) -> ProgramError:
    return ProgramError(
        explain(
            f"site '{name}'",
            "a latent in both programs",
            "a value in the model, by obs= or poutine.condition, and a draw in the guide",
            f"Condition the guide too, or hide its draw: poutine.block(guide, hide=['{name}']).",
        )
    )


def _observed_by_the_guide(name: str) -> ProgramError:
    return ProgramError(
        explain(
            f"site '{name}'",
            "data observed in the model",
            "data observed in the guide only",
            "Check the order: objective.loss(model, guide, ...), fit(model, guide, ...).",
        )
    )


def _held_by_the_guide(name: str) -> ProgramError:
    return ProgramError(
        explain(
            f"site '{name}'",
            "a draw in the guide, of a latent site of the model",
            "a value that obs= or poutine.condition gave the guide, which the model does not see",
            f"Draw '{name}' in the guide, or give the model the value too.",
        )
    )


def check_masks(model: Sites, guide: Sites) -> None:
    """Raise where only one program counts a latent: its weights are no ratio of densities."""
    for name, site in guide.items():
        prior = model.get(name)
        if prior is None or prior.is_observed or site.is_delta or is_imputed(prior):
            continue
        here, there = (True if s.mask is None else s.mask for s in (site, prior))
        if bool(torch.as_tensor(here != there).any()):
            raise ProgramError(
                explain(
                    f"site '{name}'",
                    "one poutine.mask around it in both programs",
                    "another one in the guide than in the model",
                    "Mask it in both alike; for a flat prior draw it from ImproperUniform.",
                )
            )


def _names_differ(
    here: str, there: str, names: list[str], ours: Iterable[str], theirs: Iterable[str]
) -> ProgramError:
    close = get_close_matches(names[0], list(theirs), n=1)
    nearest = f" (nearest there: '{close[0]}')" if close else ""
    rename = f"Rename '{close[0]}' there, or add" if close else "Add"
    return ProgramError(
        explain(
            f"site '{names[0]}'",
            "the same latent sites in model and guide",
            f"{names} in the {here} only{nearest}; {here} has {sorted(ours)}, "
            f"{there} has {sorted(theirs)}",
            f"{rename} '{names[0]}' to the {there}; mark a mixing variable with "
            'infer={"is_auxiliary": True}.',
        )
    )


def _check_frames(sites: Iterable[Site]) -> None:
    seen: dict[str, Any] = {}
    for site in sites:
        for frame in site.frames:
            first = seen.setdefault(frame.name, frame)
            if (first.dim, first.size, first.full_size) != (
                frame.dim,
                frame.size,
                frame.full_size,
            ):
                raise PlateError(
                    explain(
                        f"plate '{frame.name}' at site '{site.name}'",
                        "one dim and one size wherever it is opened",
                        f"{_describe(first)} and {_describe(frame)}",
                        "Give both programs pyro.plate(name, size, subsample=..., dim=...) "
                        "with the same arguments.",
                    )
                )


def _describe(frame: Any) -> str:
    return f"dim {frame.dim} with {frame.size} of {frame.full_size}"


def check_mixing(guide: Sites) -> None:
    """Raise where a guide's latent depends on a mixing variable, which nothing averages out."""
    mixing = [s.name for s in guide.values() if s.is_auxiliary and not s.is_observed]
    if not mixing:
        return
    mixed = [
        s.name
        for s in guide.values()
        if s.is_downstream and not s.is_delta and not s.is_auxiliary and not s.is_observed
    ]
    if mixed:
        raise _not_averaged(mixing[0], "guide", mixed[0])


def _not_averaged(name: str, program: str, latent: str = "its latents") -> MixingError:
    return MixingError(
        explain(
            f"auxiliary site '{name}'",
            f"a {program} with an explicit density for '{latent}'",
            "a mixing variable: only the joint density with it is known",
            "Use an objective that marginalises mixing variables, such as SIVI or DSIVI, or make "
            "it a latent of the model with its own reverse distribution there.",
        )
    )


def _check_not_enumerated(guide: Sites) -> None:
    for name, site in guide.items():
        if is_enumerated(site):
            raise ProgramError(
                explain(
                    f"site '{name}'",
                    "a guide that draws its sites",
                    "one that the guide enumerates",
                    f"Leave '{name}' out of the guide and mark it in the model: it is then "
                    'summed out exactly. Or drop infer={"enumerate": ...} and draw it.',
                )
            )


def first_indices(bad: Tensor, limit: int = 3) -> str:
    """Where ``bad`` is True, counted: ``'2 values, first at [0, 3], [5, 1]'``."""
    places = torch.nonzero(bad)
    shown = ", ".join(str(row) for row in places[:limit].tolist())
    return f"{len(places)} values, first at {shown}"


def nonfinite_data(site: Site) -> DataError | None:
    """The error for NaN or infinite observations that no mask covers, or None."""
    if not site.value.is_floating_point():
        return None
    bad = ~torch.isfinite(fill_masked(site.fn, site.value, site.mask))
    if not bool(bad.any()):
        return None
    return DataError(
        explain(
            f"observed site '{site.name}'",
            "finite data",
            f"NaN or infinite entries: {first_indices(bad)}",
            "Remove them, or hide them by poutine.mask or obs_mask (True = observed).",
        )
    )
