"""The cells that a model was trained on, known by digests of their names."""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

from causcell._internal.digests import name_digests

MOST_DIGESTS = 2**16
"""Digests that are kept one by one; of more cells a filter is kept."""

FILTER_BITS = 2**23
"""Bits of the filter: 1 MiB, whatever the number of cells."""

_MOST_HASHES = 16


class TrainingCells(BaseModel):
    """The cells that a model was trained on, known by digests of their names.

    Up to `MOST_DIGESTS` cells are known exactly. Of more, a Bloom filter of `FILTER_BITS` bits tells: it knows every
    training cell, and takes a share of all others (`mistaken`) for one, so that an evaluation never judges a cell that
    was trained on and leaves that share of the others out. The share is below 1e-6 for 250,000 cells, .018 for a
    million, .70 for ten million.

    Attributes
    ----------
    count
        Number of distinct names.
    digests
        Base64 of the sorted digests, little-endian uint64 (BLAKE2b of 8 bytes); or of the filter's bits, the lowest bit
        of a byte first.
    hashes
        Bits that the filter sets for each name (Bloom 1970; places by double hashing, Kirsch and Mitzenmacher 2006);
        0 where the digests themselves are kept.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    count: int = Field(ge=0, le=10**12)
    digests: str
    hashes: int = Field(0, ge=0, le=_MOST_HASHES)

    @model_serializer(mode="wrap")
    def _leave_out_no_filter(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what earlier versions did not have: their files are written as they were."""
        return {name: value for name, value in dump(self).items() if value or name != "hashes"}

    @classmethod
    def of(cls, names: Iterable[str]) -> TrainingCells:
        """Make the record of the cells with these names; a name that comes twice counts once.

        Examples
        --------
        >>> TrainingCells.of(["b", "a", "b"]).contain(["a", "x"])
        array([ True, False])
        """
        digests = np.unique(name_digests(names))
        if len(digests) <= MOST_DIGESTS:
            return cls(count=len(digests), digests=base64.b64encode(digests.astype("<u8").tobytes()).decode())
        hashes = min(max(round(math.log(2) * FILTER_BITS / len(digests)), 1), _MOST_HASHES)
        bits = np.zeros(FILTER_BITS, dtype=bool)
        for i in range(hashes):
            bits[_places(digests, i)] = True
        packed = np.packbits(bits, bitorder="little")
        return cls(count=len(digests), digests=base64.b64encode(packed.tobytes()).decode(), hashes=hashes)

    @property
    def mistaken(self) -> float:
        """Share of cells that were not trained on and are taken for training cells."""
        if not self.hashes:
            return 0.0
        return float((-math.expm1(-self.hashes * self.count / FILTER_BITS)) ** self.hashes)

    def contain(self, names: Sequence[str]) -> np.ndarray:
        """Tell which names are those of training cells, bool [n]; see `mistaken`."""
        digests, known = name_digests(names), base64.b64decode(self.digests)
        if not self.hashes:
            return np.isin(digests, np.frombuffer(known, dtype="<u8"))
        bits = np.unpackbits(np.frombuffer(known, dtype=np.uint8), bitorder="little").view(bool)
        found = np.ones(len(digests), dtype=bool)
        for i in range(self.hashes):
            found &= bits[_places(digests, i)]
        return found

    def check(self) -> None:
        """Raise `ValueError` unless the digests, or the filter, are those of so many cells."""
        try:
            known = base64.b64decode(self.digests, validate=True)
        except (binascii.Error, ValueError):
            known = b"?"
        if self.hashes:
            if len(known) != FILTER_BITS // 8 or self.count <= MOST_DIGESTS:
                raise ValueError(f"training_cells.digests is no filter of {self.count} cells by {self.hashes} hashes")
            return
        if len(known) != 8 * self.count:
            raise ValueError(f"training_cells.digests does not hold {self.count} digests")
        values = np.frombuffer(known, dtype="<u8")
        if not (values[1:] > values[:-1]).all():
            raise ValueError("training_cells.digests is not sorted")


def _places(digests: np.ndarray, i: int) -> np.ndarray:
    """Return the bit of the filter that each digest's hash ``i`` sets, int64 [n]."""
    first, step = digests & np.uint64(0xFFFFFFFF), (digests >> np.uint64(32)) | np.uint64(1)
    places: np.ndarray = ((first + np.uint64(i) * step) % np.uint64(FILTER_BITS)).astype(np.int64)
    return places
