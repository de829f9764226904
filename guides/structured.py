"""Guide that follows a given structure of dependence among its sites."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import Any

import pyro
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_lvm.errors import ProgramError, explain
from pyro_lvm.guides.conditionals import Conditionals
from pyro_lvm.guides.encoding import Encoding
from pyro_lvm.nn import MLP, as_batch, check_num_data, check_size, data_plate, joined, named_sizes

__all__ = ["StructuredGuide"]


class StructuredGuide(PyroModule):
    r"""Each site given features of the datum and the sites that it depends on.

    .. math:: q(z \mid x) = \prod_s q(z_s \mid h(x), z_{\mathrm{parents}(s)})

    The parents of every site are yours to say: those that the posterior needs, such as the
    inverse of the model's own structure. Sites are drawn in an order in which parents come
    first. Several arguments, as of models with covariates, are put side by side:
    ``guide(x, u)``.

    A hierarchy has a flow of each layer given the one above, from the top down, by
    ``latent_features=(8, 4, 2), parents={"z1": ("z2",), "z2": ("z3",)}, conditional="nsf"``;
    from the bottom up by ``parents={"z2": ("z1",), "z3": ("z2",)}``.

    References:
        Webb et al. (2018), *Faithful inversion of generative models for effective amortized
        inference*, arXiv:1712.00287.
        Ambrogioni et al. (2021), *Automatic structured variational inference*,
        arXiv:2002.00643.

    Args:
        encoder: from a batch of data to ``(B, encoder_features)``; an MLP if left out.
        in_features: size of a datum, of all arguments together, for the MLP; a given encoder
            takes rows of any shape.
        latent_features: size of the site "z", or sizes by site.
        parents: by site, those it depends on; a site that is left out has none.
        hidden: hidden sizes of the MLP; none at all makes it linear.
        conditional: of each site, a covariance of a Normal, "diagonal", "low_rank" or "full",
            or a family of flows, "iaf", "insf", "maf" or "nsf".
        rank: number of factors of "low_rank".
        context_features: size of h(x).
        conditional_hidden: hidden sizes of each site's network, which reads h(x) and the
            site's parents.
        encoder_features: size of a given encoder's output.
        num_data: N, the model's own ``num_data``.

    Raises:
        ProgramError: a parent that is no site, sites that depend on each other in a circle, an
            unknown conditional, a size below 1.
        DataError: the data have another number of features, or no rows.

    Example:
        >>> import torch
        >>> guide = StructuredGuide(
        ...     in_features=6, latent_features={"z": 3, "a": 2, "b": 1}, parents={"z": ("a", "b")}
        ... )
        >>> {name: draw.shape for name, draw in guide(torch.zeros(5, 6)).items()}
        {'a': torch.Size([5, 2]), 'b': torch.Size([5, 1]), 'z': torch.Size([5, 3])}
    """

    def __init__(
        self,
        encoder: nn.Module | None = None,
        *,
        in_features: int = 64,
        latent_features: int | Sequence[int] | Mapping[str, int] = 16,
        parents: Mapping[str, Sequence[str]] | None = None,
        hidden: Sequence[int] = (200, 200),
        conditional: str = "diagonal",
        rank: int = 4,
        context_features: int = 64,
        conditional_hidden: Sequence[int] = (64,),
        encoder_features: int | None = None,
        num_data: int | None = None,
    ) -> None:
        super().__init__(name=type(self).__name__)
        self.latent_features = named_sizes(latent_features)
        self.parents = _in_order(self.latent_features, parents or {})
        self.num_data = check_num_data(num_data)
        width = check_size("context_features", context_features)
        self.encoding = Encoding(encoder, encoder_features, in_features, hidden, width)
        self.sites = nn.ModuleList()
        for name, above in self.parents.items():
            size = width + sum(self.latent_features[parent] for parent in above)
            network = MLP(size, None, conditional_hidden)
            site = {name: self.latent_features[name]}
            given = Conditionals(network.out_features, site, conditional, rank=rank)
            self.sites.append(nn.Sequential(network, given))

    def forward(self, *data: Any) -> dict[str, Tensor]:
        """One draw of each site, ``(B, size)``, inside plate "data"."""
        like = self.encoding.head.bias
        rows = [as_batch(part, None, like=like) for part in data]
        context = self.encoding(joined(rows) if len(rows) > 1 else rows[0])
        draws: dict[str, Tensor] = {}
        with data_plate(len(context), self.num_data, like=like):
            for (name, above), site in zip(self.parents.items(), self.sites, strict=True):
                given = joined([context, *(draws[parent] for parent in above)])
                draws[name] = pyro.sample(name, site(given)[name])
        return draws


def _in_order(
    sites: Mapping[str, int], parents: Mapping[str, Sequence[str]]
) -> dict[str, tuple[str, ...]]:
    """Parents of every site, in an order in which they come first."""
    named = {*parents, *(parent for above in parents.values() for parent in above)}
    if strange := sorted(named - sites.keys()):
        hint = "Give it a size in latent_features, or take it out of parents."
        raise ProgramError(explain("parents", f"sites of {list(sites)}", repr(strange[0]), hint))
    try:
        order = list(TopologicalSorter({s: parents.get(s, ()) for s in sites}).static_order())
    except CycleError as error:
        circle = " <- ".join(error.args[1])
        hint = "Take one of these parents out."
        raise ProgramError(explain("parents", "no circle", circle, hint)) from error
    return {site: tuple(parents.get(site, ())) for site in order}
