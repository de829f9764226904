"""Training: ``fit`` and what it returns, calls back and writes."""

from pyro_lvm.training.compiled import CompiledLoss
from pyro_lvm.training.compiled_step import CompiledStep
from pyro_lvm.training.fitting import fit
from pyro_lvm.training.result import FitResult
from pyro_lvm.training.state import Callback, TrainingState

__all__ = ["Callback", "CompiledLoss", "CompiledStep", "FitResult", "TrainingState", "fit"]
