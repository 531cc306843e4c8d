"""Columns of labels: any column is concepts with codes that mean the same values, or is refused with a message."""

import math
from typing import Any

import numpy as np
import pandas as pd
from fuzzing import inputs, tried
from hypothesis import example, given
from hypothesis import strategies as st

import causcell
from causcell._internal.labels import label_text, number_text
from causcell.cells.check.labels import label_findings
from causcell.concept_columns import schema_from_obs
from causcell.concepts import UNLABELLED

NUMBERS = st.floats(width=32) | st.floats() | st.integers(-(10**6), 10**6) | st.sampled_from([35.0, 0.1, 1e-5, 1e300])
VALUES = (
    NUMBERS
    | st.booleans()
    | st.none()
    | st.sampled_from(["nan", "35", "35.0", "01", "IFN ", "IFN", "", "1e999", "9" * 400, float("nan"), pd.NA, pd.NaT])
    | st.text(max_size=4)
    | st.builds(list)
    | st.just(b"x")
    | st.just((1, 2))
)
DTYPES = st.sampled_from(["object", "category", "float32", "float64", "Float32", "Int64", "boolean", "string", "int8"])


@inputs(800)
@given(st.lists(VALUES, max_size=8) | st.lists(NUMBERS, max_size=8), DTYPES)
@example([True, 1, 1.0, "1"], "object")
@example([np.float32(0.1), 0.1, 35], "object")
@example(["9" * 400, "1"], "object")
def test_a_column_is_labels_or_told(values: list[Any], dtype: str) -> None:
    try:
        column = pd.Series(values, dtype=object).astype(dtype)  # type: ignore[call-overload]
    except Exception:  # pandas has no such column
        return
    obs = pd.DataFrame({"c": column})
    with tried("labels"):
        schema = schema_from_obs(obs, ["c"])
        codes = schema.encode(obs)[:, 0]
        np.testing.assert_array_equal(codes == UNLABELLED, column.isna())
        labels = schema["c"].labels
        for value, code in zip(column[codes >= 0], codes[codes >= 0], strict=True):
            assert labels[code] == label_text(value) or number_text(labels[code]) == number_text(value)
        again = pd.DataFrame({"c": [None if code < 0 else labels[code] for code in codes]}, dtype=object)
        np.testing.assert_array_equal(schema.encode(again)[:, 0], codes)
        list(label_findings("c", dict.fromkeys(labels, 1), 0))


@inputs(1500)
@given(st.floats(allow_nan=False, allow_infinity=False))
@example(35.0)
@example(float(np.float32(0.1)))
@example(-0.0)
@example(2.0**63)
def test_the_text_of_a_number_is_the_number(value: float) -> None:
    with tried("numbers"):
        assert math.isclose(float(label_text(value)), value, rel_tol=1e-7, abs_tol=1e-44)
        if abs(value) > float(np.finfo(np.float32).max):
            return
        assert label_text(np.float32(value)) == label_text(float(np.float32(value)))
        number = number_text(label_text(value))
        assert number is None or math.isclose(float(number), value, rel_tol=1e-7, abs_tol=1e-44)


@inputs(150)
@given(
    st.lists(st.tuples(st.sampled_from("abcd") | st.none(), st.sampled_from("xyz")), min_size=2, max_size=30), st.data()
)
def test_any_labels_can_be_checked(rows: list[tuple[str | None, str]], data: st.DataObject) -> None:
    import anndata

    obs = pd.DataFrame(rows, columns=["a", "b"], index=[f"c{i}" for i in range(len(rows))])
    edges = data.draw(st.lists(st.sampled_from(["a:b", "b:a", "a:a", "a:c", "a"]), max_size=2))
    with tried("check"):
        report = causcell.check(anndata.AnnData(np.ones((len(rows), 3), dtype=np.float32), obs=obs), ["a", "b"], edges)
        assert sum(report.concepts[0].labels.values()) <= len(rows) if report.concepts else report.errors
        assert str(report)
