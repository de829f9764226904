"""Every draw that one fit has to give, for the bridge to ArviZ."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from pyro_lvm.adversarial import AdversarialObjective
from pyro_lvm.diagnostics.chunks import Chunks, Plated
from pyro_lvm.diagnostics.correction import Correction, corrected
from pyro_lvm.diagnostics.deterministics import of_each_datum
from pyro_lvm.diagnostics.missing import UnknownRatio, mixing_of, ratio_of
from pyro_lvm.diagnostics.predictive import collect
from pyro_lvm.diagnostics.ratio_quality import ratio_quality
from pyro_lvm.diagnostics.restarts import Restart
from pyro_lvm.objectives import DSIVI, ELBO

__all__ = ["Drawing", "Drawn"]


class Drawn(NamedTuple):
    """Draws of one fit, by ArviZ group and variable, and what to know of them all."""

    chunks: Chunks
    groups: Mapping[str, Mapping[str, Plated]]
    attrs: Mapping[str, float]


@dataclass(frozen=True)
class Drawing:
    """What is wanted of each fit.

    Args:
        args: positional arguments of its programs.
        kwargs: keyword arguments of them.
        num_samples: draws.
        chunk_size: draws at a time.
        groups: optional groups to make; see :func:`~pyro_lvm.diagnostics.predictive.collect`.
        correction: what turns the guide's draws into others, if anything.
        num_chains: that it makes.
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    num_samples: int
    chunk_size: int | None
    groups: Collection[str]
    correction: Correction | None
    num_chains: int

    def of(self, fit: Restart) -> Drawn:
        """The draws of one fit, corrected."""
        count = self.num_samples
        if self.correction:
            count = self.correction.num_draws(count, self.num_chains)
        chunks = self._chunks(fit, count)
        groups = collect(chunks, self.groups)
        attrs: dict[str, float] = {
            "log_weight_is_exact": int(not (chunks.uses_ratio or chunks.mixes))
        }
        if self.correction:
            batch = groups["sample_stats"]["log_weight"].plates
            groups["posterior"] = of_each_datum(groups["posterior"], batch)
            groups, told = corrected(groups, self.correction, chunks, self.num_chains)
            attrs |= told
        return Drawn(chunks, groups, attrs | self._quality_of_ratio(fit))

    def _chunks(self, fit: Restart, count: int) -> Chunks:
        ratio = ratio_of(fit.objective, otherwise=UnknownRatio())
        mixing = mixing_of(fit.objective, otherwise=DSIVI())
        programs = (fit.model, fit.guide, self.args, self.kwargs)
        return Chunks(ELBO, *programs, count, self.chunk_size, ratio, mixing)

    def _quality_of_ratio(self, fit: Restart) -> dict[str, float]:
        if not isinstance(fit.objective, AdversarialObjective):
            return {}
        judged = ratio_quality(
            fit.objective,
            fit.model,
            fit.guide,
            *self.args,
            num_samples=self.num_samples,
            **self.kwargs,
        )
        return judged.summary()
