"""Imputation by a guide's own conditionals of the missing entries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from pyro_lvm.chains import conditionals_of, gibbs_chains
from pyro_lvm.diagnostics.chunks import check_count
from pyro_lvm.diagnostics.filled import per_chain
from pyro_lvm.diagnostics.imputations import Imputations

__all__ = ["GibbsSweeps"]


@dataclass(frozen=True)
class GibbsSweeps:
    r"""Gibbs chains of the conditionals :math:`q(x_j \mid x_{-j})` that VGI has trained.

    They need no model; their limit is as good as the conditionals are, and nothing corrects it.
    R-hat says whether chains are long enough, never whether the conditionals are right.

    References:
        Simkus, Rhodes, Gutmann (2023), *Variational Gibbs inference for statistical model
        estimation from incomplete data*, arXiv:2111.13180.

    Args:
        num_chains: for each datum; M is a multiple of it.
        num_warmup: sweeps over all missing entries before the first imputation of a chain.
        thin: sweeps between two imputations of a chain.

    Raises:
        PyroLVMError: a count below 1.

    Example:
        >>> from pyro_lvm.guides import GibbsConditionals, GibbsGuide
        >>> guide = GibbsGuide(GibbsConditionals(2))
        >>> x = torch.tensor([[0.0, float("nan")]])
        >>> GibbsSweeps()(guide, x, num_samples=10).values.shape
        torch.Size([10, 1, 2])
    """

    num_chains: int = 2
    num_warmup: int = 20
    thin: int = 5

    def __post_init__(self) -> None:
        for name in ("num_chains", "num_warmup", "thin"):
            check_count(name, getattr(self, name))

    def __call__(self, guide: Any, x: Any, num_samples: int) -> Imputations:
        """M imputations of the rows ``x`` ``(N, D)``.

        Raises:
            PyroLVMError: M is no multiple of ``num_chains``.
            ProgramError: a guide without conditionals.
            DataError: as :func:`~pyro_lvm.chains.gibbs_chains`.
        """
        length = per_chain(num_samples, self.num_chains)
        rows = conditionals_of(guide).rows(x)
        chains = gibbs_chains(
            guide, rows, self.num_chains, length, burn_in=self.num_warmup, thinning=self.thin
        )
        observed = ~rows.isnan()
        values = torch.where(observed, torch.as_tensor(x).to(rows), chains.flatten(0, 1))
        return Imputations(values, observed, num_chains=self.num_chains)
