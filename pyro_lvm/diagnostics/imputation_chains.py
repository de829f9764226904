"""Metropolis-within-Gibbs: latents and missing entries in turn, with the guide as proposal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor
from tqdm.auto import tqdm  # type: ignore[import-untyped, unused-ignore]

from pyro_lvm.diagnostics.chunks import Chunks, check_count, is_factor
from pyro_lvm.diagnostics.discrete import with_discrete_draws
from pyro_lvm.diagnostics.drawn_entries import reads_the_mask
from pyro_lvm.errors import DensityError, ProgramError, PyroLVMError, explain
from pyro_lvm.layout import Layout, chosen_rows
from pyro_lvm.masking import fill_masked
from pyro_lvm.particles import Particles
from pyro_lvm.tracing import Site

__all__ = ["Filled", "MetropolisWithinGibbs", "data_site", "observed_entries", "per_chain"]


class Filled(NamedTuple):
    """What a method of imputation makes.

    Attributes:
        values: ``(M, *data)``, all entries.
        log_weights: ``(K, *batch)`` of the particles that they were chosen from.
        acceptance: ``(*batch,)``.
        num_chains: of one length each.
    """

    values: Tensor
    log_weights: Tensor | None = None
    acceptance: Tensor | None = None
    num_chains: int = 1


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
    data = _Data.of(chunks, site)
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


@dataclass(frozen=True)
class _Data:
    """The data to complete, and which arguments of the programs they are."""

    chunks: Chunks
    site: Site
    observed: Tensor
    places: tuple[int, ...]
    names: tuple[str, ...]

    @classmethod
    def of(cls, chunks: Chunks, name: str) -> _Data:
        probe = with_discrete_draws(chunks, chunks.probe)
        site = data_site(probe, name)
        if reads_the_mask(probe, site):
            raise _of_its_mask(name)
        observed = chunks.in_own_plates(site, observed_entries(site), 2).values[0]
        places = tuple(i for i, arg in enumerate(chunks.args) if _same(arg, site.value))
        names = tuple(n for n, arg in chunks.kwargs.items() if _same(arg, site.value))
        if not (places or names) or not torch.equal(observed, ~site.value.isnan()):
            raise _not_by_nan(name)
        return cls(chunks, site, observed, places, names)

    def arguments(self, x: Tensor) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Of both programs, with ``x`` for the data."""
        args = tuple(x if i in self.places else a for i, a in enumerate(self.chunks.args))
        return args, {n: x if n in self.names else a for n, a in self.chunks.kwargs.items()}

    def check_all_scored(self, particles: Particles) -> None:
        """Raise where the model leaves entries out although they are no longer NaN."""
        if not observed_entries(particles.model[self.site.name]).all():
            raise _not_by_nan(self.site.name)

    def completed(self, latents: Mapping[str, Tensor]) -> Tensor:
        """The data with their missing entries drawn given the latents ``(1, *plates, ...)``."""
        drawn = self.chunks.simulate(1, latents)[self.site.name]
        values = self.chunks.in_own_plates(drawn, drawn.value, 1).values[0]
        return torch.where(self.observed, self.site.value, values.to(self.site.value))


def per_chain(num_samples: int, num_chains: int) -> int:
    """Draws of each chain, for ``num_samples`` in all.

    Raises:
        PyroLVMError: they cannot be of one length.
    """
    length, rest = divmod(num_samples, num_chains)
    if rest:
        hint = "Pass another number, or for method= an object with num_chains=1."
        expected = f"a multiple of num_chains={num_chains}"
        raise PyroLVMError(explain("num_samples", expected, str(num_samples), hint))
    return length


def data_site(particles: Particles, name: str) -> Site:
    """The observed site of that name.

    Raises:
        ProgramError: there is none.
    """
    data = [n for n, s in particles.model.items() if s.is_observed and not is_factor(s.fn)]
    if name not in data:
        hint = "Name the observed site to be filled in by site=."
        expected = f"an observed site, one of {data}"
        raise ProgramError(explain("site", expected, repr(name), hint))
    return particles.model[name]


def observed_entries(site: Site) -> Tensor:
    """Where the site is not masked: what remains NaN when masked entries are filled."""
    return fill_masked(site.fn, torch.full_like(site.value, torch.nan), site.mask).isnan()


def _same(argument: Any, value: Tensor) -> bool:
    if not isinstance(argument, Tensor) or argument.shape != value.shape:
        return False
    return torch.equal(argument.isnan(), value.isnan()) and torch.equal(
        argument.nan_to_num().to(value), value.nan_to_num()
    )


def _check_densities(chunks: Chunks) -> None:
    if chunks.mixes or chunks.uses_ratio:
        hint = "Use method='sir'."
        found = "one that is estimated"
        raise DensityError(explain("guide", "a density to accept moves by", found, hint))


def _of_its_mask(name: str) -> ProgramError:
    expected = "a model that is the same for completed data"
    found = "one that reads which entries are missing"
    hint = "Use method='sir'."
    return ProgramError(explain(f"site '{name}' under method='mh'", expected, found, hint))


def _not_by_nan(name: str) -> ProgramError:
    return ProgramError(
        explain(
            f"site '{name}' under method='mh'",
            "an argument of the model, NaN where and only where entries are missing",
            "data that are masked in another way",
            "Pass NaN to Incomplete(model), or use method='sir'.",
        )
    )
