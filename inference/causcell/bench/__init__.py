"""Speed of a model on this machine, beside the reference design and plain matrix products."""

from causcell._deprecation import moved_names
from causcell._moved import RENAMED, REPLACED, SPLIT

__getattr__ = moved_names(__name__, SPLIT[__name__], RENAMED, REPLACED)
