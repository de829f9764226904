"""Data sets by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from pyro_lvm.data.checks import check_name
from pyro_lvm.data.digits import digits
from pyro_lvm.data.fashion_mnist import fashion_mnist
from pyro_lvm.data.frey_faces import frey_faces
from pyro_lvm.data.mnist import mnist
from pyro_lvm.data.omniglot import omniglot
from pyro_lvm.data.splits import DataSplits
from pyro_lvm.data.tables import TABLES, table

__all__ = ["available", "load"]

_PICTURES: dict[str, Callable[..., DataSplits]] = {
    "digits": digits,
    "fashion_mnist": fashion_mnist,
    "frey_faces": frey_faces,
    "mnist": mnist,
    "omniglot": omniglot,
}
_LOADERS: dict[str, Callable[..., DataSplits]] = {
    **_PICTURES,
    **{name: partial(table, name) for name in TABLES},
}


def available() -> dict[str, str]:
    """What each data set is, in one line, by name.

    Example:
        >>> for name, line in available().items():
        ...     print(f"{name}: {line}")
        breast_cancer: 569 tumours, 30 measures of their cells' nuclei; benign or malignant.
        concrete: 1,030 mixtures of concrete: 7 ingredients, age, and compressive strength.
        diabetes: 442 patients: 10 measures, and the progression of diabetes a year later.
        digits: The 1797 handwritten digits that come with scikit-learn: no download.
        fashion_mnist: 2,000 pictures of clothes, 28 by 28 pixels, embedded; or all 70,000.
        frey_faces: 1,965 frames of one face in a video, 28 by 20 grey pixels.
        mnist: 60,000 training and 10,000 test pictures of handwritten digits, 28 by 28 pixels.
        omniglot: 4,840 handwritten characters, 28 by 28 pixels: the small sets of Omniglot.
        wine: 178 wines of three cultivars, 13 chemical measures.
        wine_quality: 1,599 red wines: 11 chemical measures, and a quality from 3 to 8.
    """
    lines = {name: str(load.__doc__).split("\n")[0] for name, load in _PICTURES.items()}
    lines |= {name: about.summary for name, about in TABLES.items()}
    return dict(sorted(lines.items()))


def load(name: str, **options: Any) -> DataSplits:
    """The data set of that name; ``options`` go to its function.

    Raises:
        DataError: there is no data set of that name.

    Example:
        >>> load("digits", binarization="fixed").test.shape
        torch.Size([397, 64])
    """
    return check_name(name, _LOADERS, "data set")(**options)
