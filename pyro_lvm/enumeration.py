r"""Discrete sites of a model summed out exactly: ``infer={"enumerate": "parallel"}``.

Such a site is left out of the guide. Its values fill a dim of their own, left of the particle
dim, and the joint log-probability is summed over it by Pyro's tensor variable elimination: per
datum, beside sampled sites, through plates and ``pyro.markov`` chains. A bound then sees the
marginal :math:`p(x, z) = \sum_c p(x, z, c)`.

References:
    Obermeyer et al. (2019), *Tensor variable elimination for plated factor graphs*,
    arXiv:1902.03210.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from math import isclose
from typing import Any

from opt_einsum import get_symbol  # type: ignore[import-untyped]
from pyro.ops import packed
from pyro.ops.contract import contract_tensor_tree
from pyro.poutine.enum_messenger import EnumMessenger
from torch import Tensor

from pyro_lvm.errors import ProgramError, explain
from pyro_lvm.tracing import Site

__all__ = ["Enumerates", "Enumerator", "is_enumerated", "is_summed_out", "sum_out"]

Scale = float | Tensor


class Enumerates(Exception):
    """A model with sites to sum out was run as one without."""


def is_enumerated(site: Site) -> bool:
    """Whether the program asks for an exact sum over the site."""
    return not site.is_observed and site.infer.get("enumerate") == "parallel"


def is_summed_out(site: Site) -> bool:
    """Whether the site's value holds its whole support."""
    return "_enumerate_dim" in site.infer


class Enumerator(EnumMessenger):
    """Enumerates every marked site that is not ``given``, left of the particle dim.

    Args:
        max_plate_nesting: P; the particles are in dim -1 - P.
        given: values held fixed, by latent site.
    """

    def __init__(self, max_plate_nesting: int, given: Mapping[str, Tensor]) -> None:
        super().__init__(first_available_dim=-2 - max_plate_nesting)
        self.given = given

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] in self.given:
            msg["infer"].pop("enumerate", None)
        super()._pyro_sample(msg)


def sum_out(
    terms: Mapping[str, Tensor],
    scales: Mapping[str, Scale],
    sites: Mapping[str, Site],
    max_plate_nesting: int,
) -> tuple[set[str], list[Tensor]]:
    """Sum the product of terms over the enumerated values.

    Args:
        terms: log-probabilities by site, ``(*enumerated, K?, *plates)``.
        scales: factor of each; those of the sites in one sum are one number, outside it.
        sites: the sites.
        max_plate_nesting: P.

    Returns:
        The sites whose terms went into sums, and the logs of these, scaled: ``(K?, *plates)``
        nats, to be added up.

    Raises:
        ProgramError: the sites of a sum have scales of their own.
    """
    numbers = {number for n in terms for number in _enumerated_dims(sites[n]).values()}
    if not numbers:
        return set(), []
    names = _Names(max_plate_nesting)
    tensors = {n: packed.pack(term, names.of(sites[n])) for n, term in terms.items()}
    letters = {names.letter(number) for number in numbers}
    inside = {n for n, tensor in tensors.items() if letters.intersection(tensor._pyro_dims)}
    tree: OrderedDict[frozenset[str], list[Any]] = OrderedDict()
    for n, tensor in tensors.items():
        if n in inside:
            tree.setdefault(names.plates(sites[n]), []).append(tensor)
    scale = _common({n: scales[n] for n in inside})
    sums = [term for group in contract_tensor_tree(tree, letters).values() for term in group]
    return inside, [scale * packed.unpack(term, names.dims) for term in sums]


def _common(scales: Mapping[str, Scale]) -> float:
    first, *others = scales.values()
    numbers = not any(isinstance(scale, Tensor) for scale in scales.values())
    if numbers and all(isclose(other, first, rel_tol=1e-6) for other in others):
        return float(first)
    raise ProgramError(
        explain(
            f"poutine.scale around some of {sorted(scales)}",
            "one number for all sites of a sum over discrete values",
            "scales of their own",
            "Put all of them under one poutine.scale, or draw the discrete site in the guide.",
        )
    )


def _enumerated_dims(site: Site) -> Mapping[int, int]:
    """The enumerated sites that a log-probability depends on, by dim."""
    found: Mapping[int, int] = site.infer.get("_dim_to_id", {})
    return found


class _Names:
    """One letter for each dim: particles (""), plates by name, enumerated sites by number."""

    def __init__(self, max_plate_nesting: int) -> None:
        self.letters: dict[str | int, str] = {}
        self.particles = -1 - max_plate_nesting
        self.dims = {self.letter(""): self.particles}

    def letter(self, name: str | int) -> str:
        letter: str = self.letters.setdefault(name, get_symbol(len(self.letters)))
        return letter

    def of(self, site: Site) -> dict[int, str]:
        plates = {f.dim: self.letter(f.name) for f in site.frames if f.dim is not None}
        self.dims |= {letter: dim for dim, letter in plates.items()}
        numbers = {dim: self.letter(number) for dim, number in _enumerated_dims(site).items()}
        return {self.particles: self.letter("")} | plates | numbers

    def plates(self, site: Site) -> frozenset[str]:
        return frozenset(self.letter(f.name) for f in site.frames if f.dim is not None)
