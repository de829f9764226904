"""What holds for every model that knows its evidence and its posterior.

Tolerances are rounding in float64: the filters and Cholesky factors behind some evidences lose
up to half of its digits.
"""

import torch
from torch import Tensor

from pyro_lvm.acceptance import AcceptanceObjective
from pyro_lvm.adversarial import AdversarialObjective
from pyro_lvm.game import GameObjective
from pyro_lvm.objective import Objective
from pyro_lvm.objectives import ELBO, VGI, AnalyticELBO, SecondOrderELBO
from pyro_lvm.testing import discover

EXPLICIT = [
    cls
    for cls in discover("pyro_lvm.objectives", Objective)
    if cls not in (VGI, AnalyticELBO, SecondOrderELBO)
    and not issubclass(cls, (AcceptanceObjective, AdversarialObjective, GameObjective))
]
"""The objectives that need densities only, no discriminator, no chains, labels or divergences."""

BOUNDS = [cls(k) for cls in EXPLICIT for k in (1, 5) if k >= cls.min_particles]


def nothing(x: Tensor) -> None:
    """The guide of a model whose latent sites are all summed out."""


def check_exact_guide(model, x: Tensor) -> None:
    """With the posterior as guide every draw has the weight p(x), so every bound is log p(x)."""
    exact = model.log_evidence(x)
    assert exact.shape == (len(x),)
    for objective in BOUNDS:
        bound = objective.bound(model, model.exact_guide, x)
        torch.testing.assert_close(bound, exact, atol=1e-6, rtol=0, msg=repr(objective))


def check_scale(make, x: Tensor) -> None:
    """A batch that stands for five times as many data counts five times in a loss."""
    model = make(num_data=5 * len(x))
    exact = -5 * model.log_evidence(x).sum().item()
    assert abs(ELBO(3).loss(model, model.exact_guide, x) - exact) < 1e-8


def gradients(value: Tensor, model) -> dict[str, Tensor]:
    names, parameters = zip(*model.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(value, parameters), strict=True))


def check_gradients(value: Tensor, model, x: Tensor) -> None:
    """``value`` has the gradient of the total log-evidence, in every parameter."""
    exact = gradients(model.log_evidence(x).sum(), model)
    for name, gradient in gradients(value, model).items():
        torch.testing.assert_close(gradient, exact[name], atol=1e-8, rtol=0, msg=name)
