"""A Gaussian Markov chain as one distribution: the prior and the posterior of a linear system."""

from __future__ import annotations

from math import log, pi
from typing import Any

import torch
from pyro.distributions import TorchDistribution, constraints
from torch import Tensor
from torch.nn.functional import pad

from pyro_lvm.errors import ProgramError, explain

__all__ = ["LinearGaussianChain", "full_precision"]

_NO_SIZE = torch.Size()


def full_precision(like: Tensor) -> torch.autocast:
    """No autocast on the device of ``like``: products that differences are taken of."""
    return torch.autocast(like.device.type, enabled=False)


class LinearGaussianChain(TorchDistribution):
    r"""T vectors, each a linear map of the one before it, plus Gaussian noise.

    .. math:: z_1 \sim N(b_1, S_1 S_1^\top), \qquad
        z_t \mid z_{t-1} \sim N(A_t z_{t-1} + b_t, S_t S_t^\top)

    Event shape ``(T, L)``. A draw takes T small steps, one after the other; a value is scored
    in one pass. The matrices are shared by all batch dims, which only ``offset`` has.

    References:
        Bishop (2006), *Pattern recognition and machine learning*, section 13.3.

    Args:
        offset: :math:`b`, ``(*batch, T, L)``.
        transition: :math:`A_2, \dots, A_T`, ``(T - 1, L, L)``.
        scale_tril: :math:`S`, ``(T, L, L)`` lower triangular, positive on the diagonal.
        reverse: the chain runs from the last vector of an event to the first, as that of a
            posterior does; the arguments are in the order of the run.

    Raises:
        ProgramError: matrices that do not fit ``offset``.

    Example:
        A random walk of three steps.

        >>> walk = LinearGaussianChain(
        ...     torch.zeros(5, 3, 1), torch.ones(2, 1, 1), torch.ones(3, 1, 1)
        ... )
        >>> walk.variance[0, :, 0], walk.rsample().shape
        (tensor([1., 2., 3.]), torch.Size([5, 3, 1]))
        >>> walk.log_prob(torch.zeros(3, 1))
        tensor([-2.7568, -2.7568, -2.7568, -2.7568, -2.7568])
    """

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012
    support = constraints.independent(constraints.real, 2)
    has_rsample = True

    def __init__(
        self, offset: Tensor, transition: Tensor, scale_tril: Tensor, *, reverse: bool = False
    ) -> None:
        steps, latents = offset.shape[-2:]
        _check_shape("transition", transition, (steps - 1, latents, latents))
        _check_shape("scale_tril", scale_tril, (steps, latents, latents))
        self.offset = offset
        self.transition = transition
        self.scale_tril = scale_tril
        self.reverse = reverse
        super().__init__(offset.shape[:-2], offset.shape[-2:])

    def expand(self, batch_shape: Any, _instance: Any = None) -> LinearGaussianChain:
        offset = self.offset.expand(*batch_shape, *self.event_shape)
        return LinearGaussianChain(offset, self.transition, self.scale_tril, reverse=self.reverse)

    def rsample(self, sample_shape: Any = _NO_SIZE) -> Tensor:  # (*sample, *batch, T, L)
        shape = torch.Size(sample_shape) + self.batch_shape + self.event_shape
        noise = torch.randn(shape, dtype=self.offset.dtype, device=self.offset.device)
        with full_precision(noise):
            return self._run(self.offset + _each(self.scale_tril, noise))

    def log_prob(self, value: Tensor) -> Tensor:  # (*batch,)
        """Nats, of ``value`` of shape ``(*left, T, L)``."""
        z = self._turned(value)
        identity = torch.eye(self.event_shape[1]).to(self.scale_tril)
        whiten = torch.linalg.solve_triangular(self.scale_tril, identity, upper=False)
        with full_precision(z):
            carried = _each(self.transition, z[..., :-1, :])
            noise = z - self.offset - pad(carried, (0, 0, 1, 0))
            standard = _each(whiten, noise)
        volume = self.scale_tril.diagonal(dim1=-2, dim2=-1).log().sum()
        constant = 0.5 * log(2 * pi) * self.event_shape.numel()
        return -0.5 * standard.square().sum((-2, -1)) - volume - constant

    @property
    def mean(self) -> Tensor:  # (*batch, T, L)
        with full_precision(self.offset):
            return self._run(self.offset)

    @property
    def variance(self) -> Tensor:  # (*batch, T, L)
        return self.covariance_matrix.diagonal(dim1=-2, dim2=-1).expand_as(self.offset)

    @property
    def covariance_matrix(self) -> Tensor:  # (T, L, L)
        """Of each vector on its own, the same for the whole batch."""
        with full_precision(self.offset):
            noise = self.scale_tril @ self.scale_tril.mT
            found = [noise[0]]
            for transition, added in zip(self.transition, noise[1:]):
                found.append(transition @ found[-1] @ transition.mT + added)
        covariance = torch.stack(found)
        return covariance.flip(0) if self.reverse else covariance

    def _run(self, terms: Tensor) -> Tensor:
        """The recursion with ``terms`` ``(*left, T, L)`` added, in the order of an event."""
        first, *others = terms.unbind(-2)
        found = [first]
        for transition, term in zip(self.transition, others, strict=True):
            found.append(found[-1] @ transition.mT + term)
        return self._turned(torch.stack(found, -2))

    def _turned(self, z: Tensor) -> Tensor:
        return z.flip(-2) if self.reverse else z


def _check_shape(name: str, matrices: Tensor, expected: tuple[int, ...]) -> None:
    if matrices.shape != expected:
        hint = "Give one matrix a step; the first of T steps has no transition: T - 1 of them."
        found = f"shape {tuple(matrices.shape)}"
        raise ProgramError(explain(name, f"shape {expected}", found, hint))


def _each(matrices: Tensor, vectors: Tensor) -> Tensor:
    """The product for each step: ``(T, M, L)`` and ``(*left, T, L)`` to ``(*left, T, M)``."""
    return torch.einsum("tml,...tl->...tm", matrices, vectors)
