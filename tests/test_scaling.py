"""The curves of scaling and the race to a bound: a few steps of each."""

from dataclasses import replace

import pyro
import pytest

from benchmarks.scaling_axes import AXES
from benchmarks.scaling_figure import figure
from benchmarks.scaling_page import page, sweeps
from benchmarks.time_to_bound import SUITE
from benchmarks.time_to_bound_methods import METHODS

QUICK = sorted(METHODS.keys() - {"ours, compiled", "ours, compiled, dreg"})


@pytest.fixture(autouse=True)
def _settings():
    with pyro.settings.context(module_local_params=True), pyro.validation_enabled(False):
        yield


@pytest.mark.parametrize("axis", ["latents", "layers", "mixing"])
def test_every_contender_has_a_time_and_a_memory(axis: str) -> None:
    found = AXES[axis].run(AXES[axis].RUNS[1], seed=0, rounds=2)
    names = {column.rpartition(", ")[0] for column in found}
    assert names in ({"ours", "Pyro"}, {"ours", "ours, in chunks"})
    assert len(found) == 2 * len(names)
    assert min(found.values()) > 0


def test_page_and_picture_show_every_run() -> None:
    columns = {f"{name}, {unit}": 2.0 for name in ("ours", "Pyro") for unit in ("ms", "MiB")}
    runs = {f"latents: L = {size}, seed {seed}": columns for size in (8, 2) for seed in (0, 1)}
    found = sweeps(runs)
    drawn = figure(found).axes[list(AXES).index("latents")]
    assert [list(line.get_xdata()) for line in drawn.lines] == [[2, 8], [2, 8]]
    text = page(found)
    assert "| L = 2 | 2.000 ± 0.000 |" in text
    assert text.count("## ") == len(AXES)


@pytest.mark.parametrize("name", QUICK)
def test_a_race_ends_at_the_target_or_the_budget(name: str) -> None:
    race = replace(SUITE.parts["digits"], every=2)
    lost = race.run(name, 0, 4)
    assert lost["bound"] < race.target
    assert "steps" not in lost
    won = replace(race, target=lost["bound"] - 10).run(name, 0, 4)
    assert won["steps"] == 2
    assert won["CPU s to the bound"] > 0


@pytest.mark.parametrize("name", QUICK)
def test_every_method_sees_the_same_batches_from_the_same_start(name: str) -> None:
    """The bound before training has moved much is that of the others, within the noise of it."""
    race = replace(SUITE.parts["digits"], every=2)
    found, ours = race.run(name, 0, 4)["bound"], race.run("ours", 0, 4)["bound"]
    assert abs(found - ours) < 0.15  # over seeds 0.02 to 0.07
