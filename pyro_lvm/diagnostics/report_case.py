"""What a check of the report is given, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from torch import Tensor

from pyro_lvm.diagnostics.ais import AIS
from pyro_lvm.diagnostics.evidence import LogEvidence, log_evidence
from pyro_lvm.diagnostics.simulations import Simulations
from pyro_lvm.diagnostics.simulations_run import simulation_based_calibration
from pyro_lvm.diagnostics.verdict import Verdict
from pyro_lvm.objective import Objective
from pyro_lvm.training.rng import seeded

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame  # type: ignore[import-untyped]

__all__ = ["Case", "Check", "DoesNotApply", "Finding"]

Program = Callable[..., Any]

_NUM_CHAINS, _ANNEALING = 16, AIS(100, initial="guide")


class DoesNotApply(Exception):
    """Raised by a check that has nothing to say of these programs.

    Example:
        >>> import torch
        >>> from pyro_lvm.diagnostics import report
        >>> def labels(case):
        ...     raise DoesNotApply("the data have no labels.")
        >>> print(report(None, None, torch.zeros(3, 2), checks=[labels]))
        [skip] labels: the data have no labels.
    """


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes:
        verdict: the line in the list of verdicts.
        numbers: for the record, by name.
        figures: by caption.
        table: to be read below the figures.

    Example:
        A check of your own, for ``report(..., checks=[enough])``.

        >>> import torch
        >>> from pyro_lvm.diagnostics import Status
        >>> from pyro_lvm.oracles import LinearGaussian
        >>> def enough(case):
        ...     least = float(case.weighted.effective_sample_size.min())
        ...     status = Status.PASS if least > 100 else Status.WARN
        ...     return Finding(Verdict("enough", status, f"ESS {least:.0f}."), {"ess": least})
        >>> oracle = LinearGaussian(torch.ones(2, 1), torch.ones(2))
        >>> case = Case(oracle.model, oracle.exact_guide, (torch.zeros(3, 2),), num_samples=500)
        >>> print(enough(case).verdict)
        [pass] enough: ESS 500.
    """

    verdict: Verdict
    numbers: Mapping[str, float] = field(default_factory=dict)
    figures: Mapping[str, Figure] = field(default_factory=dict)
    table: DataFrame | None = None


@dataclass(frozen=True)
class Case:
    """A model and a guide on data, with what several checks need computed once.

    Attributes:
        model: called as ``model(*args, **kwargs)``.
        guide: likewise.
        args: of both programs.
        kwargs: of both programs.
        objective: what they were trained by, if that is known.
        num_samples: draws per datum.
        seed: of what is computed once, whichever check asks for it first.

    Example:
        >>> import torch
        >>> from pyro_lvm.oracles import LinearGaussian
        >>> oracle = LinearGaussian(torch.ones(2, 1), torch.ones(2))
        >>> case = Case(oracle.model, oracle.exact_guide, (torch.zeros(3, 2),), num_samples=100)
        >>> case.first(2).evidence.value
        tensor([-2.3872, -2.3872])
    """

    model: Program
    guide: Program
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    objective: Objective | None = None
    num_samples: int = 2500
    seed: int = 0

    def first(self, count: int) -> Case:
        """The same of the first data: rows of each tensor that has as many as the first one."""
        values = [*self.args, *self.kwargs.values()]
        rows = next(len(value) for value in values if isinstance(value, Tensor))

        def cut(value: Any) -> Any:
            has_rows = isinstance(value, Tensor) and value.dim() and len(value) == rows
            return value[:count] if has_rows else value

        kwargs = {name: cut(value) for name, value in self.kwargs.items()}
        return replace(self, args=tuple(map(cut, self.args)), kwargs=kwargs)

    @cached_property
    def weighted(self) -> LogEvidence:
        """Weights of the guide's draws; a discriminator may stand for a density in them."""
        return self._evidence(num_samples=self.num_samples, objective=self.objective)

    @cached_property
    def evidence(self) -> LogEvidence:
        """log p(x) without a discriminator: by these weights, or by annealing."""
        if self.weighted.is_bound:
            return self.weighted
        return self._evidence(num_samples=_NUM_CHAINS, method=_ANNEALING)

    def _evidence(self, **how: Any) -> LogEvidence:
        with seeded(self.seed, "evidence"):
            return log_evidence(self.model, self.guide, *self.args, **how, **self.kwargs)

    @cached_property
    def simulations(self) -> Simulations:
        """Where latents that made simulated data rank among the guide's draws."""
        return simulation_based_calibration(
            self.model, self.guide, *self.args, seed=self.seed, **self.kwargs
        )

    @cached_property
    def bound(self) -> Tensor | None:
        """The objective's own bound, ``(*batch,)`` nats, if there is an objective."""
        if self.objective is None:
            return None
        with seeded(self.seed, "bound"):
            return self.objective.bound(self.model, self.guide, *self.args, **self.kwargs)


Check = Callable[[Case], Finding]
"""Its documentation is what the report says of it, up to the heading ``Example``."""
