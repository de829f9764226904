"""Guide families: one file each, one line here."""

from pyro_lvm.guides.amortized_normal import AmortizedNormal
from pyro_lvm.guides.hierarchical_normal import HierarchicalNormal

__all__ = ["AmortizedNormal", "HierarchicalNormal"]
