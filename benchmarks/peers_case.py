"""What is timed: a program, its guide and its data, and the same loss written by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

__all__ = ["Case"]


@dataclass(frozen=True)
class Case:
    """One model of the comparison.

    Attributes:
        title: sizes, for people.
        model: the generative program.
        guide: the program that draws its latent variables.
        x: the batch.
        modules: what is trained.
        bound: "ELBO" or "IWAE", of K particles.
        nesting: dims that the plates take.
        by_hand: from K to the same loss in plain PyTorch; None where there is none.
        peers: further steps, from K to what runs one, by column.
        enumerates: whether discrete sites are summed out.
    """

    title: str
    model: Callable[..., Any]
    guide: Callable[..., Any]
    x: Tensor
    modules: nn.Module
    bound: str = "IWAE"
    nesting: int = 1
    by_hand: Callable[[int], Tensor] | None = None
    peers: Mapping[str, Callable[[int], Callable[[], float]]] = field(default_factory=dict)
    enumerates: bool = False
