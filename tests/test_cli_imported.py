"""Models, guides, objectives and data of the user's own, by import path on the command line."""

import csv
import re
import sys
from pathlib import Path

import pytest

from pyro_lvm.cli.main import main
from pyro_lvm.cli.restored import restore

MODULE = """
import pyro, pyro.distributions as dist, torch
from pyro.nn import PyroModule
from pyro_lvm.data import DataSplits

class Rasch(PyroModule):
    def __init__(self, in_features, slope=1.0):
        super().__init__()
        self.latent_features, self.slope = 1, slope
        self.easiness = torch.nn.Parameter(torch.zeros(in_features))

    def forward(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            answers = dist.Bernoulli(logits=self.slope * z + self.easiness)
            pyro.sample("x", answers.to_event(1), obs=x)

class Joint(Rasch):
    def forward(self, x):
        z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Bernoulli(logits=z + self.easiness).to_event(1), obs=x)

class Without(Rasch):
    def __init__(self, in_features):
        super().__init__(in_features)
        del self.latent_features

class Guide(PyroModule):
    def __init__(self, in_features, latent_features):
        super().__init__()
        self.net = torch.nn.Linear(in_features, 2 * latent_features)

    def forward(self, x):
        loc, log_scale = self.net(x).chunk(2, -1)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))

def program(x):
    pass

def maker():
    return program

def answers(items=5):
    x = torch.bernoulli(torch.full((60, items), 0.5), generator=torch.Generator().manual_seed(0))
    return DataSplits("answers", x[:40], x[40:45], x[45:])

broken = 3
"""
SHORT = [
    *("--train.steps", "4", "--train.batch_size", "20", "--train.accelerator", "cpu"),
    *("--evaluation.num_samples", "30", "--evaluation.posterior_samples", "5"),
]
OWN = ["--model.name", "rasch.Rasch", "--guide.name", "rasch.Guide", "--data.name", "rasch.answers"]


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rasch.py").write_text(MODULE)
    (tmp_path / "unfinished.py").write_text("import nowhere_to_be_found")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "rasch", raising=False)


def test_own_programs_on_own_data_are_compared_and_diagnosed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = ["--model.options.slope", "0.5", "--data.options.items", "4", "--seeds", "[1]"]
    objectives = ["--objectives", "[{name: ELBO}, {name: pyro_lvm.objectives.IWAE}]"]
    assert main(["compare", "--out", "run", *SHORT, *OWN, *options, *objectives]) == 0
    with Path("run/table.csv").open() as file:
        names = [row["objective"] for row in csv.DictReader(file)]
    assert names == ["ELBO-dreg-K5", "pyro_lvm.objectives.IWAE-dreg-K5"]
    run = restore(Path("run"))
    assert (type(run.model).__name__, run.model.slope) == ("Rasch", 0.5)
    assert run.test.shape == (15, 4)
    assert (run.model.easiness != 0).all(), "trained"
    checks = ["--checks", "[weights]", "--num_samples", "50"]
    assert main(["diagnose", "run", *checks]) == 0
    assert "weights:" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("--model.name rasch.Rash", "got 'Rash'.\nTry: Did you mean rasch.Rasch?"),
        ("--model.name rusch.Rasch", "got no module 'rusch' in "),
        ("--model.name rasch.broken", "got 'broken', of type int"),
        ("--model.name rasch.program", "Pass --model.options.x, or give it a default"),
        ("--model.name rasch.maker", "expected a class that makes an nn.Module, got a function"),
        ("--model.name rasch.Without", "Give it latent_features"),
        ("--model.name rasch.Joint", "expected a bound for each of 2 rows, got shape ()"),
        ("--guide.name rasch.maker", "guide.name: expected a class that makes an nn.Module"),
        ("--guide.options.depth 2", "options of rasch.Guide: expected some of"),
        ("--data.name rasch.maker", "rasch.maker: expected a pyro_lvm.data.DataSplits"),
        ("--data.name rasch.program", "Pass --data.options.x, or give it a default"),
        ("--data.options.rows 2", "Leave 'rows' out, or see help(rasch.answers)"),
        ("--objectives [{name:rasch.Rasch}]", "rasch.Rasch: expected a subclass of Objective"),
    ],
)
def test_what_is_wrong_with_own_programs(
    arguments: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [word.replace("name:", "name: ") for word in arguments.split()]
    assert main(["compare", "--out", "run", *SHORT, *OWN, *words]) == 2
    message = capsys.readouterr().err
    assert re.search(r"(?s)^pyro-lvm: .+: expected .+, got .+\nTry: .+\n$", message), message
    assert says in message
    assert not Path("run").exists()


def test_what_a_module_raises_is_shown_as_it_is() -> None:
    with pytest.raises(ModuleNotFoundError, match="nowhere_to_be_found"):
        main(["compare", "--out", "run", "--model.name", "unfinished.Model"])
