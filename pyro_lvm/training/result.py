"""What a fit returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyro

from pyro_lvm.training.checkpoint import read, write
from pyro_lvm.training.loader import Batch
from pyro_lvm.training.programs import Program, Programs
from pyro_lvm.training.state import History

__all__ = ["FitResult"]


@dataclass
class FitResult:
    """A trained model and guide, and how they came about.

    Attributes:
        model: the model, trained in place.
        guide: the guide, trained in place.
        objective: what was maximised; None after :meth:`load` without one.
        history: one list per metric; ``pandas.DataFrame(result.history)`` is a table.
            ``loss`` and ``bound`` are nats per datum.
        config: the settings of the run, as plain types.
        best_checkpoint: the file with the best held-out bound, if one was kept.
        interrupted: whether Ctrl-C was pressed, at the last step too: scripts that train several
            models end there.
        seconds_per_step: mean time of a training step, without evaluation, saving and compiling.
        compile_seconds: time spent on recording and compiling the step, with ``compile=``.

    Example:
        >>> import tempfile, torch, pyro, pyro.distributions as dist
        >>> from pyro_lvm import FitResult, fit
        >>> from pyro_lvm.objectives import ELBO
        >>> class Guide(pyro.nn.PyroModule):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.slope = torch.nn.Parameter(torch.tensor(0.0))
        ...     def forward(self, x):
        ...         with pyro.plate("data", len(x)):
        ...             pyro.sample("z", dist.Normal(self.slope * x, 0.7))
        >>> def model(x):
        ...     with pyro.plate("data", len(x)):
        ...         z = pyro.sample("z", dist.Normal(0.0, 1.0))
        ...         pyro.sample("x", dist.Normal(z, 1.0), obs=x)
        >>> x = torch.linspace(-2, 2, 50)
        >>> result = fit(model, Guide(), x, ELBO(10), max_epochs=150, batch_size=None, lr=0.02)
        >>> abs(result.guide.slope.item() - 0.5) < 0.1
        True
        >>> folder = tempfile.mkdtemp()
        >>> result.save(folder)
        >>> again = FitResult.load(folder, model, Guide())
        >>> bool(again.guide.slope == result.guide.slope)
        True
    """

    model: Program
    guide: Program
    objective: Any
    history: History
    config: dict[str, Any] = field(default_factory=dict)
    best_checkpoint: Path | None = None
    interrupted: bool = False
    seconds_per_step: float = float("nan")
    compile_seconds: float = 0.0
    _programs: Programs | None = field(default=None, repr=False)

    def save(self, folder: str | Path) -> None:
        """Write parameters, history and config to ``folder/result.ckpt``.

        Tensors and plain types only; the programs' code is not saved.
        """
        programs = self._programs or Programs(self.model, self.guide)
        content = {
            "programs": programs.state_dict(),
            "history": self.history,
            "config": self.config,
            "interrupted": self.interrupted,
            "seconds_per_step": self.seconds_per_step,
            "compile_seconds": self.compile_seconds,
        }
        write(Path(folder) / "result.ckpt", "result", content)

    @classmethod
    def load(
        cls,
        folder: str | Path,
        model: Program,
        guide: Program,
        objective: Any = None,
        args: Any = None,
    ) -> FitResult:
        """Read what :meth:`save` wrote into a model and guide of the same build.

        Args:
            folder: the folder given to ``save``.
            model: a model of the same build; its parameters are overwritten.
            guide: likewise.
            objective: kept in the result.
            args: one batch, a tensor or a tuple or dict of tensors; needed where parameters are
                made by the first call (an AutoGuide, ``pyro.param`` in a plain function).

        Raises:
            CheckpointError: no such file, or not a whole result.
            ParameterError: the programs have other parameters.
        """
        content = read(Path(folder) / "result.ckpt", "result")
        programs = Programs(model, guide)
        with pyro.settings.context(module_local_params=True):
            if args is not None:
                programs.discover(Batch.of(args))
            programs.load_state_dict(content.pop("programs"))
        names = ("history", "config", "interrupted", "seconds_per_step", "compile_seconds")
        return cls(model, guide, objective, **{n: content[n] for n in names}, _programs=programs)
