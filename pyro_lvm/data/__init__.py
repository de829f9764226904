"""Real data sets with fixed splits, and checks of a user's own data."""

from pyro_lvm.data.binarize import Binarize
from pyro_lvm.data.checks import check_data
from pyro_lvm.data.digits import digits
from pyro_lvm.data.fashion_mnist import fashion_mnist
from pyro_lvm.data.frey_faces import frey_faces
from pyro_lvm.data.mnist import mnist
from pyro_lvm.data.omniglot import omniglot
from pyro_lvm.data.registry import available, load
from pyro_lvm.data.splits import DataSplits
from pyro_lvm.data.standardize import standardize
from pyro_lvm.data.tables import table

__all__ = [
    "Binarize",
    "DataSplits",
    "available",
    "check_data",
    "digits",
    "fashion_mnist",
    "frey_faces",
    "load",
    "mnist",
    "omniglot",
    "standardize",
    "table",
]
