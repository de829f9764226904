"""Sources whose variances change from segment to segment, mixed: data with known latents."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from pyro_lvm.nn import check_size

__all__ = ["SegmentSources", "simulate"]

_NUM_MATRICES = 10_000  # the mixing matrix is among the best-conditioned quarter of so many
_SCALES = 0.5, 3.0


class SegmentSources(NamedTuple):
    """Mixed sources and what they were made of.

    Attributes:
        x: ``(N, features)`` data, in order of segments.
        u: ``(N, num_segments)``, indicator of the segment.
        z: ``(N, features)``, the sources.
        mixing: ``(features, features)``, the matrix of every layer.
    """

    x: Tensor
    u: Tensor
    z: Tensor
    mixing: Tensor


def simulate(
    features: int = 5,
    *,
    num_segments: int = 40,
    segment_length: int = 1000,
    num_layers: int = 3,
    seed: int = 0,
) -> SegmentSources:
    r"""The published generator of nonlinear ICA by segments, without noise.

    Sources are :math:`z_i \sim N(0, \sigma_{i, u}^2)` with :math:`\sigma_{i, u} \sim U(0.5, 3)`
    for each segment u. A layer multiplies by one matrix with columns of length 1; between
    layers stands :math:`h \mapsto \tanh h + 0.1 h`. One layer is a linear mixing.

    References:
        Khemakhem, Kingma, Monti, Hyvärinen (2020), *Variational autoencoders and nonlinear
        ICA: a unifying framework*, arXiv:1907.04809, section 5.1.

    Args:
        features: number of sources, and of mixtures.
        num_segments: number of segments.
        segment_length: data of each.
        num_layers: layers of the mixing.
        seed: decides every number.

    Raises:
        ProgramError: a size below 1.

    Example:
        >>> sources = simulate(2, num_segments=3, segment_length=4)
        >>> sources.x.shape, sources.u.sum(0)
        (torch.Size([12, 2]), tensor([4., 4., 4.]))
    """
    generator = torch.Generator().manual_seed(seed)
    shape = check_size("num_segments", num_segments), 1, check_size("features", features)
    low, high = _SCALES
    scale = low + (high - low) * torch.rand(shape, generator=generator)
    length = check_size("segment_length", segment_length)
    noise = torch.randn(num_segments, length, features, generator=generator)
    z = (scale * noise).flatten(0, 1)
    mixing = _matrix(features, generator)
    x = z @ mixing.T
    for _ in range(check_size("num_layers", num_layers) - 1):
        x = (x.tanh() + 0.1 * x) @ mixing.T
    u = one_hot(torch.arange(num_segments).repeat_interleave(length), num_segments)
    return SegmentSources(x, u.to(x.dtype), z, mixing)


def _matrix(features: int, generator: torch.Generator) -> Tensor:
    """The first of many random matrices that is of the best-conditioned quarter."""
    shape = _NUM_MATRICES, features, features
    matrices = 2 * torch.rand(shape, generator=generator) - 1
    matrices = matrices / matrices.norm(dim=1, keepdim=True)
    condition = torch.linalg.cond(matrices)
    good = (condition < condition.quantile(0.25)).nonzero()
    first: Tensor = matrices[good[0, 0]]
    return first
