"""Bayesian LSTM: latent weights, and group variables that remove inputs, units and gates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from pyro_lvm.models.bayesian_mlp import linear
from pyro_lvm.models.bayesian_network import BayesianNetwork
from pyro_lvm.models.sequences import as_sequences, as_words
from pyro_lvm.nn import check_size

__all__ = ["BayesianLSTM"]


class BayesianLSTM(BayesianNetwork):
    r"""The last state of an LSTM whose weights are latent, then a Normal or classes.

    .. math:: a_t = z_g \odot (W_x (z_x \odot x_t) + W_h (z_h \odot h_{t-1})) + b

    The four parts of :math:`a_t` are the input gate, the forget gate, the proposed cell and the
    output gate, in that order. One draw of the weights serves all steps, as it must: the same
    weights at each. Sites: "w1", the rows of :math:`(W_x, W_h, b)`, and "w2", of the output layer,
    which reads :math:`z_h \odot h_T`. With ``groups`` also "inputs" :math:`z_x`, "units"
    :math:`z_h` and "gates" :math:`z_g`, with priors of the same kind: where one is pruned, an
    input is not read, a unit is gone, a gate is a constant :math:`\sigma(b)`. Otherwise they are 1.

    With a ``vocabulary`` the steps are numbers of words, and :math:`x_t` is the word's row of the
    site "words", times its entry of "vocabulary" with ``groups``: a pruned word is not read.

    Called as ``model(x, y)``; see :class:`~pyro_lvm.models.BayesianMLP`.

    References:
        Lobacheva, Chirkova, Vetrov (2018), *Bayesian sparsification of gated recurrent neural
        networks*, arXiv:1812.05692, section 3.
        Chirkova, Lobacheva, Vetrov (2018), *Bayesian compression for natural language
        processing*, arXiv:1810.10927, for the vocabulary.

    Args:
        in_features: D, of each step, or of a word's row.
        hidden: H, units.
        num_classes: C, of a classifier; None for a regression.
        vocabulary: V, number of words; None where a step is D numbers.
        groups: draw the group variables.
        prior: "normal", "log_uniform", "ard" or "ard_columns".
        prior_scale: its scale.
        noise_scale: of a regression: that of the outcomes, if known; otherwise latent.
        num_data: N, if batches are parts of the data; the plate then scales by N/B.

    Raises:
        ProgramError: a size below 1, a scale not above 0, an unknown prior.
        DataError: ``x`` is not of sequences of D features, or of words from 0 to V - 1; ``y``
            has another shape.

    Example:
        >>> model = BayesianLSTM(3, 5, groups=True)
        >>> model.latent_features
        {'w1': 180, 'w2': 6, 'inputs': 3, 'units': 5, 'gates': 20, 'log_noise': 1}
        >>> draws = {name: torch.zeros(7, size) for name, size in model.latent_features.items()}
        >>> model.outcome(torch.zeros(4, 9, 3), draws).batch_shape  # of 7 draws at 4 sequences
        torch.Size([7, 4])
    """

    def __init__(
        self,
        in_features: int = 3,
        hidden: int = 20,
        num_classes: int | None = None,
        *,
        vocabulary: int | None = None,
        groups: bool = False,
        prior: str = "normal",
        prior_scale: float = 1.0,
        noise_scale: float | None = None,
        num_data: int | None = None,
    ) -> None:
        inputs, units = check_size("in_features", in_features), check_size("hidden", hidden)
        outputs = 1 if num_classes is None else check_size("num_classes", num_classes)
        shapes = {"w1": (4 * units, inputs + units + 1), "w2": (outputs, units + 1)}
        of_groups = {"inputs": (1, inputs), "units": (1, units), "gates": (1, 4 * units)}
        if vocabulary is not None:
            shapes["words"] = (check_size("vocabulary", vocabulary), inputs)
            of_groups["vocabulary"] = (1, vocabulary)
        self._groups = tuple(of_groups) if groups else ()
        shapes |= of_groups if groups else {}
        super().__init__(shapes, num_classes, prior, prior_scale, noise_scale, num_data)
        self.in_features, self.hidden, self.vocabulary = inputs, units, vocabulary

    def rows(self, x: Any) -> Tensor:  # (B, T, D), or words (B, T)
        if self.vocabulary is None:
            return as_sequences(x, (self.in_features,), like=self._origin)
        return as_words(x, self.vocabulary, like=self._origin)

    def network(self, x: Tensor, weights: Mapping[str, Tensor]) -> Tensor:  # (*left, B, out)
        folded = self.folded(weights)
        recurrent = folded["w1"][..., self.in_features : -1].mT  # (*left, H, 4 H)
        from_input = torch.cat([folded["w1"][..., : self.in_features], folded["w1"][..., -1:]], -1)
        steps = _looked_up(folded["words"], x) if "words" in folded else x
        entering = linear(steps.flatten(-3, -2), from_input).unflatten(-2, steps.shape[-3:-1])
        state = cell = steps.new_zeros(1, self.hidden)
        for step in entering.unbind(-2):
            i, f, g, o = (step + state @ recurrent).chunk(4, -1)
            cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
            state = o.sigmoid() * cell.tanh()
        return linear(state, folded["w2"])

    def folded(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The matrices "w1", "w2" and, if there are, "words", times their group variables.

        Of means times what is kept, their zeros are those of the whole network.

        Args:
            weights: by site ``(*left, rows, columns)``, as :meth:`matrices` gives them.
        """
        plain = {name: weights[name] for name in ("w1", "w2", "words") if name in weights}
        if not self._groups:
            return plain
        columns = torch.cat([weights["inputs"], weights["units"]], -1)
        scales = {"w1": weights["gates"].mT * columns, "w2": weights["units"]}
        scaled = {name: _but_last(plain[name], scale) for name, scale in scales.items()}
        if "words" in plain:
            scaled["words"] = plain["words"] * weights["vocabulary"].mT
        return scaled

    def starts(self) -> dict[str, Tensor]:
        """Random means of the weights at which a guide may start; group variables start at 1."""
        sizes = {name: self.latent_features[name] for name in self._groups}
        ones = {name: self._origin.new_ones(size) for name, size in sizes.items()}
        return super().starts() | ones


def _but_last(matrix: Tensor, scale: Tensor) -> Tensor:
    """All columns times ``scale`` but the last, which is added in the end."""
    return torch.cat([matrix[..., :-1] * scale, matrix[..., -1:]], -1)


def _looked_up(words: Tensor, x: Tensor) -> Tensor:  # (*left, B, T, D)
    read: Tensor = words.index_select(-2, x.flatten()).unflatten(-2, x.shape)
    return read
