"""Tables with holes in, completed tables out: the scikit-learn transformer and its parts."""

from pyro_lvm.imputation.latent_imputer import LatentImputer
from pyro_lvm.imputation.tables import TableCodec

__all__ = ["LatentImputer", "TableCodec"]
