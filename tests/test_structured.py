"""Structured guides: who reads whom, and the exact posterior where the structure allows it."""

from math import expm1, log

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

from pyro_lvm.distributions.flow import FAMILIES
from pyro_lvm.errors import DataError, ProgramError
from pyro_lvm.guides import StructuredGuide
from pyro_lvm.models import HierarchicalVAE
from pyro_lvm.objectives import ELBO, IWAE
from pyro_lvm.testing import check_guide

SIZES = {"a": 2, "b": 1, "c": 3, "d": 1}
PARENTS = {"a": ("c",), "c": ("d",), "b": ("a", "d")}


def make(**options) -> StructuredGuide:
    chosen = {"in_features": 4, "latent_features": SIZES, "parents": PARENTS} | options
    return StructuredGuide(hidden=(6,), conditional_hidden=(5,), **chosen)


@pytest.mark.parametrize("conditional", ["diagonal", "low_rank", "full", "maf"])
def test_contract(conditional) -> None:
    check_guide(make(conditional=conditional, rank=1), torch.rand(4, 4))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("parents", [{"z1": ("z2",)}, {"z2": ("z1",)}], ids=["down", "up"])
def test_flows_layer_by_layer_serve_a_hierarchy(family, parents) -> None:
    model = HierarchicalVAE(4, (3, 2), (6,))
    guide = make(latent_features=(3, 2), parents=parents, conditional=family)
    check_guide(guide, model(size=4).detach(), model)
    assert list(guide(torch.rand(5, 4))) == [*next(iter(parents.values())), *parents]


def test_a_site_reads_its_parents_and_no_other() -> None:
    guide, x = make(), torch.rand(5, 4)
    draws = guide(x)
    assert list(draws) == ["d", "c", "a", "b"]
    for name in SIZES:
        free = {n: value.detach().requires_grad_() for n, value in draws.items()}
        site = pyro.poutine.trace(pyro.condition(guide, free)).get_trace(x).nodes[name]
        mean = site["fn"].mean.sum()
        moves = torch.autograd.grad(mean, list(free.values()), allow_unused=True)
        reads = {n for n, g in zip(free, moves) if g is not None and g.abs().sum() > 0}
        assert reads == set(PARENTS.get(name, ()))


def set_linear(layer: nn.Linear, weight: Tensor, scale: float) -> None:
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.zero_()
        layer.weight[0] = weight
        layer.bias[1] = log(expm1(scale - 1e-6))


@pytest.mark.parametrize("objective", [ELBO(), IWAE(3, "dreg")])
def test_inverse_of_a_chain_is_its_posterior(objective, float64) -> None:
    """z ~ N(0, 1), w | z ~ N(.8 z, .5^2), x | w ~ N(w, .3^2): q(w | x) q(z | w)."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            w = pyro.sample("w", dist.Normal(0.8 * z, 0.5).to_event(1))
            pyro.sample("x", dist.Normal(w, 0.3).to_event(1), obs=x)

    guide = StructuredGuide(
        in_features=1,
        latent_features={"z": 1, "w": 1},
        parents={"z": ("w",)},
        hidden=(),
        context_features=1,
        conditional_hidden=(),
    )
    variance = 0.8**2 + 0.5**2  # of w
    gain = variance / (variance + 0.3**2)
    slope = 0.8 / variance
    with torch.no_grad():
        guide.encoding.head.layers[0].weight.fill_(1.0)
    of_w, of_z = (site[1].sites[0].head.layers[0] for site in guide.sites)
    set_linear(of_w, torch.tensor([gain]), ((1 - gain) * variance) ** 0.5)
    set_linear(of_z, torch.tensor([0.0, slope]), (1 - 0.8 * slope) ** 0.5)
    x = torch.randn(6, 1)
    exact = dist.Normal(0.0, (variance + 0.3**2) ** 0.5).log_prob(x[:, 0])
    torch.testing.assert_close(objective.bound(model, guide, x), exact, rtol=0, atol=1e-9)


def test_wrong_structures() -> None:
    with pytest.raises(ProgramError, match=r"parents: expected sites of \['a', .*, got 'e'"):
        make(parents={"a": ("e",)})
    with pytest.raises(ProgramError, match=r"parents: expected sites of \['a', .*, got 'e'"):
        make(parents={"e": ("a",)})
    with pytest.raises(ProgramError, match="parents: expected no circle, got a <- b <- a"):
        make(parents={"a": ("b",), "b": ("a",)})
    with pytest.raises(ProgramError, match="conditional: expected one of"):
        make(conditional="normal")
    with pytest.raises(DataError, match="x: expected shape"):
        make()(torch.zeros(5, 4), torch.zeros(5, 1))
