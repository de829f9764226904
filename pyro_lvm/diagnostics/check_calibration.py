"""The checks of calibration, on data simulated from the model."""

from __future__ import annotations

from pyro_lvm.diagnostics.coverage import coverage as coverage_of
from pyro_lvm.diagnostics.coverage_figure import plot_coverage
from pyro_lvm.diagnostics.report_case import Case, Finding
from pyro_lvm.diagnostics.sbc import sbc as sbc_of
from pyro_lvm.diagnostics.sbc_figure import plot_sbc
from pyro_lvm.diagnostics.tarp import tarp as tarp_of
from pyro_lvm.diagnostics.tarp_figure import plot_tarp

__all__ = ["coverage", "sbc", "tarp"]


def sbc(case: Case) -> Finding:
    """Do latents that made simulated data rank anywhere among the guide's draws?

    Latents and data are drawn from the model, and the guide's draws are made from the data. If
    the guide is the posterior, the rank of the truth among its draws is uniform, for every
    latent and every function of latents and data. Draws that are too narrow leave the truth at
    the ends, too wide ones in the middle. The bands hold 95 % of all curves at once. Whether the
    model is right, no simulation tells.

    References:
        Talts, Betancourt, Simpson, Vehtari, Gelman (2018), Validating Bayesian inference
        algorithms with simulation-based calibration, arXiv:1804.06788.
        Säilynoja, Bürkner, Vehtari (2022), Graphical test for discrete uniformity,
        arXiv:2103.10522.
        Modrák et al. (2023), Simulation-based calibration checking for Bayesian computation,
        arXiv:2211.02383.
    """
    found = sbc_of(case.simulations)
    return Finding(found.verdict(), found.summary(), {"ranks, and their ECDF": plot_sbc(found)})


def coverage(case: Case) -> Finding:
    """Do credible intervals hold the truth as often as they say?

    The share of simulations in which the central interval of each latent, and the region of
    highest density of all of them, holds the truth, at every level. Below the diagonal the guide
    is too sure.

    References:
        Hermans, Delaunoy, Rozet, Wehenkel, Begy, Louppe (2022), A crisis in simulation-based
        inference?, arXiv:2110.06581.
    """
    found = coverage_of(case.simulations)
    return Finding(found.verdict(), found.summary(), {"coverage by level": plot_coverage(found)})


def tarp(case: Case) -> Finding:
    """Are the draws of all latents together calibrated?

    The share of simulations in which a ball around a random point holds the truth, by the share
    of the guide's draws in it. It sees wrong dependence among latents, and needs no density.

    References:
        Lemos, Coogan, Hezaveh, Perreault-Levasseur (2023), Sampling-based accuracy testing of
        posterior estimators for general inference, arXiv:2302.03026.
    """
    found = tarp_of(case.simulations)
    return Finding(found.verdict(), found.summary(), {"coverage of balls": plot_tarp(found)})
