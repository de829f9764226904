"""Errors with three parts: where it went wrong, expected against found, what to try."""

__all__ = [
    "CheckpointError",
    "DataError",
    "DensityError",
    "MixingError",
    "NonFiniteError",
    "NotAmortizedError",
    "ParameterError",
    "PlateError",
    "ProgramError",
    "PyroLVMError",
    "explain",
]


def explain(where: str, expected: str, found: str, hint: str) -> str:
    """One message in three parts, on two lines.

    Args:
        where: the site, plate, file or argument at fault.
        expected: what would have been right.
        found: what came instead.
        hint: what to try, an imperative sentence.

    Example:
        >>> print(explain("num_particles", "an integer >= 1", "0", "Pass num_particles=1."))
        num_particles: expected an integer >= 1, got 0.
        Try: Pass num_particles=1.
    """
    return f"{where}: expected {expected}, got {found}.\nTry: {hint}"


class PyroLVMError(ValueError):
    """Base of the library's own errors; a ``ValueError``, so old handlers catch it."""


class ProgramError(PyroLVMError):
    """A model and guide that do not fit each other or the objective."""


class DensityError(ProgramError):
    """A density that does not exist: a site that can only be drawn from."""


class MixingError(ProgramError):
    """A density that is an integral: mixing variables under what does not average them out."""


class NotAmortizedError(ProgramError):
    """A guide of one data set, where each of many is to have its posterior."""


class PlateError(ProgramError):
    """A plate or a batch shape that the two programs or the particles disagree about."""


class DataError(PyroLVMError):
    """Data that cannot be used as they are: NaN, infinite, empty, constant."""


class NonFiniteError(PyroLVMError, ArithmeticError):
    """A log-probability or loss that is NaN or infinite."""


class ParameterError(PyroLVMError):
    """Parameters that are stale or cannot be trained the way they are asked to be."""


class CheckpointError(PyroLVMError):
    """A checkpoint that is incomplete, damaged, foreign or of another version."""
