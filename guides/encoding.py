"""From data to features: the encoder of a guide, the user's own or an MLP."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from pyro_lvm.errors import DataError, ProgramError, explain
from pyro_lvm.nn import MLP, as_batch, check_size, widen

__all__ = ["Encoding"]


class Encoding(nn.Module):
    """An encoder with one linear layer after it: data to ``num_outputs`` numbers a datum.

    Args:
        encoder: from a batch of data to ``(B, encoder_features)``; None makes an MLP that
            ends with its last hidden layer.
        encoder_features: size of a given encoder's output.
        in_features: size of a datum, for the MLP.
        hidden: hidden sizes, for the MLP; none at all makes the whole linear.
        num_outputs: size of the output.

    Raises:
        ProgramError: ``encoder`` without ``encoder_features``, or the reverse.
    """

    def __init__(
        self,
        encoder: nn.Module | None,
        encoder_features: int | None,
        in_features: int,
        hidden: Sequence[int],
        num_outputs: int,
    ) -> None:
        super().__init__()
        self.in_features = in_features if encoder is None else None
        if encoder is None:
            _check_no_features(encoder_features)
            encoder = MLP(in_features, None, hidden)
            encoder_features = encoder.out_features
        self.encoder = encoder
        self.encoder_features = _check_features(encoder_features)
        self.head = MLP(self.encoder_features, num_outputs, hidden=())

    def forward(self, x: Any) -> Tensor:  # (B, num_outputs)
        x = as_batch(x, self.in_features, like=self.head.bias)
        features = widen(self.encoder(x))
        if features.shape != (len(x), self.encoder_features):
            raise DataError(
                explain(
                    f"encoder {type(self.encoder).__name__}",
                    f"features of shape ({len(x)}, {self.encoder_features})",
                    f"{tuple(features.shape)}",
                    "Check encoder_features, and that the encoder keeps one row a datum.",
                )
            )
        outputs: Tensor = self.head(features)
        return outputs


def _check_features(encoder_features: int | None) -> int:
    if encoder_features is None:
        hint = "Pass the size of the encoder's output, as in encoder_features=200."
        raise ProgramError(explain("encoder_features", "a size, beside encoder", "None", hint))
    return check_size("encoder_features", encoder_features)


def _check_no_features(encoder_features: int | None) -> None:
    if encoder_features is not None:
        hint = "Pass the encoder too, or choose the MLP's sizes by hidden."
        found = f"{encoder_features} without an encoder"
        raise ProgramError(explain("encoder_features", "None", found, hint))
