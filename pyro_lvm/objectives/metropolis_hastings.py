"""The acceptance rate of Metropolis-Hastings as an objective of its proposal."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, Self, cast

import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn

from pyro_lvm.errors import DataError, PlateError, explain
from pyro_lvm.latent_chains import LatentChains, StartingAt
from pyro_lvm.layout import Layout, chosen_rows
from pyro_lvm.metropolis import independence_chain
from pyro_lvm.nn import check_choice, check_size
from pyro_lvm.objective import Objective
from pyro_lvm.particles import Particles, draw
from pyro_lvm.tracing import Program

__all__ = ["MHAcceptance"]

_Drawn = Callable[..., Particles]


class MHAcceptance(Objective):
    r"""Trains a guide to be a proposal that Metropolis-Hastings accepts.

    With :math:`z \sim p(z \mid x)`, :math:`z' \sim q(z' \mid x)`, :math:`w = p(x, z) / q(z \mid
    x)` and :math:`\xi = w(z') / w(z)`, the acceptance rate A has the lower bounds

    .. math:: \log A = \log E \min\{1, \xi\} \ge E \min\{0, \log \xi\}, \qquad
        A \ge 1 - \sqrt{-\tfrac12 E \log \xi}, \quad
        -E \log \xi = KL(q \,\|\, p) + KL(p \,\|\, q)

    "jensen" ascends :math:`E \min\{0, \log \xi\}`, "symmetric" :math:`E \log \xi`, whose forward
    divergence weighs modes that the guide leaves out; these are the value, in nats per datum. Both
    are 0, and the rate 1, at the exact posterior. z' has its path
    derivative; z are the states of K chains a datum, which the guide's own proposals move after
    each step, so they come from the posterior only as far as these have mixed: ``is_bound`` is
    False (and the number has nothing to do with log p(x)). A mode that the guide never visits
    stays unseen, at whatever rate.

    The model is the target and gets no gradient. Where the programs have a data plate, pass the
    numbers of the rows last, ``objective.loss(model, guide, x, index)``, and ``num_data``: each
    datum has its own chains, and accepts for itself. The programs are called without them, but
    by ``fit``, whose batches ``(x, index)`` they take as ``forward(self, x, index=None)``.
    Evaluation without an index starts chains anew.

    References:
        Neklyudov, Egorov, Shvechikov, Vetrov (2018), *Metropolis-Hastings view on variational
        inference and adversarial training*, arXiv:1810.07151v1, sections 3 and 4.

    Args:
        num_particles: K chains of each datum, and proposals.
        lower_bound: "jensen" or "symmetric".
        num_data: N, rows of the data plate, if there is one.
        num_warmup: moves from the guide's draws to the chains' first states.
        max_plate_nesting: dims the plates may take; found by one extra run if left out.

    Raises:
        ProgramError: an argument out of range; a site without ``rsample``.
        DataError: a data plate without an index, or one out of range.
        PlateError: a minibatch beside a latent of all data; several plates of independent data.

    Example:
        >>> import pyro, pyro.distributions as dist
        >>> def model():
        ...     pyro.sample("z", dist.Normal(1.0, 2.0))
        >>> def guide():
        ...     pyro.sample("z", dist.Normal(pyro.param("loc", torch.tensor(0.0)), 2.0))
        >>> objective = MHAcceptance(num_particles=64)
        >>> svi = pyro.infer.SVI(model, guide, pyro.optim.Adam({"lr": 0.02}), objective)
        >>> losses = [svi.step() for _ in range(200)]
        >>> bool(objective.acceptance(model, guide) > 0.95)
        True
    """

    is_bound: ClassVar[bool] = False
    takes: ClassVar[tuple[str, ...]] = ("reparam",)

    def __init__(
        self,
        num_particles: int = 64,
        *,
        lower_bound: str = "jensen",
        num_data: int | None = None,
        num_warmup: int = 20,
        max_plate_nesting: int | None = None,
    ) -> None:
        check_choice("lower_bound", lower_bound, ("jensen", "symmetric"))
        check_size("num_warmup + 1", num_warmup + 1)
        super().__init__(num_particles, max_plate_nesting=max_plate_nesting)
        self.lower_bound = lower_bound
        self.num_data = None if num_data is None else check_size("num_data", num_data)
        self.num_warmup = num_warmup
        self.chains = LatentChains(num_data)

    def bound_per_datum(self, log_weights: Tensor) -> Tensor:
        """From the log-weights ``(2 K, *batch)`` of states and proposals."""
        log_ratio = _log_ratio(log_weights)
        return (log_ratio.clamp(max=0.0) if self.lower_bound == "jensen" else log_ratio).mean(0)

    def acceptance(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> Tensor:
        """An estimate of the acceptance rate itself, ``(*batch,)``, without gradient."""
        log_weights = self.log_weights(model, guide, *args, **kwargs)
        return _log_ratio(log_weights).clamp(max=0.0).exp().mean(0)

    def run(
        self,
        model: Program,
        guide: Program,
        args: Any,
        kwargs: Any,
        max_plate_nesting: int,
        index: Tensor | None = None,
        **how: Any,
    ) -> Particles:
        """States of the chains, then proposals: ``(2 K, *batch)``."""
        drawn = partial(
            draw,
            _Fixed(model)(model),
            guide,
            args,
            kwargs,
            max_plate_nesting=max_plate_nesting,
            enumerate_sites=self.enumerates,
        )

        with StartingAt(self._states(drawn, index)):
            particles = drawn(num_particles=2 * self.num_particles, **how)
        if torch.is_grad_enabled():
            self._move(particles, index)
        return particles

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs to go on exactly, the chains too."""
        return super().state_dict() | {"chains": self.chains.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.chains.load_state_dict(state["chains"])

    def _draw(
        self, model: Program, guide: Program, args: Any, kwargs: Any, **how: Any
    ) -> Particles:
        args, index = self._split(args)
        return super()._draw(model, guide, args, kwargs, index=index, **how)

    def _split(self, args: Any) -> tuple[Any, Tensor | None]:
        """The programs' arguments, and the numbers of the rows if there are any."""
        if self.num_data is None:
            return args, None
        *own, last = args
        is_index = isinstance(last, Tensor) and last.dim() == 1 and not last.is_floating_point()
        if len(args) > 1 and is_index:
            return tuple(own), _in_range(last, self.num_data)
        if torch.is_grad_enabled():
            hint = (
                "Pass torch.arange(len(x)) last; for fit, let both programs take it and ignore it."
            )
            raise DataError(explain("index", "the number of each row", "none", hint))
        return args, None

    def _states(self, drawn: _Drawn, index: Tensor | None) -> dict[str, Tensor]:
        """Where the chains of these rows are; new ones start at the guide."""
        if index is None and self.num_data is not None:
            return self._started(drawn)
        if not self.chains.has(index).all():
            self.chains.start(index, self._started(drawn))
        return self.chains.at(index)

    @torch.no_grad()
    def _started(self, drawn: _Drawn) -> dict[str, Tensor]:
        """States after the warm-up, ``(K, *plates, *event)`` by site of the guide."""
        steps = self.num_warmup + 1
        particles = drawn(num_particles=steps * self.num_particles)
        layout = self._layout(particles)
        by_step = particles.log_weights.unflatten(0, (steps, self.num_particles))
        last = independence_chain(by_step).rows[-1]  # (K, *batch)
        return _chosen(particles, layout, last * self.num_particles + _numbers(last))

    @torch.no_grad()
    def _move(self, particles: Particles, index: Tensor | None) -> None:
        """Each chain to its proposal, or not."""
        states, proposals = particles.log_weights.chunk(2)
        accepted = independence_chain(torch.stack([states, proposals])).rows[-1]
        rows = accepted * self.num_particles + _numbers(accepted)
        self.chains.keep(index, _chosen(particles, self._layout(particles), rows))

    def _layout(self, particles: Particles) -> Layout:
        layout = cast(Layout, particles.layout)  # of particles that were drawn
        if layout.subsampled_inside:
            where = f"plate '{layout.subsampled_inside[0]}'"
            hint = "Pass the full data, or train by ELBO and correct the draws afterwards."
            raise PlateError(explain(where, "all data, to accept moves", "a minibatch", hint))
        if len(layout.batch) != (self.num_data is not None):
            where, found = "num_data", f"num_data={self.num_data} and plates {list(layout.names)}"
            hint = "Pass num_data, the rows in all, if there is a plate of independent data."
            raise PlateError(explain(where, "the size of the one data plate", found, hint))
        if layout.batch:
            self.chains.dim = 1 + layout.max_plate_nesting + int(layout.batch[0].dim)
        return layout


def _log_ratio(log_weights: Tensor) -> Tensor:  # (K, *batch)
    states, proposals = log_weights.chunk(2)
    return proposals - states


def _numbers(rows: Tensor) -> Tensor:
    """0 to K - 1 along the first dim of ``(K, *batch)``."""
    return torch.arange(len(rows), device=rows.device).reshape(-1, *[1] * (rows.dim() - 1))


def _chosen(particles: Particles, layout: Layout, rows: Tensor) -> dict[str, Tensor]:
    """Of every draw of the guide the particles ``(K, *batch)`` that each datum chose."""
    chosen = layout.unfold(rows)
    drawn = {n: s for n, s in particles.guide.items() if not (s.is_observed or s.is_delta)}
    return {name: chosen_rows(site.value, chosen) for name, site in drawn.items()}


def _in_range(index: Tensor, num_data: int) -> Tensor:
    beyond = (index < 0) | (index >= num_data)
    if bool(beyond.any()):
        expected, found = f"rows 0 to {num_data - 1}", f"{int(index[beyond][0])}"
        raise DataError(explain("index", expected, found, "Pass num_data, the rows in all."))
    return index


class _Fixed(Messenger):
    """Runs a program whose parameters, those of a module or stated, have no gradient."""

    def __init__(self, program: Program) -> None:
        super().__init__()
        self.parameters = [*program.parameters()] if isinstance(program, nn.Module) else []

    def __enter__(self) -> Self:
        self._trained = [p for p in self.parameters if p.requires_grad]
        for parameter in self._trained:
            parameter.requires_grad_(False)
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        for parameter in self._trained:
            parameter.requires_grad_(True)
        super().__exit__(*error)

    def _pyro_post_param(self, msg: dict[str, Any]) -> None:
        msg["value"] = msg["value"].detach()
