"""Splits: whatever the file or object holds, each cell has one part or a message says why."""

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from fuzzing import inputs, tried
from hypothesis import example, given
from hypothesis import strategies as st

from causcell_training.data.split import read_split, split_as_given

WORDS = st.sampled_from(["train", "test", "Validation", "report", "choose", "dev", "", " train "])
NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12) | st.sampled_from(["a", "b", "c 1"])
HEADERS = st.sampled_from([["cell", "split"], ["", "split"], ["Split", "note", "CELL"]]) | st.lists(
    st.sampled_from(["cell", "split", "", "Cell", "SPLIT", "index", "part", "#"]), max_size=4
)
PIECES = st.sampled_from(
    ["cell", "split", "train", "test", "a", "b", ",", ";", "\t", "\n", "\r\n", '"', "#", "sep=;", "\0"]
)


@st.composite
def tables(draw: st.DrawFn) -> bytes:
    """A table as a program may have written it, or not quite."""
    buffer = io.StringIO()
    quoting = draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
    writer = csv.writer(buffer, delimiter=draw(st.sampled_from(",;\t")), quoting=quoting)
    header = draw(HEADERS)
    writer.writerow(header)
    even = draw(st.booleans())
    for _ in range(draw(st.integers(0, 5))):
        least, most = (len(header), len(header)) if even and header else (1, 4)
        writer.writerow(draw(st.lists(NAMES | WORDS, min_size=least, max_size=most)))
    return buffer.getvalue().encode(draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])), "replace")


@inputs(1200)
@given(tables() | st.binary(max_size=60) | st.lists(PIECES, max_size=20).map(lambda parts: "".join(parts).encode()))
@example(b"cell,split\n\xff,train\n")
@example(b'split\n"a\n')
@example(b"cell;split,split\n")
@example(b"")
def test_a_split_file_is_read_or_told(tmp_path_factory: Any, content: bytes) -> None:
    path = Path(tmp_path_factory.getbasetemp()) / "fuzzed_split.csv"
    path.write_bytes(content)
    with tried("split file"):
        parts = read_split(path)
        assert all(isinstance(name, str) and isinstance(part, str) for name, part in parts.items())
        text = content.decode("utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8")
        assert all(part.replace('"', "") in text.replace('"', "") for part in parts.values())  # nothing is made up


@inputs(800)
@given(st.lists(st.tuples(NAMES, WORDS), max_size=6), st.permutations(["mapping", "series", "frame", "file"]))
def test_what_a_table_says_is_read_whatever_its_form(
    tmp_path_factory: Any, rows: list[tuple[str, str]], forms: list[str]
) -> None:
    """The same table as a file, a frame and a series is the same split, or is refused each time."""
    frame = pd.DataFrame(rows, columns=["cell", "split"], dtype=object)
    with tried("split"):
        if forms[0] == "mapping":
            read = read_split(dict(rows))
            assert read == {name: part.strip() for name, part in rows}
        elif forms[0] == "series":
            read = read_split(frame.set_index("cell")["split"])
            assert read == {name: part.strip() for name, part in rows}
        elif forms[0] == "frame":
            assert read_split(frame) == {name: part.strip() for name, part in rows}
        else:
            names = np.array([name for name, _ in rows], dtype=object)
            labels = np.zeros((len(rows), 1), dtype=int)
            part = split_as_given(names, labels, dict(rows), 0.2, np.random.default_rng(0))
            assert set(part) <= {"train", "choose", "report"}
