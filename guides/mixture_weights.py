"""Mixture guide of what all data share: a posterior of several modes."""

from __future__ import annotations

from collections.abc import Mapping
from math import expm1, log
from typing import Any

import pyro
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn
from torch.quasirandom import SobolEngine

from pyro_lvm.distributions import EqualMixture
from pyro_lvm.guides.noise import Moments
from pyro_lvm.guides.normal_weights import check_start
from pyro_lvm.nn import check_positive, check_size, positive_scale

__all__ = ["MixtureWeights"]

_BETWEEN = 0.8  # of the first scale, that of the components' places; the rest is their width
_TAIL = 1e-6


class MixtureWeights(PyroModule):
    r"""A mixture of Normals with fixed, equal shares for each latent site outside all plates.

    For few dims and several modes: as a proposal of :class:`~pyro_lvm.objectives.MHAcceptance`
    and of corrected chains it can hold modes that a flow loses. The components begin at
    quasi-random places, in all as wide as ``start_scale``, which should cover the posterior: a
    mode that no component begins near may stay unseen. Sites are independent of each other; put
    what depends on each other into one site. Whatever arguments the model takes are let pass.

    Args:
        start: the middle to start around, by site, ``(size,)``.
        num_components: M, of each site's mixture.
        start_scale: standard deviation of each site's mixture at first.

    Raises:
        ProgramError: no site, a start that is no vector, a number out of range.
        ValueError: more than the 21201 dims of torch's quasi-random numbers.

    Example:
        >>> import pyro.distributions as dist
        >>> from pyro_lvm.objectives import ELBO
        >>> _ = torch.manual_seed(0)
        >>> def model():
        ...     side = dist.Categorical(torch.ones(2))
        ...     pyro.sample("z", dist.MixtureSameFamily(side, dist.Normal(
        ...         torch.tensor([[-5.0], [5.0]]), 0.5).to_event(1)))
        >>> guide = MixtureWeights({"z": torch.zeros(1)}, start_scale=4.0)
        >>> loss = ELBO(256)(model, guide)
        >>> optimizer = torch.optim.Adam(guide.parameters(), 0.03)
        >>> for _ in range(300):
        ...     optimizer.zero_grad()
        ...     loss().backward()
        ...     optimizer.step()
        >>> with pyro.plate("draws", 1000):
        ...     share = (guide()["z"] > 0).float().mean()
        >>> bool(0.4 < share < 0.6)
        True
    """

    def __init__(
        self, start: Mapping[str, Tensor], *, num_components: int = 32, start_scale: float = 1.0
    ) -> None:
        super().__init__(name=type(self).__name__)
        check_start(start)
        check_size("num_components", num_components)
        check_positive("start_scale", start_scale, "4.0")
        places = {n: loc + start_scale * _places(loc, num_components) for n, loc in start.items()}
        width = log(expm1(start_scale * (1.0 - _BETWEEN**2) ** 0.5))
        self.loc = nn.ParameterDict(places)
        self.raw_scale = nn.ParameterDict({n: torch.full_like(z, width) for n, z in places.items()})

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """One draw of each site, ``(size,)``."""
        return {name: pyro.sample(name, fn) for name, fn in self.distributions().items()}

    def distributions(self) -> dict[str, EqualMixture]:
        """Of each site: event ``(size,)``."""
        return {
            name: EqualMixture(loc, positive_scale(self.raw_scale[name]))
            for name, loc in self.loc.items()
        }

    def moments(self) -> dict[str, Moments]:
        """Mean and standard deviation of each weight by site, ``(size,)`` each."""
        mixtures = self.distributions().items()
        return {name: Moments(fn.mean, fn.variance.sqrt()) for name, fn in mixtures}


def _places(loc: Tensor, count: int) -> Tensor:  # (count, size)
    """Evenly spread draws of a Normal of the scale between components."""
    with torch.device("cpu"):  # the one that SobolEngine knows
        uniform = SobolEngine(len(loc), scramble=True).draw(count, dtype=loc.dtype)
    places: Tensor = torch.special.ndtri(uniform.clamp(_TAIL, 1.0 - _TAIL))
    return _BETWEEN * places.to(loc)
