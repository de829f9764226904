"""New masks for every batch of training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from pyro_lvm.errors import DataError, explain
from pyro_lvm.missing.masks import mcar

__all__ = ["RandomMasks"]

_SEEDS = 2**62


class RandomMasks:
    """Data to pairs of data and masks, ``(x, observed)``, the masks drawn anew at each call.

    As the ``transform`` of :func:`~pyro_lvm.fit` it trains models of any entries given any
    others, called as ``model(x, observed)``, such as :class:`~pyro_lvm.models.VAEAC`.

    Args:
        generate: makes a mask of data by a seed: :func:`~pyro_lvm.missing.mcar` or any other
            of ``pyro_lvm.missing``.
        shape: of one datum as ``generate`` needs it, ``(8, 8)`` for pictures in rows of 64.
        options: further arguments of ``generate``.

    Example:
        >>> draw = RandomMasks(mcar, rate=0.2)
        >>> x, observed = draw(torch.zeros(1000, 3), torch.Generator().manual_seed(0))
        >>> x.shape, observed.float().mean()
        (torch.Size([1000, 3]), tensor(0.7977))
        >>> from pyro_lvm.missing import half
        >>> _, observed = RandomMasks(half, shape=(2, 2))(torch.zeros(3, 4))
        >>> observed.sum(1)
        tensor([2, 2, 2])
    """

    def __init__(
        self,
        generate: Callable[..., Tensor] = mcar,
        *,
        shape: Sequence[int] | None = None,
        **options: Any,
    ) -> None:
        self.generate = generate
        self.shape = None if shape is None else tuple(shape)
        self.options = options

    def __call__(
        self, batch: Tensor, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """The batch, and its mask of the same shape, True = observed.

        Args:
            batch: data ``(B, ...)``, NaN where missing.
            generator: of the CPU; None is torch's own.

        Raises:
            DataError: a batch that is not one tensor.
        """
        if not isinstance(batch, Tensor):
            found, hint = f"a {type(batch).__name__}", "Pass fit one tensor, NaN where missing."
            raise DataError(explain("batch of RandomMasks", "a tensor", found, hint))
        seed = int(torch.randint(_SEEDS, (), generator=generator, device="cpu"))
        shaped = batch if self.shape is None else batch.reshape(len(batch), *self.shape)
        mask = self.generate(shaped, seed=seed, **self.options)
        return batch, mask.reshape(batch.shape)

    def __repr__(self) -> str:
        given = {"shape": self.shape, **self.options} if self.shape else self.options
        options = "".join(f", {name}={value!r}" for name, value in given.items())
        return f"RandomMasks({getattr(self.generate, '__name__', self.generate)}{options})"
