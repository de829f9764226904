"""Autoregressive guide: each step's latent given all those before it and the data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyro
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_lvm.distributions import Autoregressive, Entries
from pyro_lvm.guides.recurrence import RecurrentSteps
from pyro_lvm.guides.step_context import RowContext, SequenceContext
from pyro_lvm.nn import check_num_data, check_size, data_plate

__all__ = ["AutoregressiveGuide"]


class AutoregressiveGuide(PyroModule):
    r"""Recurrent guide over time steps, or over the entries of a site.

    .. math:: q(z \mid x) = \prod_{t=0}^{T-1} q(z_t \mid z_0, \dots, z_{t-1}, c_t(x))

    A GRU carries the latents drawn so far from step to step, with no limit to how far back
    they are read, so that posterior correlations of any lag are in the family. The latents of
    one step are independent of each other given those before. An encoder makes the contexts
    ``c_t`` once a datum, and all particles share them.

    With ``site="z"`` all steps are one site of event shape ``(T,)`` or ``(T, L)``, which takes
    one call of the GRU to score. A name with braces, as in ``site="z_{}"``, makes a site a
    step, "z_0", "z_1", ..., for models that loop over time.

    References:
        Gregor, Danihelka, Mnih, Blundell, Wierstra (2014), *Deep autoregressive networks*,
        arXiv:1310.8499, for latents in order.
        Krishnan, Shalit, Sontag (2017), *Structured inference networks for nonlinear state
        space models*, arXiv:1609.09869, for recurrent networks over time.

    Args:
        encoder: from a batch of data to ``(B, encoder_features)``, or, for sequences,
            ``(B, T, encoder_features)``. If left out: an MLP for rows, a GRU in both
            directions for sequences.
        in_features: size of a datum, or of a row of a sequence; a given encoder takes any.
        num_steps: T; None for data that are sequences, with one latent step for each row of
            the encoder's features, however many.
        site: name of the site, or with braces for the step, of the sites.
        family: of the latents: "normal", "bernoulli" or "categorical".
        latent_features: L, latents of one step; None where a step is a number.
        num_categories: of "categorical".
        hidden: hidden sizes of the MLP.
        state_features: size of the recurrent state, and of a step's context.
        encoder_features: size of a given encoder's output.
        num_data: N, the model's own ``num_data``.

    Raises:
        ProgramError: an unknown family, a size below 1, an encoder without
            ``encoder_features``.
        DataError: ``x`` has another shape, or no rows.

    Example:
        >>> import torch
        >>> guide = AutoregressiveGuide(in_features=6, num_steps=10, latent_features=2)
        >>> guide(torch.zeros(5, 6))["z"].shape
        torch.Size([5, 10, 2])
        >>> each = AutoregressiveGuide(
        ...     in_features=3, num_steps=None, site="s_{}", family="categorical"
        ... )
        >>> {name: s.shape for name, s in each(torch.zeros(5, 2, 3)).items()}
        {'s_0': torch.Size([5]), 's_1': torch.Size([5])}
    """

    def __init__(
        self,
        encoder: nn.Module | None = None,
        *,
        in_features: int = 64,
        num_steps: int | None = 16,
        site: str = "z",
        family: str = "normal",
        latent_features: int | None = None,
        num_categories: int = 2,
        hidden: Sequence[int] = (200, 200),
        state_features: int = 64,
        encoder_features: int | None = None,
        num_data: int | None = None,
    ) -> None:
        super().__init__(name=type(self).__name__)
        size = check_size("state_features", state_features)
        shape = () if latent_features is None else (check_size("latent_features", latent_features),)
        self.entries = Entries(family, shape, num_categories)
        self.site = site
        self.num_data = check_num_data(num_data)
        self.context: RowContext | SequenceContext = (
            SequenceContext(encoder, encoder_features, in_features, size)
            if num_steps is None
            else RowContext(encoder, encoder_features, in_features, hidden, num_steps, size)
        )
        self.steps = RecurrentSteps(self.entries.num_inputs, size, self.entries.num_outputs, size)

    def forward(self, x: Any) -> dict[str, Tensor]:
        """One draw of each site inside plate "data"."""
        posterior = self.posterior(x)
        draws: dict[str, Tensor] = {}

        def draw(t: int, step: Any) -> Tensor:
            name = self.site.replace("{}", str(t))
            draws[name] = pyro.sample(name, step)
            return draws[name]

        with data_plate(len(x), self.num_data, like=posterior.context):
            if "{}" in self.site:
                posterior.unroll(draw)
            else:
                draw(0, posterior)
        return draws

    def posterior(self, x: Any) -> Autoregressive:
        """The joint distribution of all steps: batch ``(B,)``, event ``(T,)`` or ``(T, L)``."""
        return Autoregressive(self.steps, self.context(x), self.entries)
