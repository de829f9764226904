"""Contract checks that any model, guide or objective can be put through, a user's own too."""

from pyro_lvm.testing.contract import ContractError, discover
from pyro_lvm.testing.objectives import check_objective
from pyro_lvm.testing.programs import check_guide, check_model

__all__ = ["ContractError", "check_guide", "check_model", "check_objective", "discover"]
