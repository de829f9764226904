"""pythae's IWAE on the same networks, where pythae is installed.

Its loss is per datum and its value is no bound; its gradient, times the batch, is that of the
importance-weighted bound.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["NAME", "is_installed", "make", "steps"]

NAME = "pythae"
Step = Callable[[], float]


def is_installed() -> bool:
    return find_spec("pythae") is not None


def steps(networks: nn.ModuleDict, x: Tensor) -> dict[str, Callable[[int], Step]]:
    """The column of pythae: from K to its step; none where it is not installed."""
    return {NAME: lambda num_particles: _step(networks, x, num_particles)} if is_installed() else {}


def _step(networks: nn.ModuleDict, x: Tensor, num_particles: int) -> Step:
    vae = make(networks, x, num_particles)

    def step() -> float:
        vae.zero_grad(set_to_none=True)
        loss = vae({"data": x}).loss
        loss.backward()
        return float(loss.detach())

    return step


def make(networks: nn.ModuleDict, x: Tensor, num_particles: int) -> nn.Module:
    """pythae's model around ``networks["encoder"]`` and ``networks["decoder"]``."""
    from pythae.models import IWAE, IWAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder

    class Encoder(BaseEncoder):
        def __init__(self) -> None:
            super().__init__()
            self.network = networks["encoder"]

        def forward(self, x: Tensor) -> Any:
            loc, log_scale = self.network(x).chunk(2, -1)
            return ModelOutput(embedding=loc, log_covariance=2 * log_scale)

    class Decoder(BaseDecoder):
        def __init__(self) -> None:
            super().__init__()
            self.network = networks["decoder"]

        def forward(self, z: Tensor) -> Any:
            return ModelOutput(reconstruction=torch.sigmoid(self.network(z)))

    latent = networks["decoder"][0].in_features
    config = IWAEConfig(
        input_dim=(x.shape[1],),
        latent_dim=latent,
        number_samples=num_particles,
        reconstruction_loss="bce",
    )
    vae: nn.Module = IWAE(config, Encoder(), Decoder())
    return vae
