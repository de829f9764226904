"""Gradients of discrete guides against enumeration."""

from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from bits import MAX_Z, Explaining, corners, exact_bits, independent_bits
from standard_errors import assert_mean
from torch import Tensor

from pyro_lvm.distributions import StraightThroughOneHotCategorical
from pyro_lvm.errors import ProgramError
from pyro_lvm.guides import AmortizedBernoulli, AmortizedCategorical
from pyro_lvm.objectives import ELBO, IWAE


def expected_iwae(model: Explaining, guide: AmortizedBernoulli, x: Tensor) -> Tensor:
    """The mean of the bound of two draws, summed over data, over all 256 pairs of values."""
    fn, z = guide.posterior(x)["z"], corners(4)[:, None]  # (16, 1, 4)
    log_q = fn.log_prob(z)  # (16, B)
    log_w = model.log_joint(x, z) - log_q
    bound = torch.logaddexp(log_w[:, None], log_w) - torch.tensor(2.0).log()
    return ((log_q[:, None] + log_q).exp() * bound).sum()


@pytest.mark.parametrize("gradient", ["score", "vimco"])
def test_mean_gradient_is_that_of_enumeration(gradient: str, float64: torch.dtype) -> None:
    """A plate of 1000 copies of one datum a replicate, for model and guide alike."""
    model = Explaining()
    guide = AmortizedBernoulli(in_features=3, latent_features=4, hidden=())
    x = torch.tensor([[1.0, -0.5, 2.0]])
    leaves = [model.loading, *guide.parameters()]
    exact = torch.autograd.grad(expected_iwae(model, guide, x), leaves)
    objective, rows, draws = IWAE(2, gradient), x.expand(1000, 3), []
    for _ in range(100):
        loss = objective.differentiable_loss(model, guide, rows) / -len(rows)
        draws.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, leaves)]))
    wanted = torch.cat([g.flatten() for g in exact])
    assert_mean(torch.stack(draws), wanted, MAX_Z, max_error=0.035)


def guide_gradients(draw: str, objective: Any, replicates: int = 60) -> Tensor:
    """Gradients of the guide's bias at one datum, one row a replicate of 1000 copies."""
    model = Explaining()
    guide = AmortizedBernoulli(in_features=3, latent_features=4, hidden=(), draw=draw)
    x = torch.tensor([[1.0, -0.5, 2.0]]).expand(1000, 3)
    bias = guide.encoding.head.bias
    return torch.stack(
        [
            torch.autograd.grad(objective.differentiable_loss(model, guide, x) / -1000, bias)[0]
            for _ in range(replicates)
        ]
    )


def z_score(first: Tensor, second: Tensor) -> float:
    error = (first.var(0) / len(first) + second.var(0) / len(second)).sqrt()
    return float(((first.mean(0) - second.mean(0)).abs() / error).max())


def test_straight_through_gradients_are_biased_as_documented(float64: torch.dtype) -> None:
    """stl has reparam's mean for the ELBO; dreg has another; none is the exact gradient."""
    exact = guide_gradients("exact", ELBO(2, "score"))
    reparam = guide_gradients("straight_through", ELBO(1, "reparam"))
    stl = guide_gradients("straight_through", ELBO(1, "stl"))
    assert z_score(reparam, stl) < MAX_Z
    assert z_score(reparam, exact) > 10
    cosine = torch.cosine_similarity(reparam.mean(0), exact.mean(0), dim=0)
    print(f"straight-through ELBO gradient: {reparam.mean(0)}, exact {exact.mean(0)}, {cosine}")
    assert cosine > 0.9
    plain = guide_gradients("straight_through", IWAE(5, "reparam"))
    dreg = guide_gradients("straight_through", IWAE(5, "dreg"))
    assert z_score(plain, dreg) > 10


def test_a_one_hot_prior_pulls_only_if_it_is_straight_through(float64: torch.dtype) -> None:
    """Both give one bound; Pyro's scores by argmax, which has no derivative."""
    logits = torch.tensor([[2.0, 0.0, -1.0]])
    guide = AmortizedCategorical(
        in_features=4, latent_features=1, num_categories=3, hidden=(), draw="straight_through"
    )
    values, slopes = [], []
    for prior in (
        dist.OneHotCategorical(logits=logits),
        StraightThroughOneHotCategorical(0.5, logits),
    ):

        def model(x: Tensor, prior: Any = prior) -> None:
            with pyro.plate("data", len(x)):
                pyro.sample("z", prior.to_event(1))

        torch.manual_seed(1)
        loss = ELBO().differentiable_loss(model, guide, torch.ones(50, 4))
        values.append(loss.detach())
        slopes.append(torch.autograd.grad(loss, guide.encoding.head.bias)[0])
    torch.testing.assert_close(values[0], values[1])
    assert (slopes[0] - slopes[1]).norm() > 0.1 * slopes[1].norm()


@pytest.mark.parametrize("gradient", ["reparam", "stl", "dreg"])
def test_exact_draws_refuse_path_gradients(gradient: str) -> None:
    objective = ELBO(1, gradient)
    with pytest.raises(ProgramError, match=r"(?s)site 'z'.*score"):
        objective.differentiable_loss(
            independent_bits, exact_bits("exact").float(), torch.ones(2, 4)
        )
