"""Principal components and a shift."""

from trivial import ComponentsShift as Adapter

__all__ = ["Adapter"]
