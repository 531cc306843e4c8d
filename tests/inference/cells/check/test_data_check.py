"""The report on a data set: which concepts it can tell apart, what speaks for and against edges, what is refused."""

import json
import warnings

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import causcell
from causcell.cells.check import warn_of_labels
from causcell.errors import CausCellWarning, ConfigurationError, DataError

N = 600
rng = np.random.default_rng(0)
STIM = rng.choice(["ctrl", "IFN"], N)
DONOR = rng.choice([f"d{i}" for i in range(6)], N)
TYPE = np.where(rng.random(N) < 0.15 + 0.7 * (STIM == "IFN"), "T", "B")


def cells_of(values=None, **columns):
    """Counts of 600 cells with these columns."""
    counts = rng.poisson(1.0, (N, 30)) + np.eye(1, 30, dtype=int) if values is None else values
    obs = pd.DataFrame(columns, index=[f"c{i}" for i in range(N)])
    return anndata.AnnData(sparse.csr_matrix(counts.astype(np.float32)), obs=obs)


def findings(report, *kinds):
    return [each for each in report.findings if each.kind in kinds]


def test_clean_data_have_no_warnings():
    report = causcell.check(cells_of(stim=STIM, donor=DONOR), ["stim", "donor"])
    assert [each.kind for each in report.findings] == []
    assert (report.cells, report.genes, report.expression["scale"]) == (N, 30, "counts")
    assert report.concepts[0].labels == {"IFN": int((STIM == "IFN").sum()), "ctrl": int((STIM == "ctrl").sum())}
    assert report.combinations == {"seen": 12, "possible": 12}


def test_totals_of_a_file_that_was_cut_down_are_told():
    """Other numbers are not, nor totals that have a missing value, nor those of all genes."""
    cells = cells_of(stim=STIM)
    sums = np.asarray(cells.X.sum(axis=1)).ravel()
    cells.obs["n_counts"], cells.obs["age"], cells.obs["own"] = np.round(2.5 * sums), rng.integers(100, 200, N), sums
    cells.obs["total"] = np.where(np.arange(N) == 3, np.nan, 2 * sums)
    (finding,) = findings(causcell.check(cells, "stim"), "totals")
    assert finding.level == "note"
    assert finding.facts["share"] == pytest.approx(0.4, abs=0.01)
    assert "obs['n_counts'] looks like" in finding.text and "train with totals='n_counts'" in finding.text
    logged = cells_of(np.log1p(np.asarray(cells.X.todense())), stim=STIM)
    logged.obs["n_counts"] = cells.obs["n_counts"]
    assert not findings(causcell.check(logged, "stim"), "totals")


@pytest.mark.parametrize(
    "column",
    [np.full(N, np.inf), np.full(N, 1e6), np.arange(N) * 1e4 + 1e6j, pd.to_timedelta(np.arange(N) + 1e6, unit="s")],
    ids=["infinite", "constant", "complex", "durations"],
)
def test_a_column_that_can_be_no_totals_is_let_be(column):
    cells = cells_of(stim=STIM)
    cells.obs["column"] = column
    assert not findings(causcell.check(cells, "stim"), "totals")


# -- concepts that determine each other --------------------------------------------------------------------------------


def test_identical_concepts_are_told_with_their_labels():
    batch = np.where(STIM == "IFN", "run2", "run1")
    (finding,) = causcell.check(cells_of(stim=STIM, batch=batch), ["stim", "batch"]).warnings
    assert (finding.kind, finding.concepts) == ("identical", ("stim", "batch"))
    assert "(IFN with run2, ctrl with run1)" in finding.text
    assert finding.facts["first_tells_second"] == finding.facts["second_tells_first"] == 1


def test_nested_concepts_are_told_from_the_inside_out_and_once():
    sample = np.char.add(np.char.add(DONOR.astype(str), "-"), STIM.astype(str))
    report = causcell.check(cells_of(stim=STIM, donor=DONOR, sample=sample), ["stim", "donor", "sample"])
    (finding,) = report.warnings
    assert (finding.kind, finding.concepts) == ("nested", ("sample", "stim", "donor"))
    assert "each of its 12 labels lies in one of the 2 of stim and one of the 6 of donor" in finding.text


def test_nearly_the_same_concepts_are_told_with_numbers():
    batch = np.where(STIM == "IFN", "run2", "run1")
    batch[:4] = np.where(STIM[:4] == "IFN", "run1", "run2")
    (finding,) = causcell.check(cells_of(stim=STIM, batch=batch), ["stim", "batch"]).warnings
    assert finding.kind == "confounded"
    assert finding.facts["cells_that_differ"] == 4
    assert "99.3% of the cells" in finding.text
    assert "the other 4 cells" in finding.text


def test_an_identifier_is_not_said_to_determine_anything():
    names = np.array([f"clone{i}" for i in range(N)])
    report = causcell.check(cells_of(stim=STIM, clone=names), ["stim", "clone"])
    assert [each.kind for each in report.warnings] == ["identifier"]


# -- graph -------------------------------------------------------------------------------------------------------------


def test_edges_are_held_against_the_labels():
    cells = cells_of(stim=STIM, donor=DONOR, cell_type=TYPE)
    report = causcell.check(cells, ["stim", "donor", "cell_type"], ["stim:cell_type", ("donor", "cell_type")])
    assert [each.concepts for each in findings(report, "edge_for")] == [("stim", "cell_type")]
    (against,) = findings(report, "edge_against")
    assert against.concepts == ("donor", "cell_type")
    assert "the data give no reason for it" in against.text
    assert report.warnings == ()


@pytest.mark.parametrize(
    ("edges", "told"),
    [([], True), (["stim:cell_type"], False), (["cell_type:stim"], False), (["donor:stim", "donor:cell_type"], False),
     (["stim:donor", "donor:cell_type"], False), (["stim:donor", "cell_type:donor"], True)],
)  # fmt: skip
def test_dependence_without_a_path_is_noted(edges, told):
    """A common cause or a path explains it; a common effect does not."""
    cells = cells_of(stim=STIM, donor=DONOR, cell_type=TYPE)
    report = causcell.check(cells, ["stim", "donor", "cell_type"], edges)
    expected = [("stim", "cell_type")] if told else []
    assert [each.concepts for each in findings(report, "no_path")] == expected


def test_combinations_never_seen_are_counted_with_examples():
    donor = np.where((DONOR == "d0") & (STIM == "IFN"), "d1", DONOR)
    report = causcell.check(cells_of(stim=STIM, donor=donor), ["stim", "donor"])
    (finding,) = findings(report, "combinations")
    assert (finding.facts["seen"], finding.facts["possible"]) == (11, 12)
    assert "'stim=IFN with donor=d0'" in finding.text


# -- what training refuses ---------------------------------------------------------------------------------------------


def test_everything_that_training_refuses_is_gathered():
    cells = cells_of(stim=STIM, one="a", distance=np.where(STIM == "IFN", np.inf, 1.0))
    concepts = ["stim", "Stim", "one", "distance"]
    report = causcell.check(cells, concepts, ["stim:stim"])
    assert [each.concepts for each in report.errors] == [("Stim",), ("one",), ("distance",), ()]
    texts = [each.text for each in report.errors]
    said = ["did you mean 'stim'", "has 1 label", "infinite", "cycle: stim -> stim"]
    for text, fragment in zip(texts, said, strict=True):
        assert fragment in text


def test_no_concept_is_an_error_that_names_candidates():
    report = causcell.check(cells_of(stim=STIM, n_genes=np.arange(N)), [])
    (error,) = report.errors
    assert "name columns of labels, such as 'stim'" in error.text


@pytest.mark.parametrize(
    ("values", "declared", "kind"),
    [
        (np.full((N, 3), -1.0), None, "values"),
        (np.full((N, 3), np.nan), None, "values"),
        (np.full((N, 3), 2.5), "counts", "values"),
        (np.zeros((N, 3)), "counts", "empty_cells"),
    ],
)
def test_values_that_are_no_expression(values, declared, kind):
    report = causcell.check(cells_of(values, stim=STIM), "stim", expression=declared)
    assert [each.kind for each in report.errors] == [kind]


def test_genes_of_one_name_are_an_error():
    cells = cells_of(stim=STIM)
    cells.var_names = ["A", "A", *(f"G{i}" for i in range(28))]
    assert [each.kind for each in causcell.check(cells, "stim").errors] == ["duplicated_genes"]


def test_log1p_values_are_told_by_their_sum():
    counts = rng.poisson(2.0, (N, 30)) + 1
    values = np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4)
    report = causcell.check(cells_of(values, stim=STIM), "stim")
    assert report.expression["scale"] == "log1p"
    assert "expm1 sums to 10,000 a cell" in report.expression["text"]
    assert report.errors == ()
    assert [each.kind for each in report.notes] == ["scale"]


def test_what_can_not_be_opened_is_raised(tmp_path):
    with pytest.raises(DataError, match="no file"):
        causcell.check(tmp_path / "none.h5ad", "stim")
    with pytest.raises(DataError, match="no layer 'Counts'; did you mean 'counts'"):
        cells = cells_of(stim=STIM)
        cells.layers["counts"] = cells.X
        causcell.check(cells, "stim", layer="Counts")
    with pytest.raises(ConfigurationError, match="'cpm'"):
        causcell.check(cells_of(stim=STIM), "stim", expression="cpm")


# -- its forms ---------------------------------------------------------------------------------------------------------


def test_the_report_is_text_and_plain_values():
    cells = cells_of(stim=np.where(STIM == "IFN", "IFN ", "ctrl"), donor=DONOR)
    report = causcell.check(cells, ["stim", "donor"], ["donor:stim"])
    text = str(report)
    assert text.splitlines()[0].startswith("AnnData: 600 cells x 30 genes, raw counts")
    assert all(f"{each.level}: {each.text}" in text for each in report.findings)
    assert text.endswith("0 errors, 1 warning, 1 note")
    fields = json.loads(json.dumps(report.to_dict()))
    assert fields["concepts"][1]["labels"] == {f"d{i}": int((f"d{i}" == DONOR).sum()) for i in range(6)}
    assert fields["edges"] == ["donor:stim"]
    assert fields["findings"][0]["kind"] == "blanks"


def test_a_file_and_an_anndata_have_one_report(tmp_path):
    cells = cells_of(stim=STIM, donor=DONOR)
    cells.write_h5ad(tmp_path / "cells.h5ad")
    one, other = (causcell.check(each, ["stim", "donor"]).to_dict() for each in (cells, tmp_path / "cells.h5ad"))
    assert one | {"source": ""} == other | {"source": ""}


def test_warnings_are_those_of_the_report_and_no_more():
    labels = {f"c{i}": np.where(STIM == "IFN", "IFN ", "ctrl") for i in range(10)}
    with pytest.warns(CausCellWarning) as told:
        warn_of_labels(pd.DataFrame(labels), list(labels))
    assert len(told) == 9
    assert "more of these labels: causcell check" in str(told[-1].message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_labels(pd.DataFrame({"stim": STIM, "donor": DONOR, "type": TYPE}), ["stim", "donor", "type"])


# -- the panel ---------------------------------------------------------------------------------------------------------


def test_the_estimate_is_of_the_panel_that_is_asked_for():
    given = cells_of(stim=STIM)
    given.var["highly_variable"] = np.arange(30) < 4
    asked = {"highly_variable": 4, "all": 30, 12: 12, 2000: 30}
    for genes, count in asked.items():
        assert f"a panel of {count} genes" in causcell.check(given, "stim", genes=genes).training["text"]
    included = causcell.check(given, "stim", genes="highly_variable", include_genes="9,2")
    assert "a panel of 5 genes" in included.training["text"]


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"genes": 1}, "genes=1: take at least 2"),
        ({"genes": "none.txt"}, "genes='none.txt' is neither a number"),
        (
            {"include_genes": ["3", "X3"]},
            "1 of 2 names of include_genes= are neither genes of the data nor a file: 'X3'",
        ),
        ({"batch_key": "stin"}, "batch_key='stin' is no column of obs; did you mean 'stim'?"),
        ({"genes": "all", "batch_key": "stim"}, "batch_key='stim' is for a number of highly variable genes"),
    ],
)
def test_a_panel_that_cant_be_chosen_is_an_error(asked, told):
    (finding,) = causcell.check(cells_of(stim=STIM), "stim", **asked).errors
    assert finding.kind == "panel"
    assert told in finding.text


def test_duplicated_genes_are_told_once():
    given = cells_of(stim=STIM)
    given.var_names = ["a", "a", *given.var_names[2:]]
    assert [each.kind for each in causcell.check(given, "stim", include_genes="a").errors] == ["duplicated_genes"]
