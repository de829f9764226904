# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Speed, and many devices
#
# A Pyro program is run by handlers: for every site a message goes up and down a stack, in Python,
# at every step. For a small model that is most of the time. This tutorial records a step once and
# replays it without Python, says what a recording holds and when there can be none, trains with
# thousands of particles in the memory of some, reads data that stay on disk, and starts two
# processes.
#
# Set the environment variable `PYRO_LVM_SMOKE=1` to run it all in seconds, with numbers that
# mean nothing.

# %%
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from statistics import median
from time import process_time

import matplotlib.pyplot as plt
import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro.infer import SVI, RenyiELBO
from pyro.nn import PyroModule
from torch import nn

from pyro_lvm import fit
from pyro_lvm.data import digits
from pyro_lvm.objectives import IWAE
from pyro_lvm.training import CompiledLoss, CompiledStep

SMOKE = os.environ.get("PYRO_LVM_SMOKE", "0") != "0"
BACKEND = "graph" if SMOKE else "inductor"  # "inductor" needs a C++ compiler
NUM_STEPS = 20 if SMOKE else 1500
ROUNDS = 2 if SMOKE else 30
CHUNK, PARTICLES = (5, (10, 20)) if SMOKE else (50, (100, 300, 1000, 5000))
PROCESSES = 1 if SMOKE else 2
STOPS = (NUM_STEPS,) if SMOKE else (NUM_STEPS // 2, NUM_STEPS)

torch.set_num_threads(1)  # the networks are small
pyro.set_rng_seed(0)
pyro.enable_validation(False)  # checks of arguments take time, in Pyro's steps and in ours
plt.rcParams.update({"figure.dpi": 80, "figure.constrained_layout.use": True})

# %% [markdown]
# ## A plain Pyro program
#
# The variational autoencoder of the first tutorial, on handwritten digits.

# %%
data = digits("fixed", num_validation=0)
train, test = data.train.flatten(1), data.test.flatten(1)


class Model(PyroModule):
    """p(z) p(x | z)."""

    def __init__(self):
        super().__init__()
        self.decoder = nn.Sequential(nn.Linear(8, 50), nn.Tanh(), nn.Linear(50, 64))

    def forward(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(8), 1.0).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=self.decoder(z)).to_event(1), obs=x)


class Guide(PyroModule):
    """q(z | x)."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(64, 50), nn.Tanh(), nn.Linear(50, 16))

    def forward(self, x):
        loc, log_scale = self.encoder(x).chunk(2, -1)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))


def programs():
    """The same start each time."""
    torch.manual_seed(0)
    return Model(), Guide()


# %% [markdown]
# ## `compile=True`
#
# One argument of `fit`. It runs the programs, writes down every tensor operation of the loss, of
# its gradient and of the optimiser's update, and compiles them, which takes up to a minute; later
# steps are one call of the compiled function. Random numbers are drawn anew each time, by torch's
# generator as before: the losses are those of the run without it, to rounding.

# %%
losses = {}
for name, backend in {"as it is": False, "recorded": "graph", "compiled": BACKEND}.items():
    options = {"batch_size": 100, "max_steps": NUM_STEPS, "log_every": NUM_STEPS // 20}
    result = fit(*programs(), train, IWAE(5), compile=backend, **options)
    losses[name] = torch.tensor(result.history["loss"])
for name, values in losses.items():
    off = (values - losses["as it is"]).abs().max()
    print(f"{name:10s} last loss {values[-1]:.4f}, largest difference in any step {off:.1e}")

# %% [markdown]
# `"graph"` replays the recorded operations one by one: it needs no compiler and records in a
# second. `"inductor"`, which is what `True` means, makes one kernel of many operations.
#
# ## What it is worth
#
# In a loop of your own, `CompiledLoss` stands for `objective(model, guide)` under any optimiser,
# and `CompiledStep(loss, optimizer)` takes the whole step, as `fit` does: loss, gradient and update
# are one graph. We time one step of Adam of five kinds in turns, so that a busy machine slows all
# of them, and divide by Pyro's own.


# %%
def by_parts(loss):
    """Drop the gradients, loss, backward, update."""
    optimizer = torch.optim.Adam(loss.parameters(), lr=1e-4, fused=True)

    def step(x):
        optimizer.zero_grad()
        loss(x).backward()
        optimizer.step()

    return step


model, guide = programs()
objective = IWAE(5)
recorded = CompiledLoss(objective, model, guide, backend="graph")
compiled = CompiledLoss(objective, model, guide, backend=BACKEND)
renyi = RenyiELBO(0, 5, max_plate_nesting=1, vectorize_particles=True)
steps = {
    "Pyro": SVI(model, guide, pyro.optim.Adam({"lr": 1e-4}), renyi).step,
    "ours": by_parts(objective(model, guide)),
    "recorded": by_parts(recorded),
    "compiled loss": by_parts(compiled),
    "compiled": CompiledStep(compiled, torch.optim.Adam(compiled.parameters(), lr=1e-4)),
}
steps["compiled"](train[:10])  # Adam makes its state


def in_turns(steps, x):
    """CPU time of 20 steps of each kind in each round."""
    times = {name: [] for name in steps}
    for _ in range(ROUNDS):
        for name in random.sample([*steps], len(steps)):
            steps[name](x)  # records, and warms the caches
            start = process_time()
            for _ in range(20):
                steps[name](x)
            times[name].append(process_time() - start)
    return times


relative = {}
for size in (10, 100, 1000):
    times = in_turns(steps, train[:size])
    relative[size] = {
        name: median(a / b for a, b in zip(each, times["Pyro"])) for name, each in times.items()
    }

_, axis = plt.subplots(figsize=(6, 3.5))
for place, name in enumerate(steps):
    heights = [relative[size][name] for size in relative]
    axis.bar([k + 0.16 * place for k in range(len(relative))], heights, 0.15, label=name)
axis.set(ylabel="time of a step / Pyro's", xlabel="batch size")
axis.set_xticks([k + 0.32 for k in range(len(relative))], relative)
axis.set_ylim(0, 1.35)
axis.legend(ncols=5, fontsize=8, loc="upper center")
plt.show()

# %% [markdown]
# Small batches gain most: there, Python is most of a step. On large ones the time is that of
# matrix products, which nobody makes faster, and of what stands between them, which the compiler
# makes into few passes over memory.
#
# ## What is recorded
#
# A recording belongs to a kind of batch: its shapes, dtypes and devices, which modules are in
# training mode, and whether the update is in it. Three batch sizes made six of them above, three
# with and three without; the eight used last are kept.
# Parameters are read anew at each replay, and so is a KL warm-up.

# %%
print(compiled.num_graphs, "graphs")

# %% [markdown]
# What Python decides is decided once. A branch on the *value* of a tensor cannot be recorded, and
# must not be frozen: such a program goes on as it is, with one warning that names the line.


# %%
class Branches(Guide):
    """Another scale where the mean is large."""

    def forward(self, x):
        loc, log_scale = self.encoder(x).chunk(2, -1)
        scale = log_scale.exp() if loc.mean() > 0 else 0.5 * log_scale.exp()
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, scale).to_event(1))


with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    falls_back = CompiledLoss(IWAE(5), model, Branches(), backend="graph")
    for _ in range(3):
        falls_back(train[:100])
for warning in told:
    if "compile" in str(warning.message):
        print(re.sub(r"\S+\.py:\d+", "this notebook", str(warning.message)))

# %% [markdown]
# `torch.where(loc.mean() > 0, ...)` says the same without a branch, and is recorded.
#
# ## Many particles
#
# A bound of K particles is a function of K numbers for each datum, but to make them the decoder
# runs on all K draws, and what it computes is kept for the backward pass. `chunk_particles` makes
# some of them at a time and computes them once more in the backward pass. The gradient is the
# same; what grows with K is a few numbers for each particle and datum, the log-weights and their
# slopes, beside what one chunk takes while it is there.


# %%
def kept(loss, x):
    """MiB that a forward pass keeps for the backward pass, each storage once."""
    storages = {}

    def keep(tensor):
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss(x)
    return sum(storages.values()) / 2**20


x = train[:50]
chunks = {"all at once": None, f"{CHUNK} at a time": CHUNK}
memory = {name: {} for name in chunks}
for num_particles in PARTICLES:
    for name, chunk in chunks.items():
        loss = IWAE(num_particles, chunk_particles=chunk)(model, guide)
        loss(x[:2])  # finds the plates
        memory[name][num_particles] = kept(loss, x)

for name in memory:
    plt.loglog(*zip(*memory[name].items()), "o-", label=name)
plt.xlabel("particles, K")
plt.ylabel("kept for the backward pass, MiB")
plt.legend()
plt.show()

# %% [markdown]
# Mixing draws of semi-implicit guides have the same, `SIVI(..., chunk_mixing=100)`.
#
# ## Data on disk
#
# A `numpy.memmap` is a file that looks like an array. `fit` reads one batch of it at a time and
# keeps nothing, so that data may be larger than the memory; the order of batches, the held-out
# rows and the numbers are those of the same data in memory.

# %%
with tempfile.TemporaryDirectory() as folder:
    np.save(Path(folder, "digits.npy"), train.numpy())
    on_disk = np.load(Path(folder, "digits.npy"), mmap_mode="r")
    bounds = [
        fit(*programs(), source, IWAE(5), validation=0.2, max_epochs=2).history["loss"][-1]
        for source in (train, on_disk)
    ]
print(f"in memory {bounds[0]:.4f}, on disk {bounds[1]:.4f}")

# %% [markdown]
# ## Precision
#
# `precision="bf16-mixed"` runs matrix products in bfloat16, half the bytes of float32; what is
# summed to a log-weight stays float32, as a weight is the exponential of a sum of hundreds of
# terms. It pays on GPUs, and on CPUs with instructions for it. We compare the bound of held-out
# digits after the same steps.

# %%
for precision in ("32-true", "bf16-mixed"):
    result = fit(
        *programs(),
        train,
        IWAE(5),
        validation=test,
        batch_size=100,
        max_steps=NUM_STEPS,
        evaluate_every=NUM_STEPS,
        precision=precision,
    )
    print(f"{precision:10s} {result.history['bound'][-1]:.2f} nats")

# %% [markdown]
# ## Many processes
#
# The same script, started by `torchrun`, trains in several processes, on one machine or more: each
# takes its share of every batch, and the gradients are averaged. `batch_size` counts all of them,
# so the run is the same experiment as with one process, with other random numbers. Guides and
# models must be modules, so that their parameters can be kept in step.

# %%
SCRIPT = """
import sys

import torch

from pyro_lvm import fit
from pyro_lvm.data import digits
from pyro_lvm.guides import AmortizedNormal
from pyro_lvm.models import VAE
from pyro_lvm.objectives import IWAE

torch.set_num_threads(1)
torch.manual_seed(0)
train = digits("fixed").train.flatten(1)
model, guide = VAE(64, 8, (50,)), AmortizedNormal(in_features=64, latent_features=8, hidden=(50,))
fit(
    model,
    guide,
    train,
    IWAE(5),
    batch_size=100,
    max_steps=int(sys.argv[2]),
    log_every=100,
    accelerator="cpu",
    run_dir=sys.argv[1],
    resume=True,
    progress=False,
)
"""

with tempfile.TemporaryDirectory() as folder:
    script = Path(folder, "train.py")
    script.write_text(SCRIPT)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [f"--nproc_per_node={PROCESSES}", str(script), str(Path(folder, "run"))]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for stop in STOPS:  # the second run goes on where the first stopped
        subprocess.run([*command, str(stop)], check=True, env=environment)
    rows = map(json.loads, Path(folder, "run", "metrics.jsonl").read_text().splitlines())
    for row in [*rows][-3:]:
        print(f"step {row['step']}, loss {row['loss']:.2f} nats per datum")

# %% [markdown]
# The command, on a machine with four GPUs, and on two such machines:
#
#     torchrun --standalone --nproc_per_node=4 train.py runs/a 5000
#     torchrun --nnodes=2 --nproc_per_node=4 --rdzv_backend=c10d --rdzv_endpoint=host:29500 \
#         train.py runs/a 5000
#
# Every process writes nothing but the first. If one is killed, the others end too, and the same
# command goes on from the last checkpoint, because the script says `resume=True`.
#
# Adam keeps two numbers for each parameter. For a large decoder, share them out:
# `fit(..., strategy="ddp", optimizer=lambda parameters: ZeroRedundancyOptimizer(parameters,
# torch.optim.Adam, lr=1e-3))`, from `torch.distributed.optim`. The steps are Adam's, each process
# holds its share of the moments, and checkpoints are whole: the first process gathers them. With
# `strategy="ddp"` the same script also runs in one process. Parameters and gradients stay whole in
# every process; FSDP and DeepSpeed are refused, with the reason.

# %% [markdown]
# What to take home:
#
# - `compile=True` for runs of more than a few thousand steps; small models and small batches gain
#   most. Short runs do not earn back the half minute, and `compile="graph"` needs none.
# - Read the warning, if there is one: it names the line that cannot be recorded.
# - `chunk_particles` buys memory with one more forward pass; `compile=True` takes it too.
# - Arrays on disk, several processes and another precision are arguments, or a command, and leave
#   the programs as they are.
