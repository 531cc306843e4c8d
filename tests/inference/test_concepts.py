"""Concepts, labels and graph, as read from the annotations of cells."""

import re
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from causcell.concepts import UNLABELLED, Concept, ConceptSchema, Edge, as_pairs, schema_from_obs, unseen_combinations
from causcell.errors import ConceptError, ConceptGraphError, UnknownConceptError, UnknownLabelError


def schema_of(names, edges=()):
    """Concepts with two labels each, named by the letters of ``names``; edges such as ``ab`` go from a to b."""
    return ConceptSchema(
        tuple(Concept(name, ("0", "1")) for name in names), tuple(Edge(parent, child) for parent, child in edges)
    )


def only_concept(values):
    return schema_from_obs(pd.DataFrame({"concept": values}), ["concept"]).concepts[0]


# -- labels ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        (["NK", "B", "T", "B"], ("B", "NK", "T")),
        (pd.Categorical(["NK", "B", "T"], categories=["T", "NK", "B"]), ("B", "NK", "T")),
        (["10", "9", "-1", "100"], ("-1", "9", "10", "100")),
        ([10, 9, 2], ("2", "9", "10")),
        ([10.0, 9.0, np.nan, 2.0], ("2", "9", "10")),
        (["10", "9", "x"], ("10", "9", "x")),
        ([True, False], ("False", "True")),
    ],
    ids=["text", "categorical", "whole text", "whole", "whole floats", "mixed", "bool"],
)
def test_labels_are_sorted(values, labels):
    concept = only_concept(values)
    assert concept.labels == labels
    assert concept.kind == "categorical"


def test_labels_do_not_depend_on_the_order_of_cells():
    values = np.array(["T", "B", "NK", "B", "T"])
    assert only_concept(values) == only_concept(values[::-1])


def test_labels_of_equal_value_have_one_order():
    """Labels that are the same whole number are ordered by text, not by a set's order, which differs by process."""
    spelled = ["0" * zeros + "1" for zeros in range(7)]
    assert only_concept(spelled).labels == tuple(sorted(spelled))


def test_a_label_that_only_looks_like_a_number_is_text():
    assert only_concept(["2", "--1"]).labels == ("--1", "2")


def test_ordered_categorical_keeps_its_order():
    concept = only_concept(pd.Categorical(["young", "old"], categories=["young", "adult", "old"], ordered=True))
    assert concept.labels == ("young", "old")
    assert concept.kind == "ordinal"


def test_ordered_categorical_of_whole_floats_keeps_its_order():
    """Hours are often floats; 24.0 and 24 are one label there too."""
    concept = only_concept(pd.Categorical([0.0, 24.0, 6.0], categories=[24.0, 6.0, 0.0], ordered=True))
    assert concept.labels == ("24", "6", "0")
    assert concept.kind == "ordinal"


def test_bins_keep_their_order():
    concept = only_concept(pd.cut([95.0, 5.0, 15.0], [0, 10, 20, 100]))
    assert concept.labels == ("(0, 10]", "(10, 20]", "(20, 100]")
    assert concept.kind == "ordinal"


def test_unused_categories_are_dropped():
    assert only_concept(pd.Categorical(["T", "B"], categories=["B", "NK", "T"])).labels == ("B", "T")


def test_label_names_undo_encode():
    obs = pd.DataFrame({"concept": ["b", None, "a", "b"]})
    schema = schema_from_obs(obs, ["concept"])
    named = schema.label_names(schema.encode(obs)[:, 0], "concept")
    assert named.tolist() == ["b", np.nan, "a", "b"]
    assert not named.ordered


def test_label_names_of_an_ordinal_concept_are_ordered():
    schema = ConceptSchema((Concept("age", ("young", "old"), "ordinal"),))
    named = schema.label_names(np.array([1, 0]), "age")
    assert named.ordered
    assert named.min() == "young"


# -- codes -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values",
    [
        ["b", None, "a", np.nan],
        pd.Categorical(["b", None, "a", None]),
        pd.array(["b", pd.NA, "a", pd.NA], dtype="string"),
    ],
    ids=["object", "categorical", "string"],
)
def test_missing_values_are_unlabelled(values):
    obs = pd.DataFrame({"concept": values})
    codes = schema_from_obs(obs, ["concept"]).encode(obs)
    assert codes.dtype == np.int32
    assert codes.tolist() == [[1], [UNLABELLED], [0], [UNLABELLED]]


@pytest.mark.parametrize("values", [[3, 10], [3.0, 10.0], ["3", "10"]], ids=["int", "float", "text"])
def test_a_number_is_one_label_however_it_is_stored(values):
    schema = schema_from_obs(pd.DataFrame({"concept": [10, 3]}), ["concept"])
    assert schema.encode(pd.DataFrame({"concept": values})).tolist() == [[0], [1]]


def test_codes_do_not_follow_a_files_categories():
    """A file whose categories stand in another order, or are fewer, gets the model's codes."""
    schema = schema_of("a")
    obs = pd.DataFrame({"a": pd.Categorical(["1", "0"], categories=["1", "0"])})
    assert schema.encode(obs).tolist() == [[1], [0]]
    assert schema.encode(obs[:1]).tolist() == [[1]]


def test_a_concept_without_a_column_is_unlabelled():
    codes = schema_of("ab").encode(pd.DataFrame({"b": ["1", "0"]}))
    assert codes.tolist() == [[UNLABELLED, 1], [UNLABELLED, 0]]


def test_unknown_label_is_refused_with_what_is_known():
    with pytest.raises(UnknownLabelError, match=r"obs\['a'\].*'2', 'x' in 3 cells; it knows '0', '1'.*NaN"):
        schema_of("a").encode(pd.DataFrame({"a": ["x", "0", "2", "2"]}))


def test_code_of_an_unknown_label():
    with pytest.raises(UnknownLabelError, match="'a' has no label 'x'; its labels are '0', '1'"):
        schema_of("a")["a"].code("x")


# -- graph -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("edges", [(), ("ba",), ("cb", "ba"), ("da", "db", "ac", "bc"), ("ab", "ac", "bd", "cd")])
def test_order_has_every_concept_once_and_parents_first(edges):
    schema = schema_of("abcd", edges)
    assert sorted(schema.order) == [0, 1, 2, 3]
    assert all(schema.order.index(p) < schema.order.index(c) for c in range(4) for p in schema.parents(c))


def test_descendants_are_all_that_is_downstream():
    schema = schema_of("abcde", ["ab", "bc", "dc"])
    assert schema.descendants([0]) == {1, 2}
    assert schema.descendants([3]) == {2}
    assert schema.descendants([2]) == frozenset()
    assert schema.descendants([0, 1]) == {1, 2}  # b is downstream of a
    assert schema.descendants([]) == frozenset()


def test_parents_are_direct_causes():
    schema = schema_of("abc", ["ab", "bc"])
    assert [schema.parents(i) for i in range(3)] == [(), (0,), (1,)]


def test_adjacency_has_weights_from_parent_to_child_and_none_for_the_unexplained():
    schema = ConceptSchema(schema_of("abc").concepts, (Edge("c", "a", 0.5), Edge("a", "b", -2.0)))
    expected = np.zeros((4, 4))
    expected[2, 0], expected[0, 1] = 0.5, -2.0
    np.testing.assert_array_equal(schema.adjacency(), expected)
    assert schema.size == 4


@pytest.mark.parametrize("edges", [("aa",), ("ab", "ba"), ("ab", "bc", "ca"), ("da", "ab", "bc", "cb")])
def test_cycle_is_refused_and_named_along_its_edges(edges):
    with pytest.raises(ConceptGraphError, match="cycle") as caught:
        schema_of("abcd", edges)
    named = re.search(r"cycle: ([a-d](?: -> [a-d])+);", str(caught.value)).group(1).split(" -> ")
    assert named[0] == named[-1]
    assert {parent + child for parent, child in pairwise(named)} <= set(edges)


@pytest.mark.parametrize("edge", ["xa", "ax"])
def test_edge_to_an_unknown_concept(edge):
    with pytest.raises(ConceptGraphError, match=f"edge {edge[0]}:{edge[1]} names 'x'.*the concepts are 'a', 'b'"):
        schema_of("ab", [edge])


def test_edge_given_twice():
    with pytest.raises(ConceptGraphError, match=r"edge is given twice.*'a:b'"):
        schema_of("ab", ["ab", "ab"])


# -- what is no concept ------------------------------------------------------------------------------------------------


def test_no_concept_at_all():
    with pytest.raises(ConceptError, match="no concept was named"):
        ConceptSchema(())


def test_a_single_label_is_no_concept():
    with pytest.raises(ConceptError, match=r"'concept' has 1 label.*'T'.*at least two"):
        only_concept(["T", "T", None])


def test_a_concept_without_any_label():
    with pytest.raises(ConceptError, match="'concept' has 0 label"):
        only_concept([np.nan, np.nan])


def test_a_label_named_twice():
    with pytest.raises(ConceptError, match="'a' names a label twice"):
        Concept("a", ("0", "1", "0"))


def test_a_concept_named_twice():
    with pytest.raises(ConceptError, match="concept is named twice: 'a', 'b', 'a'"):
        schema_of("aba")


@pytest.mark.parametrize("name", ["", "unexplained", "a=b", "a:b", "a,b", "a;b", "a|b", "a/b"])
def test_names_that_mean_something_else_are_refused(name):
    with pytest.raises(ConceptError, match=r"can't be used.*rename the column"):
        Concept(name, ("0", "1"))


@pytest.mark.parametrize("name", ["source_cell", "intervention", "draw", "unseen_combination", "exogenous"])
def test_names_that_results_give_to_something_else_are_refused(name):
    """Results have a column, and embeddings an array, for each concept under its own name: it would overwrite these."""
    with pytest.raises(ConceptError, match="can't be used"):
        Concept(name, ("0", "1"))


@pytest.mark.parametrize(
    "values",
    [[0.5, 1.0, 2.0], pd.Categorical([0.5, 1.0]), pd.Categorical([0.5, 1.0], ordered=True)],
    ids=["float", "categorical", "ordered"],
)
def test_continuous_column_is_refused(values):
    with pytest.raises(ConceptError, match=r"continuous.* numbers.*pandas\.cut"):
        only_concept(values)


def test_infinite_values_are_no_labels():
    with pytest.raises(ConceptError, match=r"obs\['concept'\]"):
        only_concept([0.0, 1.0, np.inf])


def test_too_many_labels():
    with pytest.raises(ConceptError, match="1001 distinct labels in 1001 cells, more than 1000; is it an identifier"):
        only_concept([f"barcode{i}" for i in range(1001)])


def test_unknown_column():
    with pytest.raises(UnknownConceptError, match="no column 'b' for a concept; its columns are 'a'"):
        schema_from_obs(pd.DataFrame({"a": ["0", "1"]}), ["b"])


def test_unknown_concept():
    with pytest.raises(UnknownConceptError, match="no concept 'x'; the concepts are 'a', 'b'"):
        schema_of("ab").index("x")


# -- combinations, pairs -----------------------------------------------------------------------------------------------


def test_unseen_combinations_row_by_row():
    seen = np.array([[0, 0, 1], [1, 1, 0]])
    codes = np.array([[0, 0, 1], [0, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 1]])
    assert unseen_combinations(codes, seen).tolist() == [False, True, False, True, False]


def test_an_unlabelled_concept_matches_any_label():
    seen = np.array([[0, 0, 1], [1, 1, 0]])
    codes = np.array([[-1, 0, 1], [0, -1, 0], [-1, -1, 0], [1, 0, -1], [-1, -1, -1]])
    assert unseen_combinations(codes, seen).tolist() == [False, True, False, True, False]


def test_an_unlabelled_training_cell_shows_no_combination():
    """A training cell without a label does not carry the label that is asked about."""
    assert unseen_combinations(np.array([[0, 1]]), np.array([[0, -1]])).tolist() == [True]


def test_pairs_are_split_at_the_first_separator():
    assert as_pairs(["a=b", "c=d=e"], "concept=label", "=") == [("a", "b"), ("c", "d=e")]


@pytest.mark.parametrize("text", ["a", "=b", "a=", ""])
def test_malformed_pair_is_named(text):
    with pytest.raises(ConceptError, match=f"{text!r} is not of the form CONCEPT=LABEL"):
        as_pairs([text], "concept=label", "=")


def test_a_concept_named_like_the_factual_label_of_another_is_refused():
    concepts = (Concept("stim", ("a", "b")), Concept("stim_factual", ("a", "b")))
    with pytest.raises(ConceptError, match="'stim_factual' has the name that results give"):
        ConceptSchema(concepts)
