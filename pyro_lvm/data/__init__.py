"""Real data sets with fixed splits, and checks of a user's own data."""

from pyro_lvm.data.binarize import Binarize
from pyro_lvm.data.calcium import calcium
from pyro_lvm.data.checks import check_data
from pyro_lvm.data.digits import digits
from pyro_lvm.data.fashion_mnist import fashion_mnist
from pyro_lvm.data.fluorescence import delta_f, noise_level
from pyro_lvm.data.frames import horse_colic
from pyro_lvm.data.frey_faces import frey_faces
from pyro_lvm.data.mnist import mnist
from pyro_lvm.data.omniglot import omniglot
from pyro_lvm.data.pseudo_inputs import pseudo_inputs
from pyro_lvm.data.registry import available, load
from pyro_lvm.data.resampling import frame_counts, rebin, resample
from pyro_lvm.data.splits import DataSplits
from pyro_lvm.data.standardize import standardize
from pyro_lvm.data.tables import table
from pyro_lvm.data.trace_files import read_traces
from pyro_lvm.data.trace_parts import CellSplits, Snippets, snippets, split_cells
from pyro_lvm.data.traces import Traces

__all__ = [
    "Binarize",
    "CellSplits",
    "DataSplits",
    "Snippets",
    "Traces",
    "available",
    "calcium",
    "check_data",
    "delta_f",
    "digits",
    "fashion_mnist",
    "frame_counts",
    "frey_faces",
    "horse_colic",
    "load",
    "mnist",
    "noise_level",
    "omniglot",
    "pseudo_inputs",
    "read_traces",
    "rebin",
    "resample",
    "snippets",
    "split_cells",
    "standardize",
    "table",
]
