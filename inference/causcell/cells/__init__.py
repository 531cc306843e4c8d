"""Cells to read: in memory or on disk, several files as one collection, and the panel of a model read from them."""

from causcell._deprecation import moved_names
from causcell._moved import RENAMED, REPLACED, SPLIT

__getattr__ = moved_names(__name__, SPLIT[__name__], RENAMED, REPLACED)
