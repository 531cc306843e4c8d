"""Atlases: plan, write, continue and verify stores of counterfactual cells."""

from causcell._deprecation import moved_names
from causcell._moved import RENAMED, REPLACED, SPLIT

__getattr__ = moved_names(__name__, SPLIT[__name__], RENAMED, REPLACED)
