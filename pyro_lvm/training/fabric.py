"""Lightning Fabric, from whichever of its two packages is installed."""

try:
    from lightning.fabric import Fabric  # type: ignore[import-not-found, unused-ignore]
    from lightning.fabric.strategies.strategy import (  # type: ignore[import-not-found, unused-ignore]
        Strategy,
    )
except ImportError:
    from lightning_fabric import Fabric
    from lightning_fabric.strategies.strategy import Strategy

__all__ = ["Fabric", "Strategy"]
