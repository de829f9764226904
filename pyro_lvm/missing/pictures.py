"""Which pixels of pictures are missing: single ones, blocks, halves, rectangles, a mixture.

Masks are of the shape of ``x``, True = observed, and alike in all channels; NaN is never marked
as observed.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pyro_lvm.errors import DataError, PyroLVMError, explain
from pyro_lvm.missing.masks import check_rate, uniform

__all__ = ["arbitrary", "block", "half", "pixel", "rectangle"]


def pixel(x: Tensor, rate: float = 0.5, *, seed: int = 0) -> Tensor:
    """Each pixel is missing with probability ``rate``, in all channels at once.

    Args:
        x: pictures ``(B, H, W)`` or ``(B, C, H, W)``.
        rate: expected share of missing pixels, between 0 and 1.
        seed: of the mask.

    Raises:
        DataError: no pictures.
        PyroLVMError: a rate outside (0, 1).

    Example:
        >>> pixel(torch.zeros(50, 3, 8, 8), rate=0.9).float().mean()
        tensor(0.1056)
    """
    check_rate(rate)
    height, width = _size(x)
    return _over_channels(uniform((len(x), height, width), x, seed) >= rate, x)


def block(x: Tensor, height: int, width: int, *, seed: int = 0) -> Tensor:
    """A block of ``height`` times ``width`` pixels is missing, anywhere in the picture.

    Args:
        x: pictures ``(B, H, W)`` or ``(B, C, H, W)``; the share of missing pixels is exactly
            ``height * width / (H * W)``.
        height: of the block, up to H.
        width: of the block, up to W.
        seed: of the places, which are equally likely.

    Raises:
        DataError: no pictures.
        PyroLVMError: a block that does not fit into the picture.

    Example:
        >>> block(torch.zeros(1, 3, 4), 2, 2, seed=1).int()
        tensor([[[0, 0, 1, 1],
                 [0, 0, 1, 1],
                 [1, 1, 1, 1]]], dtype=torch.int32)
    """
    rows, columns = _size(x)
    if not (1 <= height <= rows and 1 <= width <= columns):
        hint = "Pass a height and a width of at least 1 that fit into the picture."
        expected = f"a block within {rows} x {columns}"
        raise PyroLVMError(explain("block", expected, f"{height} x {width}", hint))
    size = torch.tensor([[height, width]], device=x.device).expand(len(x), 2)
    return _rectangles(x, size, _places(x, size, uniform((len(x), 2), x, seed)))


def half(x: Tensor, *, seed: int = 0) -> Tensor:
    """The left, right, upper or lower half of each picture is missing, equally likely.

    Args:
        x: pictures ``(B, H, W)`` or ``(B, C, H, W)``; an odd size loses the smaller half.
        seed: of the choice.

    Raises:
        DataError: no pictures.

    Example:
        >>> half(torch.zeros(1, 2, 4), seed=1).int()
        tensor([[[0, 0, 1, 1],
                 [0, 0, 1, 1]]], dtype=torch.int32)
    """
    rows, columns = _size(x)
    sizes = torch.tensor([[rows, columns // 2], [rows // 2, columns]], device=x.device)
    choice = (4 * uniform((len(x),), x, seed)).long()
    size = sizes[choice // 2]
    at_end = (choice % 2).unsqueeze(1)
    return _rectangles(x, size, at_end * (sizes.amax(0) - size))


def rectangle(x: Tensor, least: float = 0.3, *, seed: int = 0) -> Tensor:
    """A rectangle of at least ``least`` of the picture's area is missing.

    Its height is uniform among those that allow it, its width among those that the height
    allows, its place among all.

    Args:
        x: pictures ``(B, H, W)`` or ``(B, C, H, W)``.
        least: share of missing pixels, between 0 and 1.
        seed: of size and place.

    Raises:
        DataError: no pictures.
        PyroLVMError: ``least`` outside (0, 1).

    Example:
        >>> bool((rectangle(torch.zeros(100, 8, 8)).sum((1, 2)) <= 0.7 * 64).all())
        True
    """
    check_rate(least)
    rows, columns = _size(x)
    random = uniform((len(x), 4), x, seed)
    height = _between(torch.full_like(random[:, 0], least * rows), rows, random[:, 0])
    width = _between(least * rows * columns / height, columns, random[:, 1])
    size = torch.stack([height, width], 1)
    return _rectangles(x, size, _places(x, size, random[:, 2:]))


def arbitrary(x: Tensor, *, seed: int = 0) -> Tensor:
    """The mixture of masks that makes a model of pictures answer any question.

    Each picture gets, with probability 1/9 each, a block of half its height and width, 95 % of
    its pixels, or a half; with probability 2/3 a :func:`rectangle`. The published mixture also
    has the boxes of faces and a random pattern, which belong to its own pictures.

    Args:
        x: pictures ``(B, H, W)`` or ``(B, C, H, W)``.
        seed: of choices and masks.

    Raises:
        DataError: no pictures.

    References:
        Ivanov, Figurnov, Vetrov (2019), *Variational autoencoder with arbitrary conditioning*,
        arXiv:1806.02382.

    Example:
        >>> arbitrary(torch.zeros(6, 8, 8)).shape
        torch.Size([6, 8, 8])
    """
    height, width = _size(x)
    kinds: list[Callable[[int], Tensor]] = [
        lambda seed: block(x, max(1, height // 2), max(1, width // 2), seed=seed),
        lambda seed: pixel(x, 0.95, seed=seed),
        lambda seed: half(x, seed=seed),
        lambda seed: rectangle(x, seed=seed),
    ]
    masks = torch.stack([kind(seed + 1 + i) for i, kind in enumerate(kinds)])
    choice = (9 * uniform((len(x),), x, seed)).long().clamp(max=3)
    return masks[choice, torch.arange(len(x), device=x.device)]


def _between(least: Tensor, most: int, random: Tensor) -> Tensor:
    """Whole numbers from ``least``, rounded up, to ``most``, equally likely."""
    first = least.ceil().clamp(1, most)
    return (first + (random * (most + 1 - first)).floor()).long()


def _places(x: Tensor, size: Tensor, random: Tensor) -> Tensor:
    """First row and column ``(B, 2)`` of rectangles of ``size``, by uniform numbers."""
    whole = torch.tensor(_size(x), device=x.device)
    return (random * (whole + 1 - size)).long()


def _rectangles(x: Tensor, size: Tensor, first: Tensor) -> Tensor:
    """False in rectangles of ``size`` ``(B, 2)`` that start at ``first`` ``(B, 2)``."""
    inside = [
        (torch.arange(n, device=x.device) >= first[:, i, None])
        & (torch.arange(n, device=x.device) < (first + size)[:, i, None])
        for i, n in enumerate(_size(x))
    ]
    return _over_channels(~(inside[0][:, :, None] & inside[1][:, None, :]), x)


def _over_channels(observed: Tensor, x: Tensor) -> Tensor:
    """``(B, H, W)`` as a mask of the shape of ``x``."""
    if x.dim() == 4:
        observed = observed.unsqueeze(1)
    return observed & ~x.isnan()


def _size(x: Tensor) -> tuple[int, int]:
    if x.dim() not in (3, 4):
        hint = "Unflatten rows, x.unflatten(1, (28, 28)), and flatten the mask again."
        expected = "pictures of shape (B, H, W) or (B, C, H, W)"
        raise DataError(explain("x", expected, f"shape {tuple(x.shape)}", hint))
    return x.shape[-2], x.shape[-1]
