"""A guide's draws turned into draws of the exact posterior, by choosing among them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, NamedTuple, Protocol
from warnings import warn

import torch
from torch import Tensor

from pyro_lvm.diagnostics.chunks import Chunks, Plated
from pyro_lvm.diagnostics.thresholds import MAX_KHAT, MIN_ACCEPTANCE
from pyro_lvm.errors import DensityError, PlateError, PyroLVMError, explain
from pyro_lvm.metropolis import independence_chain
from pyro_lvm.nn import check_choice
from pyro_lvm.weights import pareto_khat, pareto_smooth

__all__ = [
    "CORRECTIONS",
    "Chosen",
    "Correction",
    "check_exact",
    "corrected",
    "correction_of",
    "in_plates",
]

Draws = dict[str, Plated]

_NUM_WARMUP = 100
_OF_DRAWS = ("posterior", "sample_stats", "posterior_predictive", "log_likelihood")


class Chosen(NamedTuple):
    """Which of the guide's draws make the corrected ones.

    Attributes:
        rows: long ``(num_samples, *batch)``; those of one chain stand together.
        attrs: what to know of them all.
        stats: ``(num_samples, *batch)`` by name, of the draws.
    """

    rows: Tensor
    attrs: Mapping[str, float]
    stats: Mapping[str, Tensor]


class Correction(Protocol):
    """How draws are chosen by their weights."""

    has_chains: ClassVar[bool]

    def num_draws(self, num_samples: int, num_chains: int) -> int:
        """Of the guide, for ``num_samples`` corrected ones."""

    def __call__(self, log_weights: Tensor, num_chains: int) -> Chosen:
        """From the log-weights ``(num_draws, *batch)`` of all draws."""


class Metropolis:
    """Chains with independent proposals; the first 100 states of each are dropped."""

    has_chains: ClassVar[bool] = True

    def num_draws(self, num_samples: int, num_chains: int) -> int:
        length, rest = divmod(num_samples, num_chains)
        if rest:
            hint = "Pass another number of either."
            expected = f"a multiple of num_chains={num_chains}"
            raise PyroLVMError(explain("num_samples", expected, str(num_samples), hint))
        return num_chains * (_NUM_WARMUP + length)

    def __call__(self, log_weights: Tensor, num_chains: int) -> Chosen:
        by_chain = log_weights.unflatten(0, (num_chains, -1)).transpose(0, 1)
        chain = independence_chain(by_chain)  # (steps, chains, *batch)
        first = len(by_chain) * torch.arange(num_chains, device=log_weights.device)
        rows = chain.rows + first.reshape(-1, *[1] * (log_weights.dim() - 1))
        acceptance = _one_after_the_other(chain.acceptance)
        of_data = acceptance.mean(0)
        _warn_of_standstill(of_data)
        attrs = {"acceptance_mean": of_data.mean().item(), "acceptance_min": of_data.min().item()}
        attrs |= _judged(pareto_khat(log_weights), "mh", "The chains may not have found it either.")
        return Chosen(_one_after_the_other(rows), attrs, {"acceptance_rate": acceptance})


class ParetoSmoothed:
    """Independent draws, with replacement, in proportion to Pareto-smoothed weights."""

    has_chains: ClassVar[bool] = False

    def num_draws(self, num_samples: int, num_chains: int) -> int:
        return num_samples

    def __call__(self, log_weights: Tensor, num_chains: int) -> Chosen:
        smoothed, khat = pareto_smooth(log_weights)
        shares = torch.softmax(smoothed, 0).nan_to_num(1.0).movedim(0, -1)  # any, where all 0
        rows = torch.distributions.Categorical(shares).sample((len(log_weights),))
        return Chosen(rows, _judged(khat, "psis", "Or use correct='mh'."), {})


CORRECTIONS: dict[str, Correction] = {"mh": Metropolis(), "psis": ParetoSmoothed()}


def correction_of(name: str | None) -> Correction | None:
    """The correction of that name.

    Raises:
        ProgramError: there is none.
    """
    if name is None:
        return None
    check_choice("correct", name, CORRECTIONS)
    return CORRECTIONS[name]


def corrected(
    groups: Mapping[str, Draws], correction: Correction, chunks: Chunks, num_chains: int
) -> tuple[dict[str, Draws], Mapping[str, float]]:
    """The chosen rows of every variable that came with the guide's draws, and their attributes.

    Raises:
        DensityError, PlateError: the weights are estimates.
    """
    check_exact(chunks)
    batch, log_weights = groups["sample_stats"]["log_weight"]
    chosen = correction(log_weights, num_chains)
    kept = {
        group: {n: _of_rows(draws, chosen.rows, batch) for n, draws in variables.items()}
        if group in _OF_DRAWS
        else variables
        for group, variables in groups.items()
    }
    kept["sample_stats"] |= {n: Plated(batch, values) for n, values in chosen.stats.items()}
    return kept, chosen.attrs


def check_exact(chunks: Chunks) -> None:
    """Raise where the mean of the weights is not p(x), so that no accept step may use them.

    Those of mixing draws have it, if no two particles share such draws: see
    :class:`pyro_lvm.mcmc.IndependentMetropolisHastings`.

    Raises:
        DensityError: weights of a discriminator.
        PlateError: of a minibatch, beside a latent of all data.
    """
    if chunks.uses_ratio:
        hint = "Use the draws as they are, or train a guide with a density, such as a flow."
        found = "a discriminator's estimate"
        raise DensityError(explain("guide", "a density to correct its draws by", found, hint))
    layout = chunks.probe.layout
    if layout and layout.subsampled_inside:
        where = f"plate '{layout.subsampled_inside[0]}'"
        expected, found = "all data, to correct draws by their weights", "a minibatch"
        raise PlateError(explain(where, expected, found, "Pass the full data."))


def in_plates(rows: Tensor, draws: Plated, batch: tuple[str, ...]) -> Tensor:
    """``(S, *batch)`` with a dim for each plate and event dim of ``draws``."""
    sizes = dict(zip(batch, rows.shape[1:], strict=True))
    event = [1] * (draws.values.dim() - 1 - len(draws.plates))
    return rows.reshape(-1, *[sizes.get(plate, 1) for plate in draws.plates], *event)


def _of_rows(draws: Plated, rows: Tensor, batch: tuple[str, ...]) -> Plated:
    index = in_plates(rows, draws, batch).expand(-1, *draws.values.shape[1:])
    return Plated(draws.plates, draws.values.gather(0, index))


def _one_after_the_other(states: Tensor) -> Tensor:
    """From ``(steps, chains, *batch)`` to ``(num_samples, *batch)``, without the warm-up."""
    return states[_NUM_WARMUP:].transpose(0, 1).flatten(0, 1)


def _warn_of_standstill(acceptance: Tensor) -> None:
    share = (acceptance < MIN_ACCEPTANCE).float().mean().item()
    if share:
        hint = (
            "Their chains stand still: do not use them. Train the guide longer or by an objective "
            "that covers the posterior (IWAE, ReweightedWakeSleep), or run pyro.infer.NUTS."
        )
        found = f"fewer for {share:.1%} of the data, at worst {acceptance.min().item():.2g}"
        expected = f"{MIN_ACCEPTANCE:.0%} of the proposals accepted"
        warn(explain("correct='mh'", expected, found, hint), stacklevel=2)


def _judged(khat: Tensor, name: str, also: str) -> dict[str, float]:
    share, worst = (khat > MAX_KHAT).float().mean().item(), khat.max().item()
    if share:
        hint = f"The guide misses part of the posterior: train a wider one. {also}"
        found = f"more for {share:.1%} of the data, at worst {worst:.2g}"
        warn(explain(f"correct={name!r}", f"k-hat <= {MAX_KHAT}", found, hint), stacklevel=2)
    return {"khat_max": worst, f"khat_above_{MAX_KHAT}": share}
