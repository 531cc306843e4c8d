"""Keyed randomness: a cell's random numbers depend on its name, never on its place in a batch.

A Philox4x64 stream (Salmon et al. 2011, *Parallel random numbers: as easy as 1, 2, 3*) is keyed by 128 bits hashed
from the seed and the cell's name; purpose, index of the draw and step are words of its counter. So the same cell gets
the same numbers in any batch, order, shard, worker or restart. Numbers are made from the raw bits, which numpy keeps
stable between versions.
"""

from __future__ import annotations

import hashlib
from enum import IntEnum
from functools import cached_property
from typing import Any

import numpy as np

from causcell._internal.numbers import whole_number
from causcell.preprocessing import Names

LARGEST_SEED = 2**64 - 1
"""Seeds are whole numbers from 0 to this."""


_AT_ONCE = 32
"""Cells whose bits become numbers at once."""


class Purpose(IntEnum):
    """The purpose of a random number; numbers for different purposes are independent."""

    INITIAL_NOISE = 1
    """Pure noise x_T that a solver starts from."""
    STEP_NOISE = 2
    """Fresh noise of a solver's step."""
    ABDUCTION = 3
    """A sample of the exogenous embeddings from their posterior."""
    REFERENCE = 4
    """The choice of a reference cell."""
    POSTERIOR = 5
    """A sample of expression from the head's posterior."""
    PRIOR = 6
    """A sample of a concept's embedding from its prior; the same for every value that a cell is set to."""


def cell_keys(seed: int, names: Names) -> np.ndarray:
    """Compute the keys of cells from the seed and each cell's name.

    Parameters
    ----------
    seed
        A whole number from 0 to 2^64 - 1.
    names
        Names of the cells, [n].

    Returns
    -------
    Keys, uint64 [n x 2]: BLAKE2b of the name, keyed by the seed.

    Raises
    ------
    ConfigurationError
        The seed is no whole number, or is out of range.

    Examples
    --------
    >>> together = cell_keys(0, ["AAAC-1", "AAAG-1"])
    >>> (cell_keys(0, ["AAAG-1"]) == together[1]).all()
    np.True_
    """
    number = whole_number(seed, "seed", 0, LARGEST_SEED)
    keyed = hashlib.blake2b(digest_size=16, key=number.to_bytes(8, "little")).copy
    digests = bytearray()
    for name in names:
        digest = keyed()  # a copy takes half the time of a new one
        digest.update(name.encode())
        digests += digest.digest()
    return np.frombuffer(digests, dtype="<u8").reshape(-1, 2).astype(np.uint64)


def _raw_bits(keys: np.ndarray, count: int, purpose: Purpose, draw: int, step: int) -> np.ndarray:
    """Make 32 random bits for each number, uint32 [n x count]."""
    generator = np.random.Philox(key=0)
    words = (count + 1) // 2
    bits = np.empty((len(keys), words), dtype=np.uint64)
    seeded: dict[str, Any] = {"counter": (0, step, draw, int(purpose))}
    state: Any = {**generator.state, "state": seeded, "buffer": (0,) * 4}  # Python's numbers are set in half the time
    for row, key in zip(bits, keys.tolist(), strict=True):
        seeded["key"] = key
        generator.state = state
        row[:] = generator.random_raw(words)
    return bits.astype("<u8", copy=False).view("<u4")[:, :count]


def uniforms(keys: np.ndarray, count: int, purpose: Purpose, *, draw: int = 0, step: int = 0) -> np.ndarray:
    """Make uniform random numbers strictly between 0 and 1.

    Parameters
    ----------
    keys
        Keys of the cells, uint64 [n x 2]; see `cell_keys`.
    count
        Numbers a cell.
    purpose, draw, step
        The purpose, the index of the draw and the step that the numbers are for; others are independent of them.

    Returns
    -------
    float32 [n x count], each one of 2^23 equally likely values.

    Examples
    --------
    >>> u = uniforms(cell_keys(0, ["cell_0000"]), 3, Purpose.INITIAL_NOISE)
    >>> u.round(4)
    array([[0.6367, 0.7616, 0.8979]], dtype=float32)
    """
    bits = _raw_bits(keys, count, purpose, draw, step)
    for rows in (bits[i : i + _AT_ONCE] for i in range(0, len(bits), _AT_ONCE)):  # three passes, in the CPU's cache
        rows >>= np.uint32(9)
        rows |= np.uint32(0x3F800000)  # with this exponent, 23 bits are a float32 from 1 to 2
        numbers = rows.view(np.float32)
        numbers -= np.float32(1 - 2.0**-24)
    return bits.view(np.float32)


def normals(keys: np.ndarray, count: int, purpose: Purpose, *, draw: int = 0, step: int = 0) -> np.ndarray:
    """Make standard normal random numbers by the transform of Box and Muller (1958).

    Parameters
    ----------
    keys, count, purpose, draw, step
        See `uniforms`.

    Returns
    -------
    float32 [n x count].
    """
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
    """Choose one index for each cell, uniformly.

    Parameters
    ----------
    keys, purpose, draw, step
        See `uniforms`.
    sizes
        Number of things to choose from for each cell, whole numbers [n] from 1 to 2^32.

    Returns
    -------
    Indices from 0 to ``sizes - 1``, int64 [n].
    """
    bits = _raw_bits(keys, 1, purpose, draw, step)[:, 0].astype(np.uint64)
    return ((bits * np.asarray(sizes, dtype=np.uint64)) >> np.uint64(32)).astype(np.int64)


class CellNoise:
    """Random numbers of a batch of cells for one draw, the same under every intervention.

    The numbers that a solver starts from are made once and kept for the cells' next intervention.

    Parameters
    ----------
    keys
        Keys of the cells, uint64 [B x 2]; see `cell_keys`.
    genes
        Number of genes, G.
    draw
        Index of the draw.
    """

    def __init__(self, keys: np.ndarray, genes: int, draw: int = 0) -> None:
        self._keys, self._genes, self._draw = keys, genes, draw
        self._first: tuple[int, np.ndarray] | None = None

    @cached_property
    def initial(self) -> np.ndarray:
        """Pure noise x_T that a solver starts from, float32 [B x G]; not to be written to."""
        return normals(self._keys, self._genes, Purpose.INITIAL_NOISE, draw=self._draw)

    def fresh(self, step: int) -> np.ndarray:
        """Make the fresh noise of a step, standard normal, float32 [B x G]."""
        return normals(self._keys, self._genes, Purpose.STEP_NOISE, draw=self._draw, step=step)

    def posterior(self, timestep: int) -> np.ndarray:
        """Return the uniforms of a posterior sample at a timestep, float32 [B x G]; not to be written to."""
        if self._first is not None and self._first[0] == timestep:
            return self._first[1]
        made = uniforms(self._keys, self._genes, Purpose.POSTERIOR, draw=self._draw, step=timestep)
        self._first = self._first or (timestep, made)
        return made
