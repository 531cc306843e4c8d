"""Reader of ``manifest.json``: whatever it is given, it reads a model that agrees with itself or says what is wrong."""

import json
from typing import Any

import pytest
from fuzzing import inputs, tried
from hypothesis import example, given
from hypothesis import strategies as st
from strangers import ARCHIVED, seal

from causcell.diffusion.solvers import known_solvers
from causcell.errors import CausCellError
from causcell.repository.consistency import check_consistency
from causcell.repository.manifest import Manifest

pytestmark = pytest.mark.filterwarnings("error")

TEXT = (ARCHIVED / "manifest.json").read_text()
FIELDS = json.loads(TEXT)


def paths(node: Any, before: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """List the places of all values of a manifest; of long lists only the first two."""
    inner = node.items() if isinstance(node, dict) else enumerate(node[:2]) if isinstance(node, list) else ()
    return [before, *(path for key, value in inner for path in paths(value, (*before, key)))]


PLACES = paths(FIELDS)[1:]

NUMBERS = st.one_of(
    st.sampled_from([0, -1, 1, 2, 2**31, 2**63, 2**64, 10**30, -(10**30), 0.5, -0.0, 1e308, 1e-320, 10**400, 1e39]),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
)
TEXTS = st.one_of(
    st.text(max_size=20),
    st.sampled_from(["", "\x00", "\ud800", "a" * 5000, "../x", "ctrl", "scm", *known_solvers()]),
)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=6,
)


def edited(edits: list[tuple[tuple[str | int, ...], str, Any]]) -> dict[str, Any]:
    """Return the fields with some values changed, removed, doubled or added."""
    fields = json.loads(TEXT)
    for path, kind, value in edits:
        node: Any = fields
        try:
            for key in path[:-1]:
                node = node[key]
            if kind == "remove":
                del node[path[-1]]
            elif kind == "double" and isinstance(node[path[-1]], list):
                node[path[-1]] = node[path[-1]] * 2
            elif kind == "add":
                node[path[-1]] = {**node[path[-1]], "added": value} if isinstance(node[path[-1]], dict) else [value]
            elif kind == "shorten":
                node[path[-1]] = node[path[-1]][:-1]
            elif kind == "scale" and isinstance(node[path[-1]], int | float) and isinstance(value, int | float):
                node[path[-1]] = node[path[-1]] * value
            else:
                node[path[-1]] = value
        except (KeyError, IndexError, TypeError, OverflowError):  # an edit before took the place away
            continue
    return fields


EDITS = st.lists(
    st.tuples(st.sampled_from(PLACES), st.sampled_from(["set", "remove", "double", "add", "shorten", "scale"]), VALUES),
    min_size=1,
    max_size=3,
)


def use(manifest: Manifest) -> None:
    """Use what a manifest says as a client does: a manifest that was read must not fail later."""
    check_consistency(manifest)
    assert len(manifest.genes.names) == manifest.dimensions.genes == len(manifest.expression.mean)
    assert manifest.concept_schema.adjacency().shape == (manifest.dimensions.concepts + 1,) * 2
    assert (manifest.preprocessing.deviation > 0).all()
    assert manifest.preset(None).solver.build(manifest.schedule).table.shape[1] == 5
    manifest.training_cells.contain(["a cell"])
    assert Manifest.from_json(manifest.sealed().to_json(), "again").digest == manifest.sealed().digest


@inputs(2600)
@given(EDITS)
@example([(("training_cells", "count"), "set", 10**30)])
@example([(("expression", "deviation", 0), "set", 5e-175)])
@example([(("schedule", "timesteps"), "set", 10**12)])
@example([(("concepts", 0, "name"), "set", "\ud800")])
@example([(("genes", "names", 0), "set", "\ud800")])
@example([(("expression", "mean", 0), "set", 10**400)])
@example([(("edges", 0, "weight"), "set", 10**400)])
@example([(("dimensions", "embedding"), "set", 2**63)])
@example([(("files", "reference.npz"), "set", "\ud800")])
def test_edited_and_sealed_again(edits: list[tuple[tuple[str | int, ...], str, Any]]) -> None:
    """A stranger can compute digests too."""
    with tried("manifest"):
        try:
            text = json.dumps(seal(edited(edits)))
        except (ValueError, UnicodeError, TypeError):  # such fields no JSON can hold
            return
        use(Manifest.from_json(text, "manifest.json"))


@inputs(1000)
@given(
    st.lists(
        st.tuples(st.integers(0, len(TEXT) - 1), st.integers(0, 30), st.binary(max_size=12)), min_size=1, max_size=4
    )
)
def test_damaged_bytes(damage: list[tuple[int, int, bytes]]) -> None:
    content = TEXT.encode()
    for place, removed, added in damage:
        content = content[:place] + added + content[place + removed :]
    with tried("manifest"):
        Manifest.from_json(content, "manifest.json")


@inputs(400)
@given(VALUES)
def test_any_json(value: Any) -> None:
    with tried("manifest"):
        Manifest.from_json(json.dumps(value), "manifest.json")


HOSTILE = {
    "nested lists": "[" * 100_000,
    "nested objects": '{"a":' * 100_000,
    "nested in a field": TEXT[:-3] + ', "provenance": ' + "[" * 20_000 + "]" * 20_000 + "}",
    "a number of many digits": '{"schema_version": ' + "1" * 10_000 + "}",
    "a large version": '{"schema_version": ' + "1" * 4_000 + "}",
    "a name twice": TEXT.replace('"head"', '"genes": 1, "head"', 1),
    "NaN": TEXT.replace('"weight": 1.0', '"weight": NaN', 1),
    "Infinity": TEXT.replace('"schema_version": 1', '"schema_version": Infinity', 1),
    "an exponent": TEXT.replace('"schema_version": 1', '"schema_version": 1e999', 1),
    "true": TEXT.replace('"schema_version": 1', '"schema_version": true', 1),
    "version 0": TEXT.replace('"schema_version": 1', '"schema_version": 0', 1),
    "many values": "[" + "0," * 3_000_000 + "0]",
    "UTF-16": TEXT.encode("utf-16"),
    "not UTF-8": TEXT.encode().replace(b"head", b"h\xffad", 1),
    "nothing": b"",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files(name: str) -> None:
    with tried("manifest"), pytest.raises(CausCellError, match=r"^manifest\.json (is no manifest|has schema version)"):
        Manifest.from_json(HOSTILE[name], "manifest.json")
