# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Guides and priors that are mixtures of infinitely many
#
# A guide is *semi-implicit* if it first draws a mixing variable $\psi$ and then the latent given
# it: $q(z) = \int q(z \mid \psi)\, q(\psi)\, d\psi$. Put a network between noise and $\psi$, and
# q takes nearly any shape. Its density is an integral that nobody knows, so the plain ELBO cannot
# be computed; it can be bracketed, from below and from above, and that is what `SIVI` and `DSIVI`
# do. This tutorial goes from a banana to a prior that is learned in the same way.
#
# All numbers are in nats per datum unless they say otherwise. Set the environment variable
# `PYRO_LVM_SMOKE=1` to run it all in seconds, with numbers that mean nothing.

# %%
import os

import matplotlib.pyplot as plt
import pyro
import pyro.distributions as dist
import torch
from pyro.infer.autoguide import AutoMultivariateNormal
from pyro.nn import PyroModule
from torch import nn

from pyro_lvm.diagnostics import log_evidence, plot_sandwich
from pyro_lvm.errors import ProgramError
from pyro_lvm.guides import SemiImplicitGuide, SemiImplicitWeights
from pyro_lvm.nn import MLP
from pyro_lvm.objectives import DSIVI, ELBO, SIVI

SMOKE = os.environ.get("PYRO_LVM_SMOKE", "0") != "0"
STEPS = 5 if SMOKE else 2000
DRAWS = 100 if SMOKE else 5000

torch.set_num_threads(1)  # the networks are small
plt.rcParams.update({"figure.dpi": 80, "figure.constrained_layout.use": True})


def minimise(module, steps=STEPS, lr=1e-2):
    """Adam, with a rate that falls to zero."""
    module()  # an AutoGuide makes its parameters at the first call
    optimiser = torch.optim.Adam(module.parameters(), lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        optimiser.zero_grad()
        module().backward()
        optimiser.step()
        schedule.step()


# %% [markdown]
# ## A banana
#
# Two latents, $z_1 \sim N(0, 1)$ and $z_2$ Normal around $0.9 z_1 + z_1^2 + 1$. There are no data,
# so the evidence is $\log 1 = 0$, and minus any guide's ELBO is its divergence from the banana.
# `pyro.plate("draws", 100)` around the two programs makes a step average over 100 draws.


# %%
def banana():
    first = pyro.sample("first", dist.Normal(torch.zeros(1), 1.0).to_event(1))
    loc = 0.9 * first + first**2 + 1
    pyro.sample("second", dist.Normal(loc, 0.19**0.5).to_event(1))


class Plated(nn.Module):
    """A program in a plate, as a module that has its parameters."""

    def __init__(self, program, size=100):
        super().__init__()
        self.program, self.size = program, size

    def forward(self):
        with pyro.plate("draws", self.size):
            return self.program()


pyro.set_rng_seed(0)
semi_implicit = SemiImplicitWeights({"first": 1, "second": 1}, noise_features=3)
minimise(SIVI(num_mixing=50)(Plated(banana), Plated(semi_implicit)))

normal = AutoMultivariateNormal(banana)
minimise(ELBO(100)(banana, normal))

# %%
with torch.no_grad():
    panels = {
        "the banana": pyro.poutine.trace(Plated(banana, DRAWS)).get_trace().nodes,
        "semi-implicit guide": pyro.poutine.trace(Plated(semi_implicit, DRAWS)).get_trace().nodes,
        "Normal guide": pyro.poutine.trace(Plated(normal, DRAWS)).get_trace().nodes,
    }
figure, all_axes = plt.subplots(1, 3, figsize=(10, 3.4), sharex=True, sharey=True)
all_axes[0].set_ylabel("second")
for axes, (name, nodes) in zip(all_axes, panels.items(), strict=True):
    axes.hist2d(
        nodes["first"]["value"].flatten().numpy(),
        nodes["second"]["value"].flatten().numpy(),
        bins=60,
        range=[[-3, 3], [-3, 10]],
        cmap="Blues",
    )
    axes.set(title=name, xlabel="first")

# %% [markdown]
# The guide of noise through a small network has bent, and leaves out the thin ends of the banana.
#
# `SemiImplicitWeights` is a guide of latents that all data share. Its noise is an auxiliary site,
# `infer={"is_auxiliary": True}`, and any guide of your own that has one and then samples a latent
# given it is semi-implicit too. An objective that needs the density says so, in place of a number
# that is wrong:

# %%
try:
    ELBO().loss(banana, semi_implicit)
except ProgramError as error:
    print(error)

# %% [markdown]
# Pyro's own `Trace_ELBO` takes such a guide and adds the entropy of the noise to the bound. Noise
# is only noise: its scale can be made anything without a change of the guide's draws. So the
# number that it reports is no bound of anything:

# %%
for scale in (1.0, 100.0):

    def rescaled(scale=scale):
        noise = dist.Normal(torch.zeros(1), scale).to_event(1)
        psi = pyro.sample("noise", noise, infer={"is_auxiliary": True}) / scale
        first = pyro.sample("first", dist.Normal(0.8 * psi, 0.6).to_event(1))
        loc = 0.9 * first + first**2 + 1
        pyro.sample("second", dist.Normal(loc, 0.19**0.5).to_event(1))

    programs = Plated(banana, DRAWS), Plated(rescaled, DRAWS)
    wrong = -pyro.infer.Trace_ELBO().loss(*programs) / DRAWS
    right = SIVI(num_mixing=100).bound(*programs).mean()
    print(f"noise of scale {scale:5.0f}: Trace_ELBO {wrong:6.2f}, SIVI {right:6.2f}, exact ELBO 0")

# %% [markdown]
# ## The sandwich
#
# The mean of $q(z \mid \psi_j)$ over J fresh mixing draws is a density too small on average, once
# its logarithm is taken; with the draw $\psi_0$ that made z among them it is too large. `DSIVI.
# sandwich` gives both, and the exact ELBO of the guide is between them for every J.

# %%
lower, upper = DSIVI.sandwich(
    Plated(banana), Plated(semi_implicit), num_mixing=20 if SMOKE else 1000, num_particles=20
)
print(f"KL of the semi-implicit guide: {-upper.mean():.3f} to {-lower.mean():.3f}")
print(f"KL of a Normal, full covariance: {ELBO(DRAWS).loss(banana, normal):.3f}")

# %%
plot_sandwich(
    Plated(banana),
    Plated(semi_implicit),
    num_mixing=(1, 3, 10) if SMOKE else (1, 3, 10, 30, 100, 300, 1000),
    num_particles=20,
)

# %% [markdown]
# The exact divergence of the guide is known to a hundredth of a nat. That of the Normal one is ten
# times as large.
#
# ## A prior without a density
#
# The other side can be semi-implicit as well: an auxiliary site of the *model*. Here data lie on
# a ring of eight spots, $x = z + 0.3\, \epsilon$, and the prior of z is to be learned: noise
# $\zeta$ through a network, then a narrow Normal. `DSIVI` averages the mixing variables of both
# programs out. The likelihood is evaluated once whatever their numbers are, and one set of prior
# draws serves all data of a batch.

# %%
ANGLES = torch.arange(8) * torch.pi / 4
CENTRES = 2 * torch.stack([ANGLES.cos(), ANGLES.sin()], -1)
WIDTH = (0.15**2 + 0.3**2) ** 0.5  # of a spot in x


def ring(size):
    return CENTRES[torch.randint(8, (size,))] + WIDTH * torch.randn(size, 2)


def true_log_p(x):
    spots = dist.Normal(CENTRES, WIDTH).to_event(1).log_prob(x.unsqueeze(1))
    return spots.logsumexp(-1) - torch.tensor(8.0).log()


class LearnedPrior(PyroModule):
    def __init__(self):
        super().__init__()
        self.net = MLP(2, 2, hidden=(64, 64))
        self.log_scale = nn.Parameter(torch.tensor(-1.0))

    def forward(self, x):
        with pyro.plate("data", len(x)):
            noise = dist.Normal(torch.zeros(2), 1.0).to_event(1)
            zeta = pyro.sample("zeta", noise, infer={"is_auxiliary": True})
            z = pyro.sample("z", dist.Normal(self.net(zeta), self.log_scale.exp()).to_event(1))
            pyro.sample("x", dist.Normal(z, 0.3).to_event(1), obs=x)

    @torch.no_grad()
    def log_p(self, x, size=20_000):
        """By many draws of the mixing variable; z is integrated out exactly."""
        scale = ((2 * self.log_scale).exp() + 0.3**2).sqrt()
        spots = dist.Normal(self.net(torch.randn(size, 2)), scale).to_event(1)
        return spots.log_prob(x.unsqueeze(1)).logsumexp(-1) - torch.tensor(float(size)).log()

    @torch.no_grad()
    def draw(self, size):
        scale = ((2 * self.log_scale).exp() + 0.3**2).sqrt()
        return self.net(torch.randn(size, 2)) + scale * torch.randn(size, 2)


pyro.set_rng_seed(1)
test = ring(DRAWS // 10)
print(f"log-likelihood of the truth   {true_log_p(test).mean():.2f}")
best = dist.MultivariateNormal(test.mean(0), test.T.cov())
print(f"               of a Normal    {best.log_prob(test).mean():.2f}")

# %% [markdown]
# Two models, one trained with 10 draws of the prior's mixing variable a step, one with 100. The
# guide is semi-implicit too, amortized over data.


# %%
class Endless(nn.Module):
    """The objective of two programs on new data at each call."""

    def __init__(self, objective, model, guide):
        super().__init__()
        self.loss = objective(model, guide)

    def forward(self):
        return self.loss(ring(256)) / 256


trained = {}
for num_prior_mixing in (10, 100):
    pyro.set_rng_seed(2)
    model = LearnedPrior()
    guide = SemiImplicitGuide(
        in_features=2,
        latent_features=2,
        hidden=(64,),
        noise_features=4,
        noise_hidden=(64,),
        context_features=32,
    )
    objective = DSIVI(num_mixing=10, num_prior_mixing=num_prior_mixing)
    minimise(Endless(objective, model, guide), steps=STEPS * 3 // 4, lr=3e-3)
    trained[num_prior_mixing] = model, guide

# %%
print("J' in training   exact     log_evidence       DSIVI of that J'   DSIVI of J' = 2000")
for num_prior_mixing, (model, guide) in trained.items():
    exact = model.log_p(test).mean()
    evidence = log_evidence(model, guide, test, num_samples=DRAWS // 10)
    few = DSIVI(num_mixing=100, num_prior_mixing=num_prior_mixing).bound(model, guide, test)
    many = DSIVI(num_mixing=100, num_prior_mixing=DRAWS * 2 // 5).bound(model, guide, test)
    print(
        f"{num_prior_mixing:8} {exact:14.2f} {evidence.mean():10.2f} ± "
        f"{evidence.mean_standard_error():.2f} {few.mean():16.2f} {many.mean():18.2f}"
    )

# %%
figure, all_axes = plt.subplots(1, 3, figsize=(10, 3.4), sharex=True, sharey=True)
clouds = {"the data": ring(DRAWS)} | {
    f"model, trained with J' = {count}": model.draw(DRAWS) for count, (model, _) in trained.items()
}
for axes, (name, cloud) in zip(all_axes, clouds.items(), strict=True):
    axes.hist2d(*cloud.T.numpy(), bins=60, range=[[-3.5, 3.5]] * 2, cmap="Blues")
    axes.set(title=name, aspect="equal")

# %% [markdown]
# - Few prior draws in training make a wide prior: a narrow one would be missed by most of them,
#   and the bound would say so. With ten draws there is no ring, and the model is hardly better than
#   one Normal; with a hundred there is one, its spots still blurred after so few steps.
# - Every column but the exact one is a lower bound in the mean, of whatever model was trained.
#   Report them at many more draws than training used, as the last column and `log_evidence` do. The
#   latter weighs `num_samples` draws of z, each with its own 100 mixing draws of both programs.
# - No prior draw may have made the datum's own z. A prior whose mixing variable is a training
#   datum must leave out the datum itself, or the "bound" lies above the truth.
#
# ## What to use
#
# | you have | use |
# | --- | --- |
# | a guide with mixing variables | `SIVI(num_mixing=50)`; more draws tighten it |
# | a prior with them, or both | `DSIVI(num_mixing=50, num_prior_mixing=500)` |
# | a program for the mixing variables given the latent | `IWHVI`: tighter with few draws |
# | a guide whose gradient shall not depend on J | `UIVI`: slower, by a short Hamiltonian chain |
# | a draw of the latent with no density at all | `AVB`, see tutorial 03 |
#
# Any of the first three takes `num_particles=K` to importance-weight the bound: it then rises to
# $\log p(x)$ with K.
