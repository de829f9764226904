"""Is the fit any good: evidence, weights, posterior draws, and the way into ArviZ."""

from pyro_lvm.diagnostics.ais import AIS
from pyro_lvm.diagnostics.amortization import AmortizationGap, amortization_gap
from pyro_lvm.diagnostics.amortization_figure import plot_amortization_gap
from pyro_lvm.diagnostics.bidirectional import EvidenceSandwich, bidirectional
from pyro_lvm.diagnostics.bidirectional_figure import plot_evidence_sandwich
from pyro_lvm.diagnostics.bridge import to_inference_data
from pyro_lvm.diagnostics.class_calibration import ClassCalibration, class_calibration
from pyro_lvm.diagnostics.class_calibration_figure import plot_class_calibration
from pyro_lvm.diagnostics.collapse import CollapseReport, active_units, collapse_report
from pyro_lvm.diagnostics.collapse_figure import plot_collapse
from pyro_lvm.diagnostics.coverage import Coverage, coverage
from pyro_lvm.diagnostics.coverage_figure import plot_coverage
from pyro_lvm.diagnostics.evidence import LogEvidence, log_evidence
from pyro_lvm.diagnostics.figures import plot_khat
from pyro_lvm.diagnostics.imputation import impute
from pyro_lvm.diagnostics.imputation_chains import MetropolisWithinGibbs
from pyro_lvm.diagnostics.imputation_figures import plot_imputed_columns, plot_intervals
from pyro_lvm.diagnostics.imputation_sweeps import GibbsSweeps
from pyro_lvm.diagnostics.imputations import Imputations
from pyro_lvm.diagnostics.loo_pit import LooPit, loo_pit
from pyro_lvm.diagnostics.mean_correlation import mean_correlation
from pyro_lvm.diagnostics.nuts_comparison import compare_with_nuts
from pyro_lvm.diagnostics.nuts_differences import NutsComparison
from pyro_lvm.diagnostics.nuts_figure import plot_nuts_comparison
from pyro_lvm.diagnostics.pooling import Pooled, pool
from pyro_lvm.diagnostics.posterior import sample_posterior
from pyro_lvm.diagnostics.predictive_bands import (
    PredictiveBands,
    plot_predictive_bands,
    predictive_bands,
)
from pyro_lvm.diagnostics.predictive_checks import PredictiveCheck, predictive_check
from pyro_lvm.diagnostics.predictive_figures import plot_loo_pit, plot_predictive_check
from pyro_lvm.diagnostics.pruning import PruningReport, pruning_report
from pyro_lvm.diagnostics.pruning_figure import plot_pruning
from pyro_lvm.diagnostics.ratio_quality import (
    RatioQuality,
    plot_calibration,
    quality_of_logits,
    ratio_quality,
)
from pyro_lvm.diagnostics.report import Report, report
from pyro_lvm.diagnostics.report_case import Case, DoesNotApply, Finding
from pyro_lvm.diagnostics.report_checks import CHECKS, DEFAULT_CHECKS
from pyro_lvm.diagnostics.sandwich import plot_sandwich
from pyro_lvm.diagnostics.sbc import SBC, sbc
from pyro_lvm.diagnostics.sbc_figure import plot_sbc
from pyro_lvm.diagnostics.simulations import Simulations
from pyro_lvm.diagnostics.simulations_run import simulation_based_calibration
from pyro_lvm.diagnostics.smc import SMC
from pyro_lvm.diagnostics.spike_calibration import (
    CountCoverage,
    Reliability,
    brier_score,
    count_coverage,
    reliability,
    spike_log_score,
)
from pyro_lvm.diagnostics.spike_detection import spike_auc, spike_average_precision, spike_f1
from pyro_lvm.diagnostics.spike_figures import plot_spikes
from pyro_lvm.diagnostics.spike_results import spike_inference_data
from pyro_lvm.diagnostics.spikes import (
    Spread,
    count_bias,
    count_ratio,
    spike_correlation,
    spread,
)
from pyro_lvm.diagnostics.tarp import TARP, tarp
from pyro_lvm.diagnostics.tarp_figure import plot_tarp
from pyro_lvm.diagnostics.verdict import Status, Verdict
from pyro_lvm.weights import effective_sample_size, pareto_khat, pareto_smooth

__all__ = [
    "AIS",
    "CHECKS",
    "DEFAULT_CHECKS",
    "SBC",
    "SMC",
    "TARP",
    "AmortizationGap",
    "Case",
    "ClassCalibration",
    "CollapseReport",
    "CountCoverage",
    "Coverage",
    "DoesNotApply",
    "EvidenceSandwich",
    "Finding",
    "GibbsSweeps",
    "Imputations",
    "LogEvidence",
    "LooPit",
    "MetropolisWithinGibbs",
    "NutsComparison",
    "Pooled",
    "PredictiveBands",
    "PredictiveCheck",
    "PruningReport",
    "RatioQuality",
    "Reliability",
    "Report",
    "Simulations",
    "Spread",
    "Status",
    "Verdict",
    "active_units",
    "amortization_gap",
    "bidirectional",
    "brier_score",
    "class_calibration",
    "collapse_report",
    "compare_with_nuts",
    "count_bias",
    "count_coverage",
    "count_ratio",
    "coverage",
    "effective_sample_size",
    "impute",
    "log_evidence",
    "loo_pit",
    "mean_correlation",
    "pareto_khat",
    "pareto_smooth",
    "plot_amortization_gap",
    "plot_calibration",
    "plot_class_calibration",
    "plot_collapse",
    "plot_coverage",
    "plot_evidence_sandwich",
    "plot_imputed_columns",
    "plot_intervals",
    "plot_khat",
    "plot_loo_pit",
    "plot_nuts_comparison",
    "plot_predictive_bands",
    "plot_predictive_check",
    "plot_pruning",
    "plot_sandwich",
    "plot_sbc",
    "plot_spikes",
    "plot_tarp",
    "pool",
    "predictive_bands",
    "predictive_check",
    "pruning_report",
    "quality_of_logits",
    "ratio_quality",
    "reliability",
    "report",
    "sample_posterior",
    "sbc",
    "simulation_based_calibration",
    "spike_auc",
    "spike_average_precision",
    "spike_correlation",
    "spike_f1",
    "spike_inference_data",
    "spike_log_score",
    "spread",
    "tarp",
    "to_inference_data",
]
