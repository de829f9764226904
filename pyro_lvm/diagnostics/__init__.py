"""Is the fit any good: evidence, weights, posterior draws, and the way into ArviZ."""

from pyro_lvm.diagnostics.ais import AIS
from pyro_lvm.diagnostics.bridge import to_inference_data
from pyro_lvm.diagnostics.evidence import LogEvidence, log_evidence
from pyro_lvm.diagnostics.figures import plot_khat
from pyro_lvm.diagnostics.posterior import sample_posterior
from pyro_lvm.diagnostics.ratio_quality import RatioQuality, plot_calibration, ratio_quality
from pyro_lvm.weights import effective_sample_size, pareto_khat, pareto_smooth

__all__ = [
    "AIS",
    "LogEvidence",
    "RatioQuality",
    "effective_sample_size",
    "log_evidence",
    "pareto_khat",
    "pareto_smooth",
    "plot_calibration",
    "plot_khat",
    "ratio_quality",
    "sample_posterior",
    "to_inference_data",
]
