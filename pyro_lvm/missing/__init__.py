"""Incomplete data: any model on them, tables with their columns, and masks to test with.

Missing is NaN; in a mask True means observed, everywhere.
"""

from pyro_lvm.missing.columns import (
    BinaryColumn,
    ClassColumn,
    Column,
    CountColumn,
    RealColumn,
)
from pyro_lvm.missing.completed import Completed
from pyro_lvm.missing.frames import read_frame, with_categories
from pyro_lvm.missing.incomplete import Incomplete, hide, observed_part
from pyro_lvm.missing.masks import mar, mcar, mnar
from pyro_lvm.missing.not_at_random import NotAtRandom, SelfMasking
from pyro_lvm.missing.pictures import arbitrary, block, half, pixel, rectangle
from pyro_lvm.missing.random_masks import RandomMasks
from pyro_lvm.missing.schema import Schema
from pyro_lvm.missing.table_encoder import TableEncoder, TableFeatures

__all__ = [
    "BinaryColumn",
    "ClassColumn",
    "Column",
    "Completed",
    "CountColumn",
    "Incomplete",
    "NotAtRandom",
    "RandomMasks",
    "RealColumn",
    "Schema",
    "SelfMasking",
    "TableEncoder",
    "TableFeatures",
    "arbitrary",
    "block",
    "half",
    "hide",
    "mar",
    "mcar",
    "mnar",
    "observed_part",
    "pixel",
    "read_frame",
    "rectangle",
    "with_categories",
]
