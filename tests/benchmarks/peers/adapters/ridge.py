"""A ridge regression on labels."""

from trivial import Ridge as Adapter

__all__ = ["Adapter"]
