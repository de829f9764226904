# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Guides as proposals
#
# A guide is an approximation, and nothing in its training says how good it is where you need
# it. But a guide whose density is known is also a *proposal*: Metropolis-Hastings accepts or
# rejects its draws, and what remains are draws of the exact posterior, in the limit. This is
# one argument of `to_inference_data`. We use it on a posterior with a long tail, compare it with
# NUTS, watch it say when the guide is not good enough, and train a guide for it.
#
# Set the environment variable `PYRO_LVM_SMOKE=1` to run it all in seconds, with numbers that
# mean nothing.

# %%
import os
import warnings

import arviz as az
import matplotlib.pyplot as plt
import pandas as pd
import pyro
import pyro.distributions as dist
import torch
from pyro.infer import MCMC, NUTS
from pyro.infer.autoguide import AutoMultivariateNormal
from pyro.nn import PyroModule
from torch import nn

from pyro_lvm import fit
from pyro_lvm.diagnostics import to_inference_data
from pyro_lvm.mcmc import IndependentMetropolisHastings
from pyro_lvm.objectives import ELBO, IWAE, MHAcceptance

SMOKE = os.environ.get("PYRO_LVM_SMOKE", "0") != "0"
if SMOKE:
    warnings.simplefilter("ignore")  # chains of guides that are hardly trained stand still
NUM_STEPS = 20 if SMOKE else 2000
NUM_DRAWS = 400 if SMOKE else 8000
NUTS_DRAWS = 20 if SMOKE else 2000

torch.set_num_threads(1)  # the programs are small
plt.rcParams.update({"figure.dpi": 80, "figure.constrained_layout.use": True})

# %% [markdown]
# ## Eight schools
#
# Eight schools tried a coaching programme; each reports its effect and a standard error (Rubin
# 1981, *Estimation in parallel randomized experiments*). How much do the true effects differ?
# The scale `tau` of these differences has a posterior with a long tail that leans on zero.

# %%
EFFECT = torch.tensor([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
ERROR = torch.tensor([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])


def schools(effect, error):
    """Effects around a common mean, in standardised form."""
    mean = pyro.sample("mean", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(5.0))
    with pyro.plate("school", len(error)):
        deviation = pyro.sample("deviation", dist.Normal(0.0, 1.0))
        pyro.sample("effect", dist.Normal(mean + tau * deviation, error), obs=effect)


# %% [markdown]
# The guide is one Normal with a full covariance over all ten unknowns, which Pyro makes for us.
# We train it twice: by the ELBO, which shrinks from the tail, and by the importance-weighted
# bound, whose guide has to cover it.

# %%
guides = {}
for name, objective in {"ELBO": ELBO(16), "IWAE": IWAE(16, gradient="dreg")}.items():
    pyro.set_rng_seed(0)
    pyro.clear_param_store()
    guides[name] = AutoMultivariateNormal(schools, init_scale=0.5)
    data = (EFFECT, ERROR)
    fit(schools, guides[name], data, objective, batch_size=None, max_steps=NUM_STEPS, lr=0.01)

# %% [markdown]
# ## Corrected draws
#
# `correct=None` is what the guide says. `"mh"` runs four chains whose proposals are its draws,
# `"psis"` resamples the draws by Pareto-smoothed weights. NUTS is the reference.
#
# All unknowns share one weight here, because `mean` and `tau` belong to every school. In a model
# with latents of each datum only, every datum has chains of its own, and the acceptance rate
# does not fall with the number of data.

# %%
drawn = {}
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    for name, guide in guides.items():
        for correct in (None, "mh", "psis"):
            drawn[name, correct or "none"] = to_inference_data(
                schools,
                guide,
                EFFECT,
                ERROR,
                num_samples=NUM_DRAWS,
                correct=correct,
                prior=False,
                posterior_predictive=False,
                seed=1,
            )
for warning in told:
    if "correct=" in str(warning.message):
        print(warning.message, "\n")

pyro.set_rng_seed(2)
nuts = MCMC(
    NUTS(schools), num_samples=NUTS_DRAWS, warmup_steps=NUTS_DRAWS // 4, disable_progbar=True
)
nuts.run(EFFECT, ERROR)
reference = nuts.get_samples()


# %%
def row(posterior, stats=None):
    """Mean, standard deviation and upper tail of tau, and what the chains say of themselves."""
    tau = posterior["tau"].values
    values = {
        "tau": tau.mean(),
        "sd": tau.std(),
        "95 %": float(pd.Series(tau.ravel()).quantile(0.95)),
        "ESS": float(az.ess(tau)),
        "R-hat": float(az.rhat(tau)) if len(tau) > 1 else float("nan"),
    }
    if stats is not None and "acceptance_rate" in stats:
        values["accepted"] = float(stats["acceptance_rate"].mean())
    return values


rows = {
    f"{name}, {correct}": row(data["posterior"], data["sample_stats"])
    for (name, correct), data in drawn.items()
}
rows["NUTS"] = row(az.convert_to_dataset({"tau": reference["tau"].unsqueeze(0).numpy()}))
print(pd.DataFrame(rows).T.round(2).to_string(na_rep=""))

# %% [markdown]
# Uncorrected, R-hat and ESS are perfect by construction and tell nothing: draws of a guide are
# independent. Corrected by Metropolis-Hastings they are those of a Markov chain, and the ESS is
# what is left. k-hat of the weights, kept in the attributes, says how far each can be trusted.

# %%
for name in guides:
    print(f"{name}: k-hat {drawn[name, 'mh'].attrs['khat_max']:.2f}")

figure, axes = plt.subplots(1, 2, figsize=(10, 3.5), sharey=True)
for axis, name in zip(axes, guides):
    options = {"bins": 60, "range": (0, 25), "density": True, "histtype": "step"}
    axis.hist(reference["tau"].numpy(), color="0.8", **{**options, "histtype": "stepfilled"})
    for correct in ("none", "mh"):
        values = drawn[name, correct]["posterior"]["tau"].values.ravel()
        axis.hist(values, label=f"correct={correct}", linewidth=1.5, **options)
    axis.set(title=f"guide trained by {name}", xlabel="tau, filled: NUTS")
    axis.legend()
axes[0].set_ylabel("posterior density")
plt.show()

# %% [markdown]
# ## In Pyro's own MCMC
#
# The same chain is a kernel for `pyro.infer.MCMC`, one transition a step, if you need its hooks
# or want to put it beside other kernels.

# %%
kernel = IndependentMetropolisHastings(schools, guides["IWAE"])
chain = MCMC(kernel, num_samples=NUM_DRAWS // 8, warmup_steps=100, disable_progbar=True)
chain.run(EFFECT, ERROR)
print(f"tau {chain.get_samples()['tau'].mean():.2f}", kernel.logging())

# %% [markdown]
# ## What a correction cannot do
#
# A posterior with two modes far apart, and one Normal as guide, trained from a narrow start
# inside one of them or from a wide one. `MHAcceptance` trains a guide for this use: it maximises a
# lower bound on the log of the acceptance rate, with chains that the guide's own proposals move.


# %%
def two_modes():
    """Equal shares of N(-5, 1/4) and N(5, 1/4)."""
    side = dist.Categorical(torch.ones(2))
    pyro.sample("z", dist.MixtureSameFamily(side, dist.Normal(torch.tensor([-5.0, 5.0]), 0.5)))


class Proposal(PyroModule):
    """One Normal."""

    def __init__(self, loc, scale):
        super().__init__()
        self.loc = nn.Parameter(torch.tensor(loc))
        self.log_scale = nn.Parameter(torch.tensor(scale).log())

    def forward(self):
        pyro.sample("z", dist.Normal(self.loc, self.log_scale.exp()))


def trained(objective, start):
    """A guide after training by stochastic gradients."""
    guide = Proposal(*start)
    module = objective(two_modes, guide)
    optimizer = torch.optim.Adam(guide.parameters(), lr=0.02)
    for _ in range(NUM_STEPS // 2):
        optimizer.zero_grad()
        module().backward()
        optimizer.step()
    return guide


def judged(guide):
    """Acceptance, ESS and the share of draws on the right, which should be a half."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        chains = to_inference_data(
            two_modes, guide, num_samples=NUM_DRAWS, correct="mh", prior=False, seed=3
        )
    z = chains["posterior"]["z"].values
    return {
        "loc": guide.loc.item(),
        "scale": guide.log_scale.exp().item(),
        "accepted": chains.attrs["acceptance_mean"],
        "k-hat": chains.attrs["khat_max"],
        "ESS": float(az.ess(z)),
        "R-hat": float(az.rhat(z)),
        "on the right": (z > 0).mean(),
    }


results = {}
for start_name, start in {"narrow": (2.0, 2.0), "wide": (0.5, 6.0)}.items():
    for name, objective in {"ELBO": ELBO(64), "MHAcceptance": MHAcceptance(64)}.items():
        pyro.set_rng_seed(0)
        results[f"{name}, {start_name} start"] = judged(trained(objective, start))
print(pd.DataFrame(results).T.round(2).to_string())

# %% [markdown]
# From the narrow start the ELBO ends inside one mode: nearly every proposal is accepted, ESS and
# R-hat are perfect, and half of the posterior is missing. **A high acceptance rate is not a good
# sampler**, and a mode that the guide never proposes stays unseen: no diagnostic that looks at
# the draws alone can tell, k-hat included. `MHAcceptance` has not seen the other mode either, and
# only keeps its guide wider. From the wide start both find the two modes, at a low and honest
# acceptance rate.

# %% [markdown]
# What to take home:
#
# - `correct="mh"` or `"psis"` costs one argument. Look at the acceptance rate *and* the ESS *and*
#   k-hat; a warning says when a guide is beyond correction.
# - A correction removes errors of shape, tails and scale. It cannot find what the guide does not
#   propose: start guides wide, use `IWAE`, `ReweightedWakeSleep` or `MHAcceptance` to keep them so,
#   and compare restarts.
# - Latents of each datum are corrected datum by datum, so thousands of data are no problem; a
#   latent of all data shares one weight with everything that depends on it.
