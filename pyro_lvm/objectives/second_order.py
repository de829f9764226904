"""The ELBO with second-order supervision: labels train the model, and not the encoder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import pyro
import torch
from pyro import poutine
from pyro.nn import PyroModule
from torch import Tensor, nn
from torch.func import functional_call

from pyro_lvm.errors import ProgramError, explain
from pyro_lvm.gradients import reparameterised
from pyro_lvm.layout import scaled
from pyro_lvm.nn import check_positive
from pyro_lvm.objective import Objective
from pyro_lvm.parameters import allow_local_parameters, scoped
from pyro_lvm.particles import Particles
from pyro_lvm.tracing import Program

__all__ = ["SecondOrderELBO"]


class SecondOrderELBO(Objective):
    r"""The ELBO of data, and labels predicted from where the guide would follow the model.

    With :math:`L_N` the ELBO of N data without their labels, model :math:`\theta, \psi`, guide
    :math:`\phi`, one step of the guide is :math:`\phi'(\theta) = \phi + \eta \, \nabla_\phi
    L_N(\theta, \phi) / N`, and the gradient is

    .. math:: \theta, \psi: \nabla \{ L_N(\theta, \phi) + E_{q_{\phi'(\theta)}} \log
        p_\psi(y \mid z) \}, \qquad \phi: \nabla_\phi L_N(\theta, \phi)

    The label's term reaches :math:`\theta` through :math:`\phi'` alone, by the mixed second
    derivatives of the ELBO, and never :math:`\phi`: labels move the model to where its own
    posterior predicts them, and the guide stays an approximation of that posterior. In an ELBO
    of data and labels together the guide bends instead.

    One step passes on a part of the label's pull, the smaller the flatter the ELBO is in
    :math:`\phi`, so the labels need a larger weight than in an ELBO. Where no latent knows
    anything of the label and the predictor reads none, neither moves: start from random
    parameters, not from a model trained without labels. A training step runs both programs
    three times. The value is the ELBO of the data, in nats per datum, a bound on log p(x).

    References:
        Tu, Talbot, Gallagher, Carlson (2021), *Supervising the decoder of variational
        autoencoders to improve scientific utility*, arXiv:2109.04561.

    Args:
        num_particles: draws per datum, K >= 1.
        gradient: "reparam", or "stl" for the ELBO's own gradient.
        labels: the site of the labels, observed in the model, in training.
        step_size: :math:`\eta`, below twice the inverse of the largest curvature of the ELBO of
            a datum in the guide's parameters.
        max_plate_nesting: dims the plates may take; found by one extra run if left out.

    Raises:
        ProgramError: an argument out of range; in training, a model without the site, a guide
            that is no module with parameters, a site without ``rsample``.

    Example:
        >>> from pyro_lvm.guides import AmortizedNormal, WithoutLabels
        >>> from pyro_lvm.models import SupervisedVAE
        >>> model, guide = SupervisedVAE(), WithoutLabels(AmortizedNormal())
        >>> x, y = torch.rand(5, 64).round(), torch.tensor([3, 9, -1, -1, -1])
        >>> loss = SecondOrderELBO()(model, guide)
        >>> loss(x, y).backward()
        >>> model.predictor.bias.grad.shape
        torch.Size([10])
    """

    is_linear: ClassVar[bool] = True
    takes: ClassVar[tuple[str, ...]] = ("reparam", "stl")

    def __init__(
        self,
        num_particles: int = 1,
        gradient: str = "reparam",
        *,
        labels: str = "y",
        step_size: float = 0.1,
        max_plate_nesting: int | None = None,
    ) -> None:
        super().__init__(num_particles, gradient, max_plate_nesting=max_plate_nesting)
        self.labels = labels
        self.step_size = check_positive("step_size", step_size, "0.1")

    def bound_per_datum(self, log_weights: Tensor) -> Tensor:
        return log_weights.mean(0)

    def elasticity(self, log_weights: Tensor) -> Tensor:
        return torch.zeros_like(log_weights)

    def run(self, model: Program, guide: Program, *args: Any, **how: Any) -> Particles:
        """A draw of the data's own latents: the labels are out of sight."""
        return super().run(poutine.block(model, hide=[self.labels]), guide, *args, **how)

    def extra_loss(self, model: Program, guide: Program, args: Any, kwargs: Any) -> Tensor:
        """Minus log p(y | z) of latents drawn by the guide ahead, summed and scaled, nats."""
        nesting = self.max_plate_nesting or 0
        ahead = self._ahead(model, guide, args, kwargs, nesting)
        particles = super().run(model, ahead, args, kwargs, nesting)
        part = particles.parts.get(self.labels)
        if part is None or part.log_p is None:
            raise self._no_labels(particles)
        return -scaled(part.log_p.mean(0), particles.scale).sum()

    def _ahead(
        self, model: Program, guide: Program, args: Any, kwargs: Any, nesting: int
    ) -> Program:
        """The guide one step on, a function of the model's parameters and not of its own."""
        allow_local_parameters(guide)
        at = {name: p.detach().requires_grad_() for name, p in _parameters(guide).items()}
        particles = self.run(model, _with(guide, at), args, kwargs, nesting)
        elbo = reparameterised(particles, "reparam").log_weights.mean()
        slopes = torch.autograd.grad(elbo, list(at.values()), create_graph=True)
        steps = zip(at.items(), slopes, strict=True)
        return _with(guide, {name: p + self.step_size * slope for (name, p), slope in steps})

    def _no_labels(self, particles: Particles) -> ProgramError:
        found = sorted(n for n, s in particles.model.items() if s.is_observed)
        hint = "Pass labels='y', the site's name, and data with their labels; or use ELBO."
        expected = f"a site of the model, '{self.labels}', that observes labels"
        return ProgramError(explain("labels", expected, f"observed sites {found}", hint))


def _parameters(guide: Program) -> Mapping[str, Tensor]:
    named = dict(guide.named_parameters()) if isinstance(guide, nn.Module) else {}
    trained = {name: p for name, p in named.items() if p.requires_grad}
    if not trained:
        found = f"a {type(guide).__name__} without any"
        hint = "Write the guide as a PyroModule that holds its parameters."
        raise ProgramError(explain("guide", "a module with parameters", found, hint))
    return trained


def _with(guide: Any, parameters: Mapping[str, Tensor]) -> Callable[..., Any]:
    """The guide at other values of its parameters, which neither Pyro's store nor SVI sees."""

    def program(*args: Any, **kwargs: Any) -> Any:
        with poutine.block(hide_types=["param"]), pyro.settings.context(module_local_params=True):
            return functional_call(guide, dict(parameters), args, kwargs)

    return scoped(program, guide) if isinstance(guide, PyroModule) else program
