"""Pruning: which weights of a network a posterior needs, by their signal to noise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from pyro_lvm.diagnostics.verdict import Status, Verdict
from pyro_lvm.errors import PyroLVMError, explain

__all__ = ["PruningReport", "pruning_report"]

_CHECK = "pruning"


@dataclass(frozen=True)
class PruningReport:
    r"""Which weights are kept.

    Attributes:
        log_alpha: by site, :math:`\log \alpha = \log (s^2 / m^2)` of each weight under its
            posterior of mean m and standard deviation s: minus twice the log of signal to noise.
        threshold: a weight is kept where its log alpha is at most this.

    Example:
        >>> import torch
        >>> found = PruningReport({"w1": torch.tensor([-2.0, 0.0, 4.0, 5.0])}, threshold=3.0)
        >>> found.kept["w1"], found.compression
        (tensor([ True,  True, False, False]), 2.0)
    """

    log_alpha: Mapping[str, Tensor]
    threshold: float

    @property
    def kept(self) -> dict[str, Tensor]:
        """Which weights are kept, by site: multiply means by it for the pruned network."""
        return {name: values <= self.threshold for name, values in self.log_alpha.items()}

    @property
    def counts(self) -> dict[str, tuple[int, int]]:
        """Weights kept and all weights, by site."""
        return {name: (int(mask.sum()), mask.numel()) for name, mask in self.kept.items()}

    @property
    def compression(self) -> float:
        """All weights over those kept; infinite where none is. It counts zeros, stored or not."""
        kept, total = (sum(numbers) for numbers in zip(*self.counts.values(), strict=True))
        return total / kept if kept else float("inf")

    def summary(self) -> dict[str, float]:
        """Numbers for the record, by name."""
        shares = {f"kept_{name}": kept / total for name, (kept, total) in self.counts.items()}
        return {"compression": self.compression} | shares

    def verdict(self) -> Verdict:
        """Fails where nothing is left of a site, warns where nothing at all was pruned."""
        listed = (f"{name} {kept} of {total}" for name, (kept, total) in self.counts.items())
        finding = f"compression {self.compression:.1f}, kept: {', '.join(listed)}."
        if not all(kept for kept, _ in self.counts.values()):
            advice = "Warm the KL up (beta=LinearWarmup(steps / 2)), or start with smaller scales."
            return Verdict(_CHECK, Status.FAIL, finding, advice)
        if self.compression == 1:
            advice = "Train longer, by AnalyticELBO, with prior='ard' or 'log_uniform'."
            return Verdict(_CHECK, Status.WARN, finding, advice)
        return Verdict(_CHECK, Status.PASS, finding)


def pruning_report(
    moments: Mapping[str, tuple[Tensor, Tensor]], *, threshold: float = 3.0
) -> PruningReport:
    r"""Prune the weights whose noise is far above their signal.

    At the default threshold a kept weight has :math:`|m| / s` above 0.22. Whether the pruned
    network is as good must be measured on the network of pruned means.

    References:
        Molchanov, Ashukha, Vetrov (2017), *Variational dropout sparsifies deep neural networks*,
        arXiv:1701.05369, section 4.2.

    Args:
        moments: mean and standard deviation of each weight by site, of one shape:
            :meth:`~pyro_lvm.guides.NormalWeights.moments`, or those of draws ``(S, *shape)``,
            ``{name: (d.mean(0), d.std(0)) for name, d in draws.items()}``.
        threshold: of log alpha.

    Raises:
        ValueError: no sites, or a standard deviation that is not above 0.

    Example:
        >>> import torch
        >>> mean, scale = torch.tensor([1.0, 0.2, 0.0]), torch.tensor([0.1, 0.1, 0.1])
        >>> report = pruning_report({"w1": (mean, scale)})
        >>> report.log_alpha["w1"], report.compression
        (tensor([-4.6052, -1.3863,     inf]), 1.5)
        >>> print(report.verdict())
        [pass] pruning: compression 1.5, kept: w1 2 of 3.
    """
    _check_moments(moments)
    log_alpha = {
        name: 2 * (scale.log() - mean.abs().log()).detach()
        for name, (mean, scale) in moments.items()
    }
    return PruningReport(log_alpha, threshold)


def _check_moments(moments: Mapping[str, tuple[Tensor, Tensor]]) -> None:
    if not moments or not all(bool((scale > 0).all()) for _, scale in moments.values()):
        expected = "mean and standard deviation above 0 of each weight, by site"
        found = f"sites {list(moments)}" if moments else "no site"
        hint = "Pass guide.moments(), or the moments of more than one draw."
        raise PyroLVMError(explain("moments", expected, found, hint))
