"""Every example in a docstring runs, each from the same seed, and all that is public has one."""

import doctest
import inspect
from collections.abc import Iterator
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
TO_EXTEND = {  # by users, from the module that holds it
    "pyro_lvm.adversarial": "AdversarialObjective",
    "pyro_lvm.game": "GameObjective",
    "pyro_lvm.semi_implicit": "SemiImplicitObjective",
    "pyro_lvm.weighted": "WeightedObjective",
}


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


def public() -> Iterator[tuple[str, str]]:
    """Module and name of all that packages export, and of the bases that users extend."""
    yield from TO_EXTEND.items()
    for module in map(import_module, MODULES):
        if hasattr(module, "__path__"):
            yield from ((module.__name__, name) for name in module.__all__)


def test_all_that_is_public_has_an_example() -> None:
    found = {(module, name): getattr(import_module(module), name) for module, name in public()}
    documented = {n: f for n, f in found.items() if inspect.isclass(f) or inspect.isfunction(f)}
    assert len(documented) > 200
    assert not [name for name, f in documented.items() if ">>>" not in (f.__doc__ or "")]
