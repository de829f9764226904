# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Can I trust this posterior?
#
# A guide always answers: its draws are independent, its intervals look sharp, R-hat is 1. Whether
# they are those of the posterior is another question. `report` puts it to every check that
# applies and says, in one line each, what was found and what to do next.
#
# No check sees everything. Here we know the posterior exactly, so we can plant faults: a guide that
# is right, one that is too narrow, one that misses a mode. Then we look at which check notices,
# which does not, and why.
#
# Set the environment variable `PYRO_LVM_SMOKE=1` to run it all in seconds, with numbers that
# mean nothing.

# %%
import os
import tempfile
from pathlib import Path
from textwrap import fill

import matplotlib.pyplot as plt
import pandas as pd
import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule

from pyro_lvm.diagnostics import (
    AIS,
    Finding,
    Status,
    Verdict,
    log_evidence,
    report,
    to_inference_data,
)

SMOKE = os.environ.get("PYRO_LVM_SMOKE", "0") != "0"
NUM_DATA = 20 if SMOKE else 200
NUM_SAMPLES = 200 if SMOKE else 2500

torch.set_num_threads(1)  # the programs are small
plt.rcParams.update({"figure.dpi": 80, "figure.constrained_layout.use": True})

# %% [markdown]
# ## A posterior with two modes
#
# Something is either near -3 or near 3, and we see it through noise. Prior and likelihood are
# Normal in each mode, so the posterior is a mixture of two Normals that we can write down.

# %%
MODES = torch.tensor([-3.0, 3.0])
SPREAD, NOISE = 0.5, 3.0


def mixture(logits, means, deviation):
    """Of two Normals in one dimension, from ``(N, 2)`` logits and means."""
    return dist.MixtureOfDiagNormals(
        means[..., None], torch.full_like(means, deviation)[..., None], logits
    )


def model(x):
    with pyro.plate("data", len(x)):
        means = MODES.expand(len(x), 2)
        z = pyro.sample("z", mixture(torch.zeros_like(means), means, SPREAD))  # (..., N, 1)
        pyro.sample("x", dist.Normal(z[..., 0], NOISE), obs=x)


def posterior(x):
    """Exact, by Bayes' rule in each mode: weights, means and standard deviation."""
    variance = 1 / (1 / SPREAD**2 + 1 / NOISE**2)
    mean = variance * (MODES / SPREAD**2 + x[:, None] / NOISE**2)  # (N, 2)
    marginal = dist.Normal(MODES, (SPREAD**2 + NOISE**2) ** 0.5)
    return marginal.log_prob(x[:, None]), mean, variance**0.5


pyro.set_rng_seed(0)
truth = torch.where(torch.rand(NUM_DATA) < 0.5, *MODES) + SPREAD * torch.randn(NUM_DATA)
x = truth + NOISE * torch.randn(NUM_DATA)

# %% [markdown]
# ## Three guides


# %%
class Mixture(PyroModule):
    """The posterior, its modes ``width`` times as wide as they should be."""

    def __init__(self, width):
        super().__init__()
        self.width = width

    def forward(self, x):
        logits, mean, deviation = posterior(x)
        with pyro.plate("data", len(x)):
            pyro.sample("z", mixture(logits, mean, self.width * deviation))


class OneMode(PyroModule):
    """The likelier mode of each datum, exactly, and nothing of the other."""

    def forward(self, x):
        logits, mean, deviation = posterior(x)
        likelier = mean.gather(1, logits.argmax(1, keepdim=True))  # (N, 1)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(likelier, deviation).to_event(1))


guides = {"right": Mixture(1.0), "too narrow": Mixture(0.4), "misses a mode": OneMode()}

# %% [markdown]
# Their densities for one datum, x = 0.5:

# %%
one = torch.tensor([0.5])
grid = torch.linspace(-5, 5, 500)
figure, axes = plt.subplots(1, 3, figsize=(9, 2.4), sharey=True)
for panel, (name, guide) in zip(axes, guides.items(), strict=True):
    site = pyro.poutine.trace(guide).get_trace(one).nodes["z"]["fn"]
    exact = pyro.poutine.trace(guides["right"]).get_trace(one).nodes["z"]["fn"]
    panel.fill_between(grid, exact.log_prob(grid[:, None, None])[:, 0].exp(), color="0.85")
    panel.plot(grid, site.log_prob(grid[:, None, None])[:, 0].exp())
    panel.set(title=name, xlabel="z")

# %% [markdown]
# ## What the report says
#
# One call a guide. First the one that is right.


# %%
def show(made):
    for verdict in made.verdicts:
        print(fill(str(verdict), width=100, subsequent_indent="    "))


reports = {name: report(model, guide, x, num_samples=NUM_SAMPLES) for name, guide in guides.items()}
show(reports["right"])

# %% [markdown]
# Everything passes that applies. Checks of objectives with a discriminator or mixing variables say
# that they have nothing to look at. `predictive` and `loo-pit` ask whether the *model* would make
# such data; here it did make them. The narrow one:

# %%
show(reports["too narrow"])

# %% [markdown]
# Nearly every road leads to the same finding. The weights p(x, z) / q(z | x) have a heavy tail, as
# the few draws far out stand for all that the guide leaves out; the ELBO is far below log p(x);
# intervals of 90 % hold far less. Each line says what to try. Now the one that misses a mode.

# %%
show(reports["misses a mode"])

# %% [markdown]
# **Weights, gap and chains pass.** They look at the posterior where the guide's draws are, and
# there the guide is right: all weights are equal, the effective sample size is that of perfect
# draws. The estimate of log p(x) is too low by just as much as the ELBO, so that no gap is seen.
# Chains of these draws never leave the mode that they start in.
#
# The three calibration checks do not pass. They simulate: the truth is drawn from the *model*, it
# is in the other mode as often as the prior and the noise have it there, and the guide's draws
# never surround it. Here are the ranks of the truth among the draws, and the coverage.

# %%
reports["misses a mode"].findings["sbc"].figures["ranks, and their ECDF"]

# %%
reports["misses a mode"].findings["coverage"].figures["coverage by level"]

# %% [markdown]
# All three side by side:

# %%
pd.DataFrame(
    {
        guide: {name: found.verdict.status.value for name, found in made.findings.items()}
        for guide, made in reports.items()
    }
)

# %% [markdown]
# So no single check is enough:
#
# - **Weights, gap and chains** compare guide and posterior for *these* data, where the guide has
#   draws. They do not see a mode without draws.
# - **SBC, coverage and TARP** compare them on average over data of the *model*. They do not see
#   that the model is wrong, nor a fault for a few kinds of data only.
# - **Predictive and LOO-PIT** compare the *model* with the data, and **collapse** latents with
#   data. They do not ask whether the posterior is right.
#
# ## A second opinion on log p(x)
#
# Annealed importance sampling starts at the prior, which has both modes, and needs no guide. Where
# it finds more evidence than the guide's weights do, the guide has missed something.

# %%
annealed = log_evidence(model, None, x, num_samples=8 if SMOKE else 64, method=AIS(20))
rows = {}
for name, guide in guides.items():
    weighted = log_evidence(model, guide, x, num_samples=NUM_SAMPLES)
    rows[name] = {
        "by weights": weighted.mean().item(),
        "by annealing": annealed.mean().item(),
        "missing": (annealed.value - weighted.value).mean().item(),
        "standard error": (annealed.standard_error.square().sum().sqrt() / NUM_DATA).item(),
    }
logits, _, _ = posterior(x)
exact = torch.logsumexp(logits, 1).mean() - torch.tensor(2.0).log()
print(f"exact: {exact:.3f} nats per datum")
pd.DataFrame(rows).T.round(3)

# %% [markdown]
# ## What to do next
#
# The lines name objectives and guides that cover more of the posterior. Take them at their word
# for the narrow guide: a wider one passes the weights, although it is wrong as well.

# %%
wide = report(model, Mixture(1.5), x, num_samples=NUM_SAMPLES)
show(wide)

# %% [markdown]
# Its draws are not those of the posterior, which the calibration checks say; weighted or corrected
# they are, which the weights say. So use the corrected ones:

# %%
corrected = to_inference_data(
    model, Mixture(1.5), x, correct="mh", num_samples=400 if SMOKE else 4000, seed=0
)
draws = torch.as_tensor(corrected["posterior"]["z"].values).flatten(0, 1)[..., 0]  # (S, N)
_, mean, deviation = posterior(x)
near = (draws - mean[:, 1]).abs() < (draws - mean[:, 0]).abs()  # of the upper mode
of_upper = torch.where(near, draws - mean[:, 1], torch.nan)
print(f"spread of the upper mode: {of_upper[near].std():.3f}, exact {deviation:.3f}")

# %% [markdown]
# ## The page
#
# `folder=` writes `report.html`, one file with all pictures and tables inside it, to send to
# somebody. For a run of `pyro-lvm fit` or `compare` the command `pyro-lvm diagnose runs/demo` does
# the same with the run's own test data.

# %%
folder = Path(tempfile.mkdtemp())
reports["misses a mode"].save(folder)
print(*sorted(str(path.relative_to(folder)) for path in folder.rglob("*.*")), sep="\n")

# %% [markdown]
# ## A check of your own
#
# A check is a function from a `Case` (the programs, their data, and what several checks need) to a
# `Finding`. What its documentation says stands on the page. This one knows the exact answer:


# %%
def modes(case):
    """Are both modes there in the right proportion?"""
    (x,) = case.args
    many = pyro.poutine.trace(case.guide).get_trace(x.repeat(500)).nodes["z"]["value"]
    share = (many > 0).float().reshape(500, len(x)).mean(0)
    off = (share - posterior(x)[0].softmax(1)[:, 1]).abs().mean().item()
    found = f"the share of the upper mode is off by {off:.2f} on average."
    status = Status.PASS if off < 0.05 else Status.FAIL
    return Finding(Verdict("modes", status, found), {"off": off})


for name, guide in guides.items():
    print(f"{name:14}", report(model, guide, x, checks=[modes]))

# %% [markdown]
# More checks take minutes and are asked for by name, `checks=["amortization", "evidence", "nuts"]`:
# whether the family of the guide or its encoder lacks, log p(x) of simulated data from both sides,
# and the No-U-Turn sampler beside the guide on a few data. All are in
# `pyro_lvm.diagnostics.CHECKS`.
