"""Keyed randomness: every random number of a cell hangs on the cell's name, never on its place in a batch.

A Philox4x64 stream (Salmon et al. 2011) is keyed by 128 bits hashed from the seed and the cell's name; purpose, draw
and step stand in its counter. So the same cell gets the same numbers in any batch, order, shard, worker or restart.
Numbers are made from the raw bits, which numpy keeps stable between versions.
"""

from __future__ import annotations

import hashlib
import operator
from enum import IntEnum
from functools import cached_property

import numpy as np

from causcell.errors import ConfigurationError
from causcell.preprocessing import Names


class Purpose(IntEnum):
    """What a random number is for; numbers of different purposes are independent."""

    INITIAL_NOISE = 1
    STEP_NOISE = 2
    ABDUCTION = 3
    REFERENCE = 4
    POSTERIOR = 5


def cell_keys(seed: int, names: Names) -> np.ndarray:
    """Keys of cells, uint64 [n x 2], from the seed (0 to 2^64 - 1) and each cell's name."""
    try:
        number = operator.index(seed)  # numpy's whole numbers too
    except TypeError:
        raise ConfigurationError(f"seed {seed!r} is no number; take a whole number from 0 to 2^64 - 1") from None
    if not 0 <= number < 2**64:
        raise ConfigurationError(f"seed {number} is out of range; take a whole number from 0 to 2^64 - 1")
    salt = number.to_bytes(8, "little")
    digests = b"".join(hashlib.blake2b(name.encode(), digest_size=16, key=salt).digest() for name in names)
    return np.frombuffer(digests, dtype="<u8").reshape(-1, 2).astype(np.uint64)


def _raw_bits(keys: np.ndarray, count: int, purpose: Purpose, draw: int, step: int) -> np.ndarray:
    """32 random bits each, uint32 [n x count]."""
    generator = np.random.Philox(key=0)
    state = generator.state
    state["state"]["counter"] = np.array([0, step, draw, int(purpose)], dtype=np.uint64)
    words = (count + 1) // 2
    bits = np.empty((len(keys), words), dtype=np.uint64)
    for i, key in enumerate(keys):
        state["state"]["key"] = key
        generator.state = state
        bits[i] = generator.random_raw(words)
    return bits.astype("<u8", copy=False).view("<u4")[:, :count]


def uniforms(keys: np.ndarray, count: int, purpose: Purpose, *, draw: int = 0, step: int = 0) -> np.ndarray:
    """Uniform numbers strictly between 0 and 1, float32 [n x count], for cells with the given keys."""
    bits = _raw_bits(keys, count, purpose, draw, step) >> np.uint32(9)
    bits |= np.uint32(0x3F800000)  # with this exponent, 23 bits are a float32 from 1 to 2
    numbers = bits.view(np.float32)
    numbers -= np.float32(1 - 2.0**-24)
    return numbers


def normals(keys: np.ndarray, count: int, purpose: Purpose, *, draw: int = 0, step: int = 0) -> np.ndarray:
    """Standard normal numbers (Box and Muller 1958), float32 [n x count], for cells with the given keys."""
    pairs = (count + 1) // 2
    u = uniforms(keys, 2 * pairs, purpose, draw=draw, step=step)
    radius = np.log(u[:, :pairs])
    radius *= -2
    np.sqrt(radius, out=radius)
    angle = np.float32(2 * np.pi) * u[:, pairs:]
    np.multiply(radius, np.cos(angle), out=u[:, :pairs])
    np.multiply(radius, np.sin(angle), out=u[:, pairs:])
    return u[:, :count]


def choices(keys: np.ndarray, sizes: np.ndarray, purpose: Purpose, *, draw: int = 0, step: int = 0) -> np.ndarray:
    """One index below ``sizes`` [n] for each cell, int64 [n]."""
    bits = _raw_bits(keys, 1, purpose, draw, step)[:, 0].astype(np.uint64)
    return ((bits * np.asarray(sizes, dtype=np.uint64)) >> np.uint64(32)).astype(np.int64)


class CellNoise:
    """The numbers of a batch of cells for one draw, whatever the intervention.

    What a loop begins with is made once, and kept for the cells' next intervention.

    Parameters
    ----------
    keys
        The cells' keys, uint64 [B x 2].
    genes
        G.
    draw
        Index of the draw.
    """

    def __init__(self, keys: np.ndarray, genes: int, draw: int = 0) -> None:
        self._keys, self._genes, self._draw = keys, genes, draw
        self._first: tuple[int, np.ndarray] | None = None

    @cached_property
    def initial(self) -> np.ndarray:
        """Standard normals to begin with, float32 [B x G]; not to be written to."""
        return normals(self._keys, self._genes, Purpose.INITIAL_NOISE, draw=self._draw)

    def fresh(self, step: int) -> np.ndarray:
        """Standard normals of a step, float32 [B x G]."""
        return normals(self._keys, self._genes, Purpose.STEP_NOISE, draw=self._draw, step=step)

    def posterior(self, timestep: int) -> np.ndarray:
        """Uniforms of a draw from the posterior at a time, float32 [B x G]; not to be written to."""
        if self._first is not None and self._first[0] == timestep:
            return self._first[1]
        made = uniforms(self._keys, self._genes, Purpose.POSTERIOR, draw=self._draw, step=timestep)
        self._first = self._first or (timestep, made)
        return made
