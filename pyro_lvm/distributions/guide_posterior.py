"""What a guide's posterior is at given inputs, as a part of a prior."""

from __future__ import annotations

from collections.abc import Callable

from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from pyro_lvm.distributions.mapped import mapped
from pyro_lvm.errors import ProgramError, explain

__all__ = ["GuidePosterior"]


class GuidePosterior(nn.Module):
    """From inputs ``(*, D)`` to the guide's posterior of one site given each.

    The guide stays a module of its own: its parameters are in ``guide.parameters()`` alone,
    and are moved by the gradients of both programs.

    Args:
        guide: with ``posterior(x)``, from ``(B, D)`` to a Normal by site.
        site: whose posterior it is.

    Raises:
        ProgramError: the guide has no method ``posterior``, or not this site.

    Example:
        >>> import torch
        >>> from pyro_lvm.guides import AmortizedNormal
        >>> posterior = GuidePosterior(AmortizedNormal(in_features=6, latent_features=2))
        >>> posterior(torch.zeros(5, 3, 6)).batch_shape
        torch.Size([5, 3])
    """

    def __init__(self, guide: nn.Module, site: str = "z") -> None:
        super().__init__()
        if not callable(getattr(guide, "posterior", None)):
            hint = "Use a guide with an explicit posterior, such as AmortizedNormal."
            found = f"{type(guide).__name__}, which has none"
            raise ProgramError(explain("guide", "a method posterior(x)", found, hint))
        self._used = (guide,)  # in a tuple, so that it does not become a submodule
        self.site = site

    def forward(self, inputs: Tensor) -> TorchDistribution:
        """Batch ``(*,)`` and the site's event shape."""
        posterior: dict[str, TorchDistribution]
        posterior = self._used[0].posterior(inputs.flatten(0, -2))  # type: ignore[operator]
        if self.site not in posterior:
            hint = "Pass the name of the site that the prior is for, as in site='z1'."
            found = f"{list(posterior)}"
            raise ProgramError(explain("site", f"'{self.site}', of the guide", found, hint))
        shape = inputs.shape[:-1]
        given = mapped(posterior[self.site], lambda parameter: parameter.unflatten(0, shape))
        if given is None:
            hint = "Use a guide such as AmortizedNormal."
            found = type(posterior[self.site]).__name__
            raise ProgramError(explain("guide", "a posterior that is a Normal", found, hint))
        reshaped: TorchDistribution = given
        return reshaped

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> GuidePosterior:
        """What ``to``, ``cuda`` and ``double`` do: to the guide as well."""
        self._used[0]._apply(fn, recurse)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self
