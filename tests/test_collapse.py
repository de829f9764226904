"""Active units and KL by layer, against guides whose moments are known."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from seeded import seeded
from torch import Tensor

from pyro_lvm.diagnostics import CollapseReport, active_units, collapse_report, plot_collapse
from pyro_lvm.distributions import Implicit
from pyro_lvm.errors import PyroLVMError
from pyro_lvm.guides import HierarchicalNormal, LadderNormal
from pyro_lvm.models import HierarchicalVAE

X = seeded(torch.randn, 200)
SLOPES = torch.tensor([0.7, 0.3, 0.0, 0.0])


def model(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(4), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z[..., 0], 1.0), obs=x)


def guide(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x.unsqueeze(-1) * SLOPES, 0.9).to_event(1))


def test_activity_is_the_variance_of_the_mean() -> None:
    """Over 40 runs of few draws: unbiased, where the plain variance has 0.81 / 5 = 0.16 more."""
    runs = [collapse_report(model, guide, X, num_samples=5).activity["z"] for _ in range(40)]
    found = torch.stack(runs)
    error = found.std(0) / len(runs) ** 0.5
    exact = SLOPES**2 * X.var()
    assert ((found.mean(0) - exact).abs() < 4 * error + 1e-4).all()
    assert (error < 0.01).all()


def test_collapsed_units_are_told_with_few_draws() -> None:
    """At 20 draws the noise of a mean is 0.04, above the threshold of 0.01."""
    found = active_units(model, guide, X, num_samples=20)
    assert found["z"].tolist() == [True, True, False, False]


def test_activity_far_from_zero() -> None:
    """In single precision, where squares about 0 have lost the spread."""

    def far(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(1e5 + 0 * x, 1.0))

    assert collapse_report(far, far, X).activity["z"].abs() < 0.002


def test_one_datum_has_no_activity() -> None:
    report = collapse_report(model, guide, X[:1])
    assert report.activity == {}
    assert str(report.verdict()).startswith("[skip] collapse")


def test_kl_is_its_closed_form(float64) -> None:
    x = X.double()
    report = collapse_report(model, guide, x, num_samples=2000)
    means = x.unsqueeze(-1) * SLOPES
    exact = (0.5 * (0.9**2 + means**2 - 1) - torch.tensor(0.9).log()).sum(-1).mean()
    # log q - log p has a standard deviation below 2, over 400,000 draws.
    assert abs(report.kl["z"] - exact) < 4 * 2 / 400_000**0.5


@pytest.mark.parametrize("chunk_size", [1, 7, 50])
def test_chunks_do_not_change_what_is_estimated(chunk_size, float64) -> None:
    def fixed(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Delta(x.unsqueeze(-1) * SLOPES, event_dim=1))

    report = collapse_report(model, fixed, X.double(), num_samples=50, chunk_size=chunk_size)
    torch.testing.assert_close(report.activity["z"], SLOPES.double() ** 2 * X.double().var())


def test_layers_of_a_hierarchy_have_a_kl_each() -> None:
    vae = HierarchicalVAE(6, (4, 3), (8,))
    x = vae(size=30).detach()
    for by in (
        LadderNormal(vae.top_down, in_features=6, hidden=(8,)),
        HierarchicalNormal(in_features=6, latent_features=(4, 3), hidden=(8,)),
    ):
        report = collapse_report(vae, by, x)
        assert set(report.kl) == set(report.activity) == {"z1", "z2"}
        assert {n: v.shape for n, v in report.activity.items()} == {"z1": (4,), "z2": (3,)}
        names = {f"{kind}_{site}" for kind in ("kl", "active_units") for site in ("z1", "z2")}
        assert set(report.summary()) == names


def test_sites_that_are_not_of_a_datum_or_have_no_mean_are_left_out() -> None:
    def several(x: Tensor) -> None:
        pyro.sample("shift", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("c", dist.Categorical(torch.ones(3)))
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def of_several(x: Tensor) -> None:
        pyro.sample("shift", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("c", dist.Categorical(torch.ones(3)))
            pyro.sample("z", dist.Normal(x / 2, 1.0))

    report = collapse_report(several, of_several, X, num_samples=3)
    assert set(report.activity) == set()  # a global latent joins all data
    assert set(report.kl) == {"shift", "c", "z"}


def test_inner_plates_are_units() -> None:
    def inner(x: Tensor, of_model: bool = True) -> None:
        with pyro.plate("data", len(x), dim=-2):
            with pyro.plate("unit", 3, dim=-1):
                slope = torch.tensor([0.0, 0.5, 1.0])
                mean = torch.zeros(len(x), 3) if of_model else x.unsqueeze(-1) * slope
                z = pyro.sample("z", dist.Normal(mean, 0.5))
            if of_model:
                pyro.sample("x", dist.Normal(z.sum(-1, keepdim=True), 1.0), obs=x.unsqueeze(-1))

    report = collapse_report(inner, lambda x: inner(x, of_model=False), X)
    assert report.active["z"].tolist() == [False, True, True]


def test_guides_without_a_density_have_activity_alone() -> None:
    def implicit(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            draw = lambda shape: x.unsqueeze(-1) * SLOPES + torch.randn(*shape, len(x), 4)  # noqa: E731
            pyro.sample("z", Implicit(draw, event_dim=1))

    report = collapse_report(model, implicit, X)
    assert report.kl == {}
    assert report.active["z"].tolist() == [True, True, False, False]


def test_semi_implicit_guides_have_activity_alone() -> None:
    def mixed(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            infer = {"is_auxiliary": True}
            means = x.unsqueeze(-1) * SLOPES
            psi = pyro.sample("psi", dist.Normal(means, 0.5).to_event(1), infer=infer)
            pyro.sample("z", dist.Normal(psi, 0.5).to_event(1))

    report = collapse_report(model, mixed, X)
    assert report.kl == {}
    assert report.active["z"].tolist() == [True, True, False, False]


ZERO, ONE = torch.zeros(2), torch.tensor([0.0, 1.0])


def test_a_collapsed_layer_is_named() -> None:
    report = CollapseReport({"z1": ONE.sum(), "z2": ZERO.sum()}, {"z1": ONE, "z2": ZERO}, 0.01)
    assert report.collapsed == ["z2"]
    assert report.counts == {"z1": (1, 2), "z2": (0, 2)}
    assert report.summary() == {
        "kl_z1": 1.0,
        "kl_z2": 0.0,
        "active_units_z1": 1,
        "active_units_z2": 0,
    }
    figure = plot_collapse(report)
    assert len(figure.axes[1].lines) == 3


FAINT = torch.tensor(0.004)


@pytest.mark.parametrize(
    ("kl", "activity", "says"),
    [
        ({}, {"z1": ONE, "z2": ONE}, "[pass] collapse: active units: z1 1 of 2, z2 1 of 2."),
        ({}, {"z1": ONE, "z2": ZERO}, "[warn] collapse: active units: z1 1 of 2, z2 0 of 2. Warm"),
        ({"z": FAINT}, {"z": ZERO}, "[fail] collapse: active units: z 0 of 2 (KL 0.00). Warm the"),
        ({"z": -FAINT}, {"z": ONE}, "[fail] collapse: active units: z 1 of 2 (KL 0.00). Warm the"),
        ({"z": -ONE.sum()}, {"z": ONE}, "[pass] collapse: active units: z 1 of 2 (KL -1.00)."),
        ({}, {}, "[skip] collapse: active units: no site has a mean for each datum."),
    ],
)
def test_verdict(kl, activity, says) -> None:
    assert str(CollapseReport(kl, activity, 0.01).verdict()).startswith(says)


def test_a_layer_that_repeats_the_one_above_has_collapsed() -> None:
    """z1 follows z2 in both programs: its mean varies with the data, and it says nothing more."""

    def chain(x: Tensor, of_model: bool = True) -> None:
        with pyro.plate("data", len(x)):
            z2 = pyro.sample("z2", dist.Normal(torch.zeros(len(x)) if of_model else x, 0.5))
            z1 = pyro.sample("z1", dist.Normal(z2, 0.1))
            if of_model:
                pyro.sample("x", dist.Normal(z1, 1.0), obs=x)

    report = collapse_report(chain, lambda x: chain(x, of_model=False), X)
    assert all(report.active.values())
    assert report.collapsed == ["z1"]


def test_layers_are_in_the_order_of_their_names() -> None:
    """Whatever the order in which the programs draw them."""

    def layers(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            for name in ("z10", "z2", "z1"):
                pyro.sample(name, dist.Normal(0.0, 1.0))

    report = collapse_report(layers, layers, X, num_samples=2)
    assert list(report.kl) == list(report.activity) == ["z1", "z2", "z10"]


def test_one_draw_has_no_variance() -> None:
    with pytest.raises(PyroLVMError, match="num_samples: expected an integer >= 2, got 1"):
        collapse_report(model, guide, X, num_samples=1)
