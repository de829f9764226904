"""Targets given by samples: the learned rate against quadrature, mode weights, over-fitting."""

import warnings
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroModule
from torch import Size, Tensor, nn

from pyro_lvm.diagnostics.verdict import Status
from pyro_lvm.distributions import Implicit
from pyro_lvm.errors import DataError, ProgramError
from pyro_lvm.mcmc import ImplicitMetropolisHastings
from pyro_lvm.nn import Discriminator
from pyro_lvm.objectives import ImplicitAcceptance

WEIGHTS = torch.tensor([0.4, 0.3, 0.2, 0.1])
CENTRES = 2.0 * torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, -1.0], [-1.0, 1.0]])
TARGET = dist.MixtureSameFamily(dist.Categorical(WEIGHTS), dist.Normal(CENTRES, 0.4).to_event(1))
PROPOSAL = dist.Normal(torch.zeros(2), 2.5).to_event(1)


def proposals(count: int) -> Tensor:
    return PROPOSAL.sample((count,))


def shares(x: Tensor) -> Tensor:  # (4,)
    """Of the modes nearest to the draws ``(*, 2)``."""
    nearest = (x[..., None, :] - CENTRES).square().sum(-1).argmin(-1)
    return torch.bincount(nearest.flatten(), minlength=4) / nearest.numel()


def total_variation(x: Tensor) -> float:
    return 0.5 * (shares(x) - WEIGHTS).abs().sum().item()


class Exact(nn.Module):
    """log p - log q of the four modes and the wide Normal, times ``sign``."""

    def __init__(self, sign: float = 1.0) -> None:
        super().__init__()
        self.sign = sign

    def forward(self, x: Tensor, context: Any) -> Tensor:
        return self.sign * (TARGET.log_prob(x) - PROPOSAL.log_prob(x))


def test_the_exact_ratio_gives_the_target() -> None:
    torch.manual_seed(0)
    draws = ImplicitMetropolisHastings(proposals, Exact()).sample(1000, num_chains=200)
    by_chain = torch.stack([shares(chain) for chain in draws.values])
    error = by_chain.std(0) / 200**0.5
    assert error.max() < 0.01
    assert ((by_chain.mean(0) - WEIGHTS).abs() < 4 * error).all()
    assert draws.acceptance.shape == (200,)
    assert draws.verdict().status is not Status.PASS, "nothing judged the ratio"


def test_a_learned_ratio_keeps_the_weights_of_modes() -> None:
    torch.manual_seed(0)
    sampler = ImplicitMetropolisHastings(proposals, Discriminator(2, hidden=(64, 64)))
    quality = sampler.fit(TARGET.sample((20_000,)), max_steps=800, lr=4e-3)
    draws = sampler.sample(640, num_chains=50)
    near = (draws.values[..., None, :] - CENTRES).norm(dim=-1).amin(-1) < 1.2  # 99 % of p
    before = (proposals(5000)[..., None, :] - CENTRES).norm(dim=-1).amin(-1) < 1.2
    assert total_variation(draws.values) < 0.10
    assert near.float().mean() > 0.92 > 2 * before.float().mean()
    assert quality.log_loss < 0.5, "one that looks at nothing has 0.69"
    assert draws.verdict().status is not Status.FAIL
    assert {"ess_bulk_min", "acceptance_mean", "discriminator_log_loss"} < draws.summary().keys()


def test_what_is_learned_by_heart_is_told_by_what_is_held_out() -> None:
    """Of few samples, the weights that were best for others, not the last ones."""
    torch.manual_seed(0)
    samples = TARGET.sample((200,))
    held = TARGET.sample((5000,))
    loss = {}
    for patience in (3, 1000):
        torch.manual_seed(1)
        sampler = ImplicitMetropolisHastings(proposals, Discriminator(2, hidden=(128, 128)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of saturation
            sampler.fit(samples, max_steps=600, lr=3e-3, patience=patience)
        judged = sampler.critic.discriminator(held), sampler.critic.discriminator(proposals(5000))
        real, fake = (
            nn.functional.softplus(sign * t).mean() for sign, t in zip((-1, 1), judged, strict=True)
        )
        loss[patience] = (real + fake).item() / 2
    assert loss[3] < 0.6
    assert loss[1000] < 0.6, "kept are the best weights, however long it goes on"


def target() -> None:
    pyro.sample("x", Implicit(lambda shape: TARGET.sample(shape), event_dim=1))


class Generator(PyroModule):
    """A Normal, drawn from as if its density were not known."""

    def __init__(self) -> None:
        super().__init__()
        self.loc = nn.Parameter(torch.zeros(2))
        self.log_scale = nn.Parameter(torch.full((2,), 2.5).log())

    def forward(self) -> None:
        def some(shape: Size) -> Tensor:
            return self.loc + self.log_scale.exp() * torch.randn(*shape, 2)

        pyro.sample("x", Implicit(some, event_dim=1))


def test_rate_and_gradient_of_the_exact_ratio() -> None:
    torch.manual_seed(0)
    generator, count = Generator(), 50_000
    objective = ImplicitAcceptance(Exact(-1.0), count, num_discriminator_steps=0)
    rate = objective.acceptance(target, generator)
    p, q = TARGET.sample((400_000,)), PROPOSAL.sample((400_000,))
    ratio = Exact()(q, None) - Exact()(p, None)
    accepted = ratio.clamp(max=0.0).exp()
    assert (rate - accepted.mean()).abs() < 4 * accepted.std() * (1 / count + 1 / 400_000) ** 0.5
    loss = objective.differentiable_loss(target, generator)
    terms = ratio.clamp(max=0.0)
    assert (-loss - terms.mean()).abs() < 4 * terms.std() * (1 / count + 1 / 400_000) ** 0.5
    loss.backward()
    assert generator.loc.grad is not None
    assert generator.log_scale.grad is not None
    assert (generator.log_scale.grad > 0).all(), "a narrower one is accepted more"


@pytest.mark.parametrize("lower_bound", ["jensen", "symmetric"])
def test_a_generator_comes_to_the_target(lower_bound: str) -> None:
    def one_mode() -> None:
        pyro.sample("x", Implicit(lambda s: 1.0 + torch.randn(*s, 2), event_dim=1))

    torch.manual_seed(0)
    generator = Generator()
    objective = ImplicitAcceptance(
        Discriminator(2, hidden=(16,)),
        256,
        lower_bound=lower_bound,
        discriminator_lr=1e-2,
        num_discriminator_steps=2,
    )
    module = objective(one_mode, generator)
    optimizer = torch.optim.Adam(generator.parameters(), lr=2e-2)
    for _ in range(300):
        optimizer.zero_grad()
        module().backward()
        optimizer.step()
    assert (generator.loc - 1).abs().max() < 0.05  # over seeds 0.02
    assert generator.log_scale.abs().max() < 0.1  # over seeds 0.04
    assert objective.acceptance(one_mode, generator) > 0.8


def test_bad_input_is_named() -> None:
    sampler = ImplicitMetropolisHastings(proposals, Discriminator(2))
    with pytest.raises(DataError, match="samples: expected some to train on and some to hold"):
        sampler.fit(torch.zeros(5, 2))
    with pytest.raises(ProgramError, match="lower_bound: expected one of"):
        ImplicitAcceptance(Discriminator(2), lower_bound="tight")

    def observing() -> None:
        target()
        pyro.sample("y", dist.Normal(0.0, 1.0), obs=torch.zeros(()))

    with pytest.raises(ProgramError, match="'y': expected a model whose draws are the target's"):
        ImplicitAcceptance(Discriminator(2), 4).loss(observing, Generator())


def test_chains_that_stand_still_are_told() -> None:
    class Spike(nn.Module):
        def forward(self, x: Tensor, context: Any) -> Tensor:
            return -1e4 * x.square().sum(-1)

    torch.manual_seed(0)
    sampler = ImplicitMetropolisHastings(proposals, Spike())
    with pytest.warns(UserWarning, match="expected 1% of the proposals accepted, got"):
        sampler.sample(2000)
