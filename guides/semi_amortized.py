"""Semi-amortised Normal guide: an encoder's guess, refined for each datum by gradient steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_lvm.errors import ProgramError, explain
from pyro_lvm.guides.encoding import Encoding
from pyro_lvm.masking import masked_log_prob
from pyro_lvm.nn import (
    check_num_data,
    check_positive,
    check_size,
    data_plate,
    diagonal_normal,
    named_sizes,
    positive_scale,
)

__all__ = ["SemiAmortized"]


class SemiAmortized(PyroModule):
    r"""Diagonal Normals that a few gradient steps on each datum's own ELBO refine.

    .. math:: \lambda_0 = \mathrm{enc}(x), \qquad
        \lambda_{t+1} = \lambda_t + \eta \, \nabla_\lambda \mathrm{ELBO}(x; \lambda_t, \theta),
        \qquad q(z \mid x) = N(z; \lambda_T)

    with :math:`\lambda` the means and unconstrained scales. The steps run the model once each,
    on ``num_inner_particles`` draws a datum, whatever the number of particles of the objective.

    The noise of these draws is drawn when the guide is made, anew for each step, and is the
    same for all data: q is a function of ``x`` alone, so the guide has one density however
    often it is asked, and every bound stays a bound. Its mean and variance over the draws are
    made exact, so a few draws do.

    ``through_refinement=True`` differentiates through the steps, as the paper does: the loss
    has its full gradient, in the encoder and in the model's parameters, on which the steps
    depend. With False the steps are a constant that is added to the encoder's output: cheaper
    by the second derivatives, and the model's gradient is that of the loss at a fixed guide.

    The model is used and not owned: it is no submodule, its parameters are not the guide's and
    are not in its ``state_dict``. ``guide.to(...)`` moves it too, for the two run together. A
    deep copy of the guide alone comes with a copy of the model; copy the two at once, as in
    ``copy.deepcopy((model, guide))``, to keep them tied.

    References:
        Kim, Wiseman, Miller, Sontag, Rush (2018), *Semi-amortized variational autoencoders*,
        arXiv:1802.02550, algorithm 1, with plain gradient steps.

    Args:
        model: called as ``model(x)``, all its sites in the one plate "data" and its latent
            sites those of ``latent_features``, at any real value.
        encoder: from a batch of data to ``(B, encoder_features)``; an MLP if left out.
        in_features: size of a datum, for the MLP; a given encoder takes rows of any shape.
        latent_features: size of the site "z", or sizes by site.
        hidden: hidden sizes of the MLP.
        num_steps: T.
        step_size: :math:`\eta`; below twice the inverse of the ELBO's largest curvature.
        num_inner_particles: draws that estimate the ELBO in each step, 2 or more.
        through_refinement: whether gradients pass through the steps.
        encoder_features: size of a given encoder's output.
        num_data: N, the model's own ``num_data``.

    Raises:
        ProgramError: a size, number of steps or step size that is not positive, an encoder
            without ``encoder_features``; when called, a model with another plate.
        DataError: ``x`` has another number of features, or no rows.

    Example:
        >>> def model(x):
        ...     with pyro.plate("data", len(x)):
        ...         z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        ...         pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)
        >>> x = torch.tensor([[2.0, -4.0]])
        >>> guide = SemiAmortized(model, in_features=2, latent_features=2, step_size=0.5)
        >>> guide.posterior(x)["z"].mean.round()  # the exact one is x / 2
        tensor([[ 1., -2.]], grad_fn=<RoundBackward0>)
    """

    noise: Tensor

    def __init__(
        self,
        model: Callable[..., Any],
        encoder: nn.Module | None = None,
        *,
        in_features: int = 64,
        latent_features: int | Mapping[str, int] = 16,
        hidden: Sequence[int] = (200, 200),
        num_steps: int = 5,
        step_size: float = 0.1,
        num_inner_particles: int = 2,
        through_refinement: bool = True,
        encoder_features: int | None = None,
        num_data: int | None = None,
    ) -> None:
        super().__init__(name=type(self).__name__)
        self._used = (model,)  # in a tuple, so that it does not become a submodule
        self.latent_features = named_sizes(latent_features)
        self.step_size = check_positive("step_size", step_size, "0.1")
        self.through_refinement = through_refinement
        self.num_data = check_num_data(num_data)
        size = sum(self.latent_features.values())
        self.encoding = Encoding(encoder, encoder_features, in_features, hidden, 2 * size)
        num_steps = check_size("num_steps", num_steps)
        self.register_buffer("noise", _standard_noise(num_steps, num_inner_particles, size))

    def forward(self, x: Any) -> dict[str, Tensor]:
        """One draw of each site, ``(B, size)``, inside plate "data"."""
        posterior = self.posterior(x)
        with data_plate(len(x), self.num_data, like=self.encoding.head.bias):
            return {name: pyro.sample(name, normal) for name, normal in posterior.items()}

    def posterior(self, x: Any) -> dict[str, dist.TorchDistribution]:
        """The refined Normal of each site given each row of ``x``: batch ``(B,)``."""
        raw = self.encoding(x)
        for noise in self.noise:
            raw = raw + self.step_size * self._slope(raw, x, noise)
        loc, scale = (self._by_site(part) for part in _loc_and_scale(raw))
        return {n: diagonal_normal(loc[n], scale[n]) for n in self.latent_features}

    def _slope(self, raw: Tensor, x: Any, noise: Tensor) -> Tensor:
        """The ELBO's gradient in ``raw``, ``(B, 2 * size)``, also where gradients are off."""
        through = self.through_refinement and torch.is_grad_enabled()
        with torch.enable_grad():
            at = raw if through and raw.requires_grad else raw.detach().requires_grad_()
            elbo = self._elbo(at, x, noise)
            (slope,) = torch.autograd.grad(elbo, at, create_graph=through)
        return slope

    def _elbo(self, raw: Tensor, x: Any, noise: Tensor) -> Tensor:
        """Up to a constant: a mean over draws, a sum over data, which are independent."""
        loc, scale = _loc_and_scale(raw)
        draws = self._by_site(loc + scale * noise)  # (J, B, size) each
        with poutine.block():  # out of sight of whoever runs the guide
            trace = poutine.trace(poutine.condition(self._used[0], draws)).get_trace(x)
        sites: list[Any] = [trace.nodes[name] for name in trace.observation_nodes]
        terms = [_log_prob(site) for site in sites if not site["infer"].get("_deterministic")]
        return sum((term.sum(-1).mean() for term in terms), start=scale.log().sum())

    def _by_site(self, whole: Tensor) -> dict[str, Tensor]:
        parts = whole.split(list(self.latent_features.values()), -1)
        return dict(zip(self.latent_features, parts, strict=True))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> SemiAmortized:
        """What ``to``, ``cuda`` and ``double`` do: to the model as well."""
        model = self._used[0]
        if isinstance(model, nn.Module):
            model._apply(fn, recurse)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self


def _standard_noise(num_steps: int, num_draws: int, size: int) -> Tensor:
    """Normal noise ``(T, J, 1, size)``, with mean 0 and variance 1 over the J draws."""
    if check_size("num_inner_particles", num_draws) < 2:
        hint = "Pass num_inner_particles=2, for a mean and a variance."
        raise ProgramError(explain("num_inner_particles", "an integer >= 2", "1", hint))
    noise = torch.randn(num_steps, num_draws, 1, size)
    variance, mean = torch.var_mean(noise, 1, correction=0, keepdim=True)
    return (noise - mean) / variance.sqrt()


def _loc_and_scale(raw: Tensor) -> tuple[Tensor, Tensor]:
    loc, scale = raw.chunk(2, -1)
    return loc, positive_scale(scale)


def _log_prob(site: Mapping[str, Any]) -> Tensor:  # (J or none, B)
    """Log-probability of a site given its value, masked, without the N/B of its plate."""
    frames = site["cond_indep_stack"]
    if len(frames) != 1:
        found = f"plates {[frame.name for frame in frames]}"
        hint = "Write its other plates as event dims, by .to_event(n)."
        raise ProgramError(explain(f"site '{site['name']}'", "the one plate 'data'", found, hint))
    log_prob = masked_log_prob(site["fn"], site["value"], site["mask"], is_observed=True)
    scaled: Tensor = log_prob * (site["scale"] * frames[0].size / frames[0].full_size)
    return scaled
