"""Lightning Fabric, from whichever of its two packages is installed."""

try:
    from lightning.fabric import Fabric  # type: ignore[import-not-found, unused-ignore]
except ImportError:
    from lightning_fabric import Fabric

__all__ = ["Fabric"]
