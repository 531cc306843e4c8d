"""Labels and cells that come to those of a run: codes stay, new labels stand behind, statistics are pooled."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from causcell.concepts import Concept, ConceptSchema
from causcell.errors import ConceptError, UnknownConceptError, UnknownLabelError
from causcell.preprocessing import Preprocessing
from causcell_training.data.cells import TrainingData
from causcell_training.data.descended import grow_schema
from causcell_training.data.groups import summarise_groups

SCHEMA = ConceptSchema((Concept("age", ("9", "35")), Concept("stage", ("L1", "L2"), "ordinal")))


def grown(age: list[object], stage: object = None) -> tuple[tuple[str, ...], ...]:
    """Labels of both concepts with those of a column each."""
    column = pd.Categorical(["L1"] * len(age), ordered=True) if stage is None else stage
    return tuple(each.labels for each in grow_schema(SCHEMA, pd.DataFrame({"age": age, "stage": column})).concepts)


def test_numbers_are_found_however_they_are_written() -> None:
    assert grown([35.0, 9.0])[0] == ("9", "35")
    assert grown(["35.0", "1"])[0] == ("9", "35", "1")
    assert grown([np.nan, np.nan])[0] == ("9", "35")


def test_a_number_of_several_labels_is_refused() -> None:
    schema = ConceptSchema((Concept("age", ("35", "35.0")),))
    with pytest.raises(UnknownLabelError, match="several labels"):
        grow_schema(schema, pd.DataFrame({"age": ["35.00"]}))


def test_an_ordered_concept_grows_at_its_end_alone() -> None:
    behind = pd.Categorical(["L2", "L3"], categories=["L2", "L3"], ordered=True)
    assert grown([9, 9], behind)[1] == ("L1", "L2", "L3")
    between = pd.Categorical(["L1b", "L2"], categories=["L1b", "L2"], ordered=True)
    for stage in (between, pd.Categorical(["L2", "L3"])):
        with pytest.raises(ConceptError, match="can only stand behind its last one"):
            grown([9, 9], stage)


def test_every_concept_has_its_column() -> None:
    with pytest.raises(UnknownConceptError, match="'stage'"):
        grow_schema(SCHEMA, pd.DataFrame({"age": [9]}))


def test_statistics_of_old_and_new_cells_are_those_of_all() -> None:
    rng = np.random.default_rng(0)
    values = rng.random((40, 3)).astype(np.float32)
    labels = rng.integers(2, size=(40, 2)).astype(np.int32)
    names = np.array([f"c{i}" for i in range(40)], dtype=object)
    numbers = np.ones(3, dtype=np.float32)
    preprocessing = Preprocessing(("A", "B", "C"), "log1p", (), numbers, numbers)
    part = np.full(40, "train", dtype=object)
    everything = TrainingData(sparse.csr_matrix(values), labels, names, part, SCHEMA, preprocessing)
    expected = summarise_groups(everything)
    first = replace(
        everything, expression=everything.expression[:25], labels=labels[:25], names=names[:25], part=part[:25]
    )
    heritage = cast(Any, SimpleNamespace(groups=summarise_groups(first), split=dict.fromkeys(names[:25], "train")))
    pooled = summarise_groups(replace(everything, heritage=heritage))  # the first 25 again, and 15 new ones
    for name in ("labels", "cells"):
        np.testing.assert_array_equal(pooled[name], expected[name])
    np.testing.assert_allclose(pooled["mean"], expected["mean"], rtol=1e-5)
    np.testing.assert_allclose(pooled["variance"], expected["variance"], rtol=1e-4)
