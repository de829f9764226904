"""Run one program and record its sites: expand what is drawn, hold fixed what is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from pyro.nn import PyroModule
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn

from pyro_lvm.errors import DataError, PlateError, ProgramError, explain
from pyro_lvm.parameters import check_fresh, check_own, is_unheard, scoped, stepped_by_svi

__all__ = ["Draw", "PlateCollision", "Program", "Recorder", "Site", "record", "unplated"]

Program = Callable[..., Any]


class PlateCollision(PlateError):
    """A plate reaches the dim that the particles take."""


@dataclass(frozen=True)
class Site:
    """One sample statement as it was run.

    Attributes:
        name: the site's name.
        fn: its distribution, after plates and particles have expanded it.
        value: its value, shape ``(K, *plates, *event)`` where it depends on the particles.
        is_observed: whether the program was given the value by ``obs=``.
        infer: the site's ``infer`` dictionary.
        scale: product of plate and ``poutine.scale`` factors.
        mask: the ``poutine.mask`` around it, True = counted.
        frames: the plates around it.
        is_downstream: whether its distribution already varied over particles.
    """

    name: str
    fn: Any
    value: Tensor
    is_observed: bool
    infer: Mapping[str, Any]
    scale: float | Tensor
    mask: bool | Tensor | None
    frames: tuple[Any, ...]
    is_downstream: bool

    @property
    def is_auxiliary(self) -> bool:
        return bool(self.infer.get("is_auxiliary"))

    @property
    def is_delta(self) -> bool:
        return type(self.fn).__name__ == "Delta"

    @property
    def has_rsample(self) -> bool:
        return bool(self.fn.has_rsample)

    @property
    def is_factor(self) -> bool:
        return type(self.fn).__name__ == "Unit"

    @property
    def needs_score(self) -> bool:
        """Whether a guide's draw, or one that its factor stands for, has no path derivative."""
        return not self.fn.has_rsample and (self.is_factor or not self.is_observed)


@dataclass(frozen=True)
class Draw:
    """Indices a plate used: its full ``size``, the ``indices``, and who chose them."""

    size: int
    indices: Tensor
    is_random: bool


class Recorder(Messenger):
    """Records every sample site of one program, vectorised over particles.

    Latent sites are expanded by ``num_particles`` in the dim left of all plates; whatever
    depends on them broadcasts, and whatever does not (an encoder) runs once per datum.

    Args:
        num_particles: K, or ``None`` to look at the program without expanding anything.
        max_plate_nesting: number of dims the plates may take, P.
        given: values held fixed, by latent site.
        plates: subsample indices to reuse, by plate.
        detach: cut the path of every draw, so that only densities carry gradients.
    """

    def __init__(
        self,
        num_particles: int | None,
        max_plate_nesting: int,
        given: Mapping[str, Tensor] | None = None,
        plates: Mapping[str, Draw] | None = None,
        detach: bool = False,
    ) -> None:
        super().__init__()
        self.num_particles = num_particles
        self.max_plate_nesting = max_plate_nesting
        self.given = given or {}
        self.reused = plates or {}
        self.detach = detach
        self.sites: dict[str, Site] = {}
        self.plates: dict[str, Draw] = {}
        self.unheard: PyroModule | None = None
        self._downstream = False

    @property
    def sizes(self) -> dict[int, int]:
        """Sizes that the dims left of the plates may have, by dim, beside one."""
        count = self.num_particles
        return {} if count is None else {-1 - self.max_plate_nesting: count}

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        if type(msg["fn"]).__name__ == "_Subsample":
            self._reuse_indices(msg)
            return
        self._check_frames(msg)
        self._downstream = len(msg["fn"].batch_shape) > self.max_plate_nesting
        if msg["is_observed"] or msg["done"] or msg["value"] is not None:
            return
        if msg["name"] in self.given:
            msg["value"], msg["done"] = self.given[msg["name"]], True
        elif self.num_particles is not None:
            self._widen(msg)

    def _pyro_post_sample(self, msg: dict[str, Any]) -> None:
        name = msg["name"]
        if type(msg["fn"]).__name__ == "_Subsample":
            self.plates[name] = Draw(msg["fn"].size, msg["value"], self._drawn_here(msg))
        elif not msg["infer"].get("_deterministic"):
            if name in self.sites:
                raise ProgramError(
                    explain(
                        f"site '{name}'",
                        "one sample statement of that name",
                        "two",
                        "Give every site of a program its own name.",
                    )
                )
            if self.detach and not msg["is_observed"]:
                msg["value"] = self._detached(msg)
            self.sites[name] = self._site(msg)

    def _pyro_param(self, msg: dict[str, Any]) -> None:
        if self.unheard is not None:
            msg["fn"] = scoped(msg["fn"], self.unheard)

    def _pyro_post_param(self, msg: dict[str, Any]) -> None:
        if self.num_particles is None and len(msg["args"]) > 1:  # looking, not stepping
            check_fresh(msg["name"], msg["args"][1])
            if stepped_by_svi() is not None:
                check_own(msg["name"], msg["args"][1])

    def _site(self, msg: dict[str, Any]) -> Site:
        return Site(
            name=msg["name"],
            fn=msg["fn"],
            value=msg["value"],
            is_observed=msg["is_observed"],
            infer=msg["infer"],
            scale=msg["scale"],
            mask=msg["mask"],
            frames=msg["cond_indep_stack"],
            is_downstream=self._downstream,
        )

    def _detached(self, msg: dict[str, Any]) -> Tensor:
        value: Tensor = msg["value"]
        if value.requires_grad and type(msg["fn"]).__name__ == "Delta":
            raise ProgramError(
                explain(
                    f"site '{msg['name']}'",
                    "a random draw, for a gradient that holds draws fixed",
                    "a Delta at a point that parameters move",
                    "Use an objective with a path gradient, such as ELBO or IWAE.",
                )
            )
        return value.detach()

    def _widen(self, msg: dict[str, Any]) -> None:
        """Make room for the particles in a latent site that is about to be drawn."""
        msg["fn"] = self._expand(msg["name"], msg["fn"], self.num_particles or 1)

    def _check_particle_dim(self, name: str, fn: Any, num_particles: int) -> None:
        """Before the first draw nothing varies over particles; later only by K."""
        dim = -1 - self.max_plate_nesting
        size = fn.batch_shape[dim]
        drawn = any(not site.is_observed for site in self.sites.values()) or bool(self.given)
        if size != 1 and (size != num_particles or not drawn):
            raise unplated(name, fn, dim)

    def _expand(
        self, name: str, fn: TorchDistributionMixin, num_particles: int
    ) -> TorchDistributionMixin:
        shape = fn.batch_shape
        left = len(shape) - self.max_plate_nesting
        if left > 0:
            self._check_particle_dim(name, fn, num_particles)
        plates = shape[left:] if left > 0 else (1,) * -left + shape
        expanded = fn.expand(torch.Size((num_particles, *plates)))
        if expanded.has_rsample != fn.has_rsample:  # `has_rsample_` marks the instance only
            expanded.has_rsample = fn.has_rsample  # type: ignore[misc]
        return expanded

    def _check_frames(self, msg: dict[str, Any]) -> None:
        for frame in msg["cond_indep_stack"]:
            if frame.dim is not None and -frame.dim > self.max_plate_nesting:
                raise PlateCollision(
                    explain(
                        f"site '{msg['name']}', plate '{frame.name}'",
                        f"plates within the last {self.max_plate_nesting} dims, "
                        "to the right of the particle dim",
                        f"a plate at dim {frame.dim}",
                        f"Pass max_plate_nesting={-frame.dim} or more, or leave it out.",
                    )
                )

    def _drawn_here(self, msg: dict[str, Any]) -> bool:
        size, count = msg["fn"].size, msg["fn"].subsample_size
        return not msg.get("_explicit") and count is not None and count < size

    def _reuse_indices(self, msg: dict[str, Any]) -> None:
        name, size = msg["name"], msg["fn"].size
        if size == 0:
            raise DataError(
                explain(
                    f"plate '{name}'",
                    "at least one datum",
                    "size 0: an empty batch",
                    "Drop empty batches before the step.",
                )
            )
        msg["_explicit"] = msg["value"] is not None
        if name not in self.reused:
            return
        drawn = self.reused[name]
        if drawn.size != size:
            raise _sizes_differ(name, size, drawn.size)
        if msg["_explicit"] and drawn.is_random:
            raise _guide_draws_its_own(name)
        if not msg["_explicit"]:
            msg["value"] = drawn.indices
        elif self.num_particles is None and not torch.equal(
            msg["value"], drawn.indices.to(msg["value"].device)
        ):
            raise _rows_differ(name, msg["value"], drawn)


def unplated(name: str, fn: Any, dim: int) -> PlateError:
    """The error for a batch dim of site ``name`` that no plate declares."""
    return PlateError(
        explain(
            f"site '{name}'",
            f"a plate for each batch dim of its shape {tuple(fn.batch_shape)}",
            f"none at dim {dim} of size {fn.batch_shape[dim]}",
            "Wrap the site in pyro.plate(..., dim=...), or declare the dim an event "
            "dim with .to_event(n).",
        )
    )


def _sizes_differ(name: str, model_size: int, guide_size: int) -> PlateError:
    return PlateError(
        explain(
            f"plate '{name}'",
            "one size in both programs",
            f"{model_size} in the model and {guide_size} in the guide",
            "Give both plates the full data size and pass the minibatch by subsample=.",
        )
    )


def _rows_differ(name: str, indices: Tensor, drawn: Draw) -> PlateError:
    return PlateError(
        explain(
            f"plate '{name}'",
            "one minibatch in both programs",
            f"{len(indices)} of {drawn.size} in the model and {len(drawn.indices)} of "
            f"{drawn.size} in the guide, not the same rows",
            "Pass the same subsample= to both.",
        )
    )


def _guide_draws_its_own(name: str) -> PlateError:
    return PlateError(
        explain(
            f"plate '{name}'",
            "the model's subsample= indices in the guide too",
            "a guide that draws its own random subsample",
            "Open the plate in the guide with the same subsample=; for an AutoGuide pass "
            "create_plates.",
        )
    )


def record(program: Program, args: Any, kwargs: Any, recorder: Recorder) -> Recorder:
    """Run ``program(*args, **kwargs)`` under ``recorder`` and return it, filled."""
    if isinstance(program, PyroModule) and is_unheard(program):
        recorder.unheard, program = program, partial(nn.Module.__call__, program)
    try:
        with recorder:
            program(*args, **kwargs)
    except ValueError as error:
        if "Shape mismatch inside plate" not in str(error):
            raise
        raise _misfit(str(error)) from error
    return recorder


def _misfit(message: str) -> PlateCollision:
    return PlateCollision(
        explain(
            "plates",
            "shapes that fit, particles to the left of all plates",
            message[0].lower() + message[1:],
            "Compare the site's shape with its plates; leave max_plate_nesting out, or raise it.",
        )
    )
