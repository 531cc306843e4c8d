"""Findings in labels: what a person would call dirty is told, what only looks like it is not."""

import pytest

from causcell.cells.check.labels import label_findings


def kinds(cells, unlabelled=0):
    return [each.kind for each in label_findings("c", cells, unlabelled)]


def test_clean_labels_are_not_talked_about():
    assert kinds({"ctrl": 100, "IFN": 90, "CD4+": 40, "CD4-": 40, "none": 30, "other": 20}) == []


@pytest.mark.parametrize("label", ["nan", "NaN", "NA", "N/A", "<NA>", "None", "NaT", "", "  ", "null"])
def test_missing_values_as_text_are_warned_of(label):
    (finding,) = label_findings("cell_type", {"B": 50, "T": 50, label: 12}, 0)
    assert (finding.kind, finding.level) == ("missing_text", "warning")
    assert f"{label!r} (12 cells) looks like a missing value" in finding.text
    assert "np.nan" in finding.text


@pytest.mark.parametrize("label", ["unknown", "Unassigned", "missing"])
def test_what_may_be_missing_is_noted(label):
    (finding,) = label_findings("c", {"B": 50, label: 12}, 0)
    assert (finding.kind, finding.level) == ("undecided", "note")


@pytest.mark.parametrize(
    "labels",
    [
        ("IFN", "ifn"),
        ("T cell", "T_cell"),
        ("T-cell", "T  cell"),
        ("1", "01"),
        ("35", "35.0"),
        ("K", "\u212a"),
    ],
)
def test_labels_that_are_written_in_two_ways_are_warned_of(labels):
    (finding,) = label_findings("c", {"x": 30, **dict.fromkeys(labels, 30)}, 0)
    assert (finding.kind, finding.level) == ("near_duplicates", "warning")
    assert finding.facts["groups"] == [list(labels)]


def test_groups_of_near_duplicates_are_told_at_once():
    (finding,) = label_findings("c", dict.fromkeys(["IFN", "ifn", "ctrl", "Ctrl"], 30), 0)
    assert "'IFN' (30 cells), 'ifn' (30); 'ctrl' (30 cells), 'Ctrl' (30) differ" in finding.text


def test_blanks_at_the_ends_are_told_with_the_remedy():
    found = {each.kind: each for each in label_findings("stim", {"IFN ": 50, "ctrl": 50}, 0)}
    assert set(found) == {"blanks"}
    assert "'IFN ' (50 cells)" in found["blanks"].text
    assert ".str.strip()" in found["blanks"].text


def test_blanks_that_make_two_labels_of_one_are_told_once():
    (finding,) = label_findings("stim", {"IFN": 60, "IFN ": 50, "ctrl": 50}, 0)
    assert finding.kind == "blanks"
    assert "so that 'IFN' and 'IFN ' are two labels" in finding.text


def test_many_numbers_are_to_be_cut_into_bins():
    (finding,) = label_findings("age", {str(age / 2): 10 for age in range(40)}, 0)
    assert (finding.kind, finding.level) == ("numbers", "warning")
    assert "40 different numbers, from 0.0 to 19.5" in finding.text
    assert kinds({str(age): 10 for age in range(15)}) == []


def test_nearly_one_label_a_cell_is_an_identifier_and_nothing_else():
    (finding,) = label_findings("clone", {f"clone{i}": 1 + i % 2 for i in range(200)}, 0)
    assert finding.kind == "identifier"
    assert "200 labels in 300 labelled cells, 1.5 cells a label" in finding.text


def test_single_cells_are_warned_of_and_few_are_noted():
    found = list(label_findings("c", {"a": 100, "b": 1, "d": 9}, 7))
    assert [(each.kind, each.level) for each in found] == [
        ("single_cells", "warning"),
        ("few_cells", "note"),
        ("unlabelled", "note"),
    ]
    assert "'b' has one cell" in found[0].text
    assert "7 of 117 cells carry no label" in found[2].text
