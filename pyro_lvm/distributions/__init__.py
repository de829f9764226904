"""Distributions that models and guides share and Pyro does not have: one file each."""

__all__: list[str] = []
