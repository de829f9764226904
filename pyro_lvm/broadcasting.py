"""Whether a program says the same of its latents with a dim of particles left of the plates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from pyro_lvm.checks import record_checked
from pyro_lvm.densities import log_prob
from pyro_lvm.distributions.implicit import is_implicit
from pyro_lvm.errors import ProgramError, explain
from pyro_lvm.tracing import Program, Recorder, Site

__all__ = ["check_broadcasts"]

_TOLERANCE = 0.05  # nats, and of the whole: far above rounding


def check_broadcasts(
    program: Program, args: Any, kwargs: Any, alone: Recorder, max_plate_nesting: int
) -> None:
    """Raise where one particle of a run's values has other log-probabilities than that run.

    A decoder that counts dims from the left, as ``z[:, 0]``, would take one datum for all. A
    program that does not give one density twice, as with dropout, is let be.

    Args:
        program: model or guide.
        args: its positional arguments.
        kwargs: its keyword arguments.
        alone: its run without particles.
        max_plate_nesting: dims of its plates.

    Raises:
        ProgramError: the log-probabilities differ.
    """
    drawn = [s for s in alone.sites.values() if not (s.is_observed or s.is_delta)]
    given = {site.name: _with_all_dims(site, max_plate_nesting) for site in drawn}

    def scores() -> dict[str, Tensor]:
        recorder = Recorder(1, max_plate_nesting, given, alone.plates)
        return _scores(record_checked(program, args, kwargs, recorder))

    found = scores()
    off = _apart(_scores(alone), found)
    if off and not _apart(scores(), found):
        raise _unlike(min(off))


def _with_all_dims(site: Site, max_plate_nesting: int) -> Tensor:  # (1, *plates, *event)
    missing = 1 + max_plate_nesting + site.fn.event_dim - site.value.dim()
    return site.value.reshape((1,) * missing + site.value.shape)


def _scores(run: Recorder) -> dict[str, Tensor]:
    """Log-probability by site, ``(1?, *plates)`` nats, of those that have one."""
    return {
        name: log_prob(site)
        for name, site in run.sites.items()
        if not (site.is_delta or is_implicit(site.fn))
    }


def _apart(scores: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> list[str]:
    """The sites of both that are scored differently."""
    return [
        name
        for name in scores.keys() & others.keys()
        if not torch.isclose(scores[name], others[name], _TOLERANCE, _TOLERANCE, True).all()
    ]


def _unlike(name: str) -> ProgramError:
    return ProgramError(
        explain(
            f"site '{name}'",
            "one log-probability of equal latents, with and without a dim of particles",
            "another one where that dim stands to the left of the plates",
            "Count dims from the right in the program: z[..., 0] for z[:, 0], dim=-1 for dim=1.",
        )
    )
