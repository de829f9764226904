"""Black and white pixels drawn from grey ones."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_lvm.data.checks import check_data
from pyro_lvm.errors import DataError, explain

__all__ = ["Binarize", "check_probabilities"]


class Binarize:
    """Draws each pixel from the Bernoulli of its grey value, anew at each call.

    Training on such draws, fresh for each batch, overfits far less than on one fixed
    binarisation.

    References:
        Burda, Grosse, Salakhutdinov (2016), *Importance weighted autoencoders*,
        arXiv:1509.00519, section 5.

    Example:
        >>> draw = Binarize()
        >>> draw(torch.tensor([[0.0, 1.0]]), torch.Generator().manual_seed(0))
        tensor([[0., 1.]])
    """

    def __call__(self, batch: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """A batch of zeros and ones of the shape, dtype and device of ``batch``.

        Args:
            batch: values in [0, 1].
            generator: of any device, on which the numbers are drawn; None is torch's own.
        """
        if generator is None:
            return torch.bernoulli(batch)
        means = batch.to(generator.device)
        return torch.bernoulli(means, generator=generator).to(batch.device)

    def __repr__(self) -> str:
        return "Binarize()"


def check_probabilities(tensor: Tensor, name: str) -> None:
    """Raise :class:`DataError` unless every value is in [0, 1]."""
    check_data(tensor, name)
    low, high = float(tensor.min()), float(tensor.max())
    if low < 0 or high > 1:
        found = f"values from {low:g} to {high:g}"
        hint = "Divide by the largest grey value, 255 in most files."
        raise DataError(explain(name, "pixel probabilities in [0, 1]", found, hint))
