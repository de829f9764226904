"""Command lines of the benchmarks."""

from __future__ import annotations

from argparse import ArgumentParser, RawDescriptionHelpFormatter

__all__ = ["parser_of"]


def parser_of(about: str | None) -> ArgumentParser:
    """A parser whose help begins with ``about``, the script's own text, line by line."""
    return ArgumentParser(description=about, formatter_class=RawDescriptionHelpFormatter)
