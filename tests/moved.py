"""Modules away from the parameters that they start with."""

from typing import TypeVar

import torch
from torch import nn

Module = TypeVar("Module", bound=nn.Module)


def moved(module: Module, by: float = 0.2) -> Module:
    """Each parameter plus a Normal number with this standard deviation."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(by * torch.randn_like(parameter))
    return module
