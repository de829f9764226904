"""The check of the bound against the evidence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pyro_lvm.diagnostics.evidence import LogEvidence
from pyro_lvm.diagnostics.report_case import Case, Finding
from pyro_lvm.diagnostics.thresholds import MAX_TOTAL_VARIATION, total_variation
from pyro_lvm.diagnostics.verdict import Status, Verdict

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame  # type: ignore[import-untyped]

__all__ = ["EvidenceGap", "gap", "plot_gap"]

_ADVICE = (
    "Try a richer guide (AmortizedFlow, AuxiliaryNormal, covariance='full'), more training, "
    "or IWAE(50, gradient='dreg'); amortization_gap tells the family from the encoder."
)
_TOO_GOOD = (
    "An estimate that is no bound flatters these programs: report log_evidence(method='ais'), "
    "and look at ratio_quality."
)


@dataclass(frozen=True)
class EvidenceGap:
    """By how much a guide's ELBO is below log p(x): KL(q || posterior).

    Attributes:
        elbo: ``(*batch,)`` nats per datum.
        elbo_error: ``(*batch,)``, its Monte Carlo standard error.
        evidence: log p(x) of the same data.
    """

    elbo: Tensor
    elbo_error: Tensor
    evidence: LogEvidence

    @property
    def value(self) -> Tensor:
        """``(*batch,)`` nats."""
        return self.evidence.value - self.elbo

    @property
    def mean_error(self) -> float:
        """Monte Carlo standard error of the mean over data, nats."""
        variance = self.elbo_error.square() + self.evidence.standard_error.square()
        return (variance.sum().sqrt() / variance.numel()).item()

    @property
    def _rounding(self) -> float:
        """What two sums of so many nats may differ by, nats."""
        return 100 * torch.finfo(self.elbo.dtype).eps * abs(self.evidence.mean().item())

    def summary(self) -> dict[str, float]:
        """Numbers for the record, by name."""
        return {
            "elbo": self.elbo.mean().item(),
            "log_evidence": self.evidence.mean().item(),
            "gap": self.value.mean().item(),
            "gap_error": self.mean_error,
            "gap_max": self.value.max().item(),
        }

    def verdict(self) -> Verdict:
        """Whether the gap is small, and is one."""
        size, error = self.value.mean().item(), self.mean_error
        finding = (
            f"the ELBO is {size:z.3f} ± {error:.3f} nats per datum below log p(x) "
            f"({self.evidence.mean():.2f})"
        )
        if size < -3 * error - self._rounding:
            finding = f"the objective's ELBO is {-size:.2g} nats per datum above log p(x)"
            return Verdict("gap", Status.FAIL, f"{finding}.", _TOO_GOOD)
        off = total_variation(size)
        finding = (
            f"{finding}: as far as its draws show, probabilities are off by {off:.2g} at most."
        )
        if off <= MAX_TOTAL_VARIATION:
            return Verdict("gap", Status.PASS, finding)
        return Verdict("gap", Status.WARN, finding, _ADVICE)


def gap(case: Case) -> Finding:
    """How far is the ELBO from log p(x)?

    The ELBO of a guide is below log p(x) by KL(q || posterior), in nats per datum. Pinsker's
    inequality turns that into the most that any probability under the guide can be off by, for
    an average datum and all its latents together; single latents are usually better. log p(x) is
    itself estimated from below: where the weights fail, the gap is larger than what is said here.

    References:
        Cremer, Li, Duvenaud (2018), Inference suboptimality in variational autoencoders,
        arXiv:1801.03558.
        Tsybakov (2009), Introduction to nonparametric estimation, lemma 2.5.
    """
    found = _gap(case)
    figures = {"KL(q || posterior) of each datum": plot_gap(found)} if found.value.dim() else {}
    return Finding(found.verdict(), found.summary(), figures, _table(case, found))


def _gap(case: Case) -> EvidenceGap:
    found, evidence = case.weighted, case.evidence
    if found.is_bound or case.bound is None:
        return EvidenceGap(found.mean_log_weight, found.mean_log_weight_error, evidence)
    return EvidenceGap(case.bound, 0 * case.bound, evidence)


def plot_gap(found: EvidenceGap) -> Figure:
    """Histogram of the gap over data, with its mean.

    Returns:
        The figure, not shown and not known to ``pyplot``.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.0, 4.0), layout="constrained")
    axes = figure.add_subplot()
    values = found.value.detach().flatten().cpu()
    axes.hist(values[values.isfinite()].numpy(), bins=30, color="tab:blue", alpha=0.8)
    mean = values.mean().item()
    axes.axvline(mean, color="tab:red", linestyle="--", label=f"mean {mean:.2g}")
    axes.set(xlabel="log p(x) less the ELBO, nats", ylabel="number of data")
    axes.legend()
    return figure


def _table(case: Case, found: EvidenceGap) -> DataFrame:
    import pandas as pd

    rows = {"ELBO": found.elbo, "log p(x)": found.evidence.value}
    if case.bound is not None:
        rows = {f"bound of {case.objective!r}": case.bound} | rows
    return pd.DataFrame(
        {
            "quantity": list(rows),
            "nats per datum": [values.mean().item() for values in rows.values()],
            "standard error over data": [_error(values) for values in rows.values()],
        }
    )


def _error(values: Tensor) -> float:
    return (values.std() / values.numel() ** 0.5).item() if values.numel() > 1 else float("nan")
