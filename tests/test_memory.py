"""One step runs the encoder once per datum; only what depends on the latents grows with K."""

from collections.abc import Iterator
from contextlib import contextmanager

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from pyro_lvm.objectives import ELBO, IWAE

BATCH, PIXELS, HIDDEN, LATENT = 6, 64, 32, 2
FLOAT = 4  # bytes
CASES = [
    (ELBO, "reparam"),
    (ELBO, "stl"),
    (ELBO, "dreg"),
    (ELBO, "score"),
    (IWAE, "reparam"),
    (IWAE, "dreg"),
    (IWAE, "score"),
    (IWAE, "vimco"),
]
each_objective = pytest.mark.parametrize(
    ("objective", "gradient"), CASES, ids=[f"{o.__name__}-{g}" for o, g in CASES]
)


def network(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, outputs))


class VAE:
    """A Pyro model and guide over plain networks, whose every input shape is recorded."""

    def __init__(self) -> None:
        self.encoder, self.decoder = network(PIXELS, 2 * LATENT), network(LATENT, PIXELS)
        self.inputs: dict[nn.Module, list[tuple[int, ...]]] = {self.encoder: [], self.decoder: []}
        for module, shapes in self.inputs.items():
            module.register_forward_hook(
                lambda _, args, __, shapes=shapes: shapes.append(tuple(args[0].shape))
            )

    def model(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(LATENT), 1.0).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=self.decoder(z)).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        loc, log_scale = self.encoder(x).chunk(2, -1)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))


@contextmanager
def saved_storages() -> Iterator[dict[int, int]]:
    """Bytes of each storage that autograd keeps for the backward pass."""
    saved: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        yield saved


def kept_for_backward(vae: VAE, objective: type, gradient: str, num_particles: int) -> int:
    x = torch.rand(BATCH, PIXELS).round()
    loss = objective(num_particles, gradient, max_plate_nesting=1)
    with saved_storages() as saved:
        value = loss.differentiable_loss(vae.model, vae.guide, x)
    assert value.requires_grad
    return sum(saved.values())


@each_objective
def test_the_encoder_runs_once_on_unexpanded_data(objective: type, gradient: str) -> None:
    vae = VAE()
    kept_for_backward(vae, objective, gradient, num_particles=5)
    assert vae.inputs == {vae.encoder: [(BATCH, PIXELS)], vae.decoder: [(5, BATCH, LATENT)]}


@each_objective
def test_memory_grows_with_the_latents_alone(objective: type, gradient: str) -> None:
    """Per particle: the decoder's hidden layer and logits, and a few tensors like z."""
    vae = VAE()
    few, many = (kept_for_backward(vae, objective, gradient, k) for k in (4, 12))
    decoder = BATCH * (HIDDEN + PIXELS) * FLOAT
    like_z = BATCH * LATENT * FLOAT
    per_particle = (many - few) / 8
    assert decoder < per_particle <= decoder + 12 * like_z
    assert 12 * like_z < BATCH * HIDDEN * FLOAT  # one more copy of any network's layer shows
