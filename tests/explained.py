"""What every error's text is held to, and the sound programs that the faults are put into."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from pyro_lvm.errors import PyroLVMError

X = torch.linspace(-1.0, 1.0, 8)


@contextmanager
def explained(
    kind: type[PyroLVMError], where: str, expected: str, found: str, hint: str
) -> Iterator[None]:
    """The block raises ``kind`` in three parts that hold these texts."""
    with pytest.raises(kind) as caught:
        yield
    parts = re.fullmatch(r"(?s)(.*?): expected (.*), got (.*)\.\nTry: (.*)\.", str(caught.value))
    assert parts, f"not in three parts: {caught.value}"
    for part, text in zip(parts.groups(), (where, expected, found, hint), strict=True):
        assert text in part, f"{text!r} not in {part!r}"


def model(x: Tensor, size: int | None = None, subsample: Tensor | None = None) -> None:
    with pyro.plate("data", size or len(x), subsample=subsample) as index:
        z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x if subsample is None else x[index])


def guide(x: Tensor, size: int | None = None, subsample: Tensor | None = None) -> None:
    with pyro.plate("data", size or len(x), subsample=subsample):
        pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
