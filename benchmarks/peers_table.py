"""The page of the comparison with peers, from the kept runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from statistics import median

from benchmarks.kept import Run
from benchmarks.peers_rounds import ratio
from benchmarks.peers_steps import OURS

__all__ = ["each", "page", "shown"]

Runs = Mapping[str, Run]

EAGER, COMPILED = OURS
PEERS = (
    "by hand",
    "by hand, compiled",
    "Pyro",
    "Pyro, Renyi",
    "Pyro, jitted",
    "NumPyro",
    "pythae",
)
TARGETS = (
    ("MNIST-size VAE", "by hand", 0.85),
    ("MNIST-size VAE", "by hand, compiled", 1.0),
    ("tiny VAE", "Pyro", 1 / 3),
    ("tiny VAE", "Pyro, Renyi", 1 / 3),
    ("", "NumPyro", 1.0),
)


def page(runs: Runs) -> str:
    """Markdown: targets, ratios of the compiled and of the eager step, times, first calls."""
    cases = {key: run for key, run in runs.items() if key != "environment"}
    sections = [
        "# One training step beside peers\n\n" + _how(runs["environment"], cases),
        "## Targets\n\n" + _targets(cases),
        "## Our compiled step / the peer's\n\n" + _ratios(cases, COMPILED),
        "## Our eager step / the peer's\n\n" + _ratios(cases, EAGER),
        "## Milliseconds a step\n\n" + _times(cases),
        "## Seconds to the first step\n\n" + _first(cases),
    ]
    return "\n\n".join(sections) + "\n"


def _how(environment: Run, cases: Runs) -> str:
    versions = ", ".join(f"{name} {value}" for name, value in environment.items())
    counts = {len(case["ms"][EAGER]) for case in cases.values()}
    rounds = " to ".join(str(count) for count in sorted({min(counts), max(counts)}))
    absent = [name for name in PEERS if not any(name in run["ms"] for run in cases.values())]
    left_out = f" Not measured, as it is not installed: {', '.join(absent)}." if absent else ""
    titles = "; ".join(dict.fromkeys(f"{_name(key)}: {run['title']}" for key, run in cases.items()))
    return (
        f"`python -m benchmarks.peers`, CPU, {versions}. A step is zero_grad, loss and backward, "
        "without the optimiser; argument checks are off; plain gradients. CPU time of all "
        f"threads, {rounds} rounds in random order in one process; ratios are taken within a "
        "round: median (quartiles). Below 1, ours is faster. The bound is the ELBO at K = 1, and "
        'at any K where latents are global; else the importance-weighted one. "Pyro" is '
        'Trace_ELBO, vectorised, which does the work of the ELBO at any K, "Pyro, Renyi" '
        'RenyiELBO(alpha=0), "Pyro, jitted" JitTrace_ELBO; of the hidden Markov model, whose '
        "states are summed out, TraceEnum_ELBO and its jitted kin. By hand is the same "
        "arithmetic in plain PyTorch, of the hidden Markov model the forward algorithm; pythae "
        f"is its IWAE. {titles}.{left_out}"
    )


def _targets(cases: Runs) -> str:
    rows = [
        f"| {key} | {peer} | {limit:.2f} | {shown(run, COMPILED, peer)} "
        f"| {_met(run, peer, limit)} |"
        for name, peer, limit in TARGETS
        for key, run in cases.items()
        if name in key and peer in run["ms"]
    ]
    return _table(("model", "peer", "at most", "ours, compiled / peer", "target"), rows)


def _met(run: Run, peer: str, limit: float) -> str:
    _, middle, _ = ratio(run["ms"][COMPILED], run["ms"][peer])
    return "met" if middle <= limit else "**missed**"


def _ratios(cases: Runs, ours: str) -> str:
    return each(
        cases,
        (*PEERS, *(name for name in OURS if name != ours)),
        lambda run, peer: shown(run, ours, peer),
    )


def _times(cases: Runs) -> str:
    return each(cases, (*OURS, *PEERS), lambda run, name: f"{median(run['ms'][name]):.2f}")


def _first(cases: Runs) -> str:
    names = (COMPILED, "by hand, compiled", "Pyro, jitted", "NumPyro")
    return (
        "Recording and compiling, on the clock of a machine with other work; no compiled graph was "
        "there from before.\n\n" + each(cases, names, lambda run, name: f"{run['first'][name]:.1f}")
    )


def shown(run: Run, ours: str, peer: str) -> str:
    """Median and quartiles of ours / the peer's."""
    low, middle, high = ratio(run["ms"][ours], run["ms"][peer])
    return f"{middle:.2f} ({low:.2f}-{high:.2f})"


def each(cases: Runs, columns: tuple[str, ...], cell: Callable[[Run, str], str]) -> str:
    """A table with a line for each run, and the columns that some run has."""
    shown = [name for name in columns if any(name in run["ms"] for run in cases.values())]
    rows = [
        f"| {key} | "
        + " | ".join(cell(run, name) if name in run["ms"] else "" for name in shown)
        + " |"
        for key, run in cases.items()
    ]
    return _table(("model", *shown), rows)


def _table(titles: tuple[str, ...], rows: list[str]) -> str:
    head = "| " + " | ".join(titles) + " |\n|" + " --- |" * len(titles)
    return "\n".join([head, *rows])


def _name(key: str) -> str:
    return key.partition(",")[0]
