"""A damaged or hostile ``.h5ad`` is refused with a message or read as what it was: no traceback, no other data."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from damage import LOST, cells, read_all, same
from fuzzing import inputs, tried
from hypothesis import given
from hypothesis import strategies as st

pytestmark = pytest.mark.filterwarnings("ignore::Warning")

LAYOUTS = ("dense", "csr", "csc")
COMPRESSIONS: dict[str, dict[str, Any]] = {"plain": {}, "gzip": {"compression": "gzip"}}

Damage = Callable[[h5py.File, str], None]


@dataclass(repr=False)
class Base:
    """A sound file, what it reads as, its elements and their attributes."""

    path: Path
    expected: dict[str, Any]
    elements: list[str]
    attributes: list[tuple[str, str]]


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """Sound files by layout."""
    return {
        f"{layout}-{name}": make_base(tmp_path_factory.mktemp("h5ad") / "cells.h5ad", layout, options)
        for layout in LAYOUTS
        for name, options in COMPRESSIONS.items()
    }


def make_base(path: Path, layout: str, options: dict[str, Any]) -> Base:
    cells(layout).write_h5ad(path, **options)
    elements: list[str] = []
    with h5py.File(path) as file:
        file.visit(elements.append)
        attributes = [(place, key) for place in elements for key in file[place].attrs]
    return Base(path, read_all(path), elements, attributes)


def delete(file: h5py.File, place: str) -> None:
    del file[place]


def swap(file: h5py.File, place: str) -> None:
    """A group in place of an array, or an array in place of a group."""
    group = isinstance(file[place], h5py.Group)
    del file[place]
    if group:
        file[place] = np.arange(5)
    else:
        file.create_group(place)


def replaced(change: Callable[[np.ndarray], Any]) -> Damage:
    """Other values in an array's place, under its attributes."""

    def damage(file: h5py.File, place: str) -> None:
        if isinstance(file[place], h5py.Group):
            return
        kept, values = dict(file[place].attrs), file[place][()]
        del file[place]
        file[place] = change(np.asarray(values))
        file[place].attrs.update(kept)

    return damage


def longer(values: np.ndarray) -> np.ndarray:
    return np.concatenate([np.atleast_1d(values), np.atleast_1d(values)[:1]])


def unwritten(file: h5py.File, place: str) -> None:
    """An array of the same shape of which no chunk was ever written."""
    if isinstance(file[place], h5py.Dataset) and file[place].shape:
        kept, shape, dtype = dict(file[place].attrs), file[place].shape, file[place].dtype
        del file[place]
        file.create_dataset(place, shape, dtype, chunks=tuple(max(1, n // 2) for n in shape))
        file[place].attrs.update(kept)


def vast(file: h5py.File, place: str) -> None:
    """An array of 2 ** 50 rows that takes no space."""
    if isinstance(file[place], h5py.Dataset) and file[place].shape:
        kept, shape, dtype = dict(file[place].attrs), file[place].shape, file[place].dtype
        del file[place]
        file.create_dataset(place, (2**50, *shape[1:]), dtype, chunks=(1024, *shape[1:]))
        file[place].attrs.update(kept)


def linked(link: Callable[[str], Any]) -> Damage:
    def damage(file: h5py.File, place: str) -> None:
        file.move(place, "elsewhere")
        file[place] = link(place)

    return damage


def foreign(file: h5py.File, place: str) -> None:
    """Values that stand in another file: its bytes would be read."""
    if isinstance(file[place], h5py.Dataset) and file[place].shape and file[place].dtype.kind in "iuf":
        kept, shape, dtype = dict(file[place].attrs), file[place].shape, file[place].dtype
        del file[place]
        size = int(np.prod(shape)) * dtype.itemsize
        file.create_dataset(place, shape, dtype, external=[("/etc/passwd", 0, size)])
        file[place].attrs.update(kept)


def virtual(file: h5py.File, place: str) -> None:
    if isinstance(file[place], h5py.Dataset) and file[place].shape and file[place].dtype.kind in "iuf":
        kept, shape, dtype = dict(file[place].attrs), file[place].shape, file[place].dtype
        del file[place]
        layout = h5py.VirtualLayout(shape, dtype)
        layout[...] = h5py.VirtualSource("other.h5ad", place, shape, dtype)
        file.create_virtual_dataset(place, layout)
        file[place].attrs.update(kept)


STRUCTURAL: dict[str, Damage] = {
    "delete": delete,
    "swap": swap,
    "shorter": replaced(lambda values: np.atleast_1d(values)[:-1]),
    "longer": replaced(longer),
    "empty": replaced(lambda values: np.atleast_1d(values)[:0]),
    "scalar": replaced(lambda values: np.atleast_1d(values).ravel()[0]),
    "deeper": replaced(lambda values: np.atleast_1d(values)[:, None]),
    "nothing": replaced(lambda values: h5py.Empty("f4")),
    "unwritten": unwritten,
    "vast": vast,
    "soft link": linked(lambda place: h5py.SoftLink("/elsewhere")),
    "dangling link": linked(lambda place: h5py.SoftLink("/nowhere")),
    "external link": linked(lambda place: h5py.ExternalLink("other.h5ad", place)),
    "foreign": foreign,
    "virtual": virtual,
}
"""None of these may read as other data: the file is refused, or reads as it was."""

VALUES: dict[str, Damage] = {
    "complex": replaced(lambda values: values.astype(complex) if values.dtype.kind in "iuf" else 1j),
    "text": replaced(lambda values: [str(value) for value in np.atleast_1d(values).ravel()]),
    "half": replaced(lambda values: values.astype("f2") if values.dtype.kind in "iuf" else values),
    "big-endian": replaced(lambda values: values.astype(">f8") if values.dtype.kind in "iuf" else values),
    "negative": replaced(lambda values: -values.astype("i8") if values.dtype.kind in "iuf" else values),
    "huge": replaced(lambda values: values.astype("u8") + np.uint64(2**63) if values.dtype.kind in "iuf" else values),
    "missing": replaced(lambda values: values * np.nan if values.dtype.kind == "f" else values),
    "references": replaced(lambda values: np.empty(values.shape, h5py.ref_dtype)),
    "not UTF-8": replaced(lambda values: np.full(np.shape(values), b"\xff\xfe", dtype=object)),
}
"""Values that may be read, where they can be."""

ATTRIBUTES: dict[str, Any] = {
    "deleted": None,
    "a number": 7,
    "a text": "nothing of the kind",
    "numbers": np.array([3, 4]),
    "negative": np.array([-1, -1]),
    "vast": np.array([2**50, 2**50]),
    "floats": np.array([0.5, np.nan]),
    "texts": ["stim", "stim"],
    "empty": h5py.Empty("f4"),
    "bytes": np.bytes_(b"\xff"),
}


def damaged(path: Path, damage: Callable[[Path], None]) -> dict[str, Any] | None:
    """What a damaged copy reads as; `None` where it is refused."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "cells.h5ad")
        shutil.copyfile(path, copy)
        damage(copy)
        with tried("h5ad"):
            return read_all(copy)
    return None


def within(damage: Damage, place: str) -> Callable[[Path], None]:
    def apply(path: Path) -> None:
        with h5py.File(path, "r+") as file:
            damage(file, place)

    return apply


layouts = st.sampled_from([f"{layout}-{name}" for layout in LAYOUTS for name in COMPRESSIONS])


@inputs(180)
@given(layouts, st.sampled_from(sorted(STRUCTURAL)), st.integers(0, 10**6))
def test_a_file_whose_structure_is_damaged_never_reads_as_other_data(bases, layout, kind, which):
    base = bases[layout]
    place = base.elements[which % len(base.elements)]
    found = damaged(base.path, within(STRUCTURAL[kind], place))
    if found is not None:
        lost = LOST if kind == "unwritten" and place.startswith(("obs/", "obsm/", "var/")) else ()
        same(found, base.expected, but=lost)  # a column of zeros and one that was never written can't be told apart


@inputs(60)
@given(layouts, st.sampled_from(sorted(VALUES)), st.integers(0, 10**6))
def test_a_file_with_other_values_is_read_or_refused(bases, layout, kind, which):
    base = bases[layout]
    damaged(base.path, within(VALUES[kind], base.elements[which % len(base.elements)]))


@inputs(80)
@given(layouts, st.sampled_from(sorted(ATTRIBUTES)), st.integers(0, 10**6))
def test_a_file_with_other_attributes_is_read_or_refused(bases, layout, kind, which):
    base = bases[layout]
    place, key = base.attributes[which % len(base.attributes)]

    def change(path: Path) -> None:
        with h5py.File(path, "r+") as file:
            del file[place].attrs[key]
            if ATTRIBUTES[kind] is not None:
                file[place].attrs[key] = ATTRIBUTES[kind]

    found = damaged(base.path, change)
    if found is not None:
        same(found, base.expected)


@inputs(60)
@given(
    st.sampled_from(["csr-plain", "csc-gzip"]),
    st.sampled_from(["indptr", "indices"]),
    st.sampled_from(["zeros", "reversed", "beyond", "below", "not from zero", "floats", "end"]),
    st.integers(0, 10**6),
)
def test_edited_sparse_indices_are_refused(bases, layout, part, kind, which):
    base = bases[layout]

    def change(path: Path) -> None:
        with h5py.File(path, "r+") as file:
            array = file[f"X/{part}"]
            values = array[:]
            place = which % len(values)
            if kind == "zeros":
                values[:] = 0
            elif kind == "reversed":
                values = values[::-1]
            elif kind in ("beyond", "below"):
                values[place] = 10**6 if kind == "beyond" else -1
            elif kind == "not from zero":
                values = values + 1
            elif kind == "end":
                values[-1] += 100
            if kind == "floats":
                del file[f"X/{part}"]
                file[f"X/{part}"] = values + 0.5
            else:
                array[:] = values

    found = damaged(base.path, change)
    if part == "indptr" or kind in ("zeros", "beyond", "below", "floats", "end"):
        assert found is None, f"{part} with {kind} was read"


@inputs(150)
@given(layouts, st.integers(0, 10**9), st.binary(min_size=1, max_size=16), st.sampled_from(["flip", "cut", "zero"]))
def test_a_file_with_other_bytes_is_read_or_refused(bases, layout, where, new, kind):
    def change(path: Path) -> None:
        data = bytearray(path.read_bytes())
        place = where % len(data)
        if kind == "cut":
            del data[place:]
        elif kind == "zero":
            data[place : place + 512] = bytes(min(512, len(data) - place))
        else:
            data[place : place + len(new)] = new[: len(data) - place]
        path.write_bytes(data)

    damaged(bases[layout].path, change)
