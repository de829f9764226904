# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Few labels
#
# Data are plenty and labels are not. A deep generative model takes both: what is known of a
# label enters as an observation, what is not is one more latent variable. This tutorial trains
# one on digits of which 100 have a label, asks what the other digits were worth, and whether the
# classifier knows how sure it may be. Then it turns the question around: what do labels do to the
# *encoder* of a model, and when does that matter?
#
# Set the environment variable `PYRO_LVM_SMOKE=1` to run it all in seconds, with numbers that mean
# nothing.

# %%
import os

import matplotlib.pyplot as plt
import pyro
import torch
from torch import nn
from torch.distributions import kl_divergence
from torch.nn.functional import cross_entropy

from pyro_lvm.data import digits
from pyro_lvm.distributions import GaussianLikelihood
from pyro_lvm.guides import AmortizedNormal, AuxiliaryNormal, WithoutLabels
from pyro_lvm.models import SDGM, FactorAnalysis, SupervisedVAE
from pyro_lvm.nn import MLP
from pyro_lvm.objectives import ELBO, IWAE, SecondOrderELBO

SMOKE = os.environ.get("PYRO_LVM_SMOKE", "0") != "0"
DIGIT_STEPS, LINEAR_STEPS = (3, 3) if SMOKE else (1500, 800)

torch.set_num_threads(1)  # the networks are small
pyro.settings.set(module_local_params=True)
plt.rcParams.update({"figure.dpi": 80, "figure.constrained_layout.use": True})


def minimise(module, batch, steps, lr):
    """Adam; the rate falls to 0 over the second half."""
    optimiser = torch.optim.Adam([p for p in module.parameters() if p.requires_grad], lr)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda s: min(1, 2 - 2 * s / steps))
    for _ in range(steps):
        optimiser.zero_grad()
        x, y = batch()
        (module(x, y) / len(x)).backward()
        optimiser.step()
        schedule.step()


# %% [markdown]
# ## One hundred digits with a label
#
# Ten of each class, at random. A label that is not known is -1. Each step takes all the labelled
# digits and a hundred others, binarised anew.

# %%
pyro.set_rng_seed(10)
data = digits(num_validation=0)
x, truth = data.train.flatten(1), data.labels["train"]
known = torch.cat([(truth == c).nonzero()[torch.randperm(100)[:10], 0] for c in range(10)])
y = torch.full_like(truth, -1)
y[known] = truth[known]


def batch():
    rows = torch.cat([known, torch.randint(len(x), (100,))])
    unlabelled = torch.full((100,), -1)
    return data.transform(x[rows]), torch.cat([y[known], unlabelled])


class OfLabels(nn.Module):
    """The baseline: a network that sees the labelled digits only."""

    def __init__(self):
        super().__init__()
        self.network = MLP(64, 10, (100, 100))

    def forward(self, x, y):
        return len(x) * cross_entropy(self.network(x)[y >= 0], y[y >= 0])


baseline = OfLabels()
minimise(baseline, batch, DIGIT_STEPS, 3e-3)

# %% [markdown]
# The model is a skip deep generative model: a label, two latent layers, a picture. Its guide has
# a classifier $q(y \mid x)$, which draws the labels that are not known. No bound trains the
# classifier on the known ones, so `classifier_weight` adds their log-probability; 0.1 times data
# over labels is the papers' choice.

# %%
sizes = {"latent_features": 4, "auxiliary_features": 4, "hidden": (100,), "num_classes": 10}
model = SDGM(64, **sizes)
guide = AuxiliaryNormal(
    in_features=64,
    classifier_weight=0.1 * len(x) / len(known),
    context_features=100,
    conditional_hidden=(100,),
    **sizes,
)
minimise(ELBO(5, "score")(model, guide), batch, DIGIT_STEPS, 3e-3)
guide = guide.eval()

# %% [markdown]
# There are two ways to ask the trained model which digit it sees. The guide's classifier answers
# at once. Or Bayes' rule: for each of the ten labels a bound on $\log p(x, y)$, with that label
# passed as known; the differences of the ten are the log-odds.


# %%
@torch.no_grad()
def by_bounds(x):
    labels = [torch.full((len(x),), c) for c in range(10)]
    return torch.stack([IWAE(50).bound(model, guide, x, c) for c in labels], -1).softmax(-1)


test, test_truth = data.test.flatten(1), data.labels["test"]
with torch.no_grad():
    answers = {
        "labels alone": baseline.network(test).softmax(-1),
        "SDGM, classifier": guide.classify(test),
        "SDGM, Bayes' rule": by_bounds(test),
    }
for name, probabilities in answers.items():
    wrong = probabilities.argmax(-1) != test_truth
    print(f"{name:18s} error {100 * wrong.float().mean():4.1f} %")

# %% [markdown]
# The other 1300 digits are worth three of the sixteen points. That is one draw of the labels; the
# benchmark page `benchmarks/results/hierarchical.md` has three, with 4 points on the mean, and what
# it took: latents small enough that the label has something left to explain.

# %% [markdown]
# ## How sure, and rightly?
#
# Sort the test digits by the probability of the answer that is given, in five groups of equal
# size. In a calibrated group that probability is the share of right answers: points on the
# diagonal. Below it, the answers are too sure of themselves.

# %%
figure, axes = plt.subplots(figsize=(4.6, 4.2))
axes.plot([0, 1], [0, 1], color="grey", linewidth=1)
for name, probabilities in answers.items():
    confidence, answer = probabilities.max(-1)
    groups = confidence.argsort().tensor_split(5)
    sure = torch.stack([confidence[group].mean() for group in groups])
    right = torch.stack([(answer == test_truth)[group].float().mean() for group in groups])
    axes.plot(sure, right, "o-", label=name)
    gap = (confidence.mean() - (answer == test_truth).float().mean()).item()
    print(f"{name:18s} mean probability of the answer minus share of right ones {gap:+.3f}")
axes.set(xlabel="probability of the answer", ylabel="share of right answers", xlim=(0.2, 1.01))
legend = axes.legend()

# %% [markdown]
# All three are a little too sure, the generative model less than the baseline, most of all where
# they say "nine in ten" or "six in ten". Where they are certain they are right. So the order can be
# trusted (ask a person about the lowest fifth first), the middle probabilities not quite.

# %% [markdown]
# ## What labels do to an encoder
#
# Now every row has a label, and the latents are to predict it. The plain way is to put the label
# into the model, $p(z)\, p(x \mid z)\, p(y \mid z)$, and to train by the ELBO with a guide that
# sees $x$ only: a supervised VAE. Labels then train the guide as well. It becomes a good
# predictor, and a bad posterior: its latents know things that the model, given $x$, does not say.
# Whoever reads the decoder to learn what a latent means reads about other latents.
#
# Second-order supervision lets the labels move the *model*: `SecondOrderELBO` asks how the label's
# log-probability would change if the guide took one step after a change of the model. The guide
# itself follows the data alone. Both take the same two programs; the objective is what is swapped.
#
# In a linear model the truth is known. Eight features come from three factors, the label from the
# weakest of them, and the model has two latents only.

# %%
torch.set_default_dtype(torch.float64)
pyro.set_rng_seed(11)
loading = torch.randn(8, 3) * torch.tensor([0.8, 0.7, 0.4])


def rows(size=1000):
    z = torch.randn(size, 3)
    return z @ loading.T + 0.7 * torch.randn(size, 8), z[:, 2] + 0.3 * torch.randn(size)


train_rows, test_rows = rows(), rows()


def supervised(objective, label_weight):
    """A trained model and its encoder."""
    model = SupervisedVAE(
        FactorAnalysis(8, 2),
        GaussianLikelihood(1),
        latent_features=2,
        label_weight=label_weight,
    )
    encoder = AmortizedNormal(in_features=8, latent_features=2, hidden=(), covariance="full")
    loss = objective(model, WithoutLabels(encoder))
    minimise(loss, lambda: train_rows, LINEAR_STEPS, 1e-2)
    return model, encoder


trained = {
    "supervised VAE": supervised(ELBO(4), 10.0),
    "SOS-VAE": supervised(SecondOrderELBO(4, "stl", step_size=0.02), 100.0),
}

# %% [markdown]
# The exact posterior of each trained model says what its encoder should have said. Below, the
# label as predicted from the encoder's mean, against the same from the posterior's mean.

# %%
figure, both = plt.subplots(1, 2, figsize=(8, 4), sharex=True, sharey=True)
x, y = test_rows
both[0].set_ylabel("label by the encoder")
for axes, (name, (model, encoder)) in zip(both, trained.items(), strict=True):
    with torch.no_grad():
        found, exact = encoder.posterior(x)["z"], model.model.posterior(x)
        by_encoder, by_posterior = (model.predict(q.mean).mean[:, 0] for q in (found, exact))
        divergence = kl_divergence(found, exact).mean()
    axes.plot(by_posterior, by_encoder, ".", markersize=2)
    axes.axline((0, 0), slope=1, color="grey", linewidth=1)
    axes.set(title=f"{name}: KL {divergence:.3f} nats", xlabel="label by the exact posterior")
    for how, label in (("encoder", by_encoder), ("exact posterior", by_posterior)):
        r2 = 1 - (label - y).square().mean() / y.var()
        print(f"{name:15s} R2 of the label by the {how:15s} {r2:.2f}")

# %% [markdown]
# The supervised VAE's encoder predicts the label with twice the R2 that its own model, read by
# Bayes' rule, stands for. The encoder of the SOS-VAE says what its model says. Which one to take
# depends on what it is for: to predict, the first is better; to read the latents, to simulate, or
# to plan an experiment with the model, the second.
#
# It is not free. The label's pull arrives weakened by the one step, so its weight has to be larger,
# and log p(x) falls: `benchmarks/results/supervised.md` has the numbers, three seeds, and how far
# one step is from the limit of many.
