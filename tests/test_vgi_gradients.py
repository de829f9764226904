"""Gradients of variational Gibbs inference: exact ones within their standard errors."""

from collections.abc import Callable

import pyro
import pytest
import torch
from gibbs_parts import D, exact_guide, factor_analysis, log_p_observed
from torch import Tensor
from vgi_parts import NAN, Pair, first, table, trainable

from pyro_lvm.guides import AmortizedNormal, GibbsConditionals, GibbsGuide
from pyro_lvm.kept_chains import Chains
from pyro_lvm.missing import Completed
from pyro_lvm.models import VAE
from pyro_lvm.objectives import VGI

pytestmark = pytest.mark.usefixtures("float64")


def repeated(loss: Callable[[], Tensor], parameters: list[Tensor], repeats: int = 40) -> Tensor:
    """A loss and its gradient in all parameters, one row a repeat."""
    rows = []
    for _ in range(repeats):
        value = loss()
        parts = [value, *torch.autograd.grad(value, parameters)]
        rows.append(torch.cat([part.detach().flatten() for part in parts]))
    return torch.stack(rows)


def assert_mean(found: Tensor, exact: list[Tensor], largest_error: float) -> None:
    """Within 5 standard errors, and rounding where there is no noise."""
    error = found.std(0) / len(found) ** 0.5
    assert error.max() < largest_error
    difference = found.mean(0) - torch.cat([part.detach().flatten() for part in exact])
    assert (difference.abs() < 5 * error + 1e-12).all()


def test_gradient_is_that_of_the_observed_evidence() -> None:
    """At exact conditionals: Fisher's identity for the model, zero for the guide."""
    model, x = factor_analysis(), table(3)
    guide = exact_guide(model)
    parameters = list(trainable(model, guide).values())
    loss = -log_p_observed(model, x[0])
    gradient = torch.autograd.grad(loss, list(model.parameters()))
    exact = [loss, *gradient, *(torch.zeros_like(p) for p in guide.parameters())]

    def estimate() -> Tensor:
        return VGI(Chains(x, 500))(Completed(model), guide)(*first(x)) / 3

    assert_mean(repeated(estimate, parameters), exact, largest_error=0.03)


def test_classes_by_the_score_have_the_exact_gradient() -> None:
    """The sum over the classes of a missing entry, against a mean over many chains."""
    model, x = Pair(), torch.tensor([[1.0, NAN]])
    guide = GibbsGuide(GibbsConditionals(2, num_classes=(2, 3), hidden=()))
    q = guide.conditionals(torch.zeros(1, 2) + x[0, 0], torch.tensor([1])).classes
    log_p = model.first.log_softmax(0)[1] + model.second.log_softmax(1)[1]
    exact = (q.probs[0] * (log_p - q.logits[0])).sum()
    parameters = list(trainable(model, guide).values())
    wanted = torch.autograd.grad(-exact, parameters)
    objective = VGI(Chains(torch.tensor([[1.0, NAN], [0.0, 2.0]]), 1000))

    def estimate() -> Tensor:
        return objective(model, guide)(x, torch.tensor([0])) / 2

    assert_mean(repeated(estimate, parameters), [-exact, *wanted], largest_error=0.01)


def test_path_of_an_entry_goes_through_the_posterior_too() -> None:
    """Its gradient by finite differences of the inner bound, at common random numbers."""
    x = table(3)
    model = VAE(D, 2, (5,), "gaussian")
    posterior = AmortizedNormal(in_features=D, latent_features=2, hidden=(5,))
    guide = GibbsGuide(GibbsConditionals(D, hidden=()), posterior)
    bias = guide.conditionals.head.bias

    def loss() -> Tensor:
        pyro.set_rng_seed(1)
        return VGI(Chains(x, 3), num_updates=0)(model, guide)(*first(x))

    (slope,) = torch.autograd.grad(loss(), bias)
    with torch.no_grad():
        for entry in ((1, 0), (1, 1)):
            values = []
            for step in (1e-6, -1e-6):
                bias[entry] += step
                values.append(loss().item())
                bias[entry] -= step
            assert (values[0] - values[1]) / 2e-6 == pytest.approx(slope[entry].item(), rel=1e-4)
