"""iVAE against the exact evidence of a linear model; sources with known latents; matching."""

from itertools import permutations

import pyro
import pyro.distributions as dist
import pytest
import torch
from moved import moved
from pyro.nn import PyroModule
from torch import Tensor

from pyro_lvm.diagnostics import mean_correlation
from pyro_lvm.errors import DataError, ProgramError
from pyro_lvm.guides import StructuredGuide
from pyro_lvm.models import IdentifiableVAE
from pyro_lvm.models.segment_sources import simulate
from pyro_lvm.nn import ConditionalNormal
from pyro_lvm.objectives import ELBO, IWAE
from pyro_lvm.testing import check_guide, check_model

U = torch.eye(3)[torch.tensor([0, 1, 2, 2])]


def linear() -> IdentifiableVAE:
    return moved(IdentifiableVAE(4, 3, 2, ()).double(), 0.3)


@pytest.mark.parametrize("objective", [ELBO(), IWAE(4, "dreg")])
def test_bound_of_the_exact_posterior_is_the_evidence(objective, float64) -> None:
    """z | u ~ N(0, S(u)), x = W z + b + noise: a Normal, another one for each u."""
    model, u = linear(), U.double()
    x = model(None, u).detach()
    layer = model.decoder.layers[0]
    scale = model.prior(u).stddev
    noise = model.likelihood.noise_scale
    marginal = layer.weight @ (scale**2).diag_embed() @ layer.weight.T + torch.diag(noise**2)
    evidence = dist.MultivariateNormal(layer.bias, marginal).log_prob(x)
    precision = (scale**-2).diag_embed() + layer.weight.T @ torch.diag(noise**-2) @ layer.weight
    covariance = torch.linalg.inv(precision)
    mean = covariance @ (layer.weight.T @ ((x - layer.bias) / noise**2).unsqueeze(-1))

    def guide(x: Tensor, u: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.MultivariateNormal(mean[..., 0].detach(), covariance.detach()))

    bound = objective.bound(model, guide, x, u)
    torch.testing.assert_close(bound, evidence.detach(), rtol=0, atol=1e-9)


class OfOneSegment(PyroModule):
    """The model at one value of u, as a model of independent data."""

    def __init__(self, **options) -> None:
        super().__init__()
        self.model = IdentifiableVAE(4, 3, 2, (5,), **options)

    def forward(self, x=None, *, size: int = 1) -> Tensor:
        return self.model(x, U[:1].expand(size if x is None else len(x), -1))


@pytest.mark.parametrize("options", [{}, {"prior": ConditionalNormal(3, 2, (5,))}])
def test_contract_at_one_value_of_u(options) -> None:
    check_model(OfOneSegment(**options))


def test_guide_reads_data_and_covariates() -> None:
    model = IdentifiableVAE(4, 3, 2, (5,))
    guide = StructuredGuide(in_features=7, latent_features=2)
    x = model(None, U).detach()
    module = ELBO()(model, guide)
    module(x, U).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in module.parameters())
    check_guide(guide, torch.cat([x, U], -1))
    of_x, of_u, first = (
        pyro.poutine.trace(guide).get_trace(*data).nodes["z"]["fn"].mean
        for data in ((x + 1, U), (x, U.flip(0)), (x, U))
    )
    assert (of_x != first).any()
    assert (of_u != first).any()


def test_wrong_arguments() -> None:
    with pytest.raises(ProgramError, match="covariate_features: expected an integer >= 1, got 0"):
        IdentifiableVAE(covariate_features=0)
    model = IdentifiableVAE(4, 3, 2)
    with pytest.raises(DataError, match=r"x: expected shape \(batch, 3\), got shape \(4, 2\)"):
        model(torch.zeros(4, 4), torch.zeros(4, 2))


# Sources.


def test_segments_have_the_variances_of_their_own() -> None:
    sources = simulate(3, num_segments=40, segment_length=1000)
    scale = sources.z.unflatten(0, (40, 1000)).std(1)
    # A standard deviation of 1000 draws has a relative error of 2.2 %.
    assert (scale > 0.5 * 0.9).all()
    assert (scale < 3.0 * 1.1).all()
    assert scale.std() > 0.5  # U(0.5, 3) has 0.72
    assert torch.equal(sources.u.argmax(-1), torch.arange(40).repeat_interleave(1000))


@pytest.mark.parametrize("num_layers", [1, 2, 3])
def test_mixing_is_the_layers_of_one_matrix(num_layers) -> None:
    sources = simulate(3, num_segments=2, segment_length=5, num_layers=num_layers, seed=4)
    x = sources.z
    for layer in range(num_layers):
        x = x @ sources.mixing.T
        x = x.tanh() + 0.1 * x if layer < num_layers - 1 else x
    torch.testing.assert_close(sources.x, x)
    torch.testing.assert_close(sources.mixing.norm(dim=0), torch.ones(3))
    again = simulate(3, num_segments=2, segment_length=5, num_layers=num_layers, seed=4)
    assert torch.equal(sources.x, again.x)
    with pytest.raises(ProgramError, match="num_layers: expected an integer >= 1, got 0"):
        simulate(num_layers=0)


# Matching.


def test_matching_is_the_best_of_all_permutations(float64) -> None:
    true, found = torch.randn(200, 4), torch.randn(200, 4)
    found = found + true @ torch.rand(4, 4)
    correlation = torch.corrcoef(torch.cat([found, true], 1).T)[:4, 4:].abs()
    by_hand = max(correlation[range(4), list(order)].mean() for order in permutations(range(4)))
    torch.testing.assert_close(mean_correlation(found, true), by_hand)


def test_constant_latents_match_nothing() -> None:
    true = torch.randn(50, 2)
    found = torch.stack([true[:, 1], torch.ones(50)], 1)
    torch.testing.assert_close(mean_correlation(found, true), torch.tensor(0.5))


@pytest.mark.parametrize(("found", "true"), [((5, 2), (4, 2)), ((5,), (5,)), ((1, 2), (1, 2))])
def test_wrong_shapes(found, true) -> None:
    with pytest.raises(DataError, match="found and true: expected two tensors"):
        mean_correlation(torch.zeros(found), torch.zeros(true))


@pytest.mark.slow
def test_segments_tell_the_sources_apart() -> None:
    """Linear mixing, 40 segments of 250: correlation at least .95, and less without segments."""
    from benchmarks.hierarchical_sources import run

    with pyro.settings.context(module_local_params=True):
        knowing = run("linear, 3 sources, iVAE, full covariance", seed=0)
        without = run("linear, 3 sources, VAE, full covariance", seed=0)
    assert knowing["MCC"] >= 0.95
    assert without["MCC"] < knowing["MCC"]
