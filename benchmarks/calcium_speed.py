"""CPU seconds to infer the spikes of 1000 traces of 1000 frames, by four methods in one run.

The guide's network is not trained here: a pass takes as long whatever its weights, and training
is paid once for all recordings. OASIS estimates noise and decay itself. NUTS, in Pyro, draws
from the posterior of the same model with relaxed spikes and the true parameters; it is run on a
few traces, and the time for all of them is in proportion. Methods take turns.

    python -m benchmarks.calcium_speed
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from statistics import median
from time import process_time

import pyro
import torch
from pyro.infer import MCMC, NUTS

from benchmarks.command_line import parser_of
from pyro_lvm.guides import SpikeGuide
from pyro_lvm.models import LinearCalcium
from pyro_lvm.models.calcium_simulation import Recording, simulate

__all__ = ["main", "measure"]

RATE, WARM_UP, DRAWS, DEPTH = 60.0, 50, 50, 6
_PARAMETERS = ("amplitude", "decay", "baseline", "noise_scale", "firing_rate")


def main() -> None:
    """Print one line a method."""
    parser = parser_of(__doc__)
    parser.add_argument("--traces", type=int, default=1000)
    parser.add_argument("--frames", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(markdown(measure(options.traces, options.frames, options.repeats)))


def measure(traces: int, frames: int, repeats: int) -> dict[str, float]:
    """Median CPU seconds for all traces, on one thread, by method."""
    recording = simulate("linear", traces, frames, RATE)
    methods: Mapping[str, Callable[[Recording], float]] = {
        "guide: probabilities": _probabilities,
        "guide: probabilities and 100 draws": _draws,
        "OASIS, AR(1)": _oasis,
        f"NUTS, {WARM_UP} + {DRAWS} draws": _nuts,
    }
    times: dict[str, list[float]] = {name: [] for name in methods}
    for _ in range(repeats):
        for name, method in methods.items():
            times[name].append(method(recording))
    return {name: median(seconds) for name, seconds in times.items()}


def markdown(seconds: Mapping[str, float]) -> str:
    """Times, and their ratio to the first."""
    first = next(iter(seconds.values()))
    lines = ["| | CPU seconds | times the first |", "| --- | --- | --- |"]
    lines += [f"| {name} | {s:.3g} | {s / first:.3g} |" for name, s in seconds.items()]
    return "\n".join(lines)


@torch.no_grad()
def _probabilities(recording: Recording) -> float:
    guide = SpikeGuide(rate=RATE)
    return _timed(lambda: guide.posterior(recording.traces).mean)


@torch.no_grad()
def _draws(recording: Recording) -> float:
    guide = SpikeGuide(rate=RATE)
    return _timed(lambda: guide.posterior(recording.traces).sample(torch.Size([100])))


def _oasis(recording: Recording) -> float:
    from oasis.functions import deconvolve

    traces = recording.traces.double().numpy()
    return _timed(lambda: [deconvolve(trace).s for trace in traces])


def _nuts(recording: Recording) -> float:
    model = LinearCalcium(rate=RATE, spikes="relaxed", drift=False)
    for name in _PARAMETERS:
        setattr(model, name, getattr(recording.model, name)[:1].detach())
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    pyro.set_rng_seed(0)
    chain = MCMC(NUTS(model, max_tree_depth=DEPTH), DRAWS, WARM_UP, disable_progbar=True)
    return _timed(lambda: chain.run(recording.traces[:1])) * len(recording.traces)


def _timed(run: Callable[[], object]) -> float:
    started = process_time()
    run()
    return process_time() - started


if __name__ == "__main__":
    main()
