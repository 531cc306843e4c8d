"""The description of a model: the same facts in a run folder and in a manifest, and back, bit for bit."""

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from causcell.concept_columns import schema_from_obs
from causcell.concept_reading import LabelFeatures
from causcell.concepts import Concept, ConceptSchema, Edge
from causcell.errors import ConceptError, ConceptGraphError
from causcell.preprocessing import Preprocessing, gene_digest
from causcell.repository.description import ModelDescription

SCHEMA = ConceptSchema(
    (Concept("stim", ("ctrl", "IFN")), Concept("stage", ("early", "late", "adult"), "ordinal")),
    (Edge("stim", "stage", 0.25),),
)
MEAN = np.array([0.1, 1 / 3, 2.5e-7], dtype=np.float32)
DEVIATION = np.array([0.1, 0.7, 1.0], dtype=np.float32)
PREPROCESSING = Preprocessing(
    ("ISG15", "CD3D", "ACTB"),
    "counts",
    ("ISG15", "CD3D", "ACTB", "MT"),
    MEAN,
    DEVIATION,
    shares=np.array([1 / 3, 2 / 3, 0, 2.5e-5], dtype=np.float32),
    panel_sums=np.array([1.00001, 2, 3, 4, 5, 6000, 7000, 8000, 9000, 9500, 9999.9]),
)
FIELDS = {
    "concepts": [
        {"name": "stim", "labels": ["ctrl", "IFN"], "kind": "categorical"},
        {"name": "stage", "labels": ["early", "late", "adult"], "kind": "ordinal"},
    ],
    "edges": [{"parent": "stim", "child": "stage", "weight": 0.25}],
    "genes": ["ISG15", "CD3D", "ACTB"],
    "scale": "counts",
    "normalisation_genes": ["ISG15", "CD3D", "ACTB", "MT"],
    "mean": [0.1, 0.33333334, 2.5e-07],
    "deviation": [0.1, 0.7, 1.0],
    "shares": [0.3333, 0.6667, 0.0, 2.5e-05],
    "panel_sums": [1.0, 2.0, 3.0, 4.0, 5.0, 6000.0, 7000.0, 8000.0, 9000.0, 9500.0, 10000.0],
}
OPTIONAL = ("totals", "shares", "panel_sums")


def test_fields_are_plain_values_in_the_order_of_the_file() -> None:
    description = ModelDescription.of(SCHEMA, PREPROCESSING)
    assert json.dumps(description.model_dump(mode="json")) == json.dumps(FIELDS)


def test_what_is_read_gives_back_the_schema_and_the_preprocessing() -> None:
    read = ModelDescription.model_validate(json.loads(json.dumps(FIELDS)))
    assert read.concept_schema == SCHEMA
    preprocessing = read.preprocessing
    for name in ("genes", "scale", "normalisation_genes"):
        assert getattr(preprocessing, name) == getattr(PREPROCESSING, name)
    for name in ("mean", "deviation"):
        assert getattr(preprocessing, name).dtype == np.float32
        np.testing.assert_array_equal(getattr(preprocessing, name), getattr(PREPROCESSING, name))


def test_shares_and_sums_are_kept_to_four_digits() -> None:
    """A share's error is below 5e-5 of it: of a total of 10,000 below one count."""
    read = ModelDescription.model_validate(json.loads(json.dumps(FIELDS))).preprocessing
    np.testing.assert_allclose(read.shares, PREPROCESSING.shares, rtol=5e-4)
    np.testing.assert_allclose(read.panel_sums, PREPROCESSING.panel_sums, rtol=5e-4)


def test_what_an_earlier_version_wrote_has_neither_shares_nor_sums() -> None:
    earlier = {name: value for name, value in FIELDS.items() if name not in OPTIONAL}
    read = ModelDescription.model_validate(earlier).preprocessing
    assert (read.totals, read.shares, read.panel_sums) == (None, None, None)


def test_every_float32_comes_back_as_it_was() -> None:
    rng = np.random.default_rng(0)
    numbers = rng.integers(1, 2**31 - 2**23, 500).astype(np.uint32).view(np.float32)  # any finite positive float32
    genes = tuple(f"g{i}" for i in range(len(numbers)))
    description = ModelDescription.of(SCHEMA, Preprocessing(genes, "log1p", (), numbers, numbers))
    read = ModelDescription.model_validate_json(description.model_dump_json())
    np.testing.assert_array_equal(read.preprocessing.mean, numbers)


@pytest.mark.parametrize(("scale", "target_sum"), [("counts", 1e4), ("log1p", None)])
def test_parts_of_a_manifest_say_the_same(scale: Any, target_sum: float | None) -> None:
    genes = PREPROCESSING.genes
    parts = ModelDescription.of(SCHEMA, Preprocessing(genes, scale, (), MEAN, DEVIATION)).manifest_parts(embedding=8)
    assert (parts["concepts"], parts["edges"]) == (SCHEMA.concepts, SCHEMA.edges)
    assert parts["genes"].model_dump() == {"names": genes, "digest": gene_digest(genes)}
    assert parts["dimensions"].model_dump() == {"genes": 3, "concepts": 2, "embedding": 8}
    expected = {"scale": scale, "target_sum": target_sum, "normalisation_genes": ()}
    expected |= {"mean": (0.1, 0.33333334, 2.5e-07), "deviation": (0.1, 0.7, 1.0)}
    assert parts["expression"].model_dump() == expected


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"mean": [0.1]}, ValidationError, "mean has 1 numbers for 3 genes"),
        ({"deviation": [0.1, 0.2, 0.3, 0.4]}, ValidationError, "deviation has 4 numbers for 3 genes"),
        ({"mean": [0.1, float("nan"), 0.2]}, ValidationError, "finite"),
        ({"scale": "raw"}, ValidationError, "'counts' or 'log1p'"),
        ({"panel": []}, ValidationError, "panel"),
        ({"concepts": [{"name": "stim", "labels": ["ctrl"]}]}, ConceptError, "'stim'"),
        ({"edges": [{"parent": "stim", "child": "dose"}]}, ConceptGraphError, "'dose'"),
    ],
)
def test_fields_that_describe_no_model_are_refused(
    change: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        _ = ModelDescription.model_validate(FIELDS | change).concept_schema


def test_values_of_concepts_come_back_and_plain_ones_leave_no_trace() -> None:
    obs = pd.DataFrame(
        {
            "age": [1.5, 2.25, 9.1],
            "pert": ["A", "B+A", "ctrl"],
            "stage": pd.Categorical(["s", "l", "l"], categories=["s", "m", "l"], ordered=True),
            "drug": ["x", "y", "x"],
            "stim": ["a", "b", "b"],
        }
    )
    table = LabelFeatures(("f", "g"), {"x": (1 / 3, 0.1), "y": (2.0, -1.0), "NEW": (1e-9, 4.0)}, "t")
    names = ["age:continuous", "pert:set", "stage:ordinal", "drug:labels", "stim"]
    schema = schema_from_obs(obs, names, features={"drug": table}, controls={"pert": "ctrl"})
    fields = json.loads(ModelDescription.of(schema, PREPROCESSING).model_dump_json())
    assert [list(each) for each in fields["concepts"]] == [["name", "labels", "kind", "value"]] * 4 + [
        ["name", "labels", "kind"]
    ]
    assert fields["concepts"][1]["value"] == {"kind": "set", "width": 2, "members": ["A", "B"], "control": "ctrl"}
    assert ModelDescription.model_validate(fields).concept_schema == schema
    fields["concepts"][1]["value"]["width"] = 3
    with pytest.raises(ConceptError):
        ModelDescription.model_validate(fields)
