# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Swapping objectives
#
# You have a model and a guide in Pyro, trained by `SVI` and `Trace_ELBO`. This tutorial
# leaves both programs as they are and changes one word: the objective. It compares what
# comes out, says what each number means, hands the posterior to ArviZ, and checks the
# numbers against a model whose exact answer is known.
#
# All numbers are in nats. Set the environment variable `PYRO_LVM_SMOKE=1` to run it all in
# seconds, with numbers that mean nothing.

# %%
import os

import arviz as az
import matplotlib.pyplot as plt
import pyro
import pyro.distributions as dist
import torch
from pyro.infer import SVI, Trace_ELBO
from pyro.nn import PyroModule
from torch import nn

from pyro_lvm.data import digits
from pyro_lvm.diagnostics import log_evidence, pareto_khat, plot_khat, to_inference_data
from pyro_lvm.models import ProbabilisticPCA
from pyro_lvm.objectives import ELBO, IWAE, Renyi

SMOKE = os.environ.get("PYRO_LVM_SMOKE", "0") != "0"
NUM_STEPS = 20 if SMOKE else 2000
NUM_SAMPLES = 100 if SMOKE else 1000

torch.set_num_threads(1)  # the networks are small
plt.rcParams.update({"figure.dpi": 80, "figure.constrained_layout.use": True})

# %% [markdown]
# ## Data
#
# scikit-learn's handwritten digits, 8 by 8 pixels. Grey values are probabilities: training
# draws black and white pixels from them anew for each batch; the test digits are drawn once.

# %%
data = digits(num_validation=0)
test = data.test
print(data)


def show(pictures, titles):
    """Draw rows of 64 pixel values side by side."""
    _, axes = plt.subplots(1, len(pictures), figsize=(1.2 * len(pictures), 1.5))
    for axis, picture, title in zip(axes, pictures, titles):
        picture = torch.as_tensor(picture).reshape(data.feature_shape).numpy()
        axis.imshow(picture, cmap="gray_r", vmin=0, vmax=1)
        axis.set_title(title, fontsize=9)
        axis.set_axis_off()


grey, drawn = data.train[:4], data.transform(data.train[:4])
show([*grey, *drawn], ["grey"] * 4 + ["drawn"] * 4)

# %% [markdown]
# ## A plain Pyro program
#
# A variational autoencoder: a standard Normal latent `z`, a decoder, Bernoulli pixels; the
# guide is a Normal whose mean and scale an encoder computes. Nothing here is of `pyro_lvm`.
# The one thing to mind is the plate: data inside `pyro.plate` are independent, and get a
# bound each.

# %%
NUM_LATENTS, NUM_PIXELS = 16, 64


def network(num_inputs, num_outputs):
    """Two hidden layers."""
    return nn.Sequential(
        nn.Linear(num_inputs, 100), nn.Tanh(),
        nn.Linear(100, 100), nn.Tanh(),
        nn.Linear(100, num_outputs),
    )  # fmt: skip


class Model(PyroModule):
    """p(z) p(x | z)."""

    def __init__(self):
        super().__init__()
        self.decoder = network(NUM_LATENTS, NUM_PIXELS)

    def forward(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(NUM_LATENTS), 1.0).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=self.decoder(z)).to_event(1), obs=x)


class Guide(PyroModule):
    """q(z | x)."""

    def __init__(self):
        super().__init__()
        self.encoder = network(NUM_PIXELS, 2 * NUM_LATENTS)

    def forward(self, x):
        loc, log_scale = self.encoder(x).chunk(2, -1)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))


# %% [markdown]
# And Pyro's own training loop. The seed, the batches and the optimiser are the same for
# every objective.


# %%
def train(objective):
    """A model and guide, trained by the objective, and the loss of each step per digit."""
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    model, guide = Model(), Guide()
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 2e-3}), loss=objective)
    losses = []
    for _ in range(NUM_STEPS):
        rows = torch.randint(len(data.train), (100,))
        batch = data.transform(data.train[rows])
        losses.append(svi.step(batch) / len(batch))
    return model, guide, losses


programs = {}
*programs["Trace_ELBO"], pyro_losses = train(Trace_ELBO())

# %% [markdown]
# ## One word changed

# %%
*programs["ELBO"], losses = train(ELBO())

for step in (0, 1, 2, 10):
    print(f"step {step:2}: Trace_ELBO {pyro_losses[step]:.4f}   ELBO {losses[step]:.4f}")

# %% [markdown]
# The same objective, the same random numbers, so the same losses; later steps drift apart
# by rounding. From here on each objective is one expression:
#
# | expression | what it maximises |
# | --- | --- |
# | `ELBO()` | the mean of the log-weights $\log w_k$, $w_k = p(x, z_k) / q(z_k \mid x)$ |
# | `IWAE(5)` | $\log \frac15 \sum_k w_k$: tighter, over 5 draws per digit |
# | `IWAE(5, gradient="dreg")` | the same bound, by a gradient with less noise |
# | `Renyi(5, alpha=0.5)` | a bound between the two: `alpha=0` is IWAE, towards 1 the ELBO |
# | `IWAE(20)` | tighter still |

# %%
for name, objective in {
    "IWAE(5)": IWAE(5),
    "IWAE(5, dreg)": IWAE(5, gradient="dreg"),
    "Renyi(5, 0.5)": Renyi(5, alpha=0.5),
    "IWAE(20)": IWAE(20),
}.items():
    *programs[name], _ = train(objective)

# %% [markdown]
# ## Comparing them on the test digits
#
# The training losses are different bounds, so they cannot be compared with each other. What
# can: each model's `log_evidence`, an estimate of $\log p(x)$ from many draws. Its
# negative is the test NLL.

# %%
pyro.set_rng_seed(1)
evidence = {
    name: log_evidence(*pair, test, num_samples=NUM_SAMPLES) for name, pair in programs.items()
}


def bounds_by_num_particles(model, guide, x, num_draws=500):
    """The importance-weighted bounds of x, by K, all from the same draws of the guide."""
    log_weights = IWAE(num_draws).log_weights(model, guide, x)  # (num_draws, data)
    return {
        K: IWAE(K).bound_per_datum(log_weights.unflatten(0, (K, -1)))  # (num_draws / K, data)
        for K in (1, 2, 5, 20, 100, 500)
    }


bounds = {
    name: {K: bound.mean().item() for K, bound in bounds_by_num_particles(*pair, test).items()}
    for name, pair in programs.items()
}

print(f"trained by       -ELBO     NLL  NLL - NLL(ELBO)   ESS of {NUM_SAMPLES}  k-hat > 0.7")
for name, result in evidence.items():
    change = evidence["ELBO"].value - result.value  # paired: the same digits
    error = change.std() / len(change) ** 0.5
    print(
        f"{name:14} {-bounds[name][1]:7.2f} {-result.value.mean():7.2f}"
        f"  {change.mean():+.2f} +- {error:.2f}  "
        f"{result.effective_sample_size.mean():13.0f}"
        f"{(result.khat > 0.7).float().mean():13.1%}"
    )

# %% [markdown]
# The bounds of several draws give a lower NLL than the ELBO. The error is that of having a few
# hundred test digits; it leaves out that each row is one short training run. Other seeds
# and more steps move the numbers too, so a claim in earnest needs several of both.

# %%
figure, axes = plt.subplots(figsize=(6.5, 4))
for name in ("ELBO", "IWAE(5)", "IWAE(20)"):
    (line,) = axes.plot(*zip(*bounds[name].items()), "o-", label=f"trained by {name}")
    axes.axhline(evidence[name].value.mean().item(), color=line.get_color(), ls=":", lw=1)
axes.set(xscale="log", xlabel="K, draws per digit, at test time", ylabel="bound, nats per digit")
_ = axes.legend(title=f"dotted: K = {NUM_SAMPLES}", loc="lower right")

# %% [markdown]
# ## What the numbers mean
#
# **Why -ELBO gets worse while NLL gets better.** At the left edge, K = 1, the curves are the
# models' ELBOs:
# $\mathrm{ELBO} = \log p(x) - \mathrm{KL}(q(z \mid x) \,\|\, p(z \mid x))$. Training on the
# ELBO therefore also presses the model towards posteriors that a diagonal Normal can match.
# The bound with K draws punishes a mismatch less, so the model is free to have more involved
# posteriors. Each single draw of its guide is then a poorer one: the ELBO falls, though
# the model explains the digits better, as for IWAE(20) here. So -ELBO does not rank models
# that were trained by different objectives.
#
# **What k-hat says.** The estimate is a mean of weights, and a few huge weights can carry
# it. `k-hat` is the fitted shape of the weights' upper tail: below 0.5 their variance is
# finite, up to 0.7 the estimate is usable, above it neither the estimate nor its standard
# error can be trusted. The effective sample size (ESS) answers another question: how many
# equal weights are these worth? The two need not agree. A guide trained with many draws
# spreads widely and wastes most of them: from ELBO to IWAE(20) the ESS drops far, while the
# share of digits with a high k-hat moves little.
#
# **Is a bound a bound?** In expectation, yes: with explicit densities the mean of `bound` is
# at most $\log p(x)$. One estimate may lie above it, by chance. `log_evidence` itself is
# such a bound, with K large: NLL is slightly too high, by about half the squared standard
# error of each digit. And not every objective is one:

# %%
shortfall = evidence["IWAE(20)"].standard_error.square() / 2
print(f"IWAE(20): NLL too high by about {shortfall.mean():.3f} nats per digit")
for alpha in (0.5, -1.0):
    print(f"Renyi(5, alpha={alpha}) is a bound: {Renyi(5, alpha=alpha).is_bound}")

plot_khat(evidence["IWAE(20)"].khat)

# %% [markdown]
# ## One digit in ArviZ
#
# `to_inference_data` draws from the guide and fills ArviZ's groups. It gives an
# `InferenceData` under ArviZ 0.x and an `xarray.DataTree` from 1.0; what follows runs under
# both.

# %%
model, guide = programs["IWAE(5, dreg)"]
digit = test[:1]
draws = to_inference_data(
    model,
    guide,
    digit,
    num_samples=200 if SMOKE else 1000,
    dims={"z": ["latent"], "x": ["pixel"]},
    seed=0,
)
for group in ("posterior", "posterior_predictive", "log_likelihood", "sample_stats"):
    variables = {name: dict(v.sizes) for name, v in draws[group].data_vars.items()}
    print(f"{group}: {variables}")

# %% [markdown]
# The three latents about which this digit says most, that is, whose posterior is narrowest
# (in the labels, the digit's index comes first, then the latent's).
# `kind="stats"` leaves out R-hat and the chains' ESS: a guide's draws are independent, so
# those look perfect whatever the fit.

# %%
scale = draws["posterior"]["z"].std(("chain", "draw")).isel(data=0)
narrowest = sorted(scale.argsort()[:3].values.tolist())
az.summary(draws, var_names=["z"], coords={"latent": narrowest}, kind="stats")

# %%
with plt.rc_context({"figure.figsize": (4, 3.5)}):
    az.plot_pair(draws, var_names=["z"], coords={"latent": narrowest})

# %% [markdown]
# The draws are the guide's: with a diagonal Normal there is no correlation to see, whatever
# the posterior has. How much that matters, k-hat tells; the log-weights are among the
# `sample_stats`:

# %%
log_weights = torch.tensor(draws["sample_stats"]["log_weight"].values[0])  # (draw, data)
print(f"k-hat of this digit: {pareto_khat(log_weights).item():.2f}")

# %% [markdown]
# And the posterior predictive: the digit, the mean of the digits that the model draws from its
# posterior, and five of them.

# %%
replicas = draws["posterior_predictive"]["x"].values[0, :, 0]  # (draw, pixel)
show(
    [draws["observed_data"]["x"].values[0], replicas.mean(0), *replicas[:5]],
    ["observed", "mean", *(f"draw {i}" for i in range(1, 6))],
)

# %% [markdown]
# ## Checking against theory
#
# In probabilistic PCA everything is known. `ProbabilisticPCA.maximum_likelihood` is the best
# fit in closed form, `log_evidence` the exact $\log p(x)$, `posterior` the exact posterior.
# As guide we take the exact posterior with its standard deviation stretched by 1.5. Then:
#
# - for K = 1 the gap $\log p(x) - \mathrm{E}[\mathrm{bound}]$ is
#   $\mathrm{KL}(q \,\|\, p) = L(\ln c^{-1} + (c^2 - 1) / 2)$, with $c = 1.5$ and
#   $L = 8$ latents;
# - for large K it approaches $\mathrm{var}(w) / (2 K \, \mathrm{E}[w]^2)$, and the relative
#   variance of these weights is $(c^2 / \sqrt{2 c^2 - 1})^L - 1$;
# - unstretched, every draw gives the exact value.

# %%
STRETCH, NUM_FACTORS = 1.5, 8
pca = ProbabilisticPCA.maximum_likelihood(data.train.double(), latent_features=NUM_FACTORS)
grey_test = digits(binarization=None).test.double()
exact = pca.log_evidence(grey_test).detach()


def stretched(x, factor=STRETCH):
    """The exact posterior with its standard deviation multiplied."""
    posterior = pca.posterior(x)
    wide = dist.MultivariateNormal(posterior.loc, scale_tril=factor * posterior.scale_tril)
    with pyro.plate("data", len(x)):
        pyro.sample("z", wide)


def unstretched(x):
    stretched(x, factor=1.0)


pyro.set_rng_seed(2)
error = (IWAE(5).bound(pca, unstretched, grey_test) - exact).abs().max()
print(f"exact posterior as guide: largest error {error:.1e} nats")

kl = NUM_FACTORS * (-torch.tensor(STRETCH).log().item() + (STRETCH**2 - 1) / 2)
relative_variance = (STRETCH**2 / (2 * STRETCH**2 - 1) ** 0.5) ** NUM_FACTORS - 1
print(f"theory: KL = {kl:.4f}, relative variance of the weights = {relative_variance:.4f}\n")

repeats = [bounds_by_num_particles(pca, stretched, grey_test) for _ in range(1 if SMOKE else 16)]
gaps, errors = {}, {}
for K in repeats[0]:
    gap = exact - torch.cat([bounds[K] for bounds in repeats])  # (repeats * 500 / K, digits)
    gaps[K], errors[K] = gap.mean().item(), gap.std().item() / gap.numel() ** 0.5
    print(f"K = {K:3}: gap {gaps[K]:.4f} +- {errors[K]:.4f}")

assert abs(gaps[1] - kl) < 5 * errors[1]

# %%
figure, axes = plt.subplots(figsize=(6.5, 4))
axes.axhline(kl, color="gray", ls="--", lw=1, label="KL(q || p): theory for K = 1")
axes.plot([*gaps], [relative_variance / (2 * K) for K in gaps], "k:", label="theory for large K")
two_errors = [2 * error for error in errors.values()]
axes.errorbar([*gaps], [*gaps.values()], two_errors, fmt="o", label="exact - bound, 2 s.e.")
axes.set(xscale="log", yscale="log", xlabel="K", ylabel="gap, nats per digit")
_ = axes.legend()

# %% [markdown]
# ## What goes wrong
#
# Errors have three parts: where, what was expected against what came, and what to try. First
# a typing error in the name of a site:


# %%
def misspelt(x):
    with pyro.plate("data", len(x)):
        pyro.sample("zz", dist.Normal(x.new_zeros(NUM_LATENTS), 1.0).to_event(1))


try:
    ELBO().loss(model, misspelt, digit)
except ValueError as error:
    print(error)


# %% [markdown]
# Then a latent class, which has no path derivative, under an estimator that needs one:


# %%
def mixture(x):
    means = torch.linspace(0.1, 0.9, 10)[:, None].expand(10, NUM_PIXELS)
    with pyro.plate("data", len(x)):
        c = pyro.sample("c", dist.Categorical(torch.ones(10)))
        pyro.sample("x", dist.Bernoulli(means[c]).to_event(1), obs=x)


def classify(x):
    logits = pyro.param("logits", torch.zeros(10))
    with pyro.plate("data", len(x)):
        pyro.sample("c", dist.Categorical(logits=logits))


try:
    IWAE(5, gradient="dreg").loss_and_grads(mixture, classify, test)
except ValueError as error:
    print(error)

# %% [markdown]
# As the message says, one word helps:

# %%
pyro.set_rng_seed(3)
loss = IWAE(5, gradient="vimco").loss_and_grads(mixture, classify, test)
slope = pyro.param("logits").grad.norm().item()
print(f"loss {loss / len(test):.2f} nats per digit, norm of the gradient {slope:.1f}")

# %% [markdown]
# ## Where next
#
# - `pyro_lvm.fit` trains with checkpoints, early stopping and held-out bounds, in place of
#   the loop above.
# - `pyro_lvm.models` and `pyro_lvm.guides` have programs ready made.
# - `pyro-lvm compare` makes this comparison from the command line.
