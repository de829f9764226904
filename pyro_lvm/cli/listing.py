"""``pyro-lvm list``: what there is to choose from."""

from __future__ import annotations

from pyro_lvm.cli.catalog import lines

__all__ = ["show"]


def show() -> None:
    """Print the objectives, guides, models and data sets that can be named."""
    catalog = lines()
    width = max(len(name) for known in catalog.values() for name in known)
    for kind, known in catalog.items():
        print(kind)
        for name, line in sorted(known.items()):
            print(f"  {name.ljust(width)}  {line}")
