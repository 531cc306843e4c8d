"""Engines: what evaluates the graphs of a model, in this process or on Triton servers."""

from causcell._deprecation import moved_names
from causcell._moved import RENAMED, REPLACED, SPLIT

__getattr__ = moved_names(__name__, SPLIT[__name__], RENAMED, REPLACED)
