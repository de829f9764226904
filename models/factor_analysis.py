"""Factor analysis, with its exact evidence and posterior."""

from __future__ import annotations

from pyro_lvm.models.linear_gaussian import LinearGaussianModel

__all__ = ["FactorAnalysis"]


class FactorAnalysis(LinearGaussianModel):
    r"""Factor analysis: a linear map of a standard Normal, plus one noise scale a feature.

    .. math:: z \sim N(0, I), \qquad x \mid z \sim N(\Lambda z + \mu, \mathrm{diag}(\sigma^2))

    ``log_evidence(x)`` and ``posterior(x)`` are exact, so it measures how tight any bound
    and how good any guide is. Parameters: ``loading`` ``(D, L)``, ``mean`` ``(D,)`` and
    ``noise_scale`` ``(D,)``.

    References:
        Rubin, Thayer (1982), *EM algorithms for ML factor analysis*, Psychometrika 47.

    Args:
        in_features: size of a datum, D.
        latent_features: size of ``z``, L.
        num_data: N, if batches are parts of the data; the plate then scales by N/B.

    Raises:
        ProgramError: a size below 1.
        DataError: ``x`` has another number of features, or no rows.

    Example:
        >>> model = FactorAnalysis(in_features=3, latent_features=1)
        >>> x = model(size=5).detach()
        >>> x.shape, model.log_evidence(x).shape, model.posterior(x).mean.shape
        (torch.Size([5, 3]), torch.Size([5]), torch.Size([5, 1]))
    """

    def __init__(
        self, in_features: int = 64, latent_features: int = 8, *, num_data: int | None = None
    ) -> None:
        super().__init__(in_features, latent_features, in_features, num_data)
