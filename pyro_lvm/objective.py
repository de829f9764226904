"""The base of all objectives: the one place that sums, scales and derives losses."""

from __future__ import annotations

from abc import abstractmethod
from inspect import isabstract, signature
from math import isfinite
from operator import index
from typing import Any, ClassVar

import pyro
import torch
from pyro.infer import ELBO as PyroELBO
from pyro.infer.elbo import ELBOModule
from pyro.poutine.runtime import _PYRO_STACK
from torch import Tensor

from pyro_lvm import gradients
from pyro_lvm.annealing import Schedule, annealed_log_weights
from pyro_lvm.checks import nonfinite_data
from pyro_lvm.errors import NonFiniteError, ParameterError, PlateError, ProgramError, explain
from pyro_lvm.nonfinite import describe_nonfinite
from pyro_lvm.parameters import allow_local_parameters
from pyro_lvm.particles import Particles, draw, inspect
from pyro_lvm.tracing import PlateCollision, Program

__all__ = ["Objective"]


class Objective(PyroELBO):
    r"""A bound on log p(x), with a gradient estimator, for any model and guide.

    A subclass writes :meth:`bound_per_datum`; everything else is derived here once. Works in
    :class:`pyro.infer.SVI` and, as ``objective(model, guide)``, as a module under any torch
    optimiser. Independent data (the plates that every site of both programs is in) get a
    bound each; the N/B scale of a subsampled plate multiplies the bound, never a log-weight.

    Args:
        num_particles: K >= 1 draws per datum, always vectorised.
        gradient: ``"reparam"``, ``"stl"``, ``"dreg"``, ``"score"`` or ``"vimco"``; see
            :mod:`pyro_lvm.gradients`.
        beta: KL warm-up factor in the loss, a number or a function of the training step,
            for instance :class:`pyro_lvm.annealing.LinearWarmup`.
        free_bits: floor in nats of each latent site's mean KL in the loss.
        max_plate_nesting: dims the plates may take; found by one extra run if left out.

    Raises:
        ValueError: an argument out of range, or a gradient that is biased for this bound.
    """

    is_bound: ClassVar[bool] = True
    """Whether the expectation of :meth:`bound` is at most log p(x)."""

    is_linear: ClassVar[bool] = False
    """Whether the bound is linear in the log-weights (the ELBO)."""

    def __init__(
        self,
        num_particles: int = 1,
        gradient: str = "reparam",
        *,
        beta: Schedule = 1.0,
        free_bits: float = 0.0,
        max_plate_nesting: int | None = None,
    ) -> None:
        super().__init__(num_particles=num_particles)  # type: ignore[no-untyped-call]
        self.max_plate_nesting: int | None = max_plate_nesting
        self._nesting_is_given = max_plate_nesting is not None
        self.gradient = gradient
        self.beta = beta
        self.free_bits = free_bits
        self.step = 0
        self._check_arguments()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """A class is abstract (to be extended) or final (to be used), never both."""
        super().__init_subclass__(**kwargs)
        _check_extension(cls)

    def __repr__(self) -> str:
        names = signature(type(self)).parameters
        given = {n: getattr(self, n) for n in names if n in vars(self)}
        if not self._nesting_is_given:
            del given["max_plate_nesting"]
        always = ("num_particles", "gradient")
        shown = [f"{n}={v!r}" for n, v in given.items() if n in always or v != names[n].default]
        return f"{type(self).__name__}({', '.join(shown)})"

    @abstractmethod
    def bound_per_datum(self, log_weights: Tensor) -> Tensor:
        """The bound in nats, from log-weights ``(K, *batch)`` to ``(*batch,)``.

        A differentiable function for any leading K and any batch.
        """

    def elasticity(self, log_weights: Tensor) -> Tensor:
        r""":math:`\partial \log v_k / \partial \log w_k`, ``(K, *batch)``, for dreg.

        Here :math:`v_k` is the bound's slope in :math:`\log w_k`. A subclass may give it in
        closed form; a test holds it against this generic one.
        """
        return gradients.elasticity(self.bound_per_datum, log_weights)

    # What Pyro and its users call.

    def __call__(self, model: Program, guide: Program) -> ELBOModule:
        """A module whose ``forward`` is :meth:`differentiable_loss` of the two programs."""
        for program in (model, guide):
            allow_local_parameters(program)
        return ELBOModule(model, guide, self)  # type: ignore[arg-type]  # functions work too

    def loss(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> float:
        """Minus the bound, in nats, summed over data and scaled; no gradient."""
        with torch.no_grad():
            particles = self._draw(model, guide, args, kwargs)
            value = self.bound_per_datum(self.annealed(particles))
            return _total_loss(particles, value).item()

    def loss_and_grads(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> float:
        """The loss, with its gradient added to every parameter's ``grad``.

        Raises:
            NonFiniteError: the loss is NaN or infinite; no parameter or gradient has changed.
            ParameterError: ``SVI.step`` was asked to train plain module parameters.
        """
        particles, loss = self._differentiable(model, guide, args, kwargs)
        _check_trainable_by_svi()
        value = loss.item()
        if not isfinite(value):
            raise _nonfinite_loss(particles, value)
        del particles  # what backward does not need is freed before it starts
        if loss.requires_grad:
            loss.backward()
        return value

    def differentiable_loss(
        self, model: Program, guide: Program, *args: Any, **kwargs: Any
    ) -> Tensor:
        """The loss as a scalar tensor: its value is minus the bound, its gradient unbiased.

        One call with gradients enabled is one step of the ``beta`` schedule.
        """
        return self._differentiable(model, guide, args, kwargs)[1]

    def bound(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> Tensor:
        """The bound of each datum, ``(*batch,)`` nats, without scale, warm-up or gradient."""
        return self.bound_per_datum(self.log_weights(model, guide, *args, **kwargs))

    def log_weights(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> Tensor:
        """``log p(x, z_k) - log q(z_k | x)``, ``(K, *batch)`` nats, without gradient.

        Bounds of fewer particles from the same draws:
        ``objective.bound_per_datum(log_weights.unflatten(0, (K, -1)))``. All draws are made
        at once; :func:`pyro_lvm.diagnostics.log_evidence` makes them in chunks.
        """
        return self.particles(model, guide, *args, **kwargs).log_weights

    def particles(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> Particles:
        """K draws for each datum with their log-probabilities, without gradient."""
        with torch.no_grad():
            return self._draw(model, guide, args, kwargs)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs to go on exactly: numbers and tensors only."""
        return {"step": self.step, "max_plate_nesting": self.max_plate_nesting}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step = state["step"]
        self.max_plate_nesting = state["max_plate_nesting"]

    # What gradient estimators call.

    def annealed(self, particles: Particles) -> Tensor:
        """Log-weights ``(K, *batch)`` of the loss: with KL warm-up and free bits."""
        return annealed_log_weights(particles, self.beta_now(), self.free_bits)

    def beta_now(self) -> float:
        return self.beta(self.step) if callable(self.beta) else self.beta

    def _differentiable(
        self, model: Program, guide: Program, args: Any, kwargs: Any
    ) -> tuple[Particles, Tensor]:
        estimate = gradients.GRADIENTS[self.gradient]
        particles, value = estimate(
            self, lambda **how: self._draw(model, guide, args, kwargs, **how)
        )
        if torch.is_grad_enabled():
            self.step += 1
        return particles, _total_loss(particles, value)

    def _draw(
        self, model: Program, guide: Program, args: Any, kwargs: Any, **how: Any
    ) -> Particles:
        if self.max_plate_nesting is None:
            self.max_plate_nesting = inspect(model, guide, args, kwargs)
        how |= {"num_particles": self.num_particles}
        try:
            particles = draw(
                model, guide, args, kwargs, max_plate_nesting=self.max_plate_nesting, **how
            )
        except PlateCollision:
            if self._nesting_is_given:
                raise
            self.max_plate_nesting = inspect(model, guide, args, kwargs)
            particles = draw(
                model, guide, args, kwargs, max_plate_nesting=self.max_plate_nesting, **how
            )
        self._check_subsampling(particles)
        return particles

    def _get_trace(self, model: Any, guide: Any, args: Any, kwargs: Any) -> Any:
        raise NotImplementedError(
            explain(
                type(self).__name__,
                "use of .particles, .log_weights or .bound",
                "a request for one trace",
                "Call .particles(model, guide, *args); all draws are made in one pass.",
            )
        )

    # Checks.

    def _check_subsampling(self, particles: Particles) -> None:
        layout = particles.layout
        if layout is None or not layout.subsampled_inside:
            return
        if self.is_linear or self.num_particles == 1:
            return
        plate = layout.subsampled_inside[0]
        raise PlateError(
            explain(
                f"plate '{plate}'",
                f"every site inside it, for {type(self).__name__} with K > 1 on a minibatch",
                "a site outside it: its joint weight needs all the data, and N/B inside a "
                "log-sum-exp is no bound",
                "Use ELBO, or pass the full data, or move the global variable to a parameter.",
            )
        )

    def _check_arguments(self) -> None:
        name = type(self).__name__
        if not _is_count(self.num_particles):
            raise _argument("num_particles", "an integer >= 1", self.num_particles, "1")
        if self.max_plate_nesting is not None and self.max_plate_nesting < 0:
            raise _argument("max_plate_nesting", "an integer >= 0", self.max_plate_nesting, "1")
        if self.gradient not in gradients.GRADIENTS:
            known = sorted(gradients.GRADIENTS)
            raise _argument("gradient", f"one of {known}", self.gradient, "'reparam'")
        if not self.free_bits >= 0:  # NaN too
            raise _argument("free_bits", "a number >= 0", self.free_bits, "0.0")
        if self.gradient == "vimco" and self.num_particles < 2:
            raise _argument("num_particles", "K >= 2 with gradient='vimco'", 1, "5")
        curved = not self.is_linear and self.num_particles > 1
        if self.gradient == "stl" and curved:
            raise ProgramError(
                explain(
                    f"{name}(gradient='stl')",
                    "an unbiased gradient for K > 1",
                    "the sticking-the-landing one, which is biased for a non-linear bound",
                    "Use gradient='dreg', which has low variance and the right mean.",
                )
            )
        if self.gradient == "dreg" and curved and self.free_bits:
            raise _argument("free_bits", "0 with gradient='dreg' and K > 1", self.free_bits, "0.0")


_DERIVED = ("loss", "loss_and_grads", "differentiable_loss", "bound", "log_weights", "particles")


def _check_extension(cls: type) -> None:
    concrete = [b for b in cls.__mro__[1:-1] if issubclass(b, Objective) and not isabstract(b)]
    if concrete:
        raise TypeError(
            explain(
                f"class {cls.__name__}",
                "an abstract base, such as Objective",
                f"the finished objective {concrete[0].__name__}",
                "Extend Objective and write bound_per_datum.",
            )
        )
    if hidden := sorted(set(_DERIVED) & set(vars(cls))):
        raise TypeError(
            explain(
                f"class {cls.__name__}",
                f"{', '.join(_DERIVED)} as Objective derives them",
                f"its own {hidden[0]}",
                "Write bound_per_datum, or a gradient in pyro_lvm.gradients.",
            )
        )


def _is_count(number: Any) -> bool:
    try:
        return index(number) >= 1
    except TypeError:
        return False


def _argument(name: str, expected: str, found: Any, instead: str) -> ProgramError:
    return ProgramError(explain(name, expected, repr(found), f"Pass {name}={instead}."))


def _total_loss(particles: Particles, value: Tensor) -> Tensor:
    return -(particles.scale * value).sum()


def _nonfinite_loss(particles: Particles, value: float) -> ValueError:
    for site in particles.model.values():
        if site.is_observed and (error := nonfinite_data(site)):
            return error
    return NonFiniteError(
        explain(
            "loss",
            "a finite number",
            f"{value}, from {describe_nonfinite(particles)}",
            "Lower the learning rate, clip gradients, or keep scales away from 0.",
        )
    )


def _check_trainable_by_svi() -> None:
    """``SVI.step`` unconstrains every parameter it saw, and plain module ones cannot be."""
    if not pyro.settings.get("module_local_params") or not _PYRO_STACK:
        return
    outer: Any = _PYRO_STACK[0]
    if not getattr(outer, "param_only", False):
        return
    plain = [n for n, s in outer.trace.nodes.items() if not hasattr(s["value"], "unconstrained")]
    if plain:
        raise ParameterError(
            explain(
                f"parameter '{plain[0]}'",
                "a parameter of Pyro's store, which is what SVI.step trains",
                "a module's own parameter, as module_local_params is on",
                "Use pyro_lvm.fit, or a torch optimiser on objective(model, guide), or turn "
                "module_local_params off.",
            )
        )
