"""The cells that a model was trained on, known by digests of their names."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict

from causcell._internal.digests import name_digests


class TrainingCells(BaseModel):
    """The cells that a model was trained on, known by digests of their names.

    Attributes
    ----------
    count
        Number of distinct names.
    digests
        Base64 of the sorted digests, little-endian uint64 (BLAKE2b of 8 bytes).
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    count: int
    digests: str

    @classmethod
    def of(cls, names: Iterable[str]) -> TrainingCells:
        """Make the record of the cells with these names; a name that comes twice counts once.

        Examples
        --------
        >>> TrainingCells.of(["b", "a", "b"]).contain(["a", "x"])
        array([ True, False])
        """
        return cls._record(np.unique(name_digests(names)))

    @classmethod
    def _record(cls, digests: np.ndarray) -> TrainingCells:
        return cls(count=len(digests), digests=base64.b64encode(digests.astype("<u8").tobytes()).decode())

    def united(self, other: TrainingCells) -> TrainingCells:
        """Make the record of these cells and those of another.

        Examples
        --------
        >>> TrainingCells.of(["b", "a"]).united(TrainingCells.of(["b", "c"])).count
        3
        """
        return self._record(np.union1d(self._known, other._known))

    def contain(self, names: Sequence[str]) -> np.ndarray:
        """Tell which names are those of training cells, bool [n]."""
        return np.isin(name_digests(names), self._known)

    @property
    def _known(self) -> np.ndarray:
        return np.frombuffer(base64.b64decode(self.digests), dtype="<u8")
