"""Tables with holes in, completed tables out: the scikit-learn transformer and its parts."""

from pyro_lvm.imputation.latent_imputer import LatentImputer

__all__ = ["LatentImputer"]
