"""Strict types over the whole package, models and guides included."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def link_package(into: Path) -> int:
    """Lay the package out as it is imported, by links; returns its number of sources.

    The editable install's import hook is invisible to mypy: at the root it would check
    the core alone, and pass.
    """
    package = into / "pyro_lvm"
    package.mkdir()
    entries = [*(ROOT / "pyro_lvm").iterdir(), ROOT / "models", ROOT / "guides"]
    for entry in entries:
        if entry.name != "__pycache__":
            (package / entry.name).symlink_to(entry)
    return sum(len(list((ROOT / d).rglob("*.py"))) for d in ("pyro_lvm", "models", "guides"))


def test_mypy_strict(tmp_path: Path) -> None:
    sources = link_package(tmp_path)
    command = [sys.executable, "-m", "mypy", "-p", "pyro_lvm"]
    options = ["--config-file", str(ROOT / "setup.cfg"), "--cache-dir", str(ROOT / ".mypy_cache")]
    result = subprocess.run(
        command + options,
        cwd=tmp_path,
        env={**os.environ, "MYPYPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    checked = re.search(r"no issues found in (\d+) source files?", result.stdout)
    assert checked, result.stdout
    assert int(checked[1]) >= sources  # it counts folders of data too
