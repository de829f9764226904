"""From traces to features of every frame: the encoder of a spike guide, the user's own or ours."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from pyro_lvm.errors import DataError, ProgramError, explain
from pyro_lvm.nn import TraceEncoder, check_size, widen

__all__ = ["SpikeFeatures"]


class SpikeFeatures(nn.Module):
    """Traces ``(B, T)`` and their frame rate to ``(B, T, out_features)``.

    Args:
        encoder: called as ``encoder(x, rate)``; None makes a
            :class:`~pyro_lvm.nn.TraceEncoder`.
        encoder_features: size of a given encoder's output.

    Raises:
        ProgramError: ``encoder`` without ``encoder_features``, or the reverse.
        DataError: features of another shape.
    """

    def __init__(self, encoder: nn.Module | None, encoder_features: int | None) -> None:
        super().__init__()
        if (encoder is None) != (encoder_features is None):
            expected = "a size beside an encoder, and None without"
            found = f"{encoder_features} with encoder {type(encoder).__name__}"
            hint = "Pass both, as in encoder=e, encoder_features=e.out_features."
            raise ProgramError(explain("encoder_features", expected, found, hint))
        self.encoder = TraceEncoder() if encoder is None else encoder
        size = self.encoder.out_features if encoder_features is None else encoder_features
        self.out_features = check_size("encoder_features", size)

    def forward(self, x: Any, rate: float) -> Tensor:
        features = widen(self.encoder(x, rate))
        if features.dim() != 3 or features.shape[::2] != (len(x), self.out_features):
            raise DataError(
                explain(
                    f"encoder {type(self.encoder).__name__}",
                    f"features of shape ({len(x)}, frames, {self.out_features})",
                    f"{tuple(features.shape)}",
                    "Check encoder_features, and that the encoder keeps one row a frame.",
                )
            )
        return features
