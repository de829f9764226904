"""Hierarchies and ladder guides against the exact posterior of a chain of Normals, in float64."""

from copy import deepcopy
from math import expm1, log

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from pyro_lvm import fit
from pyro_lvm.errors import DataError, ProgramError
from pyro_lvm.guides import LadderNormal
from pyro_lvm.guides.ladder import precision_weighted
from pyro_lvm.models import HierarchicalVAE
from pyro_lvm.nn import BatchNorm, Dense, TopDown, diagonal_normal
from pyro_lvm.objectives import ELBO, IWAE
from pyro_lvm.parameters import allow_local_parameters
from pyro_lvm.testing import check_guide, check_model

FEATURES = 3
SCALES = (0.7, 0.4, 1.3)  # of x | z1, z1 | z2, z2 | z3
SLOPES = (1.0, -0.8, 1.7)
EPSILON = 1e-6  # the floor of scales


def set_linear(layer: torch.nn.Linear, slope: float, scale: float | None = None) -> None:
    """Mean ``slope`` times the input, of this scale; the mean alone where it is None."""
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.zero_()
        layer.weight[:FEATURES] = slope * torch.eye(FEATURES)
        if scale is not None:
            layer.bias[FEATURES:] = log(expm1(scale - EPSILON))


def chain() -> tuple[HierarchicalVAE, LadderNormal]:
    """z3 -> z2 -> z1 -> x, entry by entry, and a ladder that knows p(x | z_l) for each l."""
    model = HierarchicalVAE(FEATURES, (FEATURES,) * 3, (), "gaussian")
    guide = LadderNormal(model.top_down, in_features=FEATURES, hidden=())
    set_linear(model.decoder[1].layers[0], SLOPES[0])
    model.likelihood.noise_scale = torch.full((FEATURES,), SCALES[0])
    slope, variance = 1.0, 0.0  # of x given z_l
    for level, head in enumerate(guide.heads):
        variance += (slope * SCALES[level]) ** 2
        slope *= SLOPES[level]
        set_linear(head.layers[0], 1 / slope, variance**0.5 / abs(slope))
    for level, layer in enumerate(model.top_down.layers, start=1):
        set_linear(layer.head.layers[0], SLOPES[level], SCALES[level])
    # The top of the ladder reads the data alone: merged with the prior, it is the posterior.
    precision = 1 + slope**2 / variance
    set_linear(guide.heads[-1].layers[0], slope / variance / precision, precision**-0.5)
    return model, guide


def log_evidence(x: Tensor) -> Tensor:
    variance, slope = 0.0, 1.0
    for a, s in zip(SLOPES, SCALES):
        variance += (slope * s) ** 2
        slope *= a
    return dist.Normal(0.0, (slope**2 + variance) ** 0.5).log_prob(x).sum(-1)


def test_merge_is_the_exact_conditional(float64) -> None:
    """z2 ~ N(0, 1), z1 ~ N(w z2, s), x ~ N(z1, t): p(z1 | z2, x) from their joint covariance."""
    w, s, t = 0.8, 0.5, 0.3
    z2, x = torch.randn(7, 1), torch.randn(5, 1, 1)
    merged = precision_weighted(diagonal_normal(x, t), diagonal_normal(w * z2, s))
    var_z1 = w**2 + s**2
    given = torch.tensor([[1.0, w], [w, var_z1 + t**2]])  # of (z2, x)
    across = torch.tensor([w, var_z1])  # of z1 with them
    gain = torch.linalg.solve(given, across)
    both = torch.stack(torch.broadcast_tensors(z2, x), -1)
    torch.testing.assert_close(merged.mean, both @ gain, rtol=0, atol=1e-12)
    variance = (var_z1 - gain @ across).expand(5, 7, 1)
    torch.testing.assert_close(merged.variance, variance, rtol=0, atol=1e-12)


def test_merge_in_single_precision_of_scales_far_apart() -> None:
    wide, narrow = diagonal_normal(torch.ones(2), 1e3), diagonal_normal(torch.zeros(2), 1e-3)
    for merged in (precision_weighted(wide, narrow), precision_weighted(narrow, wide)):
        torch.testing.assert_close(merged.stddev, torch.full((2,), 1e-3))
        torch.testing.assert_close(merged.mean, torch.full((2,), 1e-12))


@pytest.mark.parametrize("gradient", ["reparam", "dreg"])
def test_ladder_of_a_linear_chain_is_its_posterior(gradient, float64) -> None:
    model, guide = chain()
    x = model(size=6).detach()
    bound = IWAE(3, gradient).bound(model, guide, x)
    torch.testing.assert_close(bound, log_evidence(x), rtol=0, atol=1e-9)


def test_gradient_of_the_evidence_reaches_the_shared_conditionals(float64) -> None:
    """At the exact posterior without the guide's score, the ELBO's gradient is the evidence's."""
    model, guide = chain()
    weight = model.top_down.layers[0].head.layers[0].weight
    x = model(size=6).detach()
    # The marginal of x_i has variance v(a) in the slope a of z1 | z2 (at entry i).
    a = torch.full((FEATURES,), SLOPES[1], requires_grad=True)
    variance = SCALES[0] ** 2 + SLOPES[0] ** 2 * (
        SCALES[1] ** 2 + a**2 * (SCALES[2] ** 2 + SLOPES[2] ** 2)
    )
    (-dist.Normal(0.0, variance.sqrt()).log_prob(x).sum()).backward()
    draws = []
    for _ in range(40):
        weight.grad = None
        ELBO(200, "stl").differentiable_loss(model, guide, x).backward()
        draws.append(weight.grad[:FEATURES].diagonal().clone())
    found = torch.stack(draws)
    error = found.std(0) / len(found) ** 0.5
    assert ((found.mean(0) - a.grad).abs() < 4 * error).all()
    assert (error < 0.1 * a.grad.abs().max()).all()


def test_shared_conditionals_are_one_set_of_parameters() -> None:
    model = HierarchicalVAE(6, (3, 2), (8,))
    guide = LadderNormal(model.top_down, in_features=6, hidden=(8,))
    shared = {id(p) for p in model.top_down.parameters()}
    both = [id(p) for p in ELBO()(model, guide).parameters()]
    assert shared <= {id(p) for p in guide.parameters()}
    assert len(both) == len(set(both))
    copied, copied_guide = deepcopy((model, guide))
    assert copied.top_down is copied_guide.top_down is not model.top_down


def test_svi_and_fit_train_them_alike() -> None:
    x = (torch.rand(20, 6) < 0.3).float()
    programs = []
    for train in (_by_svi, _by_fit):
        pyro.set_rng_seed(3)
        model = HierarchicalVAE(6, (3, 2), (8,))
        guide = LadderNormal(model.top_down, in_features=6, hidden=(8,))
        before = deepcopy(model.top_down.state_dict())
        train(model, guide, x)
        after = model.top_down.state_dict()
        assert all((after[n] != before[n]).any() for n in before)
        assert guide.top_down is model.top_down
        programs.append(after)
    # Other random numbers, the same Adam: one step moves every parameter by the rate, no more.
    for name, value in programs[0].items():
        assert (value - programs[1][name]).abs().max() < 0.05


def _by_svi(model, guide, x) -> None:
    svi = pyro.infer.SVI(model, guide, pyro.optim.Adam({"lr": 0.01}), ELBO())
    for _ in range(2):
        svi.step(x)


def _by_fit(model, guide, x) -> None:
    allow_local_parameters(model)
    fit(model, guide, x, ELBO(), max_steps=2, lr=0.01, batch_size=None, progress=False)


@pytest.mark.parametrize("sizes", [3, (4, 3), (5, 4, 3, 2, 2)])
def test_contract_with_each_other(sizes) -> None:
    model = HierarchicalVAE(6, sizes, (9,))
    check_model(model)
    guide = LadderNormal(model.top_down, in_features=6, hidden=(9,))
    check_guide(guide, model(size=4).detach(), model)


def test_every_layer_has_a_kl_of_its_own() -> None:
    """So warm-up and free bits act layer by layer."""
    model = HierarchicalVAE(6, (3, 2), (8,))
    guide = LadderNormal(model.top_down, in_features=6, hidden=(8,))
    x = model(size=4).detach()
    parts = ELBO(2).particles(model, guide, x).parts
    paired = {n for n, p in parts.items() if p.log_p is not None and p.log_q is not None}
    assert paired == {"z1", "z2"}
    free = ELBO(2, free_bits=1000.0)
    likelihood = free.particles(model, guide, x).parts["x"].log_p
    assert likelihood.shape == (2, 4)
    loss = free.loss(model, guide, x)
    assert 4 * 2000 < loss < 4 * 2000 + 100  # two floors a datum, and some nats of x


def normalised() -> tuple[HierarchicalVAE, LadderNormal]:
    model = HierarchicalVAE(6, (3, 2), (8,), batch_norm=True)
    return model, LadderNormal(model.top_down, in_features=6, hidden=(8,), batch_norm=True)


@pytest.mark.parametrize("gradient", ["reparam", "dreg"])
def test_batch_norm_trains_with_particles(gradient) -> None:
    model, guide = normalised()
    x = (torch.rand(20, 6) < 0.3).float()
    module = IWAE(4, gradient)(model, guide)
    module(x).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in module.parameters())


def test_batch_norm_in_evaluation_keeps_data_apart() -> None:
    model, guide = normalised()
    x = (torch.rand(20, 6) < 0.3).float()
    ELBO().loss(model, guide, x)
    check_model(model.eval())
    check_guide(guide.eval(), x[:4], model)


def test_batch_norm_is_that_of_the_flattened_batch() -> None:
    x = torch.randn(3, 5, 4)
    torch.testing.assert_close(
        BatchNorm(4)(x).flatten(0, 1), torch.nn.BatchNorm1d(4)(x.flatten(0, 1))
    )


def test_wrong_arguments() -> None:
    with pytest.raises(ProgramError, match=r"hidden: .* each of 2 stochastic layers"):
        HierarchicalVAE(6, (3, 2), [(8,)])
    with pytest.raises(ProgramError, match=r"hidden: .* each of 2 stochastic layers"):
        LadderNormal(TopDown((3, 2)), hidden=[(8,)])
    with pytest.raises(ProgramError, match=r"hidden: .* each of 1 stochastic layers"):
        TopDown((3, 2), [(8,), (8,)])
    with pytest.raises(ProgramError, match=r"latent_features of 'z2': .* got 0"):
        TopDown((3, 0))
    with pytest.raises(ProgramError, match=r"top_down: .* got a HierarchicalVAE"):
        LadderNormal(HierarchicalVAE())
    with pytest.raises(DataError, match="x: expected shape"):
        LadderNormal(TopDown((3, 2)), in_features=6)(torch.zeros(4, 7))


def test_starts_at_the_mean_of_the_data() -> None:
    pixels = torch.tensor([0.1, 0.5, 0.9])
    model = HierarchicalVAE(3, (3, 2), (), data_mean=pixels)
    torch.testing.assert_close(model.decode(torch.zeros(1, 3)).mean, pixels[None])
    with pytest.raises(ProgramError, match="data_mean: expected 4 means, got 3"):
        HierarchicalVAE(4, data_mean=pixels)


def test_no_hidden_layers_are_the_identity() -> None:
    x = torch.randn(5, 3)
    dense = Dense(3, (), batch_norm=True)
    assert torch.equal(dense(x), x)
    assert dense.out_features == 3
