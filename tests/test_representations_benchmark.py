"""The judges of representations are right where the answer is known, and the script runs."""

import subprocess
import sys
from pathlib import Path

import pyro
import pytest
import torch
from torch import Tensor, nn

from benchmarks import representations_causal, representations_digits
from benchmarks.representations_causal import DO, EDGES, World, effects
from benchmarks.representations_digits import frechet, shifted

ROOT = Path(__file__).parents[1]


def test_pictures_move_by_a_pixel_at_most() -> None:
    x = torch.zeros(200, 64)
    x[:, 8 * 3 + 4] = 1.0
    moved = shifted(x).reshape(-1, 8, 8)
    assert torch.equal(moved.sum((1, 2)), torch.ones(200))
    rows, columns = moved.nonzero()[:, 1], moved.nonzero()[:, 2]
    assert set(rows.tolist()) == {2, 3, 4}
    assert set(columns.tolist()) == {3, 4, 5}


def test_frechet_distance_of_known_normals() -> None:
    """Shift 3 and scale 2 against 1 in each of two dims: 9 + 1 a dim, to four standard errors."""
    torch.manual_seed(0)
    first, second = torch.randn(100_000, 2), 3.0 + 2.0 * torch.randn(100_000, 2)
    assert abs(frechet(first, second) - 20.0) < 0.2
    assert abs(frechet(first, first)) < 1e-4


class Inverse(nn.Module):
    """The encoder that knows the truth of data it has seen made."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world

    def posterior(self, x: Tensor) -> dict[str, torch.distributions.Distribution]:
        return {"z": torch.distributions.Normal(self.world.seen, 1.0)}  # type: ignore[attr-defined]


def test_truth_is_its_own_best_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """The true prior, codes and decoder have no error; an independent prior has one."""
    world = World()
    drawn = world.latents(representations_causal.NUM_TEST)
    monkeypatch.setattr(world, "latents", lambda count: drawn)
    monkeypatch.setattr(world, "seen", drawn, raising=False)

    class Shows:
        def decode(self, z: Tensor) -> torch.distributions.Normal:
            return torch.distributions.Normal(world.shown(z), 1.0)

    judge = representations_causal.judged
    found = judge(world, Shows(), Inverse(world), world.prior)  # type: ignore[arg-type]
    assert found["correlation"] == pytest.approx(1.0)
    assert found["copy"] == found["counterfactual"] == pytest.approx(0.0, abs=1e-6)
    assert effects(world.prior) == pytest.approx(
        {f"{c} to {e} ({s})": s for (c, e), s in EDGES.items()}
    )
    without = judge(world, Shows(), Inverse(world), None)  # type: ignore[arg-type]
    assert without["counterfactual"] > 0.2
    assert set(DO) == {0}


@pytest.mark.slow
@pytest.mark.parametrize("part", ["digits", "causal"])
def test_prints_a_line_for_each_run(part: str) -> None:
    command = [sys.executable, "-m", "benchmarks.representations", part]
    options = ["--seeds", "1", "--steps", "2", "--no-save"]
    run = subprocess.run(
        [*command, *options], cwd=ROOT, check=False, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    runs = {"digits": representations_digits, "causal": representations_causal}[part].RUNS
    for name in runs:
        assert f"\n| {name} | " in run.stdout


def test_every_run_of_the_causal_part_trains() -> None:
    with pyro.settings.context(module_local_params=True):
        for name in representations_causal.RUNS:
            found = representations_causal.run(name, seed=0, steps=2)
            assert found["copy"] > 0
            assert ("0 to 1 (0.8)" in found) == representations_causal.RUNS[name].is_causal
