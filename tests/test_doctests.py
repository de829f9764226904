"""Every example in a docstring runs, each module from the same seed."""

import doctest
from importlib import import_module
from pathlib import Path

import pyro
import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = {"pyro_lvm": "pyro_lvm", "models": "pyro_lvm.models", "guides": "pyro_lvm.guides"}
MODULES = [
    ".".join([name, *path.relative_to(ROOT / folder).with_suffix("").parts]).removesuffix(
        ".__init__"
    )
    for folder, name in FOLDERS.items()
    for path in sorted((ROOT / folder).rglob("*.py"))
]


class Seeded(doctest.DocTestRunner):
    """Each docstring starts from seed 0, so adding one never changes another."""

    def run(self, test: doctest.DocTest, *args: object, **kwargs: object) -> doctest.TestResults:
        pyro.set_rng_seed(0)
        pyro.clear_param_store()
        return super().run(test, *args, **kwargs)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    module = import_module(name)
    runner = Seeded(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    for test in doctest.DocTestFinder(exclude_empty=True).find(module, name):
        runner.run(test)
    results = runner.summarize(verbose=False)
    assert results.failed == 0, capsys.readouterr().out
