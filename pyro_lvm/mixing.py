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

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from math import log
from operator import add
from typing import NamedTuple

import torch
from torch import Tensor

from pyro_lvm.errors import ProgramError, explain
from pyro_lvm.tracing import Site

__all__ = ["Marginal", "Mixing", "check_chunk", "check_draws", "mixing_sites", "split_rows"]


class Mixing(NamedTuple):
    """How often mixing variables are drawn, and what shares the draws.

    Attributes:
        num_mixing: J >= 0, fresh draws of the guide's, beside the one that made the latents.
        num_prior_mixing: draws of the model's; 0 where it may not have any.
        share: the guide's fresh draws serve all particles.
        share_prior: the model's draws serve all particles and data.
        chunk: draws at a time, of either program; None for all.
    """

    num_mixing: int
    num_prior_mixing: int = 0
    share: bool = False
    share_prior: bool = True
    chunk: int | None = None

    @property
    def first(self) -> Mixing:
        """What the first run of each program draws: all, or as few as it can.

        It is not run again in the backward pass: of its rows all values are kept.
        """
        return self._replace(
            num_mixing=self.num_mixing if self._fits(self.num_mixing) else 0,
            num_prior_mixing=self.num_prior_mixing if self._fits(self.num_prior_mixing) else 1,
        )

    def later(self, count: int, first: int) -> list[int]:
        """Draws of later runs, of ``count`` in all, after the ``first``: at most a chunk each."""
        size = self.chunk or 1  # without chunks the first run draws all
        return [min(size, count - start) for start in range(first, count, size)]

    def _fits(self, count: int) -> bool:
        return self.chunk is None or count <= self.chunk


def check_draws(name: str, count: int, least: int) -> int:
    """``count``, if it is a whole number of at least ``least``.

    Raises:
        ProgramError: it is not.
    """
    if isinstance(count, bool) or not isinstance(count, int) or count < least:
        wanted = f"an integer >= {least}"
        raise ProgramError(explain(name, wanted, repr(count), f"Pass {name}=50."))
    return count


def check_chunk(chunk: int | None) -> int | None:
    """``chunk_mixing``, if it is a whole number of at least one, or None.

    Raises:
        ProgramError: it is not.
    """
    return None if chunk is None else check_draws("chunk_mixing", chunk, 1)


@dataclass(frozen=True)
class Marginal:
    """A log-density by row of the mixing variables, nats.

    Attributes:
        rows: ``(R, K, *batch)``, given one draw each, or summed over several of them.
        has_own: whether the first row is given the draw that made the latents.
        count: J, how many draws there are beside that one.
    """

    rows: Tensor
    has_own: bool
    count: int

    @property
    def own(self) -> Tensor:  # (K, *batch)
        """Given the draw that made the latents."""
        return self.rows[0]

    @property
    def fresh(self) -> Tensor:  # (R - 1 or R, K, *batch)
        """Given the others."""
        return self.rows[1:] if self.has_own else self.rows

    @property
    def lower(self) -> Tensor:  # (K, *batch)
        """Log of the mean over the fresh draws: at most the log-density, in the mean."""
        return torch.logsumexp(self.fresh, 0) - log(self.count)

    @property
    def upper(self) -> Tensor:  # (K, *batch)
        """With the own draw: at least the log-density, in the mean."""
        return torch.logsumexp(self.rows, 0) - log(self.count + 1)

    @property
    def value(self) -> Tensor:  # (K, *batch)
        """The side that makes log p - log q a lower bound."""
        return self.upper if self.has_own else self.lower

    def joined(self, sums: Sequence[Tensor], count: int) -> Marginal:
        """With ``count`` fresh draws more, whose summed densities' logs are ``(1, K, *batch)``."""
        rows = torch.cat([self.rows, *sums]) if sums else self.rows
        return Marginal(rows, self.has_own, self.count + count)


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
