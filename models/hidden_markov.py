"""Hidden Markov model, with its exact evidence and posterior by the forward-backward method."""

from __future__ import annotations

from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from pyro.poutine.runtime import InferDict
from torch import Tensor, nn

from pyro_lvm.models.emissions import CategoricalEmission, GaussianEmission
from pyro_lvm.models.sequences import as_sequences
from pyro_lvm.nn import check_choice, check_num_data, check_size, data_plate

__all__ = ["HiddenMarkov"]


class HiddenMarkov(PyroModule):
    r"""Sequences of data, each step's distribution given by a state that is a Markov chain.

    .. math:: z_0 \sim \mathrm{Categorical}(\pi), \quad
        z_t \mid z_{t-1} \sim \mathrm{Categorical}(A_{z_{t-1}}), \quad
        x_t \mid z_t \sim p(\cdot; \theta_{z_t})

    Sites "z_0", "x_0", "z_1", "x_1", ... inside plate "data". A datum is a sequence; those of a
    batch have one length, T, and batches may differ in it. ``log_evidence(x)``, ``filter(x)``
    and ``posterior(x)`` are exact, in log space, and differentiable; they loop over time only.
    Parameters: ``initial_logits`` ``(S,)``, ``transition_logits`` ``(S, S)`` and those of
    ``emission``.

    References:
        Rabiner (1989), *A tutorial on hidden Markov models and selected applications in speech
        recognition*, Proc. IEEE 77.
        Bishop (2006), *Pattern recognition and machine learning*, section 13.2.

    Args:
        num_states: S.
        emission: "gaussian", diagonal, for data ``(B, T, in_features)``, or "categorical", for
            symbols ``(B, T)``.
        in_features: D, of "gaussian".
        num_symbols: V, of "categorical": symbols 0 to V - 1.
        num_steps: T of the sequences that are drawn where there are no data.
        num_data: N, if batches are parts of the data; the plate then scales by N/B.
        enumerate_latents: mark the states to be summed out by any objective, where the guide
            does not draw them.

    Raises:
        ProgramError: an unknown emission, a size below 1.
        DataError: ``x`` has another shape, or no rows.

    Example:
        >>> model = HiddenMarkov(num_states=3, emission="categorical", num_symbols=5)
        >>> x = model(size=4)
        >>> x.shape, model.log_evidence(x).shape, model.posterior(x).probs.shape
        (torch.Size([4, 16]), torch.Size([4]), torch.Size([4, 16, 3]))
    """

    def __init__(
        self,
        num_states: int = 4,
        emission: str = "gaussian",
        *,
        in_features: int = 2,
        num_symbols: int = 8,
        num_steps: int = 16,
        num_data: int | None = None,
        enumerate_latents: bool = False,
    ) -> None:
        super().__init__(name=type(self).__name__)
        check_choice("emission", emission, ("gaussian", "categorical"))
        self.num_states = check_size("num_states", num_states)
        self.num_steps = check_size("num_steps", num_steps)
        self.num_data = check_num_data(num_data)
        self.infer: InferDict = {"enumerate": "parallel"} if enumerate_latents else {}
        self.initial_logits = nn.Parameter(torch.zeros(num_states))
        self.transition_logits = nn.Parameter(0.1 * torch.randn(num_states, num_states))
        self.emission: GaussianEmission | CategoricalEmission = (
            GaussianEmission(num_states, in_features)
            if emission == "gaussian"
            else CategoricalEmission(num_states, num_symbols)
        )

    def forward(self, x: Any = None, *, size: int = 1) -> Tensor:
        """Sites "z_t" and "x_t" of every step t inside plate "data".

        Args:
            x: ``(B, T, D)`` data or ``(B, T)`` symbols; None draws ``size`` sequences from the
                prior predictive.
            size: number of sequences to draw where ``x`` is None.
        """
        x = None if x is None else self._sequences(x)
        plate = data_plate(size) if x is None else data_plate(len(x), self.num_data, like=x)
        steps = [None] * self.num_steps if x is None else x.unbind(1)
        drawn: list[Tensor] = []
        logits: Tensor = self.initial_logits
        with plate:
            for t in pyro.markov(range(len(steps))):
                z = pyro.sample(f"z_{t}", dist.Categorical(logits=logits), infer=self.infer)
                drawn.append(pyro.sample(f"x_{t}", self.emission(z), obs=steps[t]))
                logits = self.transition_logits[z]
        return torch.stack(drawn, 1).to(self.initial_logits)

    def exact_guide(self, x: Any) -> dict[str, Tensor]:
        """The guide that is the posterior, inside plate "data": states drawn backwards.

        Each is drawn given the one after it and the data up to its own step.
        """
        into = self._log_transition.mT  # row: the state that is moved into
        filtered = self.filter(x).logits.unbind(1)
        draws: dict[str, Tensor] = {}
        following: Tensor | float = 0.0
        with data_plate(len(x), self.num_data, like=into):
            for t, known in reversed([*enumerate(filtered)]):
                z = pyro.sample(f"z_{t}", dist.Categorical(logits=known + following))
                draws[f"z_{t}"] = z
                following = into[z]
        return draws

    def log_evidence(self, x: Any) -> Tensor:  # (B,)
        """The exact log p(x) of each sequence, in nats per datum."""
        return self._forward(x)[1].sum(-1)

    def filter(self, x: Any) -> dist.Categorical:
        """The exact distribution of each state given the data up to it, batch ``(B, T)``."""
        return dist.Categorical(logits=self._forward(x)[0])

    def posterior(self, x: Any) -> dist.Categorical:
        """The exact distribution of each state given all data, batch ``(B, T)``.

        These are marginals; states of one sequence depend on each other.
        """
        into = self._log_transition.mT
        *before, last = self.filter(x).logits.unbind(1)
        smoothed = [last]
        for known in reversed(before):
            given_next = torch.log_softmax(known.unsqueeze(1) + into, -1)  # (B, next, now)
            smoothed.append((smoothed[-1].unsqueeze(2) + given_next).logsumexp(1))
        return dist.Categorical(logits=torch.stack(smoothed[::-1], 1))

    @property
    def _log_transition(self) -> Tensor:  # (from, to)
        return torch.log_softmax(self.transition_logits, -1)

    def _sequences(self, x: Any) -> Tensor:
        return as_sequences(x, self.emission.row_shape, like=self.initial_logits)

    def _forward(self, x: Any) -> tuple[Tensor, Tensor]:
        """log p(z_t | x_0, ..., x_t), ``(B, T, S)``, and log p(x_t | x_0, ..., x_{t-1})."""
        rows = self._sequences(x).unsqueeze(2)
        every = torch.arange(self.num_states, device=rows.device)
        transition = self._log_transition
        predicted = torch.log_softmax(self.initial_logits, -1)
        filtered, evidence = [], []
        for score in self.emission(every).log_prob(rows).unbind(1):  # (B, S)
            joint = predicted + score
            evidence.append(joint.logsumexp(-1))
            filtered.append(joint - evidence[-1].unsqueeze(-1))
            predicted = (filtered[-1].unsqueeze(-1) + transition).logsumexp(-2)
        return torch.stack(filtered, 1), torch.stack(evidence, 1)
