"""Evidence, posterior draws and figures against a model with exact answers."""

import subprocess
import sys
from functools import reduce
from pathlib import Path

import pyro
import pyro.distributions as dist
import pytest
import torch
from diagnosed_programs import WideGuide, hierarchy, hierarchy_guide
from torch import Tensor

from pyro_lvm.diagnostics import log_evidence, pareto_khat, plot_khat, sample_posterior
from pyro_lvm.diagnostics.chunks import Chunks
from pyro_lvm.diagnostics.running_weights import RunningWeights
from pyro_lvm.errors import PlateError, PyroLVMError
from pyro_lvm.objectives import ELBO
from pyro_lvm.oracles import LinearGaussian
from pyro_lvm.weights import effective_sample_size, khat_of_tail, log_mean_exp

pytestmark = pytest.mark.usefixtures("float64")


@pytest.fixture
def x(oracle: LinearGaussian) -> Tensor:
    return torch.randn(60, 2) @ oracle.loading.T + torch.randn(60, 4) * oracle.noise


def test_log_evidence_is_exact_within_its_standard_error(oracle: LinearGaussian, x: Tensor) -> None:
    estimate = log_evidence(oracle.model, WideGuide(oracle), x, num_samples=2000)
    z = (estimate.value - oracle.log_evidence(x)) / estimate.standard_error
    assert z.shape == (60,)
    assert z.abs().max() < 4
    assert 0.7 < z.square().mean().sqrt() < 1.3, "60 z-scores: root mean square 1 +- 0.09"
    total = (estimate.total() - oracle.log_evidence(x).sum()) / estimate.total_standard_error()
    assert total.abs() < 4
    assert estimate.mean() == estimate.value.mean()
    assert estimate.mean_standard_error() == estimate.value.std() / 60**0.5
    assert (estimate.khat < 0.7).all()
    assert (estimate.effective_sample_size > 1000).all()


def test_log_evidence_of_the_exact_guide_has_no_error(oracle: LinearGaussian, x: Tensor) -> None:
    estimate = log_evidence(oracle.model, oracle.exact_guide, x, num_samples=50, chunk_size=7)
    torch.testing.assert_close(estimate.value, oracle.log_evidence(x), atol=1e-9, rtol=0)
    assert (estimate.standard_error < 1e-6).all()
    torch.testing.assert_close(estimate.effective_sample_size, torch.full((60,), 50.0))


def test_chunks_add_up_to_the_whole() -> None:
    log_weights = 2 * torch.randn(1000, 5) - 700
    whole = RunningWeights.of(log_weights, 1000)
    parts = [RunningWeights.of(part, 1000) for part in log_weights.split(64)]
    chunked = reduce(RunningWeights.joined, parts)
    for name in ("log_mean", "log_mean_error", "effective_sample_size", "largest"):
        torch.testing.assert_close(getattr(chunked, name), getattr(whole, name))
    torch.testing.assert_close(whole.log_mean, log_mean_exp(log_weights))
    torch.testing.assert_close(khat_of_tail(whole.largest), pareto_khat(log_weights))
    torch.testing.assert_close(whole.effective_sample_size, effective_sample_size(log_weights))
    weights = (log_weights - log_weights.max()).exp()
    by_hand = weights.std(0) / weights.mean(0) / 1000**0.5
    torch.testing.assert_close(whole.log_mean_error, by_hand)
    torch.testing.assert_close(chunked.moments.mean, log_weights.mean(0))
    torch.testing.assert_close(chunked.moments.standard_error, log_weights.std(0) / 1000**0.5)


@pytest.mark.parametrize("chunk_size", [1, 64, 300, 10_000])
def test_chunk_size_changes_memory_and_not_the_answer(
    oracle: LinearGaussian, x: Tensor, chunk_size: int
) -> None:
    guide = WideGuide(oracle)
    estimate = log_evidence(oracle.model, guide, x, num_samples=300, chunk_size=chunk_size)
    assert guide.largest == min(300, max(2, chunk_size)), "the first look takes two"
    z = (estimate.value - oracle.log_evidence(x)) / estimate.standard_error
    assert z.abs().max() < 4.5


def test_default_chunk_is_smaller_for_a_bigger_batch(oracle: LinearGaussian, x: Tensor) -> None:
    sizes = [
        Chunks(ELBO, oracle.model, WideGuide(oracle), (x.repeat(n, 1),), {}, 5000).chunk_size
        for n in (1, 10, 1000)
    ]
    assert sizes[0] > sizes[1] > sizes[2] >= 1
    for rows, chunk_size in zip((60, 600, 60_000), sizes, strict=True):
        assert chunk_size * rows * 4 <= 2**25, "x alone stays within the bound"


def test_log_evidence_of_one_minibatch_in_all_chunks(oracle: LinearGaussian) -> None:
    """Chunks of a plate that draws its own minibatch must not mix several minibatches."""
    x = torch.arange(40.0)[:, None] * torch.ones(4)  # so far apart that evidence names the row

    def model(x: Tensor) -> None:
        with pyro.plate("data", 40, subsample_size=8) as index:
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            mean = z @ oracle.loading.T
            pyro.sample("x", dist.Normal(mean, oracle.noise).to_event(1), obs=x[index])

    def guide(x: Tensor) -> None:
        with pyro.plate("data", 40, subsample_size=8) as index:
            pyro.sample("z", oracle.posterior(x[index]))

    estimate = log_evidence(model, guide, x, num_samples=20, chunk_size=3)
    exact = oracle.log_evidence(x)
    nearest = (estimate.value[:, None] - exact).abs().min(1)
    assert (nearest.values < 1e-8).all()
    assert len(nearest.indices.unique()) == 8
    torch.testing.assert_close(estimate.total(), 5 * exact[nearest.indices].sum())


def test_log_evidence_refuses_what_it_cannot_do(oracle: LinearGaussian, x: Tensor) -> None:
    with pytest.raises(PyroLVMError, match=r"method: expected 'iwae', 'ais'.*, got 'mcmc'.\nTry: "):
        log_evidence(oracle.model, oracle.exact_guide, x, method="mcmc")
    with pytest.raises(PyroLVMError, match="num_samples: expected an integer >= 1, got 0"):
        log_evidence(oracle.model, oracle.exact_guide, x, num_samples=0)
    with pytest.raises(PyroLVMError, match="chunk_size: expected an integer >= 1, got -1"):
        log_evidence(oracle.model, oracle.exact_guide, x, chunk_size=-1)


@pytest.mark.parametrize("chunk_size", [1, 5])
def test_log_evidence_of_a_minibatch_beside_a_global_latent(chunk_size: int) -> None:
    def model() -> None:
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
        with pyro.plate("data", 10, subsample_size=2):
            pyro.sample("x", dist.Normal(w, 1.0), obs=torch.zeros(2))

    def guide() -> None:
        pyro.sample("w", dist.Normal(0.0, 1.0))

    with pytest.raises(PlateError, match="plate 'data'"):
        log_evidence(model, guide, num_samples=20, chunk_size=chunk_size)


# Posterior draws.


def test_sample_posterior_draws_from_the_guide(oracle: LinearGaussian, x: Tensor) -> None:
    draws = sample_posterior(
        oracle.model, oracle.exact_guide, x, num_samples=2001, chunk_size=400, device="cpu"
    )
    assert set(draws) == {"z"}
    assert draws["z"].shape == (2001, 60, 2)
    assert draws["z"].dtype == torch.float64
    assert draws["z"].device.type == "cpu"
    exact = oracle.posterior(x)
    z = (draws["z"].mean(0).to(x.device) - exact.loc) / (exact.variance / 2001).sqrt()
    assert z.abs().max() < 4.5
    assert len(draws["z"][:, 0, 0].unique()) == 2001, "chunks repeat no draw"


@pytest.fixture
def counts() -> tuple[Tensor, Tensor]:
    return torch.poisson(torch.ones(4, 5)), torch.randn(5)


def test_sites_have_the_plates_they_are_in(counts: tuple[Tensor, Tensor]) -> None:
    draws = sample_posterior(hierarchy, hierarchy_guide, *counts, num_samples=6, chunk_size=4)
    assert {name: tuple(draw.shape) for name, draw in draws.items()} == {
        "w": (6, 3),
        "a": (6, 4, 1)[:2],
    }


# Figures.


def test_plot_khat(tmp_path: Path) -> None:
    khat = torch.cat([torch.linspace(-0.4, 0.69, 200), torch.tensor([1.9, torch.inf, torch.nan])])
    figure = plot_khat(khat)
    axes = figure.axes[0]
    counted = sum(bar.get_height() for bar in axes.patches)
    assert counted == 201, "every finite value is in a bar"
    assert not any(
        bar.get_x() < 0.699 and bar.get_x() + bar.get_width() > 0.701 for bar in axes.patches
    )
    assert axes.get_title().endswith("of 203 (1 %); not finite: 2")
    figure.savefig(tmp_path / "khat.png")
    assert (tmp_path / "khat.png").stat().st_size > 5000
    assert (
        plot_khat(torch.tensor([torch.inf]))
        .axes[0]
        .get_title()
        .startswith("k-hat above 0.7: 1 of 1")
    )


def test_plot_khat_of_few_draws() -> None:
    """Which bear less than many."""
    axes = plot_khat(torch.tensor([0.4, 0.6]), limit=0.5).axes[0]
    assert axes.get_title() == "k-hat above 0.5: 1 of 2 (50 %)"
    assert axes.lines[0].get_xdata()[0] == 0.5


def test_import_loads_no_plotting() -> None:
    code = "import sys, pyro_lvm.diagnostics; print({'matplotlib', 'arviz'} & set(sys.modules))"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "set()"
