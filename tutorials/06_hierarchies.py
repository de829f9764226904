# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Hierarchies: auxiliary variables, ladders and collapse
#
# A second latent layer can serve two ends. It can make the *guide* richer, a mixture of Normals
# instead of one, or the *model* richer, with features of features. Both are one program each to
# write; what is hard is to see whether the extra layers do anything. This tutorial does the first
# on a posterior that is known exactly, and the second with five layers on digits, where most of
# them collapse, and shows what tells and what mends it.
#
# All numbers are in nats per datum. Set the environment variable `PYRO_LVM_SMOKE=1` to run it all
# in seconds, with numbers that mean nothing.

# %%
import os

import matplotlib.pyplot as plt
import pandas as pd
import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule

from pyro_lvm import fit
from pyro_lvm.annealing import LinearWarmup
from pyro_lvm.data import digits
from pyro_lvm.diagnostics import (
    collapse_report,
    log_evidence,
    plot_collapse,
    sample_posterior,
)
from pyro_lvm.guides import AmortizedNormal, AuxiliaryNormal, HierarchicalNormal, LadderNormal
from pyro_lvm.models import HierarchicalVAE
from pyro_lvm.nn import ConditionalNormal, joined
from pyro_lvm.objectives import ELBO

SMOKE = os.environ.get("PYRO_LVM_SMOKE", "0") != "0"
STEPS = 8 if SMOKE else 2000
LADDER_STEPS = 8 if SMOKE else 1000
DRAWS = 20 if SMOKE else 2000
SHARED = {
    "lr_scheduler": "cosine",
    "evaluate_every": 10**9,
    "diagnostic_particles": 0,
    "progress": False,
}

torch.set_num_threads(1)  # the networks are small
plt.rcParams.update({"figure.dpi": 80, "figure.constrained_layout.use": True})

# %% [markdown]
# ## A guide with an auxiliary variable
#
# $z \sim N(0, 1)$ and $x \sim N(z^2, \frac14)$: the data do not know the sign of z, so the
# posterior has two modes where x is large, and one broad one where it is near zero. One Normal for
# each x cannot be both.
#
# The remedy of the auxiliary deep generative model (Maaløe et al. 2016) is a guide that draws an
# auxiliary *a* first and z given it. Its marginal $q(z \mid x) = \int q(a \mid x)\, q(z \mid a, x)
# \, da$ is a mixture of infinitely many Normals. Nobody knows this integral, and nobody needs to:
# the model gets a site *a* too, drawn **last**, from a network that guesses a from z and x. That
# changes nothing in $p(x)$, and the bound pays for a bad guess, so it stays a bound.


# %%
class Squared(PyroModule):
    """Squares with noise; perhaps with a reverse model of the guide's auxiliary."""

    def __init__(self, has_auxiliary):
        super().__init__()
        self.reverse = ConditionalNormal(2, 1, hidden=(64, 64)) if has_auxiliary else None

    def forward(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z**2, 0.5).to_event(1), obs=x)
            if self.reverse is not None:
                pyro.sample("a", self.reverse(joined([x, z])))


def squares(size):
    return torch.randn(size, 1) ** 2 + 0.5 * torch.randn(size, 1)


GRID = torch.linspace(-6.0, 6.0, 2401)


def log_joint(x):  # (N, grid)
    return dist.Normal(0.0, 1.0).log_prob(GRID) + dist.Normal(GRID**2, 0.5).log_prob(x)


def exact_evidence(x):  # (N,), by quadrature
    return log_joint(x).logsumexp(-1) + (GRID[1] - GRID[0]).log()


# %%
pyro.set_rng_seed(0)
train, test = squares(20_000), squares(1000)
sizes = {"in_features": 1, "latent_features": 1}
pairs = {
    "Normal": (Squared(False), AmortizedNormal(hidden=(64, 64), **sizes)),
    "auxiliary": (
        Squared(True),
        AuxiliaryNormal(
            auxiliary_features=1,
            hidden=(64,),
            context_features=64,
            conditional_hidden=(64,),
            **sizes,
        ),
    ),
}
rows = {}
for name, (model, guide) in pairs.items():
    fit(model, guide, train, ELBO(), max_steps=STEPS, batch_size=256, lr=3e-3, seed=0, **SHARED)
    weighted = log_evidence(model, guide, test, num_samples=200)
    rows[name] = {
        "gap of the ELBO": (exact_evidence(test) - ELBO(100).bound(model, guide, test)).mean(),
        "gap of 200 draws": (exact_evidence(test) - weighted.value).mean(),
    }
print(pd.DataFrame(rows).T.astype(float).round(3).to_string())

# %%
figure, all_axes = plt.subplots(2, 3, figsize=(10, 5), sharex=True)
for column, value in enumerate((0.0, 1.0, 4.0)):
    x = torch.full((1, 1), value)
    density = (log_joint(x) - exact_evidence(x)).exp()[0]
    for axes, (name, (model, guide)) in zip(all_axes[:, column], pairs.items(), strict=True):
        draws = sample_posterior(model, guide, x, num_samples=5 * DRAWS)["z"].flatten()
        axes.hist(draws.numpy(), bins=80, range=(-3, 3), density=True, color="tab:blue", alpha=0.5)
        axes.plot(GRID, density, color="black", linewidth=1)
        axes.set(title=f"{name}, x = {value:g}", xlim=(-3, 3), yticks=[])
for axes in all_axes[1]:
    axes.set_xlabel("z; line: exact posterior")

# %% [markdown]
# The auxiliary guide has the flat top at x = 0 and both modes at x = 1, where the Normal sits in
# one of them, and closes part of the gap, the price of *a* included. It is no cure for everything:
# at x = 4 the modes are far apart, and it sits in one of them like any guide that is trained by the
# ELBO. Importance weights do not find the other mode, so a gap of 200 draws is left: they are no
# ground truth for a guide that drops modes.
#
# `ADGM` and `SDGM` are whole models of this kind for `AuxiliaryNormal`; with `num_classes` they
# take labels that are known for some of the data only.
#
# ## Five layers
#
# Now the model gets the layers: $z_5 \to z_4 \to \dots \to z_1 \to x$, on digits of 8 by 8 pixels.
# Two guides:
#
# - **bottom-up** (`HierarchicalNormal`): $q(z_1 \mid x)\, q(z_2 \mid z_1) \cdots$, each layer
#   inferred from the one below.
# - **ladder** (`LadderNormal`, Sønderby et al. 2016): a deterministic pass upwards, then from the
#   top down, each layer the model's own conditional merged with what the data say of it. It reads
#   the model's conditionals, `model.top_down`: one module in both programs.
#
# The ladder is trained four ways, each with one thing more.

# %%
LAYERS, HIDDEN = (16, 12, 8, 6, 4), (100,)


def bottom_up():
    model = HierarchicalVAE(64, LAYERS, HIDDEN)
    return model, HierarchicalNormal(in_features=64, latent_features=LAYERS, hidden=HIDDEN)


def ladder(batch_norm):
    model = HierarchicalVAE(64, LAYERS, HIDDEN, batch_norm=batch_norm)
    options = {"hidden": HIDDEN, "batch_norm": batch_norm}
    return model, LadderNormal(model.top_down, in_features=64, **options)


beta = LinearWarmup(max(1, LADDER_STEPS // 4))  # of the KL, over the first quarter
runs = {
    "bottom-up": (bottom_up, ELBO()),
    "ladder": (lambda: ladder(False), ELBO()),
    "+ warm-up": (lambda: ladder(False), ELBO(beta=beta)),
    "+ batch norm": (lambda: ladder(True), ELBO(beta=beta)),
    "+ free bits": (lambda: ladder(True), ELBO(beta=beta, free_bits=0.5)),
}
data = digits(num_validation=0)
reports, rows = {}, {}
for name, (make, objective) in runs.items():
    pyro.set_rng_seed(0)
    model, guide = make()
    fit(
        model,
        guide,
        data.train,
        objective,
        max_steps=LADDER_STEPS,
        batch_size=100,
        lr=2e-3,
        transform=data.transform,  # new black and white pixels for each batch
        seed=0,
        **SHARED,
    )
    model.eval(), guide.eval()  # batch normalisation by its running statistics
    report = reports[name] = collapse_report(model, guide, data.test)
    rows[name] = {
        "NLL": -log_evidence(model, guide, data.test, num_samples=DRAWS // 4).mean(),
        "-ELBO": -ELBO(50).bound(model, guide, data.test).mean(),
        **{f"KL {site}": kl for site, kl in report.kl.items()},
    }
print(pd.DataFrame(rows).T.astype(float).round(2).to_string())

# %% [markdown]
# ## How to see it
#
# `collapse_report` looks at every latent site on test data: its KL, and how many of its units are
# *active*, that is, have a posterior mean that varies with the data (a variance above 0.01). Its
# verdict is one line.

# %%
for name, report in reports.items():
    print(f"{name:13}", report.verdict().status, report.collapsed or "")

print("\n", reports["+ warm-up"].verdict(), sep="")

# %%
plot_collapse(reports["+ warm-up"])

# %%
plot_collapse(reports["+ free bits"])

# %% [markdown]
# Look at both numbers. A layer below one that is in use can have active units for free: its mean
# follows the layer above, whether or not it adds anything. Only its KL tells, as of the layer that
# is named under "+ batch norm" above. And a layer with some KL but without an active unit, as the
# top of the bottom-up guide, is noise that the bound pays for.
#
# What does not show it: the training curve, which looks like any other, and a glance at samples.
# Nor does the ELBO on its own: with warm-up alone the model is one of a single layer, and it is no
# bad one.
#
# ## What mends it
#
# - A ladder **alone** does not. From the start its cheapest move is to copy the prior, in every
#   layer, and a model that has learned to do without its latents stays there.
# - **Warm-up**, `ELBO(beta=LinearWarmup(steps / 4))`, makes the KL free at the start, so layers are
#   in use before they have to pay.
# - **Batch normalisation** in both programs, `batch_norm=True`, keeps the upper layers' inputs
#   alive. Remember `model.eval()` and `guide.eval()` before you judge.
# - **Free bits**, `free_bits=0.5`, stop the loss from gaining by a KL below half a nat in any
#   layer.
#
# Neither warm-up nor free bits is in `bound` or `log_weights`: these stay those of the model, and
# the numbers above compare.
#
# From the command line,
#
#     pyro-lvm fit --model.name HierarchicalVAE --guide.name LadderNormal \
#         --model.latent_features [16,12,8,6,4] \
#         --model.options.batch_norm true --guide.options.batch_norm true \
#         --objective.name ELBO --objective.gradient reparam \
#         --objective.options.free_bits 0.5 --train.warm_up 500
#
# trains all of it; the table of `fit` and `compare` has the active units and the KL of each layer,
# and the picture above is in `figures/collapse.png`.
#
# All five layers on three seeds, beside one and two layers, `ADGM` and `SDGM`, and MNIST:
# `benchmarks/results/hierarchical.md`.
