"""Normalising flows, conditional or not, as Pyro distributions; the layers are zuko's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, ClassVar

import torch
from pyro.distributions import TorchDistribution, constraints
from torch import Size, Tensor, nn
from torch.distributions import Distribution

from pyro_lvm.errors import ProgramError, explain
from pyro_lvm.nn import check_choice, check_size, widen

__all__ = ["FAMILIES", "ConditionalFlow", "FlowDistribution"]

_checks = Distribution._validate_args
zuko: Any = import_module("zuko")  # its import switches off argument checks for all of torch
Distribution.set_default_validate_args(_checks)

FAMILIES = {
    "maf": (zuko.flows.MAF, False),
    "nsf": (zuko.flows.NSF, False),
    "iaf": (zuko.flows.MAF, True),
    "insf": (zuko.flows.NSF, True),
}
"""By name: the flow whose layers are used, and whether they run from noise to value."""

_NO_SHAPE = Size()
_SMALL = 0.1  # of a layer's usual start: a flow near the identity, with a gradient everywhere


class FlowDistribution(TorchDistribution):
    r"""A zuko flow as a Pyro distribution of vectors.

    .. math:: \log q(z) = \log N(u; 0, I) + \log |\det \partial u / \partial z|, \quad u = f(z)

    Expanding runs no network. All run in full precision: in autocast's, :math:`f` and its
    inverse would not agree.

    A draw is scored as it is made. Scoring that very tensor again costs nothing, in the mode
    (gradients on or off) it was drawn in; its gradient is then the total derivative of
    :math:`\log q(z(u))`, through draw and density. Any other tensor, a view or
    ``draw.detach()`` among them, is mapped to its noise, with the derivatives of
    :math:`\log q` in the value and in the parameters.

    Args:
        flow: a ``zuko.distributions.NormalizingFlow`` over vectors.
        given: what made it: a function of a context ``(*batch, context_features)``, and that.
        validate_args: whether ``log_prob`` checks its values; Pyro's default if left out.

    Example:
        >>> q = FlowDistribution(zuko.flows.NSF(3, context=4)(torch.zeros(5, 4)))
        >>> q.batch_shape, q.event_shape
        (torch.Size([5]), torch.Size([3]))
        >>> particles = q.expand((7, 5))
        >>> particles.log_prob(particles.rsample()).shape
        torch.Size([7, 5])
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    support = constraints.real_vector
    has_rsample = True

    def __init__(
        self,
        flow: Any,
        *,
        given: tuple[Callable[[Tensor], FlowDistribution], Tensor] | None = None,
        validate_args: bool | None = None,
    ) -> None:
        self._flow = flow
        self.given = given
        self._drawn: tuple[Tensor, Tensor] | None = None
        super().__init__(flow.batch_shape, flow.event_shape, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> FlowDistribution:
        shape, given = Size(batch_shape), self.given
        if given is not None:
            given = given[0], given[1].expand(*shape, -1)
        expanded = self._flow.expand(shape)
        return FlowDistribution(expanded, given=given, validate_args=self._validate_args)

    def rsample(self, sample_shape: Any = _NO_SHAPE) -> Tensor:  # (*sample, *batch, event)
        noise = self._flow.base.rsample(sample_shape)
        draw: Tensor
        with _without_autocast(noise):
            draw, log_det = self._flow.transform.inv.call_and_ladj(noise)
        self._drawn = draw, self._flow.base.log_prob(noise) - log_det
        return draw

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density in nats: ``value`` ``(*, event)`` to ``(*,)``, broadcast with the batch."""
        if self._validate_args:
            self._validate_sample(value)
        draw, log_q = self._drawn or (None, value)
        if value is draw and log_q.requires_grad == torch.is_grad_enabled():
            return log_q
        shape = torch.broadcast_shapes(value.shape, self.batch_shape + self.event_shape)
        with _without_autocast(value):
            scored: Tensor = self._flow.log_prob(value.expand(shape))
        return scored


class ConditionalFlow(nn.Module):
    r"""Autoregressive flow of a vector, given a context, or without one as a learned prior.

    :math:`z = m(c) + s(c) \odot g(u; c)` with :math:`u \sim N(0, I)`: layers that are
    autoregressive, in alternating order of the dims, and an elementwise affine map last, so
    that they work in standardised units. It starts near a standard Normal.

    ======  ===============  ====================  ======================
    family  a layer          passes to draw        passes to score
    ======  ===============  ====================  ======================
    "maf"   affine           ``features``          1
    "nsf"   spline           ``features``          1
    "iaf"   affine, inverse  1                     ``features``
    "insf"  spline, inverse  1                     ``features``
    ======  ===============  ====================  ======================

    Passes are of each layer's network, one after the other, and all are kept for the
    backward. Scoring its own draw takes a flow none, so the inverse ones are for guides
    under a plain gradient, the others for priors and for path gradients. A layer's affine
    maps scale by 1e-3 to 1e3. Its splines are rational-quadratic, with 8 bins over [-5, 5]
    in standardised units; outside they are the identity, so tails are those of a Normal.

    References:
        Papamakarios, Pavlakou, Murray (2017), *Masked autoregressive flow for density
        estimation*, arXiv:1705.07057, eq. 3 to 5.
        Kingma et al. (2016), *Improving variational inference with inverse autoregressive
        flow*, arXiv:1606.04934.
        Durkan, Bekasov, Murray, Papamakarios (2019), *Neural spline flows*,
        arXiv:1906.04032.
        Rozet et al. (2022), *Zuko: normalizing flows in PyTorch*, doi:10.5281/zenodo.7625672.

    Args:
        features: size of the vector.
        context_features: size of the context; 0 for none.
        family: "maf", "nsf", "iaf" or "insf".
        num_transforms: number of autoregressive layers.
        hidden: hidden sizes of each layer's network, best no less than ``features``: of fewer
            units, late dims would see the first few dims only.

    Raises:
        ProgramError: an unknown family, a size below 1, a context of another size.

    Example:
        >>> flow = ConditionalFlow(3, context_features=4, family="iaf")
        >>> q = flow(torch.zeros(5, 4))
        >>> q.rsample().shape, q.log_prob(torch.zeros(3)).shape
        (torch.Size([5, 3]), torch.Size([5]))
        >>> prior = ConditionalFlow(3, family="nsf")
        >>> prior().batch_shape
        torch.Size([])
    """

    def __init__(
        self,
        features: int,
        context_features: int = 0,
        family: str = "maf",
        *,
        num_transforms: int = 3,
        hidden: Sequence[int] = (64, 64),
    ) -> None:
        super().__init__()
        check_choice("family", family, FAMILIES)
        if context_features:
            check_size("context_features", context_features)
        self.context_features = context_features
        make, from_noise = FAMILIES[family]
        built = make(
            check_size("features", features),
            context_features,
            transforms=check_size("num_transforms", num_transforms),
            hidden_features=[check_size("hidden", size) for size in hidden],
            activation=nn.SiLU,  # smooth, and not odd: an even dependence is found too
        )
        layers = built.transform if from_noise else built.transform.inv
        affine = zuko.flows.ElementWiseTransform(features, context_features, hidden_features=())
        to_value = zuko.lazy.LazyComposedTransform(layers, affine)
        self.flow = zuko.flows.Flow(to_value.inv, built.base)
        self.flow.apply(_start_near_identity)

    def forward(self, context: Tensor | None = None) -> FlowDistribution:
        """The distribution given ``context`` ``(*, context_features)``: batch ``(*,)``."""
        size = 0 if context is None else context.shape[-1]
        if size != self.context_features:
            raise ProgramError(
                explain(
                    "context",
                    f"{self.context_features or 'no'} features",
                    f"{size or 'none'}",
                    "Make it with the size of the context, as in context_features=64.",
                )
            )
        if context is None:
            return FlowDistribution(self.flow())
        context = widen(context)
        with _without_autocast(context):
            return FlowDistribution(self.flow(context), given=(self, context))


def _without_autocast(like: Tensor) -> torch.autocast:
    return torch.autocast(like.device.type, enabled=False)


@torch.no_grad()
def _start_near_identity(module: nn.Module) -> None:
    if isinstance(module, zuko.nn.MLP | zuko.nn.MaskedMLP):
        module[-1].weight.mul_(_SMALL)
        module[-1].bias.zero_()
    elif isinstance(module, nn.ParameterList):
        for parameter in module:
            parameter.zero_()
