"""How good trained programs are on test data, datum by datum and in summary."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import nan
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from pyro_lvm.cli.configs import EvaluationConfig
from pyro_lvm.diagnostics import AIS, CollapseReport, LogEvidence, collapse_report, log_evidence
from pyro_lvm.objective import Objective

__all__ = ["Evaluation", "Summary", "evaluate", "summarize"]

Program = Callable[..., Any]


@dataclass(frozen=True)
class Evaluation:
    """One trained model and guide on N test data.

    Attributes:
        bound: ``(N,)`` nats, the training objective's own bound.
        log_evidence: ``(N,)`` nats, by importance sampling, or by annealing where the guide
            has no density.
        khat: ``(N,)`` Pareto shape of the weights.
        effective_share: ``(N,)`` effective sample size over number of draws.
        collapse: KL and active units of each latent site.
        seconds_per_step: of training, the median.
        evidence_error: Monte Carlo standard error of a datum's log_evidence, the mean.
        bound_is_estimate: whether the bound is none: it may be too high, too.
        weights_are_estimates: whether a discriminator stands for a density in the weights.
    """

    bound: Tensor
    log_evidence: Tensor
    khat: Tensor
    effective_share: Tensor
    collapse: CollapseReport
    seconds_per_step: float = nan
    evidence_error: float = nan
    bound_is_estimate: bool = False
    weights_are_estimates: bool = False


def evaluate(
    objective: Objective,
    model: Program,
    guide: Program,
    *args: Any,
    config: EvaluationConfig,
    seconds_per_step: float = nan,
) -> Evaluation:
    """Bound, evidence, k-hat and effective sample size of each datum, and collapse, no gradient.

    Args:
        objective: whose bound to report; its discriminator stands for a missing density in the
            weights, never in the evidence.
        model: called as ``model(*args)``.
        guide: called as ``guide(*args)``.
        config: numbers of draws.
        seconds_per_step: to carry along.
    """
    weighted = log_evidence(
        model, guide, *args, num_samples=config.num_samples, objective=objective
    )
    evidence = weighted if weighted.is_bound else _annealed(model, guide, args, config)
    return Evaluation(
        bound=objective.bound(model, guide, *args),
        log_evidence=evidence.value,
        khat=weighted.khat,
        effective_share=weighted.effective_sample_size / config.num_samples,
        collapse=collapse_report(model, guide, *args),
        seconds_per_step=seconds_per_step,
        evidence_error=evidence.standard_error.mean().item(),
        bound_is_estimate=not objective.is_bound,
        weights_are_estimates=not weighted.is_bound,
    )


def _annealed(
    model: Program, guide: Program, args: Sequence[Any], config: EvaluationConfig
) -> LogEvidence:
    how = AIS(config.ais_temperatures, initial="guide")
    return log_evidence(model, guide, *args, num_samples=config.ais_chains, method=how)


@dataclass(frozen=True)
class Summary:
    """One row of the comparison: an objective over its seeds.

    Attributes:
        objective: label.
        bound: mean test bound, nats per datum.
        log_evidence: mean test log evidence, nats per datum.
        data_error: its standard error over test data.
        seed_error: its standard error over seeds; NaN for one seed.
        gain: log evidence less that of the first row, nats per datum.
        gain_error: its standard error, of the differences datum by datum and seed by seed.
        khat_share: share of data with k-hat above 0.7.
        effective_share: mean effective sample size over number of draws.
        seconds_per_step: of training.
        evidence_error: mean Monte Carlo standard error of a datum's log evidence.
        bound_is_estimate: whether the bound is none.
        weights_are_estimates: whether k-hat and effective sample size are by a discriminator.
        kl: of each latent site, mean over seeds, nats per datum.
        active_units: of each latent site, mean over seeds.
        num_units: of all these sites, active or not.
    """

    objective: str
    bound: float
    log_evidence: float
    data_error: float
    seed_error: float
    gain: float
    gain_error: float
    khat_share: float
    effective_share: float
    seconds_per_step: float
    evidence_error: float = nan
    bound_is_estimate: bool = False
    weights_are_estimates: bool = False
    kl: Mapping[str, float] = field(default_factory=dict)
    active_units: Mapping[str, float] = field(default_factory=dict)
    num_units: int = 0


def summarize(label: str, runs: Sequence[Evaluation], reference: Sequence[Evaluation]) -> Summary:
    """Means and standard errors over the seeds and test data of one objective.

    Args:
        label: name of the row.
        runs: one evaluation a seed.
        reference: the first row's, same seeds and data.
    """
    evidence = _stack(runs)
    gain = evidence - _stack(reference)
    collapse = [run.collapse for run in runs]
    units = collapse[0].counts
    return Summary(
        objective=label,
        bound=_mean([run.bound for run in runs]),
        log_evidence=evidence.mean().item(),
        data_error=_standard_error(evidence.mean(0)),
        seed_error=_standard_error(evidence.mean(1)),
        gain=gain.mean().item(),
        gain_error=_combined_error(gain),
        khat_share=_mean([(run.khat > 0.7).double() for run in runs]),
        effective_share=_mean([run.effective_share for run in runs]),
        seconds_per_step=min(run.seconds_per_step for run in runs),
        evidence_error=fmean(run.evidence_error for run in runs),
        bound_is_estimate=runs[0].bound_is_estimate,
        weights_are_estimates=runs[0].weights_are_estimates,
        kl={site: fmean(report.kl[site].item() for report in collapse) for site in collapse[0].kl},
        active_units={site: fmean(report.counts[site][0] for report in collapse) for site in units},
        num_units=sum(count for _, count in units.values()),
    )


def _stack(runs: Sequence[Evaluation]) -> Tensor:
    return torch.stack([run.log_evidence for run in runs]).double().cpu()  # (seeds, N)


def _mean(values: Sequence[Tensor]) -> float:
    return torch.stack(list(values)).double().mean().item()


def _standard_error(values: Tensor) -> float:
    return nan if len(values) < 2 else (values.std() / len(values) ** 0.5).item()


def _combined_error(values: Tensor) -> float:
    """Of the mean over seeds and data; data alone where there is one seed."""
    seeds = _standard_error(values.mean(1))
    data = _standard_error(values.mean(0))
    return data if seeds != seeds else (data**2 + seeds**2) ** 0.5
