# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Guides without a density
#
# A network that turns noise into latents can have any shape of posterior, and no density: it can
# be drawn from, and that is all. Adversarial objectives train such a guide. A discriminator learns
# to tell the guide's draws from the prior's, and its logit stands for the log-ratio of the two
# densities. This tutorial trains one where the exact posterior is known, and shows what the numbers
# are worth: the objective's own value is *not* a bound.
#
# All numbers are in nats. Set the environment variable `PYRO_LVM_SMOKE=1` to run it all in
# seconds, with numbers that mean nothing.

# %%
import os
import warnings
from math import log

import matplotlib.pyplot as plt
import pyro
import pyro.distributions as dist
import torch
from torch import nn

from pyro_lvm import fit, sample_posterior
from pyro_lvm.data import digits
from pyro_lvm.diagnostics import (
    AIS,
    log_evidence,
    plot_calibration,
    ratio_quality,
    to_inference_data,
)
from pyro_lvm.distributions import Implicit
from pyro_lvm.guides import AmortizedNormal, ImplicitGuide
from pyro_lvm.models import VAE
from pyro_lvm.nn import ConvEncoder, Discriminator
from pyro_lvm.objectives import AVB, ELBO, IWAVB

SMOKE = os.environ.get("PYRO_LVM_SMOKE", "0") != "0"
NUM_STEPS = 5 if SMOKE else 1500
NUM_SAMPLES = 200 if SMOKE else 100_000

torch.set_num_threads(1)  # the networks are small
pyro.settings.set(module_local_params=True)  # a guide's parameters are its own, whatever its name
plt.rcParams.update({"figure.dpi": 80, "figure.constrained_layout.use": True})

# %% [markdown]
# ## A posterior with two modes
#
# The recording shows the square of the latent, with noise: $x = z^2 + \text{noise}$. The sign of
# $z$ is lost, so the larger $x$, the further apart two modes. The model has no parameters; only the
# guide is trained. A grid gives the evidence and the posterior exactly.


# %%
def model(x):
    """p(z) p(x | z)."""
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(x.new_zeros(1), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z.square(), 1.0).to_event(1), obs=x)


x = torch.tensor([[1.0], [2.0], [3.0]])

WIDTH = 0.01  # of a cell of the grid
grid = torch.arange(-4.0, 4.0 + WIDTH / 2, WIDTH, dtype=torch.float64)[:, None]
log_prior = dist.Normal(0.0, 1.0).log_prob(grid)  # (cells, 1)
log_joint = log_prior + dist.Normal(grid.square(), 1.0).log_prob(x[:, 0].double())
log_p_x = log_joint.logsumexp(0) + log(WIDTH)  # (data,), exact
log_posterior = log_joint - log_p_x  # (cells, data)
print("exact log p(x):", [round(value, 3) for value in log_p_x.tolist()])

# %% [markdown]
# ## Two guides, two objectives
#
# `AmortizedNormal` is one Normal for each $x$. `ImplicitGuide` sends noise through a network,
# with fresh noise at each layer. In a program of your own, such a site is
# `pyro.sample("z", Implicit(sampler, event_dim=1))`.
#
# The ELBO needs densities:

# %%
pyro.set_rng_seed(0)
normal = AmortizedNormal(in_features=1, latent_features=1, hidden=(32, 32))
implicit = ImplicitGuide(
    in_features=1, latent_features=1, hidden=(32,), noise_features=8, noise_hidden=(64, 64)
)
try:
    ELBO().loss(model, implicit, x)
except ValueError as error:
    print(error)

# %% [markdown]
# In its place stands AVB, with a discriminator of $z$ and $x$. That is the one line to change. The
# discriminator is the objective's own: it has its own optimiser, learns in each training step
# (under `SVI.step` and `fit` too), and is saved in the objective's `state_dict()`.


# %%
def train(guide, objective, lr):
    """Plain PyTorch; the guide's learning rate falls to zero."""
    loss = objective(model, guide)
    optimiser = torch.optim.Adam(guide.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, NUM_STEPS)
    for _ in range(NUM_STEPS):
        optimiser.zero_grad()
        loss(x).backward()
        optimiser.step()
        schedule.step()


train(normal, ELBO(64), lr=5e-3)

avb = AVB(
    Discriminator(1, context_features=1, hidden=(64, 64)),
    num_particles=128,
    num_discriminator_steps=3,
    discriminator_lr=5e-3,
)
train(implicit, avb, lr=2e-3)

# %% [markdown]
# Without a density KL(q || p) has to come from draws: the share of 100,000 of them in each cell of
# the grid, against the posterior's mass there.


# %%
def histogram(guide):
    """Share of the guide's draws in each cell: (cells, data)."""
    draws = sample_posterior(model, guide, x, num_samples=NUM_SAMPLES)["z"][..., 0].double()
    cells = ((draws + 4.0) / WIDTH).round().long().clamp(0, len(grid) - 1)
    counts = torch.zeros(len(grid), len(x), dtype=torch.float64)
    return counts.scatter_add(0, cells, torch.ones_like(draws)) / NUM_SAMPLES


def divergence(mass):
    """KL(q || p) of each datum."""
    log_mass = mass.clamp(min=1e-300).log()
    return (mass * (log_mass - log_posterior - log(WIDTH))).sum(0)


shares = {"Normal, ELBO": histogram(normal), "implicit, AVB": histogram(implicit)}
kl = {name: divergence(mass) for name, mass in shares.items()}

figure, panels = plt.subplots(1, len(x), figsize=(12, 3.2), sharey=True)
for i, axes in enumerate(panels):
    axes.fill_between(grid[:, 0], log_posterior[:, i].exp(), color="0.8", label="exact posterior")
    for name, mass in shares.items():
        coarse = mass[1:, i].unflatten(0, (-1, 5)).sum(-1) / (5 * WIDTH)
        axes.step(grid[3::5, 0], coarse, where="mid", lw=1.2, label=name)
    found = ", ".join(f"{value[i]:.2f}" for value in kl.values())
    axes.set(title=f"x = {x[i].item():g}, KL(q || p) {found}", xlabel="z", xlim=(-3, 3))
_ = panels[0].legend(fontsize=8)

# %% [markdown]
# For $x = 2$ and 3 the Normal takes one mode, which costs about $\log 2 = 0.69$. The implicit guide
# has both, and comes ten times nearer, though not all the way: see the valley for $x = 3$.

# %% [markdown]
# ## Why the value is not a bound
#
# AVB's value is $\mathrm E_q[\log p(x \mid z) - T(x, z)]$. With the exact log-ratio for $T$ it
# would be the ELBO. A trained $T$ errs, and the value with it, to either side; worse, the guide is
# drawn to where $T$ is too low. Beside it stand numbers that no discriminator enters: the exact
# ones, and annealed importance sampling (AIS), which needs the model alone and is a lower bound in
# expectation.

# %%
pyro.set_rng_seed(1)
value = torch.stack([avb.bound(model, implicit, x) for _ in range(20 if SMOKE else 200)]).mean(0)
weighted = log_evidence(model, implicit, x, objective=avb, num_samples=NUM_SAMPLES // 10)
annealed = log_evidence(
    model, implicit, x, num_samples=50 if SMOKE else 5000, method=AIS(num_temperatures=50)
)

rows = {
    "exact log p(x)": log_p_x,
    "AIS": annealed.value,
    "  its standard error": annealed.standard_error,
    "exact ELBO, log p(x) - KL": log_p_x - kl["implicit, AVB"],
    "AVB's value": value,
    "log_evidence(objective=avb)": weighted.value,
    "  its k-hat": weighted.khat,
}
print(f"{'':30}" + "".join(f"   x = {number:g}" for number in x[:, 0].tolist()))
for name, numbers in rows.items():
    print(f"{name:30}" + "".join(f"{number:8.3f}" for number in numbers.tolist()))
print("a bound: AVB", avb.is_bound, "| its weights", weighted.is_bound, "| AIS", annealed.is_bound)

# %% [markdown]
# AVB's value lies above the exact ELBO for all three, and for two above $\log p(x)$ itself, where
# no ELBO can be. `log_evidence(objective=avb)` weighs draws by the same $T$ and is too high with
# it; its k-hat does not know, for it says that weights are even, not that they are right. AIS
# agrees with the exact numbers. **Report a model's evidence by AIS, never by the discriminator.**
# The command line does so for every guide without a density, and marks by `~` what a discriminator
# has a part in.

# %% [markdown]
# ## How good is the discriminator?
#
# `ratio_quality` puts it to the test on fresh draws, as many of the guide as of the prior. If it
# gives a draw the probability 0.7 to be the guide's, that should hold for 70 % of such draws.

# %%
quality = ratio_quality(avb, model, implicit, x, num_samples=NUM_SAMPLES // 20)
print(f"log-loss                   {quality.log_loss.mean():.3f}")
print(f"of the best constant       {quality.best_constant:.3f}")
print(f"expected calibration error {quality.calibration_error:.3f}")
print(f"if it were calibrated      {quality.calibration_noise:.3f}")
print(f"accuracy                   {quality.accuracy.mean():.1%}")
print(f"saturated                  {quality.is_saturated}")
plot_calibration(quality)

# %% [markdown]
# It is of use, with a log-loss below that of a constant, but not quite calibrated: the error is
# three times what chance would give. Here we can see where. The exact log-ratio is that of the
# histogram to the prior:

# %%
figure, panels = plt.subplots(1, len(x), figsize=(12, 3.2), sharey=True)
with torch.no_grad():
    logit = avb.discriminator(grid.float()[:, None].expand(-1, len(x), -1), x)  # (cells, data)
coarse = shares["implicit, AVB"][1:].unflatten(0, (-1, 5)).sum(1) / (5 * WIDTH)
for i, axes in enumerate(panels):
    axes.plot(grid[3::5, 0], coarse[:, i].log() - log_prior[3::5, 0], lw=1, label="log q - log p")
    axes.plot(grid[:, 0], logit[:, i], label="T")
    axes.set(title=f"x = {x[i].item():g}", xlabel="z", xlim=(-3, 3), ylim=(-6, 4))
panels[0].set_ylabel("log-ratio of guide to prior")
_ = panels[0].legend(fontsize=8)

# %% [markdown]
# $T$ has the modes and misses their height: it is too low at the top, where most draws are, so
# the value comes out too high. In the valley for $x = 3$ it is too low as well, and that is why
# the guide still has draws there: it follows $T$, not the log-ratio. More discriminator steps
# (`num_discriminator_steps`), a larger network, lower learning rates and more draws bring the two
# closer. Penalties (`r1`, `spectral_norm`) calm the training and bias the ratio; they are off by
# default.

# %% [markdown]
# ## Saturation, and adaptive contrast
#
# In more dimensions, and for sharper posteriors, guide and prior do not overlap, and *any*
# discriminator that tells them apart has nearly the least log-loss there is. It knows who is who,
# not by how much. To see it alone, the guide below is the exact posterior of a linear model with 8
# latents, given by its draws; only the discriminator learns. With the exact ratio every value
# would be $\log p(x)$.

# %%
NUM_LATENTS, NOISE = 8, 0.1


def sharp(x):
    """x is z with little noise."""
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(x.new_zeros(NUM_LATENTS), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z, NOISE).to_event(1), obs=x)


def exact_draws(x):
    """The exact posterior, known by its draws."""
    mean, scale = x / (1 + NOISE**2), NOISE / (1 + NOISE**2) ** 0.5

    def sampler(sample_shape):
        return mean + scale * torch.randn(sample_shape + mean.shape)

    with pyro.plate("data", len(x)):
        pyro.sample("z", Implicit(sampler, event_dim=1, shape=mean.shape))


pyro.set_rng_seed(2)
spread = (1 + NOISE**2) ** 0.5
y = spread * torch.randn(100, NUM_LATENTS)
log_p_y = dist.Normal(0.0, spread).log_prob(y).sum(-1)

for contrast in ("prior", "adaptive"):
    discriminator = Discriminator(NUM_LATENTS, context_features=NUM_LATENTS, hidden=(64, 64))
    objective = AVB(discriminator, 4, contrast=contrast, discriminator_lr=1e-3)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(5 if SMOKE else 500):
            objective.differentiable_loss(sharp, exact_draws, y)
    off = (objective.bound(sharp, exact_draws, y) - log_p_y).mean()
    quality = ratio_quality(objective, sharp, exact_draws, y, num_samples=100)
    right = quality.accuracy.mean()
    print(f"contrast={contrast!r}: value - log p(x) {off:+.2f}, accuracy {right:.1%}, ", end="")
    print(f"calibration error {quality.calibration_error:.3f}, saturated: {quality.is_saturated}")
    for warning in caught:
        print(f"  warned: {warning.message}")

# %% [markdown]
# Against the prior the value is eleven nats above $\log p(x)$, though nearly all draws are told
# right: at probabilities near 0 and 1 ten nats more or less make no difference to the log-loss, or
# to calibration. Hence the warning, and `quality.is_saturated`.
#
# `contrast="adaptive"` compares the guide not with the prior but with a Normal that has the guide's
# own mean and scale, for each datum. What $T$ must learn is then the shape alone; the rest of the
# log-ratio is known in closed form. Of eleven nats 0.16 are left here, and no warning. It helps
# where the guide is far from the prior or narrow, less where it has several modes. The prior needs
# a density for it.

# %% [markdown]
# ## Digits, with a convolutional guide
#
# The same on pictures. Encoder and discriminator each have a convolutional network of their own; a
# discriminator is any module called as `discriminator(z, x)`. The objective is IWAVB, the
# importance-weighted form: the same line with another name, and 5 draws of each digit. `fit` trains
# model and guide, the objective its discriminator.


# %%
class PictureDiscriminator(nn.Module):
    """Tells latents apart, given a picture."""

    def __init__(self, latent_features):
        super().__init__()
        self.encoder = ConvEncoder(8, channels=(8, 16))
        self.logit = Discriminator(latent_features, self.encoder.out_features, hidden=(128, 128))

    def forward(self, z, x):
        return self.logit(z, self.encoder(x))


data = digits(num_validation=0)
test = data.test[:50]

pyro.set_rng_seed(3)
encoder = ConvEncoder(8, channels=(8, 16))
vae = VAE(in_features=64, latent_features=8, hidden=(100,), data_mean=data.train.mean(0))
guide = ImplicitGuide(
    encoder,
    encoder_features=encoder.out_features,
    latent_features=8,
    noise_features=16,
    noise_hidden=(64,),
)
iwavb = IWAVB(
    PictureDiscriminator(latent_features=8), 5, contrast="adaptive", discriminator_lr=1e-3
)
fit(
    vae,
    guide,
    data.train,
    iwavb,
    max_steps=5 if SMOKE else 600,
    batch_size=100,
    lr=1e-3,
    lr_scheduler="cosine",
    transform=data.transform,
    progress=False,
)

annealed = log_evidence(
    vae, guide, test, num_samples=8, method=AIS(2 if SMOKE else 50, initial="guide")
)
quality = ratio_quality(iwavb, vae, guide, test, num_samples=20 if SMOKE else 100)
print(f"IWAVB's value on {len(test)} test digits: {iwavb.bound(vae, guide, test).mean():.2f}")
print(f"log p(x) by AIS:                {annealed.mean():.2f}")
print(f"  Monte Carlo error of a digit: {annealed.standard_error.mean():.2f}")
print(f"accuracy {quality.accuracy.mean():.1%}, saturated: {quality.is_saturated}")

# %% [markdown]
# The value is too high here as well: it stands for a bound by five draws, which is below
# $\log p(x)$, and comes out above what AIS finds.
#
# `to_inference_data` takes the objective too. The log-weights for ArviZ then come from the
# discriminator, and the attributes say so and how good it is:

# %%
draws = to_inference_data(vae, guide, test, num_samples=100, objective=iwavb, seed=0)
for name, number in draws.attrs.items():
    if name in ("objective", "log_weight_is_exact") or name.startswith("discriminator"):
        print(f"{name}: {number if isinstance(number, (int, str)) else round(number, 3)}")

# %% [markdown]
# ## What to take along
#
# - A guide without a density can have any shape; AVB, IWAVB, AAE and IWAAE train it.
# - Their values are estimates, and so are weights, k-hat and effective sample size by a
#   discriminator. Judge the model by `log_evidence(method="ais")`.
# - Look at `ratio_quality` on data that were held out: log-loss, calibration and saturation.
# - Saturated? `contrast="adaptive"`, more discriminator steps, fewer latents. Failing that, a guide
#   with a density, such as `AmortizedFlow`, or mixing variables (`SIVI`) give bounds.
# - Adversarial training is fickle: seeds differ more than for a bound. Several of them, with exact
#   answers beside, are in `benchmarks/results/adversarial.md`.
