"""Memory and time of completing long tables, each in a process of its own.

python -m benchmarks.imputation_memory [--rows 10000 100000] [--columns 50] [--steps 300]

A fifth of the cells of a table of correlated Normals is missing. Peak memory is that of the
process, with the table, the completed copy and the draws in it.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Sequence

import numpy as np
import torch

from pyro_lvm import LatentImputer

__all__ = ["main", "measure"]

_FACTORS = 10


def measure(rows: int, columns: int, steps: int, draws: int, copies: int) -> dict[str, float]:
    """Seconds of the CPU and megabytes at the peak, before and after, of this process."""
    torch.set_num_threads(1)
    random = np.random.default_rng(0)
    loading = random.standard_normal((_FACTORS, columns)).astype("float32")
    table = random.standard_normal((rows, _FACTORS), dtype="float32") @ loading
    table += random.standard_normal(table.shape, dtype="float32")
    table[random.random(table.shape, dtype="float32") < 0.2] = np.nan
    found = {"MB before": _peak(), "MB table": table.nbytes / 1e6}
    imputer = LatentImputer(
        hidden=(64, 64), max_steps=steps, num_draws=draws, random_state=0, progress=True
    )
    start = time.process_time()
    imputer.set_params(device="cpu").fit(table)
    found |= {"s fit": time.process_time() - start, "MB fit": _peak()}
    start = time.process_time()
    imputer.transform(table)
    found |= {"s transform": time.process_time() - start, "MB transform": _peak()}
    start = time.process_time()
    imputer.impute(table, copies)
    return found | {"s draws": time.process_time() - start, "MB draws": _peak()}


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure each number of rows and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", nargs="+", type=int, default=[10_000, 100_000])
    parser.add_argument("--columns", type=int, default=50)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--draws", type=int, default=50, help="of the guide for each row")
    parser.add_argument("--copies", type=int, default=5, help="imputations of each cell")
    parser.add_argument("--here", action="store_true", help="measure in this process")
    options = parser.parse_args(arguments)
    sizes = (options.columns, options.steps, options.draws, options.copies)
    if options.here:
        print(json.dumps(measure(options.rows[0], *sizes)))
        return
    for number, rows in enumerate(options.rows):
        names = ("columns", "steps", "draws", "copies")
        given = [part for pair in zip(names, map(str, sizes), strict=True) for part in pair]
        flags = [f"--{part}" if part in names else part for part in given]
        command = [sys.executable, "-m", "benchmarks.imputation_memory", "--here", *flags]
        run = subprocess.run(
            [*command, "--rows", str(rows)], check=True, stdout=subprocess.PIPE, text=True
        )
        found = json.loads(run.stdout)
        if not number:
            print("| rows | " + " | ".join(found) + " |\n| ---: |" + " ---: |" * len(found))
        print(f"| {rows} | " + " | ".join(f"{value:.0f}" for value in found.values()) + " |")


if __name__ == "__main__":
    main()
