"""What stands for a density that does not exist, in the weights of a finished fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from math import nan
from typing import Any

from torch import Tensor

from pyro_lvm.distributions.implicit import is_implicit
from pyro_lvm.errors import DensityError, explain
from pyro_lvm.objective import Objective
from pyro_lvm.particles import Ratio
from pyro_lvm.semi_implicit import SemiImplicitObjective
from pyro_lvm.tracing import Site

__all__ = ["NoRatio", "RatioIfMissing", "UnknownRatio", "mixing_of", "ratio_of"]

Sites = Mapping[str, Site]


def ratio_of(objective: Objective | None, otherwise: Ratio) -> Ratio:
    """The objective's ratio, used where a density is missing, if it has one."""
    ratio = None if objective is None else objective.ratio
    return otherwise if ratio is None else RatioIfMissing(ratio)


def mixing_of(
    objective: Objective | None, otherwise: SemiImplicitObjective
) -> SemiImplicitObjective:
    """What averages out mixing variables, if there are any: the objective, if it does.

    No draws of them are shared, so that the weights are independent.
    """
    chosen = copy(objective if isinstance(objective, SemiImplicitObjective) else otherwise)
    chosen.mixing = chosen.mixing._replace(share=False, share_prior=False)
    return chosen


def _missing(model: Sites, guide: Sites) -> list[str]:
    """The latent sites that have no density in the guide or in the model."""
    both = [name for name in guide if name in model]
    return [n for n in both if is_implicit(guide[n].fn) or is_implicit(model[n].fn)]


class RatioIfMissing:
    """The ratio of an objective where a density is missing; where none is, densities count.

    So an adversarial objective whose guide has a density after all gets exact weights.
    """

    def __init__(self, ratio: Ratio) -> None:
        self.ratio = ratio

    def covers(self, model: Sites, guide: Sites) -> Sequence[str]:
        return self.ratio.covers(model, guide) if _missing(model, guide) else []

    def __call__(
        self, values: Mapping[str, Tensor], model: Sites, guide: Sites, args: Any, kwargs: Any
    ) -> Tensor:
        return self.ratio(values, model, guide, args, kwargs)


class UnknownRatio:
    """Lets sites without a density be drawn: what depends on their density is NaN."""

    def covers(self, model: Sites, guide: Sites) -> Sequence[str]:
        return _missing(model, guide)

    def __call__(
        self, values: Mapping[str, Tensor], model: Sites, guide: Sites, args: Any, kwargs: Any
    ) -> Tensor:
        return next(iter(values.values())).new_full((), nan)


class NoRatio:
    """Refuses sites without a density, where weights are all that is wanted."""

    def covers(self, model: Sites, guide: Sites) -> Sequence[str]:
        return _missing(model, guide)

    def __call__(
        self, values: Mapping[str, Tensor], model: Sites, guide: Sites, args: Any, kwargs: Any
    ) -> Tensor:
        name = _missing(model, guide)[0]
        raise DensityError(
            explain(
                f"site '{name}'",
                "a density, to weigh draws by",
                "Implicit: it can be drawn from, and has no density",
                "Pass method='ais', or objective=, the adversarial one that it was trained by.",
            )
        )
