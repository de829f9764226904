"""Programs of traces that one set of parameters serves at any frame rate."""

from __future__ import annotations

from copy import copy
from typing import Self

from pyro_lvm.nn.arguments import check_positive

__all__ = ["AtAnyRate"]


class AtAnyRate:
    """Mixin of a module that has a frame ``rate``, and reads it in each call.

    Example:
        >>> from pyro_lvm.models import LinearCalcium
        >>> model = LinearCalcium(rate=30.0)
        >>> slower = model.at(7.5)
        >>> model.rate, slower.rate, next(slower.parameters()) is next(model.parameters())
        (30.0, 7.5, True)
    """

    rate: float

    def at(self, rate: float) -> Self:
        """This program, with the same parameters, for recordings of ``rate`` frames per second.

        Raises:
            ProgramError: no rate above 0.
        """
        other = copy(self)
        other.rate = check_positive("rate", rate, "30.0")
        return other
