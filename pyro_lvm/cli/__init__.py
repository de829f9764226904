"""The command line, ``pyro-lvm``: fit a model, compare objectives, list what there is."""

__all__: list[str] = []
