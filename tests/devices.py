"""Where tests make their tensors, and where they train."""

import os

import simulated_device
import torch


def make_tensors_on(name: str) -> None:
    """By default; a default device of any kind slows every call."""
    torch.set_default_device(None if name == "cpu" else name)


def train_on(name: str) -> None:
    """On one such device, whatever ``fit`` is told: Lightning reads it first."""
    settings = {"LT_ACCELERATOR": torch.device(name).type}
    if name != "cpu":
        settings["LT_DEVICES"] = "1"
    if name == simulated_device.NAME:
        settings["LT_STRATEGY"] = name
    for setting in ("LT_ACCELERATOR", "LT_DEVICES", "LT_STRATEGY"):
        os.environ.pop(setting, None)
    os.environ |= settings
