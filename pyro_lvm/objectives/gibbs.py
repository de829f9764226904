"""Variational Gibbs inference: models of complete rows from incomplete ones."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from pyro_lvm.chains import conditionals_of, drawn_anew, moved, observed_score, random_scan
from pyro_lvm.errors import DataError, ProgramError, explain
from pyro_lvm.kept_chains import Chains
from pyro_lvm.nn import check_size
from pyro_lvm.objective import Objective
from pyro_lvm.objectives.elbo import ELBO
from pyro_lvm.particles import Particles
from pyro_lvm.tracing import Program
from pyro_lvm.weighted import WeightedObjective

__all__ = ["VGI"]


class VGI(Objective):
    r"""Variational Gibbs inference: rows are completed by chains that the guide moves.

    .. math:: J_i = \frac1K \sum_k \mathbb E_{j \sim U(m_i)} \mathbb E_{q(x_j \mid
        \tilde x^k_{-j})} \bigl[\log p(x_j, \tilde x^k_{-j}) - \log q(x_j \mid \tilde x^k_{-j})
        \bigr]

    in nats, for a row i with missing entries :math:`m_i` and completions :math:`\tilde x^k`.
    Given these, each term has the mean :math:`\log p(\tilde x_{-j}) - KL(q(x_j \mid \tilde
    x_{-j}) \,\|\, p(x_j \mid \tilde x_{-j}))`, a lower bound on the log-density of the other
    entries, of those imputed too. So it is *no bound on* :math:`\log p(x_{obs})` (``is_bound``
    is False), and numbers at other missing rates, or before and after chains have moved, do not
    compare. A complete row is a plain :math:`\log p(x)` or its ``inner`` bound: judge models on
    complete held-out rows, which need no index. A row without any observed entry counts as 0.

    Each step moves the chains of its rows by ``num_updates`` Gibbs updates, and scores
    ``num_targets`` missing entries of each chain, drawn anew: unbiased for the mean over j.
    Only training steps keep the moves. For the first ``warmup`` steps the chains rest: the model
    maximises the density of their start, and the conditionals are regressions on observed
    entries, :math:`\log q(x_j \mid \tilde x_{-j})`, whose sum is the loss (negated). For data
    missing at random.

    The programs are called on completed rows, without an index. The loss is scaled by N/B, N the
    chains' rows: leave the model's ``num_data`` out. Chains live in one process. A recorded step
    (``compile=True``) is for one number of incomplete rows, in full eighths of a batch.

    References:
        Simkus, Rhodes, Gutmann (2023), *Variational Gibbs inference for statistical model
        estimation from incomplete data*, arXiv:2111.13180.

    Args:
        chains: of all rows; the batches are rows ``x`` and their numbers ``index``.
        inner: what scores a completed row; the ELBO if left out, which is exact for a model
            without latents and for ``Completed(model)`` of one with ``log_evidence``.
        num_updates: Gibbs updates of each chain a step, G >= 0.
        num_targets: missing entries, or blocks of them, that are scored of each chain a step.
        block_size: entries that are drawn together, b. A block's entries are independent given
            all others and hidden from each other's conditionals, and :math:`x_j` above is the
            block. Larger ones mix faster where columns depend on each other, and are further from
            the model's conditionals.
        warmup: steps before the chains move.

    Raises:
        ProgramError: an argument out of range, an ``inner`` whose gradient is not that of a
            bound; a guide without conditionals.
        DataError: no index for rows with missing entries, one beyond the chains or of other
            rows, a class that the guide does not know.

    Example:
        >>> from pyro_lvm.guides import GibbsConditionals, GibbsGuide
        >>> from pyro_lvm.missing import Completed
        >>> from pyro_lvm.models import FactorAnalysis
        >>> x = FactorAnalysis(3, 1)(size=8).detach()
        >>> x[::2, 1] = torch.nan
        >>> model, guide = Completed(FactorAnalysis(3, 1)), GibbsGuide(GibbsConditionals(3))
        >>> objective = VGI(Chains(x, num_chains=5), warmup=10)
        >>> loss = objective(model, guide)(x, torch.arange(8))  # of all 8 rows, differentiable
        >>> objective.bound(model, guide, x[1::2]).shape  # complete rows
        torch.Size([4])
    """

    is_bound: ClassVar[bool] = False
    is_linear: ClassVar[bool] = True
    takes: ClassVar[tuple[str, ...]] = ("score",)
    keeps_in_place: ClassVar[bool] = True

    decided: tuple[bool, int]
    """Of this step: whether chains rest, and how many rows they score."""

    def __init__(
        self,
        chains: Chains,
        *,
        inner: Objective | None = None,
        num_updates: int = 3,
        num_targets: int = 1,
        block_size: int = 1,
        warmup: int = 0,
    ) -> None:
        check_size("num_targets", num_targets)
        check_size("block_size", block_size)
        check_size("num_updates + 1", num_updates + 1)
        check_size("warmup + 1", warmup + 1)
        super().__init__(chains.num_chains * num_targets, "score", max_plate_nesting=1)
        self.chains = chains
        self.inner = ELBO() if inner is None else _checked(inner)
        self.num_updates = num_updates
        self.num_targets = num_targets
        self.block_size = block_size
        self.warmup = warmup

    def bound_per_datum(self, log_weights: Tensor) -> Tensor:
        return log_weights.mean(0)

    def bound_of_others(self, log_weights: Tensor) -> Tensor:
        others = len(log_weights) - 1
        return (log_weights.sum(0) - log_weights) / others if others else log_weights * 0.0

    def run(
        self,
        model: Program,
        guide: Program,
        args: Any,
        kwargs: Any,
        max_plate_nesting: int,
        **how: Any,
    ) -> Particles:
        """Scores of each row's copies, ``(num_chains * num_targets, B)``."""
        conditionals = conditionals_of(guide)
        x, index = _rows(conditionals, *args, **kwargs)
        rests, places = self.decided if torch.is_grad_enabled() else (False, _places(x))
        order = x.isnan().any(-1).argsort(descending=True, stable=True)
        states = self._states(x, index)[:, order]
        x = x[order]
        missing = x.isnan()
        if rests:
            filled, log_q = states[:, :places], -observed_score(conditionals, states, missing)
            log_score = torch.zeros_like(log_q)
        else:
            numbers = None if index is None else index[order[:places]]
            drawn = self._imputed(conditionals, states[:, :places], missing[:places], numbers)
            filled, log_q, log_score = drawn[0], *(_padded(part, len(x)) for part in drawn[1:])
        log_p = self._log_p(model, guide, x[places:], filled)
        parts = torch.where(~missing.all(-1), torch.stack([log_p, log_q, log_score]), 0.0)
        log_p, log_q, log_score = parts.index_select(-1, order.argsort())
        scale = 1.0 if index is None else self.chains.num_rows / len(x)
        return Particles(log_p, log_q, scale, log_score=log_score)

    def before_step(self, model: Program, guide: Program, args: Any, kwargs: Any) -> None:
        """Decide what depends on the step and on which entries are missing."""
        x, _ = _rows(conditionals_of(guide), *args, **kwargs)
        self.inner.step = self.step
        self.decided = self.step < self.warmup, _places(x)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs to go on exactly, the chains too."""
        own = {"chains": self.chains.state_dict(), "inner": self.inner.state_dict()}
        return super().state_dict() | own

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.chains.load_state_dict(state["chains"])
        self.inner.load_state_dict(state["inner"])

    def _states(self, x: Tensor, index: Tensor | None) -> Tensor:  # (K, B, D)
        if index is None:
            return x.expand(self.chains.num_chains, *x.shape)
        return self.chains.completed(x, index)

    def _imputed(
        self, conditionals: Any, states: Tensor, missing: Tensor, index: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Targets of the M rows in the places of chains, after the moves of theirs."""
        if index is None or not len(missing):
            none = states.new_zeros(states.shape[:2])
            return states, none, none
        missing = missing.expand(len(states), -1, -1)
        scan = random_scan(missing, self.num_updates * self.block_size)
        states = torch.where(missing, moved(conditionals, states, scan, self.block_size), states)
        if torch.is_grad_enabled():
            self.chains.keep(index, states)
        return drawn_anew(conditionals, states, missing, self.num_targets, self.block_size)

    def _log_p(
        self, model: Program, guide: Program, whole: Tensor, filled: Tensor
    ) -> Tensor:  # (C, B)
        """Scores of the copies ``(C, M, D)``, and of the rows ``(B - M, D)``, once each."""
        rows = torch.cat([whole, filled.flatten(0, 1)])
        scores = self._inner_bound(model, guide, rows)
        of_whole, of_copies = scores.split([len(whole), len(rows) - len(whole)])
        return torch.cat(
            [of_copies.unflatten(0, filled.shape[:2]), of_whole.expand(len(filled), -1)], 1
        )

    def _inner_bound(self, model: Program, guide: Program, rows: Tensor) -> Tensor:  # (rows,)
        inner, training = self.inner, torch.is_grad_enabled()

        def draw(**how: Any) -> Particles:
            return inner._draw(model, guide, (rows,), {}, **how)

        if training:
            particles, value = inner.estimate(draw)
        else:
            particles = draw()
            value = inner.bound_per_datum(particles.log_weights)
        _check_apart(particles, value, rows)
        return value


def _places(x: Tensor) -> int:
    """How many rows are scored by chains: those with missing entries, up to a full eighth.

    Complete rows among them are scored by copies. So recorded steps, whose shapes are fixed, are
    of few kinds.
    """
    eighth = -(-len(x) // 8)
    holed = int(x.isnan().any(-1).sum())
    return min(-(-holed // eighth) * eighth, len(x))


def _padded(part: Tensor, count: int) -> Tensor:
    """``(C, M)`` followed by zeros: ``(C, count)``."""
    return torch.nn.functional.pad(part, (0, count - part.shape[1]))


def _rows(conditionals: Any, x: Any, index: Any = None) -> tuple[Tensor, Tensor | None]:
    """The arguments of a call, checked."""
    rows: Tensor = conditionals.rows(x)
    if index is not None:
        index = torch.as_tensor(index, device=rows.device)
        if index.is_floating_point() or index.shape != rows.shape[:1]:
            found = f"{index.dtype} of shape {tuple(index.shape)}"
            expected = f"{len(rows)} row numbers, integers"
            hint = "Pass x, torch.arange(len(x)): each row's number among those of the chains."
            raise DataError(explain("index", expected, found, hint))
    elif bool(rows.isnan().any()):
        hint = "Pass x, torch.arange(len(x)); fit(model, guide, (x, torch.arange(len(x))), ...)."
        expected = "the number of each row, beside rows with missing entries"
        raise DataError(explain("index", expected, "none", hint))
    return rows, index


def _checked(inner: Objective) -> Objective:
    if isinstance(inner, WeightedObjective | VGI) or inner.is_upper:
        hint = "Use ELBO, or IWAE(num_particles=5)."
        expected = "a lower bound whose gradient is its own"
        raise ProgramError(explain("inner", expected, repr(inner), hint))
    return inner


def _check_apart(particles: Particles, value: Tensor, rows: Tensor) -> None:
    if value.shape != rows.shape[:1]:
        found = f"bounds of shape {tuple(value.shape)} for {len(rows)} rows"
        hint = "Make global latents parameters, and draw the others inside the plate of the rows."
        raise ProgramError(explain("model", "independent rows, a bound each", found, hint))
    if not isinstance(particles.scale, float) or particles.scale != 1.0:
        hint = "Leave num_data out of model and guide: the chains know N."
        found = f"a scale of {particles.scale}"
        raise ProgramError(explain("model", "a plate of the rows as they are", found, hint))
