"""URLs, locks of object stores and consolidated metadata: whatever stands there, it is used or a message says why."""

import json

import pytest
from fuzzing import inputs, tried
from hypothesis import example, given
from hypothesis import strategies as st

from causcell._internal.remote import READABLE, RemotePath, any_path
from causcell.atlas.lease import Lease
from causcell.cells.zarr_file import _consolidated_names
from causcell.errors import OutputBusyError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
PIECES = st.sampled_from(
    ["s3", "gs", "https", "http", "file", ":", "/", "//", "@", "?", "#", "..", "[", "]", "%2e", "\\"]
)


@inputs(1000)
@given(st.lists(PIECES | st.text(max_size=5), max_size=12).map("".join))
@example("https://hunter2@[host/a.zarr")
def test_a_url_is_taken_or_told(text: str) -> None:
    with tried("URL"):
        place = any_path(text, "data", READABLE)
        if isinstance(place, RemotePath):
            assert "?" not in place.url
            assert "@" not in place.url.split("/")[2]
            assert any_path(place, "data", READABLE) == place


@inputs(300)
@given(
    st.binary(max_size=40)
    | JSON.map(lambda fields: json.dumps(fields).encode())
    | st.fixed_dictionaries(
        {"token": JSON, "seconds": JSON, "pid": JSON, "host": JSON, "boot": JSON, "started": JSON}
    ).map(lambda fields: json.dumps(fields).encode())
)
def test_a_lock_is_taken_only_if_it_is_free(content: bytes) -> None:
    stores = pytest.importorskip("obstore.store", reason="a store in memory is obstore's; install causcell[cloud]")
    store = stores.MemoryStore()
    store.put("lock", content)
    lease = Lease(store, RemotePath("s3://bucket/atlas.zarr"), "lock")
    with tried("lock of a store"):
        try:
            with lease.held():
                lease.check()
        except OutputBusyError:
            assert bytes(store.get("lock").bytes()) == content
            raise
        fields = json.loads(content)
        assert isinstance(fields, dict)
        assert fields.get("token") in (None, "")


@inputs(500)
@given(
    st.binary(max_size=40)
    | JSON.map(lambda fields: json.dumps(fields).encode())
    | st.fixed_dictionaries(
        {}, optional={"metadata": JSON, "consolidated_metadata": JSON | st.fixed_dictionaries({"metadata": JSON})}
    ).map(lambda fields: json.dumps(fields).encode())
)
@example(b"[" * 100_000)
def test_consolidated_metadata_tell_names_or_nothing(content: bytes) -> None:
    with tried("consolidated metadata"):
        names = _consolidated_names(content)
        assert names is None or all(isinstance(name, str) for name in names)
