"""Networks in bfloat16, densities and weights in float32."""

from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from exact_models import EXPLICIT
from pyro.nn import PyroModule
from seeded import seeded
from torch import Tensor, nn

from pyro_lvm import fit
from pyro_lvm.objectives import ELBO, IWAE
from pyro_lvm.training.precision import InFloat32, widened

pytestmark = pytest.mark.not_simulated(reason="autocast does not know it")

PIXELS, LATENT, U = 12, 2, 2.0**-8  # the rounding of 8 significant bits

X = seeded(torch.rand, 20, PIXELS).round()


class Model(PyroModule):
    """Networks of torch's own, whose outputs autocast leaves in bfloat16."""

    def __init__(self) -> None:
        super().__init__()
        self.decoder = nn.Linear(LATENT, PIXELS)

    def forward(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(LATENT), 1.0).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=self.decoder(z)).to_event(1), obs=x)


class Guide(PyroModule):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(PIXELS, 2 * LATENT)

    def forward(self, x: Tensor) -> None:
        loc, log_scale = self.encoder(x).chunk(2, -1)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))


def programs() -> tuple[Model, Guide]:
    torch.manual_seed(0)
    return Model(), Guide()


def drawn(model: Model, guide: Guide, is_half: bool) -> Any:
    """Five particles from fixed noise."""
    torch.manual_seed(1)
    with (
        torch.autocast(torch.get_default_device().type, torch.bfloat16, enabled=is_half),
        InFloat32(),
    ):
        return ELBO(5).particles(model, guide, X)


def rounding(model: Model, guide: Guide, z: Tensor) -> Tensor:
    """First-order bound on the error of log-weights ``(K, B)`` at latents ``z`` ``(K, B, L)``.

    A product of matrices rounds its inputs (0 and 1 are exact), its bias and its output, by U
    each. A logit moves log p by at most its own error.
    """
    encoder, decoder = guide.encoder, model.decoder
    size = X @ encoder.weight.abs().mT + encoder.bias.abs()
    loc, log_scale = (U * (size + encoder(X).abs())).chunk(2, -1)
    scale_error = log_scale + U  # relative, with the rounding of exp
    mean, _ = encoder(X).chunk(2, -1)
    moved = loc + (z - mean).abs() * scale_error  # of z, at fixed noise
    logits = U * (2 * z.abs() @ decoder.weight.abs().mT + decoder.bias.abs() + decoder(z).abs())
    logits = logits + moved @ decoder.weight.abs().mT
    return (logits.sum(-1) + (z.abs() * moved).sum(-1) + scale_error.sum(-1)).detach()


def test_densities_are_those_of_the_rounded_parameters() -> None:
    """The same numbers, scored in float64."""
    particles = drawn(*programs(), is_half=True)
    for site in [*particles.model.values(), *particles.guide.values()]:
        parameters = {"loc", "scale", "logits"} & vars(site.fn.base_dist).keys()
        exact = {name: getattr(site.fn.base_dist, name).double() for name in parameters}
        value = site.value.double()
        score = type(site.fn.base_dist)(**exact).log_prob(value).sum(-1)
        part = particles.parts[site.name]
        found = part.log_q if site in particles.guide.values() else part.log_p
        torch.testing.assert_close(found.double(), score.expand_as(found), rtol=1e-5, atol=1e-5)


def test_log_weights_move_by_the_rounding_of_networks() -> None:
    model, guide = programs()
    exact, found = (drawn(model, guide, is_half) for is_half in (False, True))
    error = (found.log_weights - exact.log_weights).abs()
    assert found.log_weights.dtype == torch.float32
    assert error.max() > 0
    assert (error <= 1.1 * rounding(model, guide, exact.values["z"])).all(), "10 % of second order"


@pytest.mark.parametrize("objective", [ELBO(), IWAE(5, "dreg")])
def test_fit_reports_the_loss_of_float32(objective: Any) -> None:
    """At the first step, where noise and parameters are the same; a bound moves no more than
    the log-weight that moves most. Gradients are float32 and within a few roundings."""
    settings: dict[str, Any] = {"max_steps": 1, "batch_size": None, "optimizer": "sgd"}
    settings |= {"lr": 1.0, "accelerator": "cpu", "diagnostic_particles": 0, "validation": X}
    losses, bounds, updates = [], [], []
    for precision in ("32-true", "bf16-mixed"):
        model, guide = programs()
        before = [p.detach().clone() for p in (*model.parameters(), *guide.parameters())]
        result = fit(model, guide, X, objective, precision=precision, **settings)
        after = [*model.parameters(), *guide.parameters()]
        assert all(p.dtype == p.grad.dtype == torch.float32 for p in after if p.grad is not None)
        updates.append(torch.cat([(p - q).flatten() for p, q in zip(after, before)]))
        losses.append(result.history["loss"][0])
        bounds.append(result.history["bound"][-1])
    z = drawn(*programs(), is_half=False).values["z"]
    tolerance = 1.1 * rounding(*programs(), z).amax(0).mean().item()
    assert losses[1] == pytest.approx(losses[0], abs=tolerance)
    assert losses[1] != losses[0]
    assert bounds[1] == pytest.approx(bounds[0], abs=2 * tolerance)
    assert (updates[1] - updates[0]).norm() < 10 * U * updates[0].norm()


@pytest.mark.parametrize("cls", EXPLICIT)
def test_every_objective_takes_it(cls: Any) -> None:
    settings: dict[str, Any] = {"max_steps": 3, "batch_size": 10, "log_every": 1}
    objective = cls(max(2, cls.min_particles))
    result = fit(*programs(), X, objective, precision="bf16-mixed", accelerator="cpu", **settings)
    assert torch.tensor(result.history["loss"]).isfinite().all()


NARROW = torch.tensor([0.3, -0.2, 0.1], dtype=torch.bfloat16)


@pytest.mark.parametrize(
    "fn",
    [
        dist.LogNormal(NARROW, NARROW.exp()),
        dist.Categorical(logits=NARROW),
        dist.Gamma(NARROW.exp(), 1.0).to_event(1),
        dist.NegativeBinomial(NARROW.exp(), logits=NARROW),
        dist.Delta(NARROW),
        dist.Normal(NARROW, 1.0).mask(False),
        dist.MixtureSameFamily(dist.Categorical(logits=NARROW), dist.Normal(NARROW, 1.0)),
        dist.TransformedDistribution(
            dist.Normal(0.0, 1.0), [dist.transforms.AffineTransform(NARROW, NARROW.exp())]
        ),
    ],
    ids=lambda fn: type(fn).__name__,
)
def test_any_distribution_is_widened(fn: Any) -> None:
    wide = widened(fn)
    value = wide.sample()
    assert wide.log_prob(value).dtype == torch.float32
    assert value.dtype in (torch.float32, torch.long)
    assert type(wide) is type(fn)
    assert wide.has_rsample == fn.has_rsample
    assert widened(wide) is wide, "what is wide already is left as it is"


def test_all_in_float64() -> None:
    """The first look and the last evaluation too, which do not go through Fabric's wrapper."""
    settings: dict[str, Any] = {"max_steps": 3, "batch_size": 10, "progress": False}
    model, guide = programs()
    result = fit(model, guide, X, ELBO(), precision="64-true", validation=0.5, **settings)
    assert {p.dtype for p in [*model.parameters(), *guide.parameters()]} == {torch.float64}
    assert result.history["bound"][-1] is not None
