"""Metropolis-within-Gibbs: latents and missing entries in turn, with the guide as proposal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor
from tqdm.auto import tqdm  # type: ignore[import-untyped, unused-ignore]

from pyro_lvm.diagnostics.chunks import Chunks, check_count
from pyro_lvm.diagnostics.completed_data import CompletedData
from pyro_lvm.diagnostics.discrete import with_discrete_draws
from pyro_lvm.diagnostics.filled import Filled, per_chain
from pyro_lvm.errors import DensityError, explain
from pyro_lvm.layout import Layout, chosen_rows

__all__ = ["MetropolisWithinGibbs"]


@dataclass(frozen=True)
class MetropolisWithinGibbs:
    r"""Chains of latents and missing entries whose limit is exact, whatever the guide.

    .. math:: z' \sim q(z \mid x), \quad
        \text{accepted with probability } \min\Bigl(1,
        \frac{p(x, z') / q(z' \mid x)}{p(x, z) / q(z \mid x)}\Bigr), \quad
        x_{\mathrm{mis}} \sim p(x_{\mathrm{mis}} \mid z)

    where x is the data as completed so far. Without the accept step this is the pseudo-Gibbs
    sampler of Rezende et al. (2014), which is wrong by as much as the guide is. A chain starts
    at a draw of the guide given the observed entries. All data move at once.

    References:
        Mattei, Frellsen (2018), *Leveraging the exact likelihood of deep latent variable
        models*, arXiv:1802.04826, section 3.3.
        Rezende, Mohamed, Wierstra (2014), arXiv:1401.4082, appendix F.

    Args:
        num_chains: for each datum; M is a multiple of it.
        num_warmup: moves of each chain before the first imputation.
        thin: moves between two imputations of a chain.

    Raises:
        PyroLVMError: a count below 1.

    Example:
        Two equal numbers with noise of scale 1/2, the second unknown; the guide is wrong.

        >>> import pyro, pyro.distributions as dist
        >>> from pyro_lvm import impute
        >>> from pyro_lvm.missing import Incomplete
        >>> def model(x):
        ...     with pyro.plate("data", len(x)):
        ...         z = pyro.sample("z", dist.Normal(0.0, 1.0))
        ...         row = dist.Normal(z.unsqueeze(-1), torch.full((2,), 0.5)).to_event(1)
        ...         pyro.sample("x", row, obs=x)
        >>> def guide(x):
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("z", dist.Normal(x.nanmean(1), 0.7))
        >>> x = torch.tensor([[2.0, float("nan")]]).expand(1000, 2)
        >>> method = MetropolisWithinGibbs(num_chains=1, num_warmup=20, thin=1)
        >>> imputed = impute(Incomplete(model), guide, x, num_samples=1, method=method)
        >>> imputed.values[0, :, 1].mean()  # exactly 1.6
        tensor(1.5940)
    """

    num_chains: int = 2
    num_warmup: int = 100
    thin: int = 10

    def __post_init__(self) -> None:
        for name in ("num_chains", "num_warmup", "thin"):
            check_count(name, getattr(self, name))

    def __call__(self, chunks: Chunks, site: str, num_samples: int) -> Filled:
        """M imputations of an observed site."""
        length = per_chain(num_samples, self.num_chains)
        _check_densities(chunks)
        moves = self.num_warmup + self.thin * length
        values, accepted = [], []
        with tqdm(total=self.num_chains * moves, disable=None, unit="move") as bar:
            for _ in range(self.num_chains):
                for number, (x, taken) in enumerate(_moves(chunks, site, moves), 1):
                    bar.update()
                    accepted.append(taken)
                    if number > self.num_warmup and (number - self.num_warmup) % self.thin == 0:
                        values.append(x)
        acceptance = torch.stack(accepted).float().mean(0)
        return Filled(torch.stack(values), None, acceptance, self.num_chains)


class _Current(Messenger):
    """Puts the chain's latents in the place of the first of the particles that are drawn."""

    def __init__(self, values: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.values = values

    def _pyro_post_sample(self, msg: dict[str, Any]) -> None:
        if msg["name"] in self.values:
            msg["value"] = torch.cat([self.values[msg["name"]], msg["value"][1:]])


@torch.no_grad()
def _moves(chunks: Chunks, site: str, number: int) -> Iterator[tuple[Tensor, Tensor]]:
    """After each move of a chain: completed data, and ``(*batch,)`` whether z moved."""
    data = CompletedData.of(chunks, site)
    (start,) = chunks.on(chunks.args, chunks.kwargs, 1)
    values, x = start.values, data.completed(with_discrete_draws(chunks, start).values)
    for _ in range(number):
        beside = chunks.on(*data.arguments(x), 2)
        with _Current(values):
            (pair,) = beside
        data.check_all_scored(pair)
        current, proposed = pair.log_weights
        accepted = torch.rand_like(current).log() < proposed - current
        chosen = cast(Layout, pair.layout).unfold(accepted.long().unsqueeze(0))
        drawn = with_discrete_draws(beside, pair).values
        taken = {name: chosen_rows(value, chosen) for name, value in drawn.items()}
        values, x = {name: taken[name] for name in values}, data.completed(taken)
        yield x, accepted


def _check_densities(chunks: Chunks) -> None:
    if chunks.mixes or chunks.uses_ratio:
        hint = "Use method='sir'."
        found = "one that is estimated"
        raise DensityError(explain("guide", "a density to accept moves by", found, hint))
