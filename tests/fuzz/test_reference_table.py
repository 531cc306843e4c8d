"""Reader of ``reference.npz``: no archive of a stranger fills the memory, runs code or makes a draw fail later."""

import io
import json
import struct
import tracemalloc
import zipfile
from typing import Any

import numpy as np
import pytest
from fuzzing import inputs, tried
from hypothesis import example, given
from hypothesis import strategies as st
from strangers import ARCHIVED

from causcell.errors import CorruptFileError
from causcell.randomness import cell_keys
from causcell.repository.manifest import Manifest
from causcell.repository.reference_cells import ReferenceCells

MANIFEST = Manifest.from_json((ARCHIVED / "manifest.json").read_bytes(), "manifest.json")
CONTENT = (ARCHIVED / "reference.npz").read_bytes()
SOUND = ReferenceCells.load(CONTENT, MANIFEST)
ARRAYS = {name: getattr(SOUND, name) for name in ("exogenous", "labels", "combinations")}
KEYS = cell_keys(0, ["a", "b"])


def read(content: bytes) -> None:
    """Read the table, and draw by it as a client does."""
    with tried("reference table"):
        cells = ReferenceCells.load(content, MANIFEST, "reference.npz")
        assert np.isfinite(cells.exogenous).all()
        for concept, known in enumerate(MANIFEST.concepts):
            MANIFEST.concept_schema.label_names(cells.labels[:, concept], known.name)
            for label in np.unique(cells.labels[cells.labels[:, concept] >= 0, concept]):
                rows, _ = cells.draw(concept, int(label), KEYS, draw=0)
                assert (cells.labels[rows, concept] == label).all()


def packed(members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def with_header(shape: Any, dtype: str, data: bytes) -> bytes:
    """Return an array's file whose header states what it likes."""
    header = f"{{'descr': {dtype!r}, 'fortran_order': False, 'shape': {shape!r}, }}".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data


DAMAGE = st.lists(
    st.tuples(st.integers(0, len(CONTENT) - 1), st.integers(0, 20), st.binary(max_size=8)), min_size=1, max_size=3
)


@inputs(600)
@given(DAMAGE)
def test_damaged_bytes(damage: list[tuple[int, int, bytes]]) -> None:
    content = CONTENT
    for place, removed, added in damage:
        content = content[:place] + added + content[place + removed :]
    read(content)


FORMS = st.tuples(
    st.sampled_from(list(ARRAYS)),
    st.one_of(
        st.lists(st.one_of(st.integers(-2, 40), st.sampled_from([2**31, 2**63, 10**30])), max_size=4).map(tuple),
        st.sampled_from(["x", None, 5, (True,), (1.5,)]),
    ),
    st.sampled_from(["<f4", ">f4", "<f8", "<i4", "|O", "|S5", "<M8[s]", "V4", "nonsense", "", [("a", "<f4")], "<U9"]),
    st.binary(max_size=200),
)


@inputs(400)
@given(FORMS)
@example(("labels", (10**30, 0), "<i4", b""))
@example(("exogenous", (2**40, 5, 4), "<f4", b""))
@example(("labels", "x", "nonsense", b""))
def test_headers_that_state_anything(form: tuple[str, Any, Any, bytes]) -> None:
    name, shape, dtype, data = form
    members = {f"{each}.npy": npy(array) for each, array in ARRAYS.items()}
    read(packed(members | {f"{name}.npy": with_header(shape, dtype, data)}))


VALUES = st.tuples(
    st.sampled_from(list(ARRAYS)),
    st.integers(0, 10_000),
    st.one_of(st.sampled_from([np.nan, np.inf, -np.inf, -1, -2, 2**31 - 1, -(2**31), 0, 3e38]), st.integers(-5, 9)),
    st.sampled_from(["", "transpose", "float64", "int64", "fortran", "drop row", "drop column", "twice", "empty"]),
)


@inputs(500)
@given(st.lists(VALUES, min_size=1, max_size=3))
def test_arrays_of_other_values_and_shapes(edits: list[tuple[str, int, float, str]]) -> None:
    arrays = {name: array.copy() for name, array in ARRAYS.items()}
    for name, place, value, change in edits:
        array = arrays[name]
        with np.errstate(all="ignore"):
            if array.size and not (array.dtype.kind == "i" and not np.isfinite(value)):
                array.ravel()[place % array.size] = (
                    np.clip(value, -(2**31), 2**31 - 1) if array.dtype.kind == "i" else value
                )
        changed = {
            "transpose": lambda a: np.ascontiguousarray(a.T),
            "float64": lambda a: a.astype(np.float64),
            "int64": lambda a: np.nan_to_num(a, posinf=0, neginf=0).astype(np.int64),
            "fortran": np.asfortranarray,
            "drop row": lambda a: a[1:],
            "drop column": lambda a: a[:, 1:] if a.ndim > 1 else a,
            "twice": lambda a: np.concatenate([a, a]),
            "empty": lambda a: a[:0],
        }.get(change, lambda a: a)
        with np.errstate(all="ignore"):
            arrays[name] = changed(array)
    read(packed({f"{name}.npy": npy(array) for name, array in arrays.items()}))


@inputs(100)
@given(
    st.dictionaries(
        st.sampled_from(["exogenous.npy", "labels.npy", "combinations.npy", "evil.npy", "../x.npy", "labels", "x/"]),
        st.binary(max_size=100),
        max_size=4,
    ),
    st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]),
)
def test_archives_of_other_members(members: dict[str, bytes], compression: int) -> None:
    read(packed(members, compression))


def bomb() -> bytes:
    """An archive of 100 kB whose arrays would be 100 MB."""
    return packed(
        {f"{name}.npy": with_header((25 * 10**6,), "<f4", bytes(10**8 if name == "labels" else 0)) for name in ARRAYS}
    )


def pickled() -> bytes:
    return packed({f"{name}.npy": npy(np.array([{}], dtype=object)) for name in ARRAYS})


def twice() -> bytes:
    buffer = io.BytesIO(CONTENT)
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr("labels.npy", npy(ARRAYS["labels"]))
    return buffer.getvalue()


def single() -> bytes:
    return npy(ARRAYS["labels"])


@pytest.mark.parametrize("make", [bomb, pickled, twice, single])
def test_hostile_archives(make: Any) -> None:
    content = make()
    tracemalloc.start()
    try:
        with (
            tried("reference table"),
            pytest.raises(CorruptFileError, match=r"^reference\.npz holds no reference cells"),
        ):
            ReferenceCells.load(content, MANIFEST, "reference.npz")
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()


def test_a_code_that_no_label_has_is_refused() -> None:
    count = len(MANIFEST.concepts[0].labels)
    arrays = {name: array.copy() for name, array in ARRAYS.items()}
    arrays["labels"][0, 0] = count
    with pytest.raises(CorruptFileError, match=f"labels has code {count} of a concept of {count} labels"):
        ReferenceCells.load(packed({f"{name}.npy": npy(each) for name, each in arrays.items()}), MANIFEST)
    assert json.loads((ARCHIVED / "manifest.json").read_text())["dimensions"]["concepts"] == SOUND.labels.shape[1]
