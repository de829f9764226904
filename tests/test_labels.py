"""Known, drawn and summed labels of an auxiliary model: one evidence, whatever the objective."""

from math import log

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

from pyro_lvm.errors import PyroLVMError
from pyro_lvm.guides import AuxiliaryNormal
from pyro_lvm.models import ADGM
from pyro_lvm.objective import Objective
from pyro_lvm.objectives import (
    CIWAE,
    CUBO,
    ELBO,
    IWAE,
    MIWAE,
    PIWAE,
    TVO,
    AlphaDivergence,
    Renyi,
    ReweightedWakeSleep,
)

CLASSES = 3
LABELS = torch.tensor([0, 1, 2, -1, -1, -1])
BOUNDS: list[Objective] = [
    ELBO(),
    IWAE(10),
    MIWAE(10, num_groups=2),
    CIWAE(10),
    PIWAE(10, num_groups=2),
    Renyi(10, alpha=0.5),
    TVO(10),
]
DRAWN: list[Objective] = [
    ELBO(4, "score"),
    IWAE(4, "vimco"),
    IWAE(4, "ovis"),
    MIWAE(4, "score", num_groups=2),
    CIWAE(4, "vimco"),
    Renyi(4, "score"),
    TVO(4),
    CUBO(4),
    AlphaDivergence(4),
    ReweightedWakeSleep(4),
]
SUMMED: list[Objective] = [
    *DRAWN,
    ELBO(4, "stl"),
    IWAE(4, "dreg"),
    MIWAE(4, "dreg", num_groups=2),
    PIWAE(4, "dreg", num_groups=2),
    Renyi(4, "dreg"),
    CUBO(4, "dreg"),
    AlphaDivergence(4, "dreg"),
    ReweightedWakeSleep(4, "dreg"),
]


def programs(way: str) -> tuple[ADGM, AuxiliaryNormal]:
    """A linear decoder; labels "drawn" by the guide or "summed" out of the model."""
    summed = way == "summed"
    model = ADGM(2, 1, 1, (), "gaussian", num_classes=CLASSES, enumerate_labels=summed)
    guide = AuxiliaryNormal(
        in_features=2,
        latent_features=1,
        auxiliary_features=1,
        hidden=(5,),
        context_features=5,
        conditional_hidden=(5,),
        num_classes=None if summed else CLASSES,
        classifier_weight=0.0 if summed else 1.0,
    )
    return model, guide


def exact_evidence(model: ADGM, x: Tensor) -> Tensor:
    """log p(x, y) of known labels, log p(x) of the others, a mixture of Normals."""
    layer = model.decoder.layers[0]
    of_z, of_y = layer.weight[:, :1], layer.weight[:, 1:]  # (2, 1), (2, C)
    covariance = of_z @ of_z.T + torch.diag(model.likelihood.noise_scale**2)
    normals = dist.MultivariateNormal((of_y.T + layer.bias).unsqueeze(1), covariance)
    joint = normals.log_prob(x) - log(CLASSES)  # (C, B)
    known = joint[LABELS.clamp(min=0), torch.arange(len(x))]
    return torch.where(LABELS >= 0, known, joint.logsumexp(0)).detach()


def train(guide: AuxiliaryNormal, module: nn.Module, x: Tensor) -> None:
    """The guide alone, so that weights have a variance."""
    adam = torch.optim.Adam(guide.parameters(), 0.05)
    for _ in range(120):
        adam.zero_grad()
        module(x, LABELS).backward()
        adam.step()


@pytest.mark.parametrize("way", ["drawn", "summed"])
def test_every_bound_of_a_mixed_batch_is_one_of_the_exact_evidence(way, float64) -> None:
    model, guide = programs(way)
    with torch.no_grad():
        x = model(size=len(LABELS))
    exact = exact_evidence(model, x)
    # By fewer draws than 32 a guide may all but drop a label, and the mean needs that label.
    train(guide, IWAE(32, "vimco" if way == "drawn" else "dreg")(model, guide), x)
    weights = IWAE(20_000).log_weights(model, guide.eval(), x, LABELS)
    ratio = (weights - exact).exp()
    error = ratio.std(0) / len(ratio) ** 0.5
    assert ((ratio.mean(0) - 1).abs() < 4 * error).all()
    assert (error < 0.2).all()
    for objective in BOUNDS:
        values = objective.bound_per_datum(weights.unflatten(0, (objective.num_particles, -1)))
        below = (exact - values.mean(0)) / (values.std(0) / len(values) ** 0.5)
        assert (below > -4).all(), objective


@pytest.mark.parametrize(
    ("way", "objective"),
    [*(("drawn", each) for each in DRAWN), *(("summed", each) for each in SUMMED)],
    ids=str,
)
def test_every_parameter_learns_from_a_mixed_batch(way: str, objective: Objective) -> None:
    module = objective(*programs(way))
    module(torch.randn(len(LABELS), 2), LABELS).backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert 0 < parameter.grad.abs().sum() < torch.inf, name


@pytest.mark.parametrize("objective", [ELBO(), IWAE(4, "dreg")], ids=str)
def test_drawn_labels_have_no_path(objective: Objective) -> None:
    with pytest.raises(PyroLVMError, match="site 'y_unobserved'"):
        objective.differentiable_loss(*programs("drawn"), torch.randn(6, 2), LABELS)
