"""Mixing draws in chunks: the same numbers from the same draws, in the memory of one chunk."""

from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from conjugate_programs import model
from explained import explained
from mixing_programs import MIXING, gaussian, hierarchical, two_latents
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pyro_lvm.diagnostics import log_evidence
from pyro_lvm.errors import ProgramError
from pyro_lvm.guides import SemiImplicitGuide
from pyro_lvm.models import VAE
from pyro_lvm.objectives import DSIVI, SIVI
from pyro_lvm.training import CompiledLoss

pytestmark = pytest.mark.usefixtures("float64")

X = torch.tensor([0.5, -1.0, 1.5], dtype=torch.float64)
ROWS = 20


class RowByRow(dist.Normal):
    """Normal that takes its random numbers row after row: all at once as in chunks."""

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        noise = [torch.randn(self.batch_shape[1:]) for _ in range(self.batch_shape[0])]
        return self.loc + self.scale * torch.stack(noise)


class Still(dist.Normal):
    """Normal whose draws need no random number."""

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        return self.loc + 0.7 * self.scale


class Programs:
    """One side is a mixture of Normals, the other a Normal; with numbers to train."""

    def __init__(self) -> None:
        self.leaves = torch.tensor([0.2, -0.6, 0.3, -0.2], requires_grad=True)

    def model(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(self.leaves[2], self.leaves[3].exp()))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", Still(x / 2 + self.leaves[0], self.leaves[1].exp()))

    def mixed_guide(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            law = RowByRow(x / 2 + self.leaves[0], self.leaves[1].exp())
            psi = pyro.sample("psi", law, infer=MIXING)
            pyro.sample("z", Still(psi, 0.5 * torch.ones(())))

    def mixed_model(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            zeta = pyro.sample("zeta", RowByRow(torch.zeros(()), torch.ones(())), infer=MIXING)
            z = pyro.sample("z", dist.Normal(self.leaves[2] * zeta, self.leaves[3].exp()))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)


@pytest.mark.parametrize("share", [False, True])
@pytest.mark.parametrize("chunk", [3, 6, ROWS - 2, ROWS, ROWS + 1])
@pytest.mark.parametrize("side", ["guide", "model"])
def test_same_draws_give_the_same_bound_and_gradient(side: str, chunk: int, share: bool) -> None:
    programs = Programs()
    pairs = {
        "guide": (programs.model, programs.mixed_guide),
        "model": (programs.mixed_model, programs.guide),
    }
    counts = {"num_mixing": ROWS, "num_prior_mixing": ROWS}
    shares = {"share_mixing": share, "share_prior_mixing": share}
    x = X[:1] if share else X  # each run makes shared prior draws for all data at once

    def found(size: int | None) -> tuple[Tensor, Tensor]:
        pyro.set_rng_seed(0)
        objective = DSIVI(2, **counts, **shares, chunk_mixing=size, max_plate_nesting=1)
        loss = objective.differentiable_loss(*pairs[side], x)
        return loss.detach(), torch.autograd.grad(loss, programs.leaves)[0]

    for chunked, whole in zip(found(chunk), found(None), strict=True):
        torch.testing.assert_close(chunked, whole)


@pytest.mark.parametrize("share", [False, True])
def test_density_of_a_hundred_thousand_draws(share: bool) -> None:
    objective = SIVI(2, num_mixing=100_000, share_mixing=share, chunk_mixing=3000)
    found: Any = objective.particles(two_latents, hierarchical, X)
    first, second = found.values["first"], found.values["second"]
    exact = dist.Normal(X / 2, (0.09 + 0.16 + 0.25) ** 0.5).log_prob(first)
    exact = exact + dist.Normal(-0.5 * first, (0.36 + 0.49) ** 0.5).log_prob(second)
    for side in (found.log_guide.lower, found.log_guide.upper):
        torch.testing.assert_close(side, exact, atol=0.05, rtol=0)  # 5 of 1e5 ** -0.5 by 3


def test_evidence_and_sandwich_of_many_draws() -> None:
    """A guide that is the exact posterior, as a mixture: both sides are log p(x)."""
    exact = dist.Normal(torch.zeros(3), 2**0.5).log_prob(X)
    how = {"num_mixing": 20_000, "chunk_mixing": 3000}
    for side in DSIVI.sandwich(model, gaussian, X, num_particles=20, **how):
        error = (20 * 20_000) ** -0.5  # standard error of weights with a deviation of 1
        torch.testing.assert_close(side, exact, atol=5 * error, rtol=0)
    objective = SIVI(share_mixing=True, **how)
    found = log_evidence(model, gaussian, X, num_samples=100, objective=objective)
    error = 20_000**-0.5  # the particles share their draws
    torch.testing.assert_close(found.value, exact, atol=4 * error, rtol=0)


class Largest(TorchDispatchMode):
    """Elements of the largest tensor that was made."""

    size = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        sizes = [t.untyped_storage().nbytes() for t in tree_leaves(out) if isinstance(t, Tensor)]
        self.size = max([self.size, *sizes])
        return out


@pytest.mark.parametrize("gradient", [False, True])
def test_memory_is_that_of_one_chunk(gradient: bool) -> None:
    guide = SemiImplicitGuide(
        in_features=6, latent_features=2, hidden=(4,), context_features=4, noise_hidden=(8,)
    )
    model, x = VAE(6, 2, (4,)), torch.rand(5, 6).round()

    def largest(count: int, chunk: int | None) -> tuple[int, int]:
        objective = SIVI(num_mixing=count, chunk_mixing=chunk, max_plate_nesting=1)
        objective.step = 1  # no check of the first step
        kept: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        with (
            Largest() as made,
            torch.set_grad_enabled(gradient),
            torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        ):
            loss = objective.differentiable_loss(model, guide, x)
            if gradient:
                loss.backward()
        return made.size, sum(kept.values())

    few, many, whole = largest(20, 20), largest(2000, 20), largest(2000, None)
    assert many[0] <= few[0]
    assert whole[0] > 90 * few[0]
    if gradient:
        assert many[1] < few[1]  # of one row, and a number for each chunk and datum
        assert whole[1] > 50 * few[1]


@pytest.mark.parametrize("local", [False, True])
def test_steps_of_svi_and_of_a_module(local: bool) -> None:
    """The backward pass runs the guide again, outside of the step's own contexts."""
    guide, x = SemiImplicitGuide(in_features=6, latent_features=2, hidden=(4,)), torch.ones(5, 6)
    model, objective = VAE(6, 2, (4,)), SIVI(num_mixing=7, chunk_mixing=3)
    before = [p.detach().clone() for p in guide.parameters()]
    with pyro.settings.context(module_local_params=local):
        if local:
            module = objective(model, guide)
            module(x).backward()
            torch.optim.Adam(module.parameters(), 0.1).step()
        else:
            pyro.infer.SVI(model, guide, pyro.optim.Adam({"lr": 0.1}), objective).step(x)
    for old, new in zip(before, guide.parameters(), strict=True):
        assert new.isfinite().all()
        assert not new.equal(old)


def test_latents_on_which_mixing_variables_do_not_bear_are_scored_once() -> None:
    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("first", dist.Normal(x / 3, 0.5))
            psi = pyro.sample("psi", dist.Normal(torch.zeros(()), 0.6), infer=MIXING)
            pyro.sample("second", dist.Normal(psi, 0.7))

    found: Any = SIVI(num_mixing=9, chunk_mixing=4).particles(two_latents, guide, X)
    alone = dist.Normal(X / 3, 0.5).log_prob(found.values["first"])
    torch.testing.assert_close(found.parts["first"].log_q, alone)
    assert found.log_guide.fresh.shape == (3, 1, 3)  # sums over 4, 4 and 1 draws
    assert found.log_guide.count == 9


def test_chunk_of_no_draws() -> None:
    for objective in (SIVI, DSIVI):
        with explained(ProgramError, "chunk_mixing", "an integer >= 1", "0", "chunk_mixing"):
            objective(chunk_mixing=0)


def test_guide_that_gives_another_density_in_each_run() -> None:
    class Guide(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.dropout = nn.Dropout(0.5)

        def forward(self, x: Tensor) -> None:
            with pyro.plate("data", len(x)):
                psi = pyro.sample("psi", dist.Normal(self.dropout(x), 0.6), infer=MIXING)
                pyro.sample("z", dist.Normal(psi, 0.7))

    SIVI(num_mixing=4).loss(Programs().model, Guide(), X)
    with explained(ProgramError, "'dropout' of the guide", "one density twice", "Dropout", ""):
        SIVI(num_mixing=4, chunk_mixing=2).loss(Programs().model, Guide(), X)


def test_a_step_in_chunks_is_not_compiled() -> None:
    """A recorded second run would draw other numbers: its gradient would be wrong."""
    sizes = {"in_features": 4, "latent_features": 2, "hidden": (5,)}
    guide = SemiImplicitGuide(**sizes, noise_features=2, noise_hidden=(5,))
    objective, x = SIVI(num_mixing=4, chunk_mixing=2), torch.rand(3, 4).round()
    loss = CompiledLoss(objective, VAE(**sizes), guide, backend="graph")
    with pytest.warns(UserWarning, match="values in chunks, which are computed again"):
        loss(x)
