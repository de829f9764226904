"""Files that are whole or not there, whatever happens while they are written."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pyro_lvm.errors import PyroLVMError, explain

__all__ = ["HINT", "WriteError", "explained_writing", "written_whole"]

HINT = (
    "Make room there, or choose another folder. What was written before is whole: do the same "
    "again, training with resume=True (--resume)."
)


class WriteError(PyroLVMError, OSError):
    """A file that could not be written: a full disk, a folder without permission."""


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Another path to write to; at every moment ``path`` is absent, old or new, never torn.

    Its folder is made.

    Raises:
        WriteError: the system refuses; ``path`` is then as it was.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     with written_whole(Path(folder) / "new" / "a.txt") as path:
        ...         _ = path.write_text("all of it")
        ...     [file.name for file in (Path(folder) / "new").iterdir()]
        ['a.txt']
    """
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    with explained_writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def explained_writing(path: Path) -> Iterator[None]:
    """Say which file could not be written.

    Raises:
        WriteError: the system refuses to write in the block.
    """
    try:
        yield
    except WriteError:
        raise
    except OSError as error:
        found = error.strerror or str(error)
        raise WriteError(explain(f"file {path}", "a place to write it", found, HINT)) from error
