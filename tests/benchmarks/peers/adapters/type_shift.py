"""A shift for each type of cells."""

from trivial import TypeShift as Adapter

__all__ = ["Adapter"]
