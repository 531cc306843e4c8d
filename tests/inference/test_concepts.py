"""Concepts, labels and graph, as read from the annotations of cells."""

import re
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from causcell.concept_columns import schema_from_obs
from causcell.concepts import UNLABELLED, Concept, ConceptSchema, Edge, as_pairs, unseen_combinations
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
        ([10.0, 0.1, 1.0], ("0.1", "1", "10")),
        (["10", "0.1", "1.0", "-2"], ("-2", "0.1", "1.0", "10")),
        (["1e-3", "1e2", "5"], ("1e-3", "5", "1e2")),
        (pd.Categorical([35.0, 0.5]), ("0.5", "35")),
        ([35.0, "IFN", None], ("35", "IFN")),
    ],
    ids=[
        "text",
        "categorical",
        "whole text",
        "whole",
        "whole floats",
        "mixed",
        "bool",
        "floats",
        "decimal text",
        "exponents",
        "categorical floats",
        "objects",
    ],
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


def test_ordered_categorical_of_floats_keeps_its_order():
    concept = only_concept(pd.Categorical([1.0, 0.1], categories=[10.0, 1.0, 0.1], ordered=True))
    assert concept.labels == ("1", "0.1")
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


STORAGES = {
    "float64": lambda values: np.array(values),
    "float32": lambda values: np.array(values, dtype=np.float32),
    "float64 that was float32": lambda values: np.array(values, dtype=np.float32).astype(np.float64),
    "objects": lambda values: np.array(values, dtype=object),
    "Float64": lambda values: pd.array(values, dtype="Float64"),
    "Float32": lambda values: pd.array(values, dtype="Float32"),
    "categorical": pd.Categorical,
    "categorical float32": lambda values: pd.Categorical(np.array(values, dtype=np.float32)),
    "text": lambda values: np.array([str(value) for value in values]),
    "string": lambda values: pd.array([str(value) for value in values], dtype="string"),
}


@pytest.mark.parametrize("stored", STORAGES.values(), ids=STORAGES)
@pytest.mark.parametrize("values", [[3.0, 10.0], [0.1, 35.0], [1e-05, 2.5]], ids=str)
def test_a_number_is_one_label_however_it_is_stored(values, stored):
    schema = schema_from_obs(pd.DataFrame({"concept": values}), ["concept"])
    assert schema.encode(pd.DataFrame({"concept": stored(values)})).tolist() == [[0], [1]]


@pytest.mark.parametrize("values", [[3, 10], ["3", "10"], pd.array([3, 10], dtype="Int8")], ids=["int", "text", "Int8"])
def test_a_whole_number_is_one_label_however_it_is_stored(values):
    schema = schema_from_obs(pd.DataFrame({"concept": [10, 3]}), ["concept"])
    assert schema["concept"].labels == ("3", "10")
    assert schema.encode(pd.DataFrame({"concept": values})).tolist() == [[0], [1]]


@pytest.mark.parametrize("stored", [STORAGES["float32"], STORAGES["Float32"], STORAGES["objects"]])
def test_labels_are_the_shortest_text_of_numbers(stored):
    assert only_concept(stored([0.1, 35.0, -0.0])).labels == ("0", "0.1", "35")


@pytest.mark.parametrize("value", [35, "35", 35.0, "35.0", np.float64(35), np.float32(35), np.int8(35), "+35", "3.5e1"])
def test_a_number_finds_its_label_however_it_is_written(value):
    assert Concept("age", ("9", "35")).code(value) == 1
    assert Concept("age", ("9", "35.0")).code(value) == 1  # the label of a model trained on objects, before


@pytest.mark.parametrize("value", [True, np.True_, "True"])
def test_yes_and_no_find_their_labels(value):
    assert Concept("treated", ("False", "True")).code(value) == 1
    with pytest.raises(UnknownLabelError):
        Concept("treated", ("0", "1")).code(value)


def test_a_labels_own_text_goes_before_its_number():
    concept = Concept("age", ("35", "35.0"))
    assert [concept.code("35"), concept.code("35.0")] == [0, 1]
    for value in (35.0, "35.00"):
        with pytest.raises(UnknownLabelError, match=r"the number of several labels of concept 'age': '35', '35"):
            concept.code(value)


@pytest.mark.parametrize("value", ["1", 1])
def test_leading_zeros_make_an_identifier(value):
    with pytest.raises(UnknownLabelError, match="'donor' has no label '1'"):
        Concept("donor", ("01", "02")).code(value)


def test_mixed_columns_keep_true_and_one_apart():
    assert only_concept(np.array([True, 1, 1.0, "1"], dtype=object)).labels == ("1", "True")


@pytest.mark.parametrize("values", [[["a"], ["b"]], [{"a": 1}, {"b": 2}]], ids=["lists", "mappings"])
def test_what_is_no_label_is_refused(values):
    with pytest.raises(ConceptError, match=r"obs\['concept'\] holds what is no label"):
        only_concept(values)


def test_two_columns_of_one_name_are_no_concept():
    obs = pd.DataFrame([["a", "b"], ["b", "a"]], columns=["concept", "concept"])
    with pytest.raises(ConceptError, match="obs has 2 columns 'concept'"):
        schema_from_obs(obs, ["concept"])


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


def test_a_near_name_is_suggested():
    schema = ConceptSchema((Concept("stim", ("IFN", "ctrl")), Concept("donor", ("d1", "d2"))))
    with pytest.raises(UnknownLabelError, match=r"no label 'ifn '; did you mean 'IFN'[?] its labels are"):
        schema["stim"].code("ifn ")
    with pytest.raises(UnknownConceptError, match=r"no concept 'Stim'; did you mean 'stim'[?] the concepts"):
        schema.index("Stim")
    with pytest.raises(UnknownLabelError, match=r"'control', 'if' in 2 cells; did you mean '(ctrl|IFN)'. it knows"):
        schema.encode(pd.DataFrame({"stim": ["if", "control", "ctrl"]}))
    with pytest.raises(
        UnknownConceptError, match=r"no column 'Donor' for a concept; did you mean 'donor'[?] its columns"
    ):
        schema_from_obs(pd.DataFrame({"donor": ["a", "b"]}), ["Donor"])
    with pytest.raises(ConceptGraphError, match=r"'stin', which is no concept; did you mean 'stim'[?]"):
        ConceptSchema(schema.concepts, (Edge("donor", "stin"),))


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


@pytest.mark.parametrize("values", [[0.0, 1.0, np.inf], pd.Categorical([1.0, -np.inf]), [1.0, "x", np.inf]])
def test_infinite_values_are_no_labels(values):
    with pytest.raises(ConceptError, match=r"obs\['concept'\] holds infinite numbers \(-?inf\).*NaN"):
        only_concept(values)


@pytest.mark.parametrize("name", ["_index", ".", "..", "a\0b", "a\nb", "a\\b", "x" * 201, "ü" * 101])
def test_names_that_no_file_holds_are_refused_before_training(name):
    with pytest.raises(ConceptError, match=r"can't be used: files name columns and folders by it.*rename"):
        schema_from_obs(pd.DataFrame({name: ["0", "1"]}), [name])
    assert Concept(name, ("0", "1")).name == name  # a model that has it is still opened


def test_a_concept_named_like_what_embed_reads_of_another_is_refused():
    obs = pd.DataFrame({"stim": ["0", "1"], "stim_predicted": ["0", "1"]})
    assert schema_from_obs(obs, ["stim_predicted"]).names == ("stim_predicted",)
    with pytest.raises(ConceptError, match="'stim_predicted' has the name that embed gives"):
        schema_from_obs(obs, ["stim", "stim_predicted"])


def test_too_many_numbers_are_to_be_cut_into_bins():
    with pytest.raises(ConceptError, match=r"1001 distinct numbers in 1001 cells, more than the 1000.*pandas\.cut"):
        only_concept(np.arange(1001) / 7)


def test_too_many_labels():
    with pytest.raises(ConceptError, match=r"1001 distinct labels in 1001 cells, more than the 1000 .* an identifier"):
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
