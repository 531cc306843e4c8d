"""Tables of label features, and columns of values: whatever they hold, they are read or a message says why."""

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from fuzzing import inputs, tried
from hypothesis import example, given
from hypothesis import strategies as st

from causcell.concept_reading import read_concept, read_label_features
from causcell.concepts import ConceptSchema

CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8) | st.sampled_from(
    ["1", "-2.5", "1e5", "nan", "inf", "1e400", "", "drug", "x", "y", "+", "A+B", "A+"]
)
PIECES = st.sampled_from(["drug", "x", "1", "2.5", ",", "\n", "\r\n", '"', "\0", "nan"])


@st.composite
def tables(draw: st.DrawFn) -> bytes:
    """A table as a program may have written it, or not quite."""
    buffer = io.StringIO()
    width = draw(st.integers(1, 3))
    header = draw(st.lists(CELLS, min_size=width + 1, max_size=width + 1))
    numbers = draw(st.sampled_from([st.floats(-1e6, 1e6).map(repr), st.integers().map(str), CELLS]))
    rows = draw(st.lists(st.tuples(CELLS, st.lists(numbers, min_size=width, max_size=width)), max_size=5))
    csv.writer(buffer).writerows([header, *([label, *features] for label, features in rows)])
    return buffer.getvalue().encode(draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16"])), "replace")


@inputs(500)
@given(tables() | st.binary(max_size=60) | st.lists(PIECES, max_size=20).map(lambda parts: "".join(parts).encode()))
@example(b"drug,size\n\xff,1\n")
@example(b'drug,size\n"x,1\n')
@example(b"")
def test_a_table_of_features_is_read_or_told(tmp_path_factory: Any, content: bytes) -> None:
    path = Path(tmp_path_factory.getbasetemp()) / "fuzzed_features.csv"
    path.write_bytes(content)
    with tried("label features"):
        table = read_label_features(path)
        assert table.rows
        assert all(len(row) == len(table.names) and np.isfinite(row).all() for row in table.rows.values())


COLUMNS = st.one_of(
    st.lists(st.one_of(st.none(), st.floats(), st.integers(-(2**70), 2**70)), min_size=1, max_size=8),
    st.lists(st.one_of(st.none(), CELLS), min_size=1, max_size=8),
    st.lists(
        st.one_of(st.none(), st.booleans(), st.floats(), CELLS, st.lists(CELLS, max_size=2)), min_size=1, max_size=8
    ),
)


@inputs(800)
@given(COLUMNS, st.sampled_from(["ordinal", "continuous", "set"]), st.sampled_from([None, "x"]))
@example([1e308, -1e308], "continuous", None)
@example([5e-324, 0.0], "continuous", None)
@example([1.0, 1.0000000000000002], "continuous", None)
@example([2**70, 1], "ordinal", None)
def test_a_column_of_values_is_read_and_encoded_or_told(column: list[Any], kind: str, control: str | None) -> None:
    obs = pd.DataFrame({"c": pd.Series(column, dtype=object)})
    with tried("concept"):
        concept = read_concept(obs, "c", kind, control=control if kind == "set" else None)
        codes, values = ConceptSchema((concept,)).encode_values(obs)
        labelled = codes[:, 0] >= 0
        assert set(codes[labelled, 0]) == set(range(len(concept.labels)))
        assert np.isfinite(values[labelled]).all()
        assert np.isnan(values[~labelled]).all()
        for label, value in zip(concept.labels, concept.values, strict=True):
            assert np.array_equal(concept.parse_value(label), value)
            assert not concept.extrapolates(value)
