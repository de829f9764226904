"""Structural causal model as the prior of a VAE: latents that cause each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor, nn
from torch.distributions import AffineTransform, Transform

from pyro_lvm.errors import ProgramError, explain
from pyro_lvm.nn import check_size, diagonal_normal

__all__ = ["StructuralCausalPrior"]


class StructuralCausalPrior(nn.Module):
    r"""Prior in which the first latents follow a linear causal model, seen through a link f.

    .. math:: u = A^\top u + \epsilon, \qquad z_i = f_i(u_i), \qquad \epsilon \sim N(0, I)

    :math:`A_{ij}` is the strength of the edge from i to j, learned for the edges given; the graph
    has no cycle, so :math:`\det(I - A) = 1` and the density is exact,

    .. math:: \log p(z) = \sum_i \log N(\epsilon_i; 0, 1) - \log |f_i'(u_i)|

    for any objective. With the affine link of the default it is the Normal of covariance
    :math:`S (I - A)^{-\top} (I - A)^{-1} S`. The other latents are independent standard Normals.
    The data alone do not tell which latent is which: give the model labels of the first ones, as
    :class:`~pyro_lvm.models.SupervisedVAE` does. Under :class:`~pyro_lvm.objectives.ALI` it is
    DEAR's prior.

    References:
        Shen, Liu, Dong, Lian, Chen, Zhang (2022), *Weakly supervised disentangled generative
        causal representation learning* (DEAR), arXiv:2010.02637.

    Args:
        latent_features: size of z.
        edges: pairs (cause, effect), by position in z; of a graph without cycles. Edges that the
            truth does not have may be given: their strength tends to 0.
        num_causal: how many latents, the first ones, have a link; all if left out.
        link: f, an invertible transform module of ``(*, num_causal)`` that acts on each entry,
            such as ``pyro.distributions.transforms.Spline(num_causal)``; if left out, each has a
            shift and a scale, ``loc`` and ``log_scale``.

    Raises:
        ProgramError: a size below 1, an edge from or to what has no link, a cycle.

    Example:
        >>> prior = StructuralCausalPrior(4, edges=[(0, 1)], num_causal=2)
        >>> _ = prior.strength.data.fill_(0.5)
        >>> prior.adjacency[0]
        tensor([0.0000, 0.5000, 0.0000, 0.0000], grad_fn=...)
        >>> z = prior().sample((1000,))
        >>> prior().log_prob(z).shape
        torch.Size([1000])
        >>> moved = prior.do(z, {0: 3.0})  # what each would be, had z_0 been 3
        >>> torch.allclose((moved - z)[:, 1], 0.5 * (3.0 - z[:, 0]), atol=1e-5)
        True
    """

    _edges: Tensor

    def __init__(
        self,
        latent_features: int,
        edges: Sequence[tuple[int, int]],
        *,
        num_causal: int | None = None,
        link: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.latent_features = check_size("latent_features", latent_features)
        count = latent_features if num_causal is None else check_size("num_causal", num_causal)
        self.num_causal = min(count, latent_features)
        _check_edges(edges, self.num_causal)
        self.register_buffer("_edges", torch.tensor(edges).long().reshape(-1, 2))
        self.strength = nn.Parameter(torch.zeros(len(edges)))
        self.link = link
        if link is None:
            self.loc = nn.Parameter(torch.zeros(self.num_causal))
            self.log_scale = nn.Parameter(torch.zeros(self.num_causal))

    def forward(self) -> dist.TorchDistribution:
        """Batch shape ``()``, event shape ``(latent_features,)``."""
        noise = diagonal_normal(self.strength.new_zeros(self.latent_features), 1.0)
        prior: dist.TorchDistribution = dist.TransformedDistribution(
            noise, [_Structure(self.adjacency), self._linked()]
        )
        return prior

    @property
    def adjacency(self) -> Tensor:
        """A, ``(latent_features, latent_features)``: from row to column."""
        size = self.latent_features
        cause, effect = self._edges.unbind(-1)
        return self.strength.new_zeros(size, size).index_put((cause, effect), self.strength)

    def do(self, z: Tensor, values: Mapping[int, float | Tensor]) -> Tensor:
        """What z would have been with some latents set from outside.

        The noise of the others stays what it was in z, and what they follow from changes: of
        draws of the prior these are draws under the intervention, of one datum's latents its
        counterfactual.

        Args:
            z: ``(*, latent_features)``.
            values: by position, a number or ``(*,)``; on the scale of z.
        """
        linked, rows = self._linked(), list(values)
        wanted = z.clone()
        for row, value in values.items():
            wanted[..., row] = torch.as_tensor(value, dtype=z.dtype, device=z.device)
        noise = _Structure(self.adjacency).inv(linked.inv(z))
        noise[..., rows] = linked.inv(wanted)[..., rows]
        cut = self.adjacency.index_fill(1, torch.tensor(rows, device=z.device).long(), 0.0)
        moved: Tensor = linked(_Structure(cut)(noise))
        return moved

    def _linked(self) -> _Linked:
        if self.link is None:
            affine = AffineTransform(self.loc, self.log_scale.exp())
            return _Linked(affine, self.num_causal)
        return _Linked(cast(Transform, self.link), self.num_causal)


class _Structure(Transform):
    """``eps -> u = A^T u + eps``, of rows ``(*, size)``, for a graph without cycles."""

    domain = constraints.real_vector
    codomain = constraints.real_vector
    bijective = True

    def __init__(self, adjacency: Tensor) -> None:
        super().__init__()
        self.kept = torch.eye(len(adjacency)).to(adjacency) - adjacency

    def _call(self, noise: Tensor) -> Tensor:
        u: Tensor = noise @ torch.linalg.inv(self.kept)
        return u

    def _inverse(self, u: Tensor) -> Tensor:
        return u @ self.kept

    def log_abs_det_jacobian(self, noise: Tensor, u: Tensor) -> Tensor:
        return u.new_zeros(u.shape[:-1])


class _Linked(Transform):
    """A link of the first entries of a row ``(*, size)``, the others as they are."""

    domain = constraints.real_vector
    codomain = constraints.real_vector
    bijective = True

    def __init__(self, link: Transform, count: int) -> None:
        super().__init__()
        self.link, self.count = link, count

    def _call(self, u: Tensor) -> Tensor:
        return torch.cat([self.link(u[..., : self.count]), u[..., self.count :]], -1)

    def _inverse(self, z: Tensor) -> Tensor:
        return torch.cat([self.link.inv(z[..., : self.count]), z[..., self.count :]], -1)

    def log_abs_det_jacobian(self, u: Tensor, z: Tensor) -> Tensor:
        slope: Tensor = self.link.log_abs_det_jacobian(u[..., : self.count], z[..., : self.count])
        return slope.sum(-1)


def _check_edges(edges: Sequence[tuple[int, int]], count: int) -> None:
    for edge in edges:
        if not all(0 <= end < count for end in edge):
            hint = "Number the latents from 0, those with a link first."
            raise ProgramError(explain("edges", f"pairs from 0 to {count - 1}", str(edge), hint))
    if cycle := _cycle({end for edge in edges for end in edge}, edges):
        hint = "Take an edge out, or turn it round: causes come before their effects."
        expected, found = "a graph without cycles", f"one among {sorted(cycle)}"
        raise ProgramError(explain("edges", expected, found, hint))


def _cycle(nodes: set[int], edges: Sequence[tuple[int, int]]) -> set[int]:
    """What is left when nodes without a cause among the others are taken away, again and again."""
    while roots := nodes - {effect for cause, effect in edges if cause in nodes}:
        nodes = nodes - roots
    return nodes
