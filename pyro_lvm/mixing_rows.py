"""Runs of a program with its mixing variables in rows, left of the particles."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Independent

from pyro_lvm.distributions.mapped import mapped
from pyro_lvm.errors import ProgramError, explain
from pyro_lvm.mixing import Marginal, Mixing
from pyro_lvm.tracing import Draw, Recorder

__all__ = ["FreshRows", "GuideRows", "ModelRows", "Rows"]


class Rows(Recorder):
    """Runs a program some of whose sites are in rows, left of the particles."""

    def __init__(
        self,
        num_rows: int,
        num_particles: int,
        max_plate_nesting: int,
        given: Mapping[str, Tensor] | None = None,
        plates: Mapping[str, Draw] | None = None,
    ) -> None:
        super().__init__(num_particles, max_plate_nesting, given, plates)
        self.count = num_particles
        self.num_rows = num_rows

    @property
    def sizes(self) -> dict[int, int]:
        return super().sizes | {-2 - self.max_plate_nesting: self.num_rows}

    def filled(self, rows: Tensor) -> Tensor:  # (S, K or 1, *batch) -> (S, K, *batch)
        """Terms for every particle."""
        return rows.expand(-1, self.count, *rows.shape[2:])

    def marginal(self, rows: Tensor) -> Marginal:
        """From terms ``(S, K or 1, *batch)`` in all rows, each particle's own one first."""
        return Marginal(self.filled(rows), True, len(rows) - 1)

    def in_rows(self, fn: Any, columns: int) -> Any:
        """``fn`` expanded to ``(S, columns, *plates)``."""
        return _in_rows(fn, self.num_rows, columns, self.max_plate_nesting)

    def columns(self, fn: Any) -> int:
        """Of a mixing variable that particles share: K where it reads a latent, else one."""
        before = fn.batch_shape[: -self.max_plate_nesting or None]
        return before[-1] if before else 1


class GuideRows(Rows):
    """Draws a guide's latents from one row of its mixing variables, and scores them in all.

    Rows are S = J + 1 for each particle, its own one first; or, where the fresh draws are
    shared, S = K + J for all, with the k-th particle's own one in row k.
    """

    def __init__(self, num_particles: int, max_plate_nesting: int, mixing: Mixing) -> None:
        num_own = num_particles if mixing.share else 1
        super().__init__(mixing.num_mixing + num_own, num_particles, max_plate_nesting)
        self.shared = mixing.share

    def marginal(self, rows: Tensor) -> Marginal:
        """From terms ``(S, K or 1, *batch)`` in all rows."""
        rows = self.filled(rows)
        if self.shared:
            rows = torch.cat([self._own(rows).unsqueeze(0), rows[self.count :]])
        return Marginal(rows, True, len(rows) - 1)

    def _widen(self, msg: dict[str, Any]) -> None:
        fn = msg["fn"]
        if msg["infer"].get("is_auxiliary"):
            msg["fn"] = self.in_rows(fn, self.columns(fn) if self.shared else self.count)
        elif self._has_rows(fn):
            _check_not_delta(msg)
            msg["value"], msg["done"] = self._drawn(fn), True
        else:
            super()._widen(msg)

    def _has_rows(self, fn: Any) -> bool:
        return len(fn.batch_shape) > self.max_plate_nesting + 1

    def _drawn(self, fn: Any) -> Tensor:
        """In each particle's own row alone; of what has no known row, in all of them."""
        own = mapped(fn, self._own)
        value: Tensor = self._own(fn()) if own is None else own()
        return value

    def _own(self, rows: Tensor) -> Tensor:  # (S, K or 1, *rest) -> (K, *rest)
        if not self.shared:
            return rows[0]
        if rows.shape[1] == 1:
            return rows[: self.count, 0]
        return rows[: self.count].diagonal(dim1=0, dim2=1).movedim(-1, 0)


class FreshRows(Rows):
    """Draws a guide's mixing variables in rows, with the latents of its ``first`` run given."""

    def __init__(self, first: GuideRows, latents: Mapping[str, Tensor], num_rows: int) -> None:
        nesting = first.max_plate_nesting
        super().__init__(num_rows, first.count, nesting, latents, first.plates)
        self.shared = first.shared

    def _widen(self, msg: dict[str, Any]) -> None:
        fn = msg["fn"]
        msg["fn"] = self.in_rows(fn, self.columns(fn) if self.shared else self.count)


class ModelRows(Rows):
    """Draws a model's mixing variables in rows, with its latents ``given``."""

    def __init__(
        self,
        num_particles: int,
        max_plate_nesting: int,
        given: Mapping[str, Tensor],
        plates: Mapping[str, Draw],
        mixing: Mixing,
    ) -> None:
        super().__init__(mixing.num_prior_mixing, num_particles, max_plate_nesting, given, plates)
        self.shared = mixing.share_prior
        self.mixing = mixing

    def again(self, num_rows: int) -> ModelRows:
        """For another run at the same latents."""
        mixing = self.mixing._replace(num_prior_mixing=num_rows)
        nesting = self.max_plate_nesting
        return ModelRows(self.count, nesting, self.given, self.reused, mixing)

    def marginal(self, rows: Tensor) -> Marginal:
        """From terms ``(J, K or 1, *batch)`` in all rows."""
        return Marginal(self.filled(rows), False, len(rows))

    def _widen(self, msg: dict[str, Any]) -> None:
        if not msg["infer"].get("is_auxiliary"):
            super()._widen(msg)
            return
        fn, nesting = msg["fn"], self.max_plate_nesting
        if not self.shared:
            msg["fn"] = self.in_rows(fn, self.count)
            return
        msg["fn"] = self.in_rows(fn, self.columns(fn))
        _check_one_law(msg["name"], msg["fn"], nesting)
        follows = len(fn.batch_shape) > nesting + 1
        value = _of_one_datum(fn, nesting) if follows else _pooled(fn, self.num_rows, nesting)
        msg["value"], msg["done"] = value, True


def _of_one_datum(fn: Any, nesting: int) -> Tensor:  # (J, 1, 1, ..., 1, *event)
    """The draws of the first datum, for all data."""
    value: Tensor = fn()
    for dim in range(-nesting, 0):
        value = value.narrow(dim - fn.event_dim, 0, 1)
    return value


def _check_one_law(name: str, fn: Any, nesting: int) -> None:
    if not _is_one_law(fn, range(1, 2 + nesting)):
        raise ProgramError(
            explain(
                f"auxiliary site '{name}'",
                "one law for all particles and data, as its draws are shared by them",
                f"{type(fn).__name__} with parameters of shape {tuple(fn.batch_shape[1:])} over "
                "particles and plates, or not known to have none",
                "Write its parameters without the plates' dims, or pass share_prior_mixing=False.",
            )
        )


def _is_one_law(fn: Any, dims: Iterable[int]) -> bool:
    """Whether the distribution was expanded over ``dims``, not written there."""
    if isinstance(fn, Independent):
        return _is_one_law(fn.base_dist, dims)
    written = [v for name in fn.arg_constraints if isinstance(v := vars(fn).get(name), Tensor)]
    same = all(v.shape[d] == 1 or v.stride(d) == 0 for v in written for d in dims)
    return bool(written) and same


def _pooled(fn: Any, num_rows: int, nesting: int) -> Tensor:  # (J, 1, 1, ..., 1, *event)
    """As many draws as there are rows, from all data's distributions, which are one."""
    num_each = -(-num_rows // max(1, prod(fn.batch_shape)))
    draws: Tensor = _in_rows(fn, num_each, 1, nesting)()
    pool = draws.reshape(-1, *fn.event_shape)[:num_rows]
    return pool.reshape(num_rows, *(1,) * (nesting + 1), *fn.event_shape)


def _check_not_delta(msg: Mapping[str, Any]) -> None:
    if type(msg["fn"]).__name__ == "Delta":
        raise ProgramError(
            explain(
                f"site '{msg['name']}'",
                "a conditional density given the mixing variables",
                "a Delta at a function of them",
                "Give it a conditional such as Normal; a guide of Deltas with a joint density "
                "is for ELBO or IWAE, one without any density for AVB.",
            )
        )


def _in_rows(fn: Any, num_rows: int, columns: int, nesting: int) -> Any:
    plates = fn.batch_shape[len(fn.batch_shape) - nesting :] if nesting else ()
    ones = (1,) * (nesting - len(plates))
    expanded = fn.expand(torch.Size((num_rows, columns, *ones, *plates)))
    if expanded.has_rsample != fn.has_rsample:  # `has_rsample_` marks the instance only
        expanded.has_rsample = fn.has_rsample
    return expanded
