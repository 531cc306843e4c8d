"""The file of a shard's annotations: whatever its bytes, its index is within the file, or refused."""

import io
import json

from fuzzing import inputs, tried
from hypothesis import given
from hypothesis import strategies as st

from causcell.atlas.annotation_pieces import read_index

INDEX = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 40) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@inputs(400)
@given(st.binary(max_size=40), INDEX, st.none() | st.integers(0, 2**64 - 1), st.binary(max_size=9))
def test_an_index_is_within_its_file_or_refused(chunks: bytes, index: object, size: int | None, more: bytes) -> None:
    told = json.dumps(index).encode()
    length = len(told) if size is None else size
    content = chunks + told + length.to_bytes(8, "little") + (b"" if size is None else more)
    with tried("annotations of a shard"):
        try:
            found = read_index(io.BytesIO(content))
        except ValueError:
            return
        for start, count in found.values():
            assert 0 <= start <= start + count <= len(content)
