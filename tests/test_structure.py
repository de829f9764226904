"""The shape of the code base: layers, import names, package list, documented modules."""

import ast
import configparser
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = {"pyro_lvm": "pyro_lvm", "models": "pyro_lvm.models", "guides": "pyro_lvm.guides"}

# A module imports only what stands before it, or what lies in its own folder.
LAYERS = (
    "errors",
    "inference_data",
    "nn",
    "hmc",
    "weights",
    "metropolis",
    "scoring",
    "distributions",
    "masking",
    "missing",
    "chains",
    "kept_chains",
    "parameters",
    "random_state",
    "recomputation",
    "tracing",
    "frozen",
    "shared_plates",
    "enumeration",
    "mixing",
    "mixing_rows",
    "layout",
    "latent_chains",
    "checks",
    "densities",
    "broadcasting",
    "reverse",
    "particles",
    "particle_chunks",
    "proposing",
    "dreams",
    "nonfinite",
    "annealing",
    "gradients",
    "refusals",
    "objective",
    "acceptance",
    "weighted",
    "mixing_chunks",
    "semi_implicit",
    "mixing_chain",
    "contrast",
    "saturation",
    "own_step",
    "critic",
    "adversary",
    "adversarial",
    "divergences",
    "encounter",
    "game",
    "objectives",
    "oracles",
    "testing",
    "data",
    "training",
    "diagnostics",
    "mcmc",
    "imputation",
    "cli",
)
PROGRAMS = {"models", "guides"}  # know nothing of how they are trained
FOUNDATION = {"errors", "nn", "scoring", "distributions", "masking"}


def module_name(path: Path) -> str:
    """The one import name of a file: models/vae.py is pyro_lvm.models.vae."""
    folder, *rest = path.relative_to(ROOT).with_suffix("").parts
    return ".".join([FOLDERS[folder], *(part for part in rest if part != "__init__")])


SOURCES = {module_name(p): p for folder in FOLDERS for p in sorted((ROOT / folder).rglob("*.py"))}
PUBLIC = [name for name in SOURCES if not name.rpartition(".")[2].startswith("_")]


def imports(path: Path) -> set[str]:
    """Every module that a file imports, relative ones with their dots."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == "pyro_lvm" and not node.level:
            found |= {f"pyro_lvm.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add("." * node.level + (node.module or ""))
    return found


def layer(name: str) -> str:
    """The part of a module's name that decides what it may import; "" for the top itself."""
    part = [*name.split("."), ""][1]
    return "" if part == "__version__" else part


def allowed(importer: str) -> set[str]:
    own = layer(importer)
    if own in PROGRAMS:
        return {own, "", *FOUNDATION}
    below = {*LAYERS[: LAYERS.index(own) + 1], ""}
    above_objectives = LAYERS.index(own) >= LAYERS.index("objectives")
    return below | PROGRAMS if above_objectives else below


@pytest.mark.parametrize("name", [name for name in SOURCES if name != "pyro_lvm"])
def test_imports_go_down_the_layers(name: str) -> None:
    own = {found for found in imports(SOURCES[name]) if found.split(".")[0] == "pyro_lvm"}
    upward = {found for found in own if layer(found) not in allowed(name)}
    assert not upward, f"{name} imports {sorted(upward)}, which its layer must not know"


@pytest.mark.parametrize("name", [name for name in SOURCES if layer(name) in PROGRAMS])
def test_programs_do_not_import_each_other(name: str) -> None:
    others = PROGRAMS - {layer(name)}
    assert not {found for found in imports(SOURCES[name]) if layer(found) in others}


def test_one_import_name_each() -> None:
    """``import models.vae`` would make a second set of classes; relative imports hide names."""
    every = [*ROOT.glob("tests/*.py"), *ROOT.glob("tutorials/*.py"), *ROOT.glob("benchmarks/*.py")]
    wrong = {
        f"{path.relative_to(ROOT)}: {found or '.'}"
        for path in [*SOURCES.values(), *every]
        for found in imports(path)
        if found.split(".")[0] in {*PROGRAMS, ""}
    }
    assert not wrong


def test_package_list_equals_folders() -> None:
    """A folder that is not listed imports from a clone and is missing from the wheel."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    listed = setup["options"]["packages"].split()
    found = {name for name, path in SOURCES.items() if path.name == "__init__.py"}
    folders = {module_name(path.parent) for path in SOURCES.values()}
    assert sorted(listed) == sorted(found)
    assert folders == found, "a folder has no __init__.py"


@pytest.mark.parametrize("name", PUBLIC)
def test_public_modules_say_what_they_hold(name: str) -> None:
    module = import_module(name)
    assert Path(str(module.__file__)) == SOURCES[name]
    assert module.__doc__, f"{name} has no docstring"
    assert isinstance(module.__all__, list), f"{name} has no __all__"
    missing = [public for public in module.__all__ if not hasattr(module, public)]
    assert not missing, f"{name}.__all__ names {missing}, which it does not have"


def test_import_is_cheap() -> None:
    """The top module itself imports nothing heavy; its names load on first use."""
    code = "import sys, pyro_lvm; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
