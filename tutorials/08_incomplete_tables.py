# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A table full of holes
#
# 300 horses came to a clinic with colic. Vets measured what they could, and a quarter of the table
# is empty. Dropping horses with a missing cell leaves six; filling holes with column means
# pretends to know what nobody measured. Here a latent-variable model is fitted to whatever was
# observed, and each hole is filled *several times*, as differently as it is uncertain. From
# loading the table to a pooled answer with an honest interval, and how to notice when the
# imputations are not to be trusted.
#
# Set the environment variable `PYRO_LVM_SMOKE=1` to run it all in seconds, with numbers that mean
# nothing.

# %%
import os

import arviz as az
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pyro
import torch

import pyro_lvm
from pyro_lvm import LatentImputer
from pyro_lvm.data import horse_colic
from pyro_lvm.diagnostics import (
    MetropolisWithinGibbs,
    plot_imputed_columns,
    plot_intervals,
    plot_khat,
    pool,
)
from pyro_lvm.guides import AmortizedNormal
from pyro_lvm.missing import Incomplete, Schema, TableEncoder
from pyro_lvm.models import VAE
from pyro_lvm.objectives import IWAE

SMOKE = os.environ.get("PYRO_LVM_SMOKE", "0") != "0"
STEPS = 5 if SMOKE else 1500
COPIES = 4 if SMOKE else 40
DRAWS = 50 if SMOKE else 1000

torch.set_num_threads(1)  # the networks are small
plt.rcParams.update({"figure.dpi": 80, "figure.constrained_layout.use": True})

# %% [markdown]
# ## Look at the table first
#
# Numbers, ordered findings and plain categories stand side by side; pandas knows them by their
# dtypes, and the model gives each column a likelihood of its own.

# %%
horses = horse_colic()
print(
    horses.shape,
    f"{horses.isna().mean(axis=None):.0%} missing,",
    f"{(~horses.isna().any(axis=1)).sum()} rows without a hole",
)
horses.iloc[:5, [0, 1, 2, 5, 6, 7, 11, 13, 21]]

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.6), width_ratios=[2, 1])
share = horses.isna().mean().sort_values(ascending=False)
left.bar(range(len(share)), 100 * share, color="0.6")
left.set_xticks(range(len(share)), share.index, rotation=60, ha="right", fontsize=8)
left.set_ylabel("% missing")
right.hist(horses["protein"].dropna(), 40, color="0.6")
right.set(xlabel="protein", title="two units in one column", yticks=[])
plt.show()

# %% [markdown]
# The right picture is why one looks first: some protein values are in g/dl and others in g/l. No
# imputation mends that. It is a factor of ten between two clouds, so it can be undone.

# %%
horses["protein"] = horses["protein"].where(horses["protein"] < 20, horses["protein"] / 10)

# %% [markdown]
# ## Fill the holes
#
# `LatentImputer` is a scikit-learn transformer. It fits a VAE to the observed cells alone, by the
# importance-weighted bound (MIWAE). Rates and concentrations are positive, which their dtype
# cannot tell, so we do: such columns are modelled by their logarithm.
#
# Before the real run, a test: hide some cells that *are* known, and see how near they are filled
# in, and whether intervals that promise 90 % hold 90 %.

# %%
POSITIVE = ["pulse", "respiratory_rate", "protein", "abdominal_protein"]


def imputer(seed=0):
    return LatentImputer(
        "miwae",
        latent_features=6,
        hidden=(64, 64),
        max_steps=STEPS,
        learning_rate=2e-3,
        num_draws=DRAWS,
        kinds=dict.fromkeys(POSITIVE, "positive"),
        random_state=seed,
    )


random = np.random.RandomState(1)
hidden = horses.notna().to_numpy() & (random.rand(*horses.shape) < 0.15)
holed = horses.mask(hidden)
test = imputer().fit(holed)
guess, copies = test.transform(holed), test.sample(holed, COPIES)


def judged(name, cells):
    """Error of the best guess and of the plainest one, and how many intervals hold the truth."""
    true, known = horses[name][cells], holed[name].dropna()
    if isinstance(known.dtype, pd.CategoricalDtype):
        shares = [(true != other).mean() for other in (guess[name][cells], known.mode()[0])]
        return "share of wrong classes", *shares, np.nan
    low, high = np.quantile([copy[name][cells] for copy in copies], [0.05, 0.95], axis=0)
    errors = [(guess[name][cells] - true), known.mean() - true]
    scaled = [np.sqrt((error**2).mean()) / horses[name].std() for error in errors]
    return "error of numbers in sd", *scaled, ((low <= true) & (true <= high)).mean()


columns = ["", "model", "mode or mean", "90 % intervals hold"]
scores = pd.DataFrame([judged(*pair) for pair in zip(horses, hidden.T)], horses.columns, columns)
scores.groupby("").mean().round(2)

# %% [markdown]
# Better than column means and most frequent classes, and far from certain: vets measure what the
# rest of the row does not tell. The intervals are nearly as wide as they should be. Quantiles of
# forty copies hold 86 % where the copies are perfect, and the networks' weights are one estimate
# from 300 rows, whose own uncertainty no copy contains.
#
# Now all that is known goes in.

# %%
model = imputer().fit(horses)
completed = model.transform(horses)  # the best guess: means, and most probable classes
copies = model.sample(horses, COPIES)  # multiple imputations
completed.iloc[:5, [0, 1, 2, 5, 6, 7, 11, 13, 21]]

# %% [markdown]
# ## How sure is it?
#
# Blue lines are 90 % intervals of missing cells, in order of their medians; the grey band holds
# 90 % of the observed ones. An interval as wide as the band says that the rest of the row told
# nothing about the cell. The best guess alone would hide that.

# %%
plot_intervals(horses, copies)

# %%
plot_imputed_columns(horses, copies, max_columns=8)

# %% [markdown]
# Imputed and observed cells need not be alike. Horses without a measurement are other horses:
# "missing at random" means that given what *is* observed of a horse, the reason for a hole has
# nothing to do with what would stand there. Under that assumption, and no stronger one, the
# likelihood of the observed cells is the right thing to maximise. Some draws of the reflux's pH are
# below 0: a Normal likelihood knows of no limits, and `kinds` is where one would tell it.

# %% [markdown]
# ## Ask a question: Rubin's rules
#
# Is the protein in the abdominal fluid higher in horses that did not live? Two thirds of the
# values are missing. The same analysis is made of every completed table, and the answers are
# pooled: the variance between tables is what the holes cost.


# %%
def difference(table):
    """Difference of mean log protein, and its squared standard error."""
    lived = table["outcome"] == "lived"
    log = np.log(table["abdominal_protein"])
    groups = [log[~lived].dropna(), log[lived].dropna()]
    return groups[0].mean() - groups[1].mean(), sum(g.var() / len(g) for g in groups)


analyses = [difference(copy) for copy in copies]
pooled = pool([a[0] for a in analyses], [a[1] for a in analyses], complete_df=len(horses) - 2)
known = horses.dropna(subset=["abdominal_protein", "outcome"])
answers = {"known cells alone": difference(known), "best guess, as if known": difference(completed)}
for name, (value, square) in answers.items():
    print(f"{name:24} {value:.2f} ± {square**0.5:.2f}")
low, high = pooled.interval(0.9)
print(f"{'pooled':24} {pooled.estimate:.2f} ± {pooled.standard_error:.2f}")
print(f"90 % interval {low:.2f} to {high:.2f}")
print(f"share of the variance that is due to the holes: {pooled.missing_share:.0%}")

# %% [markdown]
# The best guess, taken for data, has an error bar half as long as it should be. The pooled one is
# shorter than that of the known cells alone, because the other columns do tell something of the
# protein of a horse in which nobody measured it.
#
# ## Are the imputations to be trusted?
#
# Each row's draws are chosen from many draws of the guide by their importance weights. If the
# guide misses where the posterior is, few weights count for all, and the Pareto shape of the
# weights, k-hat, tells: above 0.7 the draws of that row are not to be trusted.

# %%
imputed = model.impute(horses, COPIES)
khat = imputed.khat[~imputed.khat.isnan()]  # of rows with holes
print(
    f"k-hat above 0.7 in {(khat > 0.7).double().mean():.0%} of {len(khat)} rows, "
    f"median effective draws {imputed.effective_sample_size.nanmedian():.0f} of {DRAWS}"
)
plot_khat(khat)

# %% [markdown]
# A second opinion needs no weights: chains that draw latents given the completed row and cells
# given the latents, with an accept step that makes their limit exact (Metropolis-within-Gibbs).
# R-hat compares the chains; near 1 they agree.

# %%
chains = MetropolisWithinGibbs(num_chains=4, num_warmup=5 if SMOKE else 100, thin=5)
moved = model.impute(horses, 4 * COPIES, chains)
accepted = moved.acceptance[~moved.acceptance.isnan()]
print(f"accepted: {accepted.mean():.0%} of the moves")
draws = moved.to_xarray(horses, model.codec_.schema)
cells = draws.sel(column="abdominal_protein")[:, :, horses["abdominal_protein"].isna().to_numpy()]
rhat = az.rhat(cells.to_dataset(name="x"))["x"]
print(
    f"R-hat of {cells.sizes['row']} cells: median {float(rhat.median()):.2f}, "
    f"95 % below {float(rhat.quantile(0.95)):.2f}"
)
gap = cells.mean(("chain", "draw")).values - np.mean(
    [copy["abdominal_protein"][horses["abdominal_protein"].isna()] for copy in copies], 0
)
print(
    f"difference of means between the two methods: {np.abs(gap).mean():.2f} g/dl, "
    f"sd of a cell {float(cells.std(('chain', 'draw')).mean()):.2f}"
)

# %% [markdown]
# ## The same, in Pyro
#
# The transformer is a few lines around parts that take any model and guide. `Schema` reads the
# frame, `Incomplete` leaves NaN out of any likelihood of independent entries, and
# `pyro_lvm.impute` returns draws with their k-hat.

# %%
schema = Schema.of(horses, kinds=dict.fromkeys(POSITIVE, "positive"))
x = schema.encode(horses)  # (300, 22), NaN where missing
pyro.set_rng_seed(0)
vae = Incomplete(VAE(len(schema), 6, (64, 64), schema.likelihood()))
encoder = TableEncoder(schema, (64, 64))
guide = AmortizedNormal(encoder, encoder_features=64, latent_features=6)
pyro_lvm.fit(
    vae,
    guide,
    x,
    IWAE(10, "dreg"),
    max_steps=5 if SMOKE else 300,
    lr=2e-3,
    allow_nan=True,
    progress=False,
)
by_hand = pyro_lvm.impute(vae, guide, x, num_samples=5, num_particles=DRAWS)
by_hand.frames(horses, schema)[0].iloc[:3, :4]

# %% [markdown]
# Other families are one word away, `LatentImputer("vaeac")` and `LatentImputer("vgi")`, and so is
# the command line, which writes the copies, the draws for ArviZ and these pictures:
#
#     pyro-lvm impute horses.csv --kinds.pulse positive --out runs/horses
