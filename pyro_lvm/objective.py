"""The base of all objectives: the one place that sums, scales and derives losses."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable
from functools import partial
from inspect import signature
from math import isfinite
from typing import Any, ClassVar

import torch
from pyro.infer import ELBO as PyroELBO
from pyro.infer.elbo import ELBOModule
from torch import Tensor

from pyro_lvm import gradients
from pyro_lvm.annealing import Schedule, annealed_log_weights, at_step, reads_parts
from pyro_lvm.enumeration import Enumerates
from pyro_lvm.errors import explain
from pyro_lvm.layout import scaled
from pyro_lvm.parameters import allow_local_parameters
from pyro_lvm.particle_chunks import in_chunks, keeping_draws
from pyro_lvm.particles import Particles, Ratio, draw, inspect
from pyro_lvm.refusals import (
    check_arguments,
    check_extension,
    check_subsampling,
    check_trainable_by_svi,
    nonfinite_loss,
)
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
        chunk_particles: particles at a time; all of them if left out. For numbers so large that
            they do not fit the memory: a step then takes that of one chunk and of a few arrays
            ``(K, *batch)``, a second forward pass, and has the same gradient.

    Raises:
        ValueError: an argument out of range, or a gradient that is biased for this bound.

    Example:
        Halfway between ELBO and IWAE, with all gradients, at an exact posterior:

        >>> import math, pyro, pyro.distributions as dist
        >>> class Between(Objective):
        ...     def bound_per_datum(self, log_weights):
        ...         iwae = log_weights.logsumexp(0) - math.log(len(log_weights))
        ...         return (log_weights.mean(0) + iwae) / 2
        >>> def model(x):
        ...     with pyro.plate("data", len(x)):
        ...         z = pyro.sample("z", dist.Normal(0.0, 1.0))
        ...         pyro.sample("x", dist.Normal(z, 1.0), obs=x)
        >>> def guide(x):
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("z", dist.Normal(x / 2, 0.5**0.5))
        >>> Between(num_particles=8, gradient="dreg").bound(model, guide, torch.zeros(3))
        tensor([-1.2655, -1.2655, -1.2655])
    """

    is_bound: ClassVar[bool] = True
    """Whether the expectation of :meth:`bound` is at most log p(x)."""

    is_linear: ClassVar[bool] = False
    """Whether the bound is linear in the log-weights (the ELBO)."""

    is_upper: ClassVar[bool] = False
    """Whether :meth:`bound` is from above: the loss is then the bound itself."""

    takes: ClassVar[tuple[str, ...]] = tuple(gradients.GRADIENTS)
    """The gradients to choose from."""

    takes_biased: ClassVar[tuple[str, ...]] = ()
    """Gradients to choose from although they are biased for K > 1."""

    ratio: Ratio | None = None
    """What stands in for the densities of some sites."""

    mixes: ClassVar[bool] = False
    """Whether auxiliary sites are averaged out."""

    min_particles: ClassVar[int] = 1
    """The fewest draws that train the guide."""

    keeps_in_place: ClassVar[bool] = False
    """Whether training steps change what it keeps, beyond ``step``, in place, as does
    :meth:`load_state_dict`: so that they can be recorded once and replayed."""

    decided: Hashable = None
    """What :meth:`before_step` settled for a step by values: a recorded step is for one such."""

    schedules: ClassVar[tuple[str, ...]] = ("beta",)
    """The arguments that a loss reads at each step, numbers or functions of the step."""

    def __init__(
        self,
        num_particles: int = 1,
        gradient: str = "reparam",
        *,
        beta: Schedule = 1.0,
        free_bits: float = 0.0,
        max_plate_nesting: int | None = None,
        chunk_particles: int | None = None,
    ) -> None:
        super().__init__(num_particles=num_particles)  # type: ignore[no-untyped-call]
        self.chunk_particles = chunk_particles
        self.max_plate_nesting: int | None = max_plate_nesting
        self._nesting_is_given = max_plate_nesting is not None
        self.gradient = gradient
        self.beta = beta
        self.free_bits = free_bits
        self.step = 0
        self.enumerates = False
        check_arguments(self)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """A class is abstract (to be extended) or final (to be used), never both."""
        super().__init_subclass__(**kwargs)
        check_extension(cls, Objective)

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

    def bound_of_others(self, log_weights: Tensor) -> Tensor:
        """The bound of all draws but the k-th, ``(K, *batch)``, the baseline of "score".

        Like :meth:`bound_with` generic, with memory K times that of the weights; a subclass may
        give either in closed form, and a test holds it against this one.
        """
        return gradients.bound_of_others(self.bound_per_datum, log_weights)

    def bound_with(self, log_weights: Tensor, instead: Tensor) -> Tensor:
        """The bound with the k-th log-weight replaced by ``instead[k]``, ``(K, *batch)``."""
        return gradients.bound_with(self.bound_per_datum, log_weights, instead)

    def before_step(self, model: Program, guide: Program, args: Any, kwargs: Any) -> None:
        """Called before each training step, for what no recorded step can do anew.

        Learning rates, and whatever Python decides by the values of data.
        """

    def estimate(self, draw: gradients.Draw) -> tuple[Particles, Tensor]:
        """Draws, and the bound ``(*batch,)`` with the gradient of the loss, negated, attached.

        ``draw(**how)`` is :func:`pyro_lvm.particles.draw` for the two programs.
        """
        return gradients.GRADIENTS[self.gradient](self, draw)

    def extra_loss(self, model: Program, guide: Program, args: Any, kwargs: Any) -> Tensor | None:
        """A scalar loss beside the bound's: its gradient is added, its value is not."""
        return None

    def run(
        self,
        model: Program,
        guide: Program,
        args: Any,
        kwargs: Any,
        max_plate_nesting: int,
        **how: Any,
    ) -> Particles:
        """One draw of all particles, with what stands for the programs' densities.

        ``how`` is what a gradient estimator asks of :func:`pyro_lvm.particles.draw`.
        """
        run = partial(
            draw,
            model,
            guide,
            max_plate_nesting=max_plate_nesting,
            enumerate_sites=self.enumerates,
            ratio=self.ratio,
        )
        count, size = self.num_particles, self.chunk_particles
        if size is None or not self.is_in_chunks:
            return run(args, kwargs, num_particles=count, **how)
        relay, by_site = how.pop("relay", None), self.reads_parts()
        return in_chunks(partial(run, **how), args, kwargs, count, size, relay, by_site)

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
            return self._total_loss(particles, value).item()

    def loss_and_grads(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> float:
        """The loss, with its gradient added to every parameter's ``grad``.

        Raises:
            NonFiniteError: the loss is NaN or infinite; no parameter or gradient has changed.
            ParameterError: ``SVI.step`` was asked to train plain module parameters.
        """
        particles, loss = self._differentiable(model, guide, args, kwargs)
        check_trainable_by_svi()
        value = loss.item()
        if not isfinite(value):
            raise nonfinite_loss(particles, value)
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
        at once but for ``chunk_particles``; :func:`pyro_lvm.diagnostics.log_evidence` makes
        them in chunks.
        """
        with torch.no_grad():
            return self._draw(model, guide, args, kwargs).log_weights

    def particles(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> Particles:
        """K draws for each datum with their log-probabilities, without gradient."""
        with torch.no_grad(), keeping_draws():
            return self._draw(model, guide, args, kwargs)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs to go on exactly: numbers and tensors only."""
        return {
            "step": self.step,
            "max_plate_nesting": self.max_plate_nesting,
            "enumerates": self.enumerates,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step = state["step"]
        self.max_plate_nesting = state["max_plate_nesting"]
        self.enumerates = state["enumerates"]

    @property
    def is_in_chunks(self) -> bool:
        """Whether particles are made in more than one run."""
        return self.chunk_particles is not None and self.chunk_particles < self.num_particles

    # What gradient estimators call.

    def annealed(self, particles: Particles) -> Tensor:
        """Log-weights ``(K, *batch)`` of the loss: with KL warm-up and free bits."""
        return annealed_log_weights(particles, self.beta_now(), self.free_bits)

    def beta_now(self) -> float:
        return at_step(self.beta, self.step)

    def reads_parts(self) -> bool:
        """Whether the loss needs log-probabilities by site at this step."""
        return reads_parts(self.beta_now(), self.free_bits)

    def _differentiable(
        self, model: Program, guide: Program, args: Any, kwargs: Any
    ) -> tuple[Particles, Tensor]:
        if torch.is_grad_enabled():
            self.before_step(model, guide, args, kwargs)
        particles, value = self.estimate(
            lambda **how: self._draw(model, guide, args, kwargs, **how)
        )
        loss = self._total_loss(particles, value)
        if torch.is_grad_enabled():
            self.step += 1
            extra = self.extra_loss(model, guide, args, kwargs)
            loss = loss if extra is None else loss + (extra - extra.detach())
        return particles, loss

    def _total_loss(self, particles: Particles, value: Tensor) -> Tensor:
        total = scaled(value, particles.scale).sum()
        return total if self.is_upper else -total

    def _draw(
        self, model: Program, guide: Program, args: Any, kwargs: Any, **how: Any
    ) -> Particles:
        if self.max_plate_nesting is None:
            found = inspect(model, guide, args, kwargs, self.mixes)
            self.max_plate_nesting, self.enumerates = found
        nesting = self.max_plate_nesting
        try:
            particles = self.run(model, guide, args, kwargs, nesting, **how)
        except Enumerates:
            self.enumerates = True
            return self._draw(model, guide, args, kwargs, **how)
        except PlateCollision:
            found = inspect(model, guide, args, kwargs, self.mixes)
            if self._nesting_is_given or found.max_plate_nesting == nesting:
                raise
            self.max_plate_nesting = None
            return self._draw(model, guide, args, kwargs, **how)
        check_subsampling(self, particles)
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
