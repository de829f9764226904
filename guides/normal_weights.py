"""Normal guide of what all data share: weights of a network, parameters of a regression."""

from __future__ import annotations

from collections.abc import Mapping
from math import expm1, log
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_lvm.errors import ProgramError, explain
from pyro_lvm.guides.covariance import COVARIANCES
from pyro_lvm.guides.noise import Moments
from pyro_lvm.nn import check_choice, check_positive, check_size

__all__ = ["NormalWeights", "check_start"]


class NormalWeights(PyroModule):
    r"""A Normal of each latent site outside all plates, independent of the others.

    Whatever arguments the model takes are let pass.

    References:
        Blundell, Cornebise, Kavukcuoglu, Wierstra (2015), *Weight uncertainty in neural
        networks*, arXiv:1505.05424, for "diagonal".
        Ong, Nott, Smith (2018), *Gaussian variational approximation with a factor covariance
        structure*, arXiv:1701.03208, for "low_rank".

    Args:
        start: means to start at, by site, ``(size,)``; a network's
            :meth:`~pyro_lvm.models.BayesianMLP.starts`.
        covariance: of each site: "diagonal", "low_rank" or "full".
        rank: number of factors of "low_rank".
        start_scale: of all weights; so small that the first draws are like the means.

    Raises:
        ProgramError: no site, a start that is no vector, an unknown covariance.

    Example:
        >>> guide = NormalWeights({"w1": torch.zeros(6), "w2": torch.zeros(3)})
        >>> with pyro.plate("draws", 5):
        ...     guide(torch.zeros(10, 1))["w1"].shape
        torch.Size([5, 6])
        >>> guide.moments()["w2"].scale
        tensor([0.0200, 0.0200, 0.0200], grad_fn=<SqrtBackward0>)
    """

    def __init__(
        self,
        start: Mapping[str, Tensor],
        *,
        covariance: str = "diagonal",
        rank: int = 4,
        start_scale: float = 0.02,
    ) -> None:
        super().__init__(name=type(self).__name__)
        check_start(start)
        check_choice("covariance", covariance, COVARIANCES)
        self.rank = check_size("rank", rank)
        self.covariance = COVARIANCES[covariance]
        self.latent_features = {name: len(loc) for name, loc in start.items()}
        scale = check_positive("start_scale", start_scale, "0.02")
        self.raw = nn.ParameterDict({name: self._raw(loc, scale) for name, loc in start.items()})

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """One draw of each site, ``(size,)``."""
        return {name: pyro.sample(name, fn) for name, fn in self.distributions().items()}

    def distributions(self) -> dict[str, dist.TorchDistribution]:
        """Of each site: event ``(size,)``."""
        return {
            name: self.covariance.normal(self.raw[name], size, self.rank)
            for name, size in self.latent_features.items()
        }

    def moments(self) -> dict[str, Moments]:
        """Mean and standard deviation of each weight by site, ``(size,)`` each."""
        normals = self.distributions().items()
        return {name: Moments(normal.mean, normal.variance.sqrt()) for name, normal in normals}

    def _raw(self, loc: Tensor, scale: float) -> nn.Parameter:
        """Means, scales, and noise for the rest: at 0 exactly, factors would have no slope."""
        size = len(loc)
        others = self.covariance.num_outputs(size, self.rank) - 2 * size
        scales = loc.new_full((size,), log(expm1(scale)))
        rest = scale * torch.randn(others).to(loc)
        return nn.Parameter(torch.cat([loc.detach(), scales, rest]))


def check_start(start: Mapping[str, Tensor]) -> None:
    """Refuse what is no vector for each of some sites."""
    if isinstance(start, Mapping):
        shapes = {name: _shape(loc) for name, loc in start.items()}
        found = f"shapes {shapes}"
    else:
        shapes, found = {}, f"a {type(start).__name__}"
    if not shapes or any(not isinstance(s, tuple) or len(s) != 1 for s in shapes.values()):
        hint = "Pass the means of each site, such as model.starts()."
        raise ProgramError(explain("start", "a vector for each site", found, hint))


def _shape(loc: Any) -> tuple[int, ...] | str:
    return tuple(loc.shape) if isinstance(loc, Tensor) else f"a {type(loc).__name__}"
