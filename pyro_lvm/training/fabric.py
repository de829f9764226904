"""Lightning Fabric, from whichever of its two packages is installed."""

try:
    from lightning.fabric import Fabric  # type: ignore[import-not-found, unused-ignore]
    from lightning.fabric.strategies.single_device import (  # type: ignore[import-not-found, unused-ignore]
        SingleDeviceStrategy,
    )
    from lightning.fabric.strategies.strategy import (  # type: ignore[import-not-found, unused-ignore]
        Strategy,
    )
except ImportError:
    from lightning_fabric import Fabric
    from lightning_fabric.strategies.single_device import SingleDeviceStrategy
    from lightning_fabric.strategies.strategy import Strategy

__all__ = ["Fabric", "Strategy", "steps_plainly"]


def steps_plainly(fabric: Fabric) -> bool:
    """Whether nothing of Fabric's comes between a gradient and the optimiser's step."""
    strategy = fabric.strategy
    scaler = getattr(strategy.precision, "scaler", None)
    return isinstance(strategy, SingleDeviceStrategy) and scaler is None
