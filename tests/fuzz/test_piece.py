"""Chunks of a CSR matrix: whatever the bytes, values of the stated number are read of them, or they are refused."""

import io

import numpy as np
from fuzzing import inputs, tried
from google_crc32c import value as crc32c
from hypothesis import given
from hypothesis import strategies as st

from causcell.atlas.sharding import encode_chunk, read_chunks

CHUNK = encode_chunk(np.arange(40, dtype=np.float32) % 7, "float32", "blosc")


@inputs(400)
@given(st.one_of(st.binary(max_size=60), st.tuples(st.integers(0, len(CHUNK) - 1), st.integers(0, 255))), st.data())
def test_a_chunk_has_its_values_or_is_refused(change: bytes | tuple[int, int], data: st.DataObject) -> None:
    content = bytearray(CHUNK)
    if isinstance(change, bytes):
        content = bytearray(change)
    else:
        content[change[0]] = change[1]
    place, length = data.draw(st.integers(0, 5)), data.draw(st.just(len(content)) | st.integers(0, 200))
    index = np.array([[place if length != len(content) else 0, length]], dtype="<u8").tobytes()
    file = io.BytesIO(bytes(content) + index + crc32c(index).to_bytes(4, "little"))
    with tried("a chunk of a CSR matrix"):
        try:
            for values in read_chunks(file, "float32", (40,), 1, codec="blosc"):
                assert values.shape == (40,)
        except (ValueError, RuntimeError):
            return
