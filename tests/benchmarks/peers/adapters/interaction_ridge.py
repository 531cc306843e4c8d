"""A ridge regression on labels and their pairs."""

from trivial import InteractionRidge as Adapter

__all__ = ["Adapter"]
