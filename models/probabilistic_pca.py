"""Probabilistic principal component analysis, with its exact evidence and fit."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_lvm.errors import DataError, ProgramError, explain
from pyro_lvm.models.linear_gaussian import LinearGaussianModel

__all__ = ["ProbabilisticPCA"]


class ProbabilisticPCA(LinearGaussianModel):
    r"""Probabilistic PCA: a linear map of a standard Normal, plus the same noise everywhere.

    .. math:: z \sim N(0, I), \qquad x \mid z \sim N(\Lambda z + \mu, \sigma^2 I)

    ``log_evidence(x)`` and ``posterior(x)`` are exact, and :meth:`maximum_likelihood` is the
    best fit in closed form: what no objective can beat. Parameters: ``loading`` ``(D, L)``,
    ``mean`` ``(D,)`` and ``noise_scale`` ``(1,)``.

    References:
        Tipping, Bishop (1999), *Probabilistic principal component analysis*, JRSS B 61.

    Args:
        in_features: size of a datum, D.
        latent_features: size of ``z``, L.
        num_data: N, if batches are parts of the data; the plate then scales by N/B.

    Raises:
        ProgramError: a size below 1.
        DataError: ``x`` has another number of features, or no rows.

    Example:
        >>> x = torch.randn(500, 3) @ torch.diag(torch.tensor([3.0, 1.0, 1.0]))
        >>> model = ProbabilisticPCA.maximum_likelihood(x, latent_features=1)
        >>> bool(model.log_evidence(x).mean() > ProbabilisticPCA(3, 1).log_evidence(x).mean())
        True
    """

    def __init__(
        self, in_features: int = 64, latent_features: int = 8, *, num_data: int | None = None
    ) -> None:
        super().__init__(in_features, latent_features, 1, num_data)

    @classmethod
    def maximum_likelihood(cls, x: Tensor, latent_features: int) -> ProbabilisticPCA:
        r"""The model with the highest likelihood of ``x``, of its dtype and device.

        With the eigenvalues :math:`\lambda` and eigenvectors U of the covariance of x,
        :math:`\sigma^2` is the mean of the smallest D - L eigenvalues and
        :math:`\Lambda = U_L (\lambda_L - \sigma^2)^{1/2}` (eqs. 7 and 8).

        Args:
            x: ``(N, D)`` data.
            latent_features: L < D.

        Raises:
            ProgramError: L is not below D.
            DataError: no variance is left for the noise.
        """
        model = cls(x.shape[1], latent_features).to(x)
        if latent_features >= x.shape[1]:
            hint = "Pass fewer latent features."
            where, found = "latent_features", str(latent_features)
            raise ProgramError(explain(where, f"less than {x.shape[1]}", found, hint))
        mean = x.mean(0)
        covariance = (x - mean).T @ (x - mean) / len(x)
        values, vectors = torch.linalg.eigh(covariance)  # ascending
        noise = values[:-latent_features].mean()
        if not noise > torch.finfo(x.dtype).eps * values[-1]:
            hint = "Pass more data, or fewer latent features."
            raise DataError(explain("x", "variance left for the noise", "none", hint))
        with torch.no_grad():
            spread = (values[-latent_features:] - noise).clamp(min=0)
            model.loading.copy_(vectors[:, -latent_features:] * spread.sqrt())
            model.mean.copy_(mean)
        model.noise_scale = noise.sqrt()[None]
        return model
