"""Discriminators: shapes, start, gradients, and the log-ratio that they learn."""

from collections.abc import Callable
from copy import deepcopy

import pyro.distributions as dist
import pytest
import torch
from explained import explained
from torch import Tensor
from torch.nn.functional import softplus

from pyro_lvm.errors import DataError, ProgramError
from pyro_lvm.nn import ConvEncoder, Discriminator

pytestmark = pytest.mark.usefixtures("float64")

MAKE: dict[str, Callable[..., Discriminator]] = {
    "plain": Discriminator,
    "residual": lambda *sizes, **k: Discriminator(*sizes, num_blocks=2, **k),
    "no-quadratic": lambda *sizes, **k: Discriminator(*sizes, quadratic=False, **k),
    "spectral-norm": lambda *sizes, **k: Discriminator(*sizes, spectral_norm=True, **k),
}
every_kind = pytest.mark.parametrize("make", MAKE.values(), ids=MAKE)


@every_kind
def test_logits_have_the_shape_of_the_draws(make: Callable[..., Discriminator]) -> None:
    T, z, context = make(2, 3, hidden=(8,)), torch.randn(7, 4, 5, 2), torch.randn(5, 3)
    T(z, context)
    together = T.eval()(z, context)
    assert together.shape == (7, 4, 5)
    torch.testing.assert_close(together[2, 1, 3], T(z[2, 1, 3], context[3]))
    assert make(2, hidden=(8,))(z).shape == (7, 4, 5)


@every_kind
@pytest.mark.parametrize("context_features", [None, 3])
def test_start_and_gradients(
    make: Callable[..., Discriminator], context_features: int | None
) -> None:
    """Near 0, so that the first log-ratio is that of equal densities; and every part learns."""
    T = make(2, context_features)
    z, context = torch.randn(40, 50, 2), context_features and torch.randn(50, context_features)
    logits = T(z, context)
    assert logits.abs().max() < 0.05  # densities alike to 5 %
    for gradient in torch.autograd.grad(logits.square().sum(), [*T.parameters()]):
        assert (gradient != 0).any()


@every_kind
def test_a_copy_and_a_state_give_the_same_logits(make: Callable[..., Discriminator]) -> None:
    T, z, context = make(2, 3, hidden=(8, 8)).eval(), torch.randn(5, 2), torch.randn(5, 3)
    loaded = make(2, 3, hidden=(8, 8)).eval()
    loaded.load_state_dict(T.state_dict())
    for other in (deepcopy(T), loaded):
        assert torch.equal(other(z, context), T(z, context))


def test_context_runs_once_a_datum() -> None:
    T, rows = Discriminator(2, 3), []
    T.context.register_forward_hook(lambda _, x, y: rows.append(tuple(x[0].shape)))
    T(torch.randn(7, 5, 2), torch.randn(5, 3))
    assert rows == [(5, 3)]


def test_any_kind_of_number_is_context() -> None:
    T, z = Discriminator(2, 3), torch.randn(4, 2)
    ones = torch.ones(4, 3)
    for context in (ones.float(), ones.long(), ones.numpy(force=True), ones.tolist()):
        assert torch.equal(T(z, context), T(z, ones))


def test_logits_are_wide_under_autocast() -> None:
    T = Discriminator(2, 3).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert T(torch.randn(4, 2).float(), torch.randn(4, 3)).dtype == torch.float32


def test_spectral_norm_bounds_the_hidden_layers_alone() -> None:
    T = Discriminator(2, 3, (8, 8), num_blocks=1, spectral_norm=True)
    for _ in range(200):
        T(torch.randn(5, 2), torch.randn(5, 3))
    normed = [m for m in T.features.modules() if isinstance(m, torch.nn.Linear)]
    assert len(normed) == 4
    for layer in normed:
        assert abs(torch.linalg.matrix_norm(layer.weight, 2) - 1) < 1e-3
    assert torch.linalg.matrix_norm(T.readout.weight, 2) < 0.1


def test_the_quadratic_part_is_exact_between_normals() -> None:
    """log N(m, s) - log N(0, 1), with s above 1 and below: no network is needed for it."""
    T, mean, scale = Discriminator(2, 1), torch.tensor([0.3, -1.0]), torch.tensor([0.2, 3.0])
    slopes = [mean / scale**2, 0.5 - 0.5 / scale**2]
    with torch.no_grad():
        for parameter in [*T.context[-1].parameters(), *T.readout.parameters()]:
            parameter.zero_()
        T.readout.weight[0, -4:] = torch.cat(slopes)
        T.readout.bias.copy_((-0.5 * (mean / scale) ** 2 - scale.log()).sum())
    z = 10 * torch.randn(100, 2)
    exact = (dist.Normal(mean, scale).log_prob(z) - dist.Normal(0.0, 1.0).log_prob(z)).sum(-1)
    torch.testing.assert_close(T(z, torch.zeros(1)), exact)


def test_logistic_regression_gives_the_log_ratio() -> None:
    """Normals of given x against a standard one; ratios of -2.7 to 2.1 nats on the grid."""

    def q(x: Tensor) -> dist.TorchDistribution:
        return dist.Normal(torch.cat([x, -x], -1), torch.tensor([0.5, 0.7])).to_event(1)

    p = dist.Normal(torch.zeros(2), 1.0).to_event(1)
    T = Discriminator(2, 1, hidden=(24, 24))
    optimizer = torch.optim.Adam(T.parameters(), 5e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 1000)
    for _ in range(1000):
        x = 2 * torch.rand(256, 1) - 1
        loss = softplus(-T(q(x).sample(), x)).mean() + softplus(T(p.sample((256,)), x)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    x = torch.tensor([[-0.8], [0.0], [0.8]])
    steps = torch.linspace(-2, 2, 9)
    grid = torch.cartesian_prod(steps, steps)[:, None] * q(x).base_dist.scale + q(x).mean
    exact = q(x).log_prob(grid) - p.log_prob(grid)
    error = (T(grid, x) - exact).abs()
    assert error.mean() < 0.12, error.mean()
    assert error.max() < 0.5, error.max()


def test_inputs_of_another_size() -> None:
    T, alone, z = Discriminator(2, 3), Discriminator(2), torch.zeros(5, 2)
    with explained(
        ProgramError, "z of a discriminator", "2 features", "4", "with latent_features, the size"
    ):
        T(torch.zeros(5, 4), torch.zeros(5, 3))
    with explained(
        ProgramError, "context of a", "3 features", "2", "with context_features, the size"
    ):
        T(z, torch.zeros(5, 2))
    with explained(ProgramError, "context of a", "3 features", "none", "context_features"):
        T(z)
    with explained(ProgramError, "context of a", "no features", "2", "context_features"):
        alone(z, z)


def test_wrong_arguments() -> None:
    with explained(ProgramError, "latent_features", "an integer >= 1", "0", "Check"):
        Discriminator(0)
    with explained(ProgramError, "context_features", "an integer >= 1", "0", "Check"):
        Discriminator(2, 0)
    with explained(ProgramError, "hidden", "at least one size", "()", "hidden=(256, 256)"):
        Discriminator(2, hidden=())


# The convolutional encoder.


@pytest.mark.parametrize(("width", "features"), [(8, 24), (7, 24), (28, 6 * 49)])
def test_convolutions_of_rows_and_of_pictures(width: int, features: int) -> None:
    encoder, x = ConvEncoder(width, 2, channels=(4, 6)), torch.randn(5, 2, width, width)
    assert encoder(x).shape == (5, encoder.out_features) == (5, features)
    assert torch.equal(encoder(x.flatten(1)), encoder(x))


def test_pictures_of_another_size() -> None:
    with explained(DataError, "x", "pictures of 1 x 8 x 8 numbers", "(5, 63)", "Check width"):
        ConvEncoder(8)(torch.zeros(5, 63))
