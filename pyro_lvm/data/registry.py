"""Data sets by name."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from typing import Any

from pyro_lvm.data.digits import digits
from pyro_lvm.data.mnist import mnist
from pyro_lvm.data.splits import DataSplits
from pyro_lvm.errors import DataError, explain

__all__ = ["available", "load"]

_LOADERS: dict[str, Callable[..., DataSplits]] = {
    "digits": digits,
    "mnist": mnist,
}


def available() -> dict[str, str]:
    """What each data set is, in one line, by name.

    Example:
        >>> for name, line in available().items():
        ...     print(f"{name}: {line}")
        digits: The 1797 handwritten digits that come with scikit-learn: no download.
        mnist: 60,000 training and 10,000 test pictures of handwritten digits, 28 by 28 pixels.
    """
    return {name: str(load.__doc__).split("\n")[0] for name, load in _LOADERS.items()}


def load(name: str, **options: Any) -> DataSplits:
    """The data set of that name; ``options`` go to its function.

    Raises:
        DataError: there is no data set of that name.

    Example:
        >>> load("digits", binarization="fixed").test.shape
        torch.Size([397, 64])
    """
    if name not in _LOADERS:
        close = get_close_matches(name, _LOADERS, n=1) or sorted(_LOADERS)
        hint = f"Pass {close[0]!r}."
        raise DataError(explain("data set", f"one of {sorted(_LOADERS)}", repr(name), hint))
    return _LOADERS[name](**options)
