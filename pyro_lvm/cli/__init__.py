"""The command line, ``pyro-lvm``: fit a model, compare objectives, infer spikes, list choices."""

__all__: list[str] = []
