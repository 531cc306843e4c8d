"""The model repository: the manifest, the reference cells, and the folder that holds them with the ONNX graphs."""

from causcell._deprecation import moved_names
from causcell._moved import RENAMED, REPLACED, SPLIT

__getattr__ = moved_names(__name__, SPLIT[__name__], RENAMED, REPLACED)
