r"""Mixing variables: auxiliary sites of a program, drawn many times over and averaged out.

A site with ``infer={"is_auxiliary": True}`` that the other program does not have makes its
program semi-implicit: :math:`q(z \mid x) = \int q(z \mid \psi, x) \, q(\psi \mid x) \, d\psi`
in a guide, :math:`p(z) = \int p(z \mid \zeta) \, p(\zeta) \, d\zeta` in a model. The integrals
are not known, but bracketed by J draws of the mixing variables:

.. math::

    \log \tfrac1J \sum_{j=1}^J q(z \mid \psi_j)
    \;\le\; \log q(z) \;\le\;
    \log \tfrac1{J+1} \sum_{j=0}^J q(z \mid \psi_j)

in the mean, where :math:`\psi_0` is the draw that made z. Both close in as J grows. The mixing
variables fill a dim of their own, rows, left of the particles; only what depends on them is
computed row by row, in the run that also draws z. With hierarchical mixing variables, or ones
that depend on latents drawn before, every row is one draw of all of them given these latents.

References:
    Yin, Zhou (2018), *Semi-implicit variational inference*, arXiv:1805.11183, section 3.1.
    Molchanov, Kharitonov, Sobolev, Vetrov (2019), *Doubly semi-implicit variational
    inference*, arXiv:1810.02789, for the prior, and for both sides of the bracket.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import reduce
from math import log, prod
from operator import add
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributions import Independent

from pyro_lvm.distributions.mapped import mapped
from pyro_lvm.errors import ProgramError, explain
from pyro_lvm.tracing import Draw, Recorder, Site

__all__ = [
    "GuideRows",
    "Marginal",
    "Mixing",
    "ModelRows",
    "Rows",
    "check_draws",
    "mixing_sites",
    "split_rows",
]


class Mixing(NamedTuple):
    """How often mixing variables are drawn, and what shares the draws.

    Attributes:
        num_mixing: J >= 0, fresh draws of the guide's, beside the one that made the latents.
        num_prior_mixing: draws of the model's; 0 where it may not have any.
        share: the guide's fresh draws serve all particles.
        share_prior: the model's draws serve all particles and data.
    """

    num_mixing: int
    num_prior_mixing: int = 0
    share: bool = False
    share_prior: bool = True


def check_draws(name: str, count: int, least: int) -> int:
    """``count``, if it is a whole number of at least ``least``.

    Raises:
        ProgramError: it is not.
    """
    if isinstance(count, bool) or not isinstance(count, int) or count < least:
        wanted = f"an integer >= {least}"
        raise ProgramError(explain(name, wanted, repr(count), f"Pass {name}=50."))
    return count


@dataclass(frozen=True)
class Marginal:
    """A log-density by row of the mixing variables, nats.

    Attributes:
        own: ``(K, *batch)``, given the draw that made the latents; None for a model.
        fresh: ``(J, K, *batch)``, given the others.
    """

    own: Tensor | None
    fresh: Tensor

    @property
    def lower(self) -> Tensor:  # (K, *batch)
        """Log of the mean over the fresh draws: at most the log-density, in the mean."""
        return _log_mean_exp(self.fresh)

    @property
    def rows(self) -> Tensor:  # (J + 1, K, *batch)
        """The own draw's, and those of the others."""
        return torch.cat([self._own.unsqueeze(0), self.fresh])

    @property
    def upper(self) -> Tensor:  # (K, *batch)
        """With the own draw: at least the log-density, in the mean."""
        return _log_mean_exp(self.rows)

    @property
    def value(self) -> Tensor:  # (K, *batch)
        """The side that makes log p - log q a lower bound."""
        return self.lower if self.own is None else self.upper

    def first(self, count: int) -> Marginal:
        """The same with the first ``count`` of the fresh draws."""
        return Marginal(self.own, self.fresh[:count])

    @property
    def _own(self) -> Tensor:
        if self.own is None:
            raise ValueError("no draw of a model's mixing variables has made the latents")
        return self.own


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

    def marginal(self, rows: Tensor) -> Marginal:
        """From terms ``(S, K or 1, *batch)`` in all rows, each particle's own one first."""
        rows = rows.expand(-1, self.count, *rows.shape[2:])
        return Marginal(rows[0], rows[1:])

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
        rows = rows.expand(-1, self.count, *rows.shape[2:])
        return Marginal(self._own(rows), rows[self.count if self.shared else 1 :])

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

    def marginal(self, rows: Tensor) -> Marginal:
        """From terms ``(J, K or 1, *batch)`` in all rows."""
        return Marginal(None, rows.expand(-1, self.count, *rows.shape[2:]))

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


def split_rows(
    parts: Mapping[str, Tensor], batch_dims: int
) -> tuple[dict[str, Tensor], list[str], Tensor | None]:
    """Folded terms ``(K or 1, *batch)``, and those by row: their sites, and their sum.

    The sum is ``(S, K or 1, *batch)``, or None where no term varies by row.
    """
    by_row = [n for n, term in parts.items() if term.dim() > batch_dims + 1]
    plain = {n: term for n, term in parts.items() if n not in by_row}
    return plain, by_row, reduce(add, [parts[n] for n in by_row]) if by_row else None


def mixing_sites(program: Mapping[str, Site], other: Mapping[str, Site]) -> list[str]:
    """Auxiliary sites that the other program does not have.

    Raises:
        ProgramError: one that it has, or one whose own parameters no path reaches.
    """
    names = [n for n, s in program.items() if s.is_auxiliary and not s.is_observed]
    for name in names:
        if name in other:
            raise ProgramError(
                explain(
                    f"auxiliary site '{name}'",
                    "a site of one program, to be averaged out",
                    "one that both programs have",
                    'Take infer={"is_auxiliary": True} away: it is a latent as the others.',
                )
            )
        _check_path(program[name])
    return names


def _check_path(site: Site) -> None:
    if site.has_rsample or not torch.is_grad_enabled():
        return
    if site.fn.log_prob(site.value).requires_grad:
        raise ProgramError(
            explain(
                f"auxiliary site '{site.name}'",
                "a mixing variable with a path to its parameters",
                f"{type(site.fn).__name__}, without rsample, with parameters to train",
                "Draw noise of a fixed law and let a network of it take the parameters; a "
                "finite mixture has an exact density, such as MixtureSameFamily.",
            )
        )


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


def _log_mean_exp(rows: Tensor) -> Tensor:
    return torch.logsumexp(rows, 0) - log(rows.shape[0])
