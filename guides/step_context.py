"""From data to a context a step: of rows that all steps read, or of sequences, a row a step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from pyro_lvm.errors import DataError, ProgramError, explain
from pyro_lvm.guides.encoding import Encoding
from pyro_lvm.nn import MLP, as_batch, check_size, widen

__all__ = ["RowContext", "SequenceContext"]


class RowContext(nn.Module):
    """Rows ``(B, D)`` to ``(B, T, C)``: each step has a linear layer of its own on the features.

    Its bias is what a step knows of its own place.

    Args:
        encoder: from a batch of data to ``(B, encoder_features)``; None makes an MLP.
        encoder_features: size of a given encoder's output.
        in_features: size of a datum, for the MLP.
        hidden: hidden sizes, for the MLP.
        num_steps: T.
        context_features: C.
    """

    def __init__(
        self,
        encoder: nn.Module | None,
        encoder_features: int | None,
        in_features: int,
        hidden: Sequence[int],
        num_steps: int,
        context_features: int,
    ) -> None:
        super().__init__()
        self.shape = (check_size("num_steps", num_steps), context_features)
        num_outputs = self.shape[0] * context_features
        self.encoding = Encoding(encoder, encoder_features, in_features, hidden, num_outputs)

    def forward(self, x: Any) -> Tensor:  # (B, T, C)
        context: Tensor = self.encoding(x).unflatten(-1, self.shape)
        return context


class SequenceContext(nn.Module):
    """Sequences ``(B, T, D)`` to ``(B, T, C)``, any T: one linear layer on each step's features.

    Args:
        encoder: from a batch of data to ``(B, T, encoder_features)``; None makes a GRU that
            reads the sequence in both directions, so that each step knows all of it.
        encoder_features: size of a given encoder's output.
        in_features: size of a row of a sequence, for the GRU.
        context_features: C, and the GRU's state in each direction.

    Raises:
        DataError: ``x`` has another shape, or the encoder's features do.
    """

    def __init__(
        self,
        encoder: nn.Module | None,
        encoder_features: int | None,
        in_features: int,
        context_features: int,
    ) -> None:
        super().__init__()
        self.in_features = check_size("in_features", in_features) if encoder is None else None
        if encoder is None:
            _check_left_out(encoder_features)
            encoder = _BothDirections(in_features, context_features)
            encoder_features = 2 * context_features
        self.encoder = encoder
        self.encoder_features = check_size("encoder_features", encoder_features)
        self.head = MLP(self.encoder_features, context_features, hidden=())

    def forward(self, x: Any) -> Tensor:  # (B, T, C)
        x = as_batch(x, None, like=self.head.bias)
        if self.in_features is not None:
            x = _as_sequences(x, self.in_features).to(self.head.bias)
        features = widen(self.encoder(x))
        if features.dim() != 3 or features.shape[::2] != (len(x), self.encoder_features):
            raise DataError(
                explain(
                    f"encoder {type(self.encoder).__name__}",
                    f"features of shape ({len(x)}, steps, {self.encoder_features})",
                    f"{tuple(features.shape)}",
                    "Check encoder_features, and that the encoder keeps one row a step.",
                )
            )
        context: Tensor = self.head(features)
        return context


class _BothDirections(nn.Module):
    def __init__(self, in_features: int, state_features: int) -> None:
        super().__init__()
        self.gru = nn.GRU(in_features, state_features, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor) -> Tensor:  # (B, T, 2 * state_features)
        states: Tensor = self.gru(x)[0]
        return states


def _as_sequences(x: Tensor, features: int) -> Tensor:
    if x.dim() != 3 or x.shape[2] != features or not x.shape[1]:
        wanted = f"shape (batch, steps, {features})"
        hint = "Check in_features; x[..., None] makes rows of one number."
        raise DataError(explain("x", wanted, f"shape {tuple(x.shape)}", hint))
    return x


def _check_left_out(encoder_features: int | None) -> None:
    if encoder_features is not None:
        hint = "Pass the encoder too, or choose the GRU's size by state_features."
        found = f"{encoder_features} without an encoder"
        raise ProgramError(explain("encoder_features", "None", found, hint))
