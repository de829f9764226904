"""What a guide's bound lacks, and to which part of the guide that is due."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm  # type: ignore[import-untyped, unused-ignore]

from pyro_lvm.diagnostics.chunks import check_count
from pyro_lvm.diagnostics.evidence import LogEvidence, log_evidence
from pyro_lvm.diagnostics.local_guide import LocalGuide
from pyro_lvm.diagnostics.thresholds import MAX_TOTAL_VARIATION, total_variation
from pyro_lvm.diagnostics.verdict import Status, Verdict
from pyro_lvm.objectives import ELBO
from pyro_lvm.shared_plates import OneMinibatch

__all__ = ["AmortizationGap", "amortization_gap"]

Program = Callable[..., Any]

_NUM_PARTICLES = 10  # draws a datum in each step
_ADVICE = {
    "encoder": "The encoder is what lacks: train on, make it larger, or use SemiAmortized.",
    "family": "The family is what lacks: try covariance='full', AmortizedFlow or AuxiliaryNormal.",
}


@dataclass(frozen=True)
class AmortizationGap:
    r"""How far a guide's ELBO is below log p(x), in two parts.

    .. math:: \log p(x) - \mathrm{ELBO} =
        \underbrace{\log p(x) - \mathrm{ELBO}^*}_{\text{approximation}} +
        \underbrace{\mathrm{ELBO}^* - \mathrm{ELBO}}_{\text{amortization}}

    with :math:`\mathrm{ELBO}^*` of parameters optimised for each datum alone.

    Attributes:
        encoder: estimates by draws of the guide as it is.
        local: estimates by draws of the guide with parameters of each datum's own.
        evidence: log p(x); an estimate from below, so that the approximation gap is at least
            what is said, up to its standard error.
        guide: with the optimised parameters; for these data only.
        history: ``(num_steps,)`` nats, the mean ELBO over data in each step.

    Example:
        A guide that is the posterior lacks nothing.

        >>> from pyro_lvm.oracles import LinearGaussian
        >>> oracle = LinearGaussian(torch.ones(2, 1), torch.ones(2))
        >>> gap = amortization_gap(oracle.model, oracle.exact_guide, torch.randn(3, 2), num_steps=1)
        >>> gap.verdict().status
        <Status.PASS: 'pass'>
    """

    encoder: LogEvidence
    local: LogEvidence
    evidence: LogEvidence
    guide: LocalGuide
    history: Tensor

    @property
    def total(self) -> Tensor:
        """``(*batch,)`` nats: KL(q || posterior) of the guide."""
        return self.evidence.value - self.encoder.mean_log_weight

    @property
    def approximation(self) -> Tensor:
        """``(*batch,)`` nats that the best member of the family lacks."""
        return self.evidence.value - self.local.mean_log_weight

    @property
    def amortization(self) -> Tensor:
        """``(*batch,)`` nats that the encoder lacks to the best member of the family."""
        return self.local.mean_log_weight - self.encoder.mean_log_weight

    @property
    def amortization_error(self) -> Tensor:
        """``(*batch,)`` nats, Monte Carlo standard error of :attr:`amortization`."""
        return torch.hypot(self.local.mean_log_weight_error, self.encoder.mean_log_weight_error)

    def summary(self) -> dict[str, float]:
        """Means over data, nats, by name; the error is that of the draws."""
        error = self.amortization_error
        return {
            "gap": self.total.mean().item(),
            "approximation_gap": self.approximation.mean().item(),
            "amortization_gap": self.amortization.mean().item(),
            "amortization_gap_error": (error.square().sum().sqrt() / error.numel()).item(),
            "amortization_gap_max": self.amortization.max().item(),
            "khat_high": self.evidence.khat_share,
        }

    def verdict(self) -> Verdict:
        """Whether the whole gap is small, and which part is the larger one."""
        told = self.summary()
        finding = (
            f"the ELBO is {told['gap']:.2g} nats per datum below log p(x): "
            f"{told['approximation_gap']:.2g} by the family and {told['amortization_gap']:.2g} "
            f"± {told['amortization_gap_error']:.1g} by the encoder."
        )
        if total_variation(told["gap"]) <= MAX_TOTAL_VARIATION:
            return Verdict("amortization", Status.PASS, finding)
        larger = told["amortization_gap"] > told["approximation_gap"]
        return Verdict(
            "amortization", Status.WARN, finding, _ADVICE["encoder" if larger else "family"]
        )


def amortization_gap(
    model: Program,
    guide: Program,
    *args: Any,
    num_steps: int = 500,
    learning_rate: float = 0.05,
    num_samples: int = 1000,
    evidence: LogEvidence | None = None,
    **kwargs: Any,
) -> AmortizationGap:
    r"""Split the gap of a guide into what its family and what its encoder lacks.

    Every distribution of the guide gets parameters of each datum's own, which start at the
    encoder's output (:class:`~pyro_lvm.diagnostics.local_guide.LocalGuide`) and are optimised by
    Adam for all data at once, with a learning rate that falls to 0. Parameters of model and
    guide stay as they are. A gap within a few times its standard error may come out below 0.

    Args:
        model: generative program, called as ``model(*args, **kwargs)``.
        guide: its guide, with a density; in evaluation mode.
        num_steps: of Adam, each with 10 draws per datum.
        learning_rate: at the start, in unconstrained units of the guide's parameters.
        num_samples: draws per datum for each of the two ELBOs, and for log p(x).
        evidence: of the same data, if there is a better one than by importance sampling from
            the optimised guide, as by ``method="ais"``.

    Raises:
        ProgramError: programs that do not fit each other, or a site whose distribution has no
            parameters to optimise.
        DensityError: a site without density.
        ValueError: a count below 1.

    References:
        Cremer, Li, Duvenaud (2018), *Inference suboptimality in variational autoencoders*,
        arXiv:1801.03558, section 3 and eq. 5 to 7.

    Example:
        The exact posterior is N(x / 2, 1 / 2): this family has it, this encoder does not.

        >>> import pyro, pyro.distributions as dist
        >>> def model(x):
        ...     with pyro.plate("data", len(x)):
        ...         z = pyro.sample("z", dist.Normal(0.0, 1.0))
        ...         pyro.sample("x", dist.Normal(z, 1.0), obs=x)
        >>> def guide(x):
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("z", dist.Normal(0.3 * x, 0.5**0.5))
        >>> gap = amortization_gap(model, guide, torch.tensor([2.0]), num_steps=200)
        >>> round(gap.approximation.item(), 2), round(gap.amortization.item(), 1)  # KL: 0, 0.16
        (0.0, 0.2)
    """
    check_count("num_steps", num_steps)
    with OneMinibatch():  # one minibatch in all that follows
        score_sites = ELBO(2).particles(model, guide, *args, **kwargs).score_sites
        objective = ELBO(_NUM_PARTICLES, gradient="score" if score_sites else "stl")
        encoder = log_evidence(model, guide, *args, num_samples=num_samples, **kwargs)
        local = LocalGuide(guide, args, kwargs)

        def loss() -> Tensor:
            return objective.differentiable_loss(model, local, *args, **kwargs)

        losses = _minimise(loss, [*local.offsets.values()], num_steps, learning_rate)
        best = log_evidence(model, local, *args, num_samples=num_samples, **kwargs)
    num_data = (encoder.scale * torch.ones_like(encoder.value)).sum()
    return AmortizationGap(encoder, best, evidence or best, local, -losses / num_data)


def _minimise(
    loss: Callable[[], Tensor], parameters: list[Tensor], num_steps: int, learning_rate: float
) -> Tensor:  # (num_steps,)
    """Adam on these parameters alone, with a cosine schedule; the loss of each step."""
    optimiser = torch.optim.Adam(parameters, lr=learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, num_steps)
    losses = []
    for _ in tqdm(range(num_steps), disable=None, unit="step"):
        value = loss()
        gradients = torch.autograd.grad(value, parameters)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        optimiser.step()
        schedule.step()
        losses.append(value.detach())
    return torch.stack(losses)
