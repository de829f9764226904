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
# NUTS, watch it say when the guide is not good enough, take steps in place of independent draws,
# train a guide for it, and give it several modes. At the end the target is known by samples only.
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
from pyro.infer.autoguide import AutoDiagonalNormal, AutoMultivariateNormal
from pyro.nn import PyroModule
from torch import nn

from pyro_lvm import fit
from pyro_lvm.data import load
from pyro_lvm.diagnostics import plot_calibration, ratio_quality, to_inference_data
from pyro_lvm.distributions import Implicit
from pyro_lvm.guides import MixtureWeights, NormalWeights
from pyro_lvm.mcmc import (
    ImplicitMetropolisHastings,
    IndependentMetropolisHastings,
    MarkovMetropolisHastings,
    RandomWalk,
)
from pyro_lvm.nn import Discriminator
from pyro_lvm.objectives import ELBO, IWAE, ImplicitAcceptance, MarkovAcceptance, MHAcceptance

SMOKE = os.environ.get("PYRO_LVM_SMOKE", "0") != "0"
if SMOKE:
    warnings.simplefilter("ignore")  # chains of guides that are hardly trained stand still
NUM_STEPS = 20 if SMOKE else 2000
NUM_DRAWS = 400 if SMOKE else 8000
NUTS_DRAWS = 20 if SMOKE else 1000

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
def draws_of(model, guide, *data, correct="mh"):
    """Draws of the posterior for ArviZ, and what it warns of."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        draws = to_inference_data(
            model,
            guide,
            *data,
            num_samples=NUM_DRAWS,
            correct=correct,
            prior=False,
            posterior_predictive=False,
            log_likelihood=False,
            seed=1,
        )
    return draws, [str(warning.message) for warning in told if "correct=" in str(warning.message)]


drawn = {}
for name, guide in guides.items():
    for correct in (None, "mh", "psis"):
        drawn[name, correct or "none"], _ = draws_of(schools, guide, EFFECT, ERROR, correct=correct)

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
# ## When the guide is too far off
#
# A draw is accepted or rejected as a whole. With many unknowns, a guide that is a little off in
# each of them is far off in all: thirty coefficients of a logistic regression, the measurements
# of 200 breast tumours, and a guide that takes the coefficients for independent, which they are
# not. We stop its training early, let it end, and put a full covariance beside it.

# %%
tumours = load("breast_cancer")
measured = tumours.train[:200]
measured = (measured - measured.mean(0)) / measured.std(0)
benign = tumours.labels["train"][:200].float()


def regression(x, y):
    """Logistic regression on standardised columns."""
    slope = pyro.sample("slope", dist.Normal(torch.zeros(x.shape[1]), 1.0).to_event(1))
    with pyro.plate("tumour", len(x)):
        pyro.sample("y", dist.Bernoulli(logits=(x * slope).sum(-1)), obs=y)


def line(values, accepted=float("nan")):
    """What chains `(chain, draw, slope)` are worth, and how wide they are."""
    chains = az.convert_to_dataset({"slope": values})
    return {
        "accepted": accepted,
        "ESS": float(az.ess(chains)["slope"].min()),
        "of draws": values.shape[0] * values.shape[1],
        "R-hat": float(az.rhat(chains)["slope"].max()) if len(values) > 1 else float("nan"),
        "mean sd": values.std((0, 1)).mean(),
    }


lines, kinds = {}, {}
for name, (kind, steps) in {
    "independent, stopped early": (AutoDiagonalNormal, NUM_STEPS // 40),
    "independent": (AutoDiagonalNormal, NUM_STEPS // 2),
    "full covariance": (AutoMultivariateNormal, NUM_STEPS // 2),
}.items():
    pyro.set_rng_seed(0)
    pyro.clear_param_store()
    guide = kinds[name] = kind(regression, init_scale=0.3)
    data = (measured, benign)
    fit(regression, guide, data, ELBO(16), batch_size=None, max_steps=steps, lr=0.02)
    draws, told = draws_of(regression, guide, measured, benign)
    lines[f"{name}, mh"] = line(draws["posterior"]["slope"].values, draws.attrs["acceptance_mean"])
    plain, _ = draws_of(regression, guide, measured, benign, correct=None)
    lines[name] = line(plain["posterior"]["slope"].values)
    print(f"{name}:", *told or ["no warning"], sep="\n", end="\n\n")

# %% [markdown]
# The first of these is beyond correction, and says so: where fewer than 1 % of the proposals are
# accepted, do not use the chains, whatever they show. A better guide is the first thing to try.
#
# The other way is to ask less of a proposal: a step from where the chain is. Its direction and
# length may be any guide's that takes `current=`; `RandomWalk` makes the simplest one, and
# `MarkovAcceptance` learns how long its steps are. Acceptance alone would make them as short as
# can be, so the objective holds their entropy too.

# %%
pyro.set_rng_seed(0)
walk = RandomWalk(kinds["independent"], scale=0.1)
objective = MarkovAcceptance(64, entropy_weight=5.5)  # for the .234 of random walks in many dims
module = objective(regression, walk)
optimizer = torch.optim.Adam([walk.log_scale], lr=0.05)
for _ in range(NUM_STEPS // 10):
    optimizer.zero_grad()
    module(measured, benign).backward()
    optimizer.step()
print(f"steps of {walk.scale.item():.2f}")

kernel = MarkovMetropolisHastings(regression, walk, num_chains=64)
kernel.initial_params = objective.chains.values
chain = MCMC(kernel, num_samples=NUM_DRAWS // 4, warmup_steps=NUM_DRAWS // 16, disable_progbar=True)
chain.run(measured, benign)
values = chain.get_samples()["slope"].transpose(0, 1).numpy()
lines["random walk"] = line(values, kernel.diagnostics()["acceptance rate"].mean().item())
print(pd.DataFrame(lines).T.round(2).to_string(na_rep=""))

# %% [markdown]
# The guide of independent coefficients is too narrow by a third. Its chains are worth seven draws
# and do not agree with each other, as R-hat says. The random walk started at the same guide and
# has the width of the posterior; it pays with many transitions for each draw that it is worth, and
# R-hat asks for longer chains still. Where a guide fits, as the full covariance does, a proposal
# that is independent of the chain is worth much more; steps are for posteriors that no guide fits.

# %% [markdown]
# ## What a correction cannot do
#
# A posterior with two modes far apart, and one Normal as guide, trained from a narrow start
# beside one of them or from a wide one. `MHAcceptance` trains a guide for this use: it maximises a
# lower bound on the log of the acceptance rate, with chains that the guide's own proposals move.


# %%
def two_modes():
    """Equal shares of N(-5, 1/4) and N(5, 1/4)."""
    side = dist.Categorical(torch.ones(2))
    sides = dist.Normal(torch.tensor([[-5.0], [5.0]]), 0.5).to_event(1)
    pyro.sample("z", dist.MixtureSameFamily(side, sides))


def judged(guide, objective):
    """A guide after training, and its chains; their share on the right should be a half."""
    module = objective(64)(two_modes, guide)
    optimizer = torch.optim.Adam(guide.parameters(), lr=0.02)
    for _ in range(NUM_STEPS // 2):
        optimizer.zero_grad()
        module().backward()
        optimizer.step()
    chains, _ = draws_of(two_modes, guide)
    z, moments = chains["posterior"]["z"].values[..., 0], guide.moments()["z"]
    return {
        "loc": moments.mean.item(),
        "scale": moments.scale.item(),
        "accepted": chains.attrs["acceptance_mean"],
        "k-hat": chains.attrs["khat_max"],
        "ESS": float(az.ess(z)),
        "R-hat": float(az.rhat(z)),
        "on the right": (z > 0).mean(),
    }


def judged_by_start(family):
    """From a narrow start beside one of the modes, and from a wide one."""
    results = {}
    for start, (loc, scale) in {"narrow": (2.0, 2.0), "wide": (0.5, 6.0)}.items():
        for objective in (ELBO, MHAcceptance):
            pyro.set_rng_seed(0)
            guide = family({"z": torch.tensor([loc])}, start_scale=scale)
            results[f"{objective.__name__}, {start} start"] = judged(guide, objective)
    print(pd.DataFrame(results).T.round(2).to_string())


judged_by_start(NormalWeights)

# %% [markdown]
# From the narrow start the ELBO ends inside one mode: nearly every proposal is accepted, ESS and
# R-hat are perfect, and half of the posterior is missing. **A high acceptance rate is not a good
# sampler**, and a mode that the guide never proposes stays unseen: no diagnostic that looks at
# the draws alone can tell, k-hat included. `MHAcceptance` has not seen the other mode either, and
# only keeps its guide wider. From the wide start both find the two modes, at a low and honest
# acceptance rate.

# %% [markdown]
# ## A guide with several modes
#
# `MixtureWeights` is a mixture of 32 Normals that begin at evenly spread places, with the moments
# of one Normal. Their shares are equal and fixed: a draw moves with its component, so training
# moves no share up or down.

# %%
judged_by_start(MixtureWeights)

# %% [markdown]
# From the same starts, by the same steps, this family finds both modes, and from the wide start
# more than seven proposals in ten are accepted in place of one in seven. Here it is the family
# that does this, more than the objective. Begin as wide as the posterior: from the narrow start
# too many components end on the right, which the chains mend at a cost, and a mode that none
# begins near may stay unseen. Equal shares suit equal modes; with others the chains are right
# too, and cost more. A [benchmark](../benchmarks/results/acceptance.md) has more targets, over
# three seeds, and flows beside them.

# %% [markdown]
# ## A target given by samples
#
# Samples are all we have of a target now, four modes with the weights .4, .3, .2 and .1, and a
# generator that we can draw from: a wide Normal, whose density we do not use. A discriminator of
# the two stands for the ratio of their densities. `ImplicitAcceptance` trains it, and the
# generator to be accepted by it; `ImplicitMetropolisHastings` then accepts the generator's draws.
# We do so three times: with 100 samples; with 20,000; and with these and a discriminator whose
# learning rate falls to 0.

# %%
SHARES = torch.tensor([0.4, 0.3, 0.2, 0.1])
CENTRES = torch.tensor([[2.0, 2.0], [2.0, -2.0], [-2.0, -2.0], [-2.0, 2.0]])
modes = dist.MixtureSameFamily(dist.Categorical(SHARES), dist.Normal(CENTRES, 0.4).to_event(1))
GAME_STEPS = NUM_STEPS // 2


def given_by(samples):
    """A program whose draws are some of the samples."""

    def some(shape):
        return samples[torch.randint(len(samples), shape)]

    return lambda: pyro.sample("x", Implicit(some, event_dim=1))


class Generator(PyroModule):
    """A Normal around 0; the scale is learned."""

    def __init__(self):
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(5.0).log())

    def draw(self, shape):
        return self.log_scale.exp() * torch.randn(*shape, 2)

    def forward(self):
        pyro.sample("x", Implicit(self.draw, event_dim=1))


class Turned(nn.Module):
    """log p - log q from log q - log p."""

    def __init__(self, discriminator):
        super().__init__()
        self.discriminator = discriminator

    def forward(self, x, context):
        return -self.discriminator(x, context)


def shares_of(x):
    """Of the four modes, by the nearest centre."""
    nearest = (x[..., None, :] - CENTRES).norm(dim=-1).argmin(-1)
    return torch.bincount(nearest.flatten(), minlength=4) / nearest.numel()


def game(num_samples, rate):
    """Generator and discriminator after training, and draws corrected by the discriminator."""
    pyro.set_rng_seed(0)
    target, generator = given_by(modes.sample((num_samples,))), Generator()
    critic = Discriminator(2, hidden=(64, 64))
    objective = ImplicitAcceptance(critic, 64, discriminator_lr=rate)
    module = objective(target, generator)
    optimizer = torch.optim.Adam(generator.parameters(), lr=0.01)
    for _ in range(GAME_STEPS):
        optimizer.zero_grad()
        module().backward()
        optimizer.step()
    sampler = ImplicitMetropolisHastings(lambda n: generator.draw((n,)), Turned(critic))
    return objective, generator, target, sampler.sample(NUM_DRAWS // 10, num_chains=64)


# %%
held_out = modes.sample((5000,))
rates = {"constant": 2e-3, "falling": lambda step: 4e-3 * (1 - step / GAME_STEPS)}
rows, shares, qualities = {}, {"samples held out": shares_of(held_out)}, {}
for num_samples, rate in ((100, "constant"), (20000, "constant"), (20000, "falling")):
    name = f"{num_samples} samples, {rate} rate"
    objective, generator, target, draws = game(num_samples, rates[rate])
    shares[name] = shares_of(draws.values)
    quality = {
        which: ratio_quality(objective, program, generator, num_samples=5000)
        for which, program in {"own": target, "held out": given_by(held_out)}.items()
    }
    qualities[name] = quality["held out"]
    rows[name] = {
        "accepted": draws.acceptance.mean().item(),
        "ESS": draws.ess,
        "R-hat": draws.rhat,
        **{f"log-loss, {which}": found.log_loss.item() for which, found in quality.items()},
        "calibration error": quality["held out"].calibration_error.item(),
        "by chance": quality["held out"].calibration_noise.item(),
        "shares off by": 0.5 * (shares[name] - shares["samples held out"]).abs().sum().item(),
    }
print(pd.DataFrame(rows).T.round(3).T.to_string())
for name, quality in qualities.items():
    print(f"{name}: {quality.verdict().status.value}")

# %%
pd.DataFrame({name: values.numpy() for name, values in shares.items()}).plot.bar(
    figsize=(7, 3), rot=0, xlabel="mode", ylabel="share of draws"
)
plt.show()

# %%
plot_calibration(qualities["100 samples, constant rate"])

# %% [markdown]
# All three accept about one draw in ten, their R-hat is near 1 and their ESS above a thousand. The
# first two give the modes wrong weights all the same: **acceptance and ESS are about how the
# chains move, not about where the ratio sends them.** Held-out samples tell more.
#
# - The discriminator of 100 samples knows them by heart: its log-loss is much lower on its own
#   samples than on held-out ones, and on these its calibration error is more than four
#   times what chance gives. `ratio_quality` warns.
# - The one with a constant rate is calibrated, and passes. Its last steps have moved whole modes,
#   one up, another down, and calibration is an average over both. So count, too: the shares of
#   the corrected draws beside those of held-out samples, wherever they matter.
# - With a rate that falls to 0 the shares are right. `ImplicitMetropolisHastings.fit` does that,
#   holds samples out by itself, and judges the discriminator by them.

# %% [markdown]
# What to take home:
#
# - `correct="mh"` or `"psis"` costs one argument. Look at the acceptance rate *and* the ESS *and*
#   k-hat; a warning says when a guide is beyond correction.
# - A correction removes errors of shape, tails and scale. It cannot find what the guide does not
#   propose: start guides wide, use `IWAE`, `ReweightedWakeSleep` or `MHAcceptance` to keep them so,
#   or `MixtureWeights` for several modes, and compare restarts.
# - Latents of each datum are corrected datum by datum, so thousands of data are no problem; a
#   latent of all data shares one weight with everything that depends on it.
# - A semi-implicit guide, which has no density to be read off, is corrected exactly all the same.
# - Where no independent proposal fits, take steps: slower, but they ask less of the guide.
# - A ratio from a discriminator is as good as the discriminator, and only held-out samples tell.
