"""Fits of ``processes_job`` by recorded steps, to be run by several processes; a script."""

import os
import sys
from pathlib import Path

import torch
from processes_job import CASES, SHARED, SharedAdam, trained

if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    folder, rank = Path(sys.argv[1]), int(os.environ["RANK"])
    results = {name: trained(name, rank, compile="graph") for name in CASES}
    results["inductor"] = trained("ELBO", rank, compile="inductor")
    results["ZeRO"] = trained("ELBO", rank, compile="graph", optimizer=SharedAdam(), **SHARED)
    torch.save(results, folder / f"{rank}.pt")
