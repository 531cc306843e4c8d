"""One shift for all cells."""

from trivial import GlobalShift as Adapter

__all__ = ["Adapter"]
