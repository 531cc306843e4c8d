"""Cells bound to a model: names, labels and expression of rows, what is missing, and where they came from."""

import pickle
import warnings
from dataclasses import replace

import anndata
import numpy as np
import pytest
from scipy import sparse

from causcell.cells.collection import open_cells
from causcell.cells.panel import PanelReader
from causcell.cells.panel_cells import PanelCells
from causcell.errors import CausCellWarning, ConfigurationError, ExpressionError, GenePanelError

CELLS = 40


@pytest.fixture(scope="module")
def some(cells):
    """Counts with a layer of doubled ones; treat as read-only."""
    chosen = cells[:CELLS].copy()
    chosen.layers["doubled"] = chosen.X * 2
    return chosen


@pytest.fixture(scope="module")
def schema(generator):
    return generator.schema


@pytest.fixture(scope="module")
def preprocessing(generator):
    return generator.preprocessing


@pytest.fixture
def two(some, tmp_path):
    """Two files of one collection: the second with its genes in another order."""
    some[:25].write_h5ad(tmp_path / "first.h5ad")
    some[25:, ::-1].write_h5ad(tmp_path / "second.h5ad")
    return {"a": tmp_path / "first.h5ad", "b": tmp_path / "second.h5ad"}


@pytest.fixture
def bind(schema, preprocessing):
    """``bind(source, ...)``: cells of a source, bound to the model's concepts and panel."""
    opened = []

    def bind(source, layer=None, where=None, scratch=None, **options):
        cells = open_cells(source, layer=layer, where=where, scratch=scratch)
        opened.append(cells)
        return PanelCells(cells, schema, preprocessing, **options)

    yield bind
    for cells in opened:
        cells.close()


def without(cells, genes):
    return cells[:, ~cells.var_names.isin(genes)].copy()


# -- rows --------------------------------------------------------------------------------------------------------------


def test_a_batch_has_the_names_and_the_panel_expression_of_its_rows(some, preprocessing, bind):
    bound = bind(some)
    batch = bound.read(slice(5, 12))
    expected = PanelReader(preprocessing, list(some.var_names)).read(some.X[5:12], some.obs_names[5:12])
    assert batch.rows == slice(5, 12)
    assert batch.names.tolist() == some.obs_names[5:12].tolist() == bound.read_names(slice(5, 12)).tolist()
    assert batch.expression.dtype == np.float32
    np.testing.assert_array_equal(batch.expression, expected)


def test_rows_do_not_depend_on_how_they_are_cut_into_batches(some, bind):
    bound = bind(some)
    whole = bound.read(slice(0, CELLS))
    parts = [bound.read(slice(start, min(start + 7, CELLS))) for start in range(0, CELLS, 7)]
    np.testing.assert_array_equal(np.concatenate([part.expression for part in parts]), whole.expression)
    assert np.concatenate([part.names for part in parts]).tolist() == whole.names.tolist()


def test_a_batch_may_lie_across_two_files(some, two, bind):
    """Genes are matched by name in each of them."""
    bound = bind(two)
    batch = bound.read(slice(20, 30))
    assert len(bound) == CELLS
    assert batch.names.tolist() == [f"{'a' if i < 25 else 'b'}:{some.obs_names[i]}" for i in range(20, 30)]
    np.testing.assert_array_equal(batch.expression, bind(some).read(slice(20, 30)).expression)


def test_labels_are_those_of_all_cells_and_are_read_once(some, schema, bind, monkeypatch):
    bound = bind(some)
    np.testing.assert_array_equal(bound.labels, schema.encode(some.obs))
    monkeypatch.setattr(type(bound.cells), "labels", lambda *_: pytest.fail("labels are assembled again"))
    assert bound.labels.dtype == np.int32


def test_a_query_and_a_layer_hold_for_what_is_bound(some, bind):
    bound = bind(some, layer="doubled", where="stim == 'IFN'")
    chosen = some[some.obs["stim"] == "IFN"]
    assert bound.read_names(slice(0, len(bound))).tolist() == chosen.obs_names.tolist()
    np.testing.assert_array_equal(  # totals are scaled away, so that doubled counts are the same expression
        bound.read(slice(0, len(bound))).expression, bind(chosen.copy()).read(slice(0, len(bound))).expression
    )


def test_leaving_the_block_closes_the_file(two, generator):
    with generator.bind(open_cells(two["a"])) as bound:
        bound.read(slice(0, 2))
    with pytest.raises(Exception, match=r"(?i)closed|invalid|not open|unable|synchronously"):
        bound.read(slice(0, 2))


# -- missing genes -----------------------------------------------------------------------------------------------------


def test_missing_genes_are_named_once_over_all_files(some, preprocessing, bind):
    a, b, c = preprocessing.genes[:3]
    with pytest.warns(CausCellWarning) as caught:
        bound = bind({"one": without(some[:10], [a, b]), "two": without(some[10:], [b, c])}, allow_missing_genes=0.1)
    assert set(bound.missing) == {a, b, c}
    assert len(bound.missing) == 3
    told = [str(each.message) for each in caught]
    panel = [message for message in told if "panel genes" in message]
    assert [message.split(" panel")[0] for message in panel] == ["2 of 50", "2 of 50"]
    assert "in 'one'" in panel[0]
    assert "in 'two'" in panel[1]
    assert repr(a) in panel[0]
    of_totals = [message for message in told if "of 60 genes that a cell's total is taken over are missing" in message]
    assert len(panel) + len(of_totals) == len(told) == 4
    assert "in 'one'; totals were taken for" in of_totals[0]


def test_missing_genes_are_filled_with_the_training_mean(some, preprocessing, bind):
    gene = preprocessing.genes[4]
    with pytest.warns(CausCellWarning) as caught:
        bound = bind(without(some, [gene]), allow_missing_genes=0.2)
    assert "1 of 50 panel genes are missing and were filled" in str(caught[0].message)
    assert (bound.read(slice(0, 5)).expression[:, 4] == preprocessing.mean[4]).all()
    assert bound.missing == (gene,)


def test_nothing_is_told_where_nothing_is_missing_or_it_was_told_already(some, preprocessing, bind):
    """A worker opens the same cells again, and keeps quiet."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert bind(some).missing == ()
        bind(without(some, preprocessing.genes[:1]), allow_missing_genes=0.1, announce=False)


def test_more_missing_genes_than_allowed_are_refused(some, preprocessing, bind):
    with pytest.raises(GenePanelError, match="2 of 50 panel genes are missing"):
        bind(without(some, preprocessing.genes[:2]), allow_missing_genes=0.02)


def test_more_missing_of_the_total_than_allowed_is_refused(some, preprocessing, bind):
    """The panel's share of genes is allowed, what they carry of the total is not."""
    shares = dict(zip(preprocessing.normalisation_genes, preprocessing.shares, strict=True))
    heavy = max(preprocessing.genes, key=shares.__getitem__)
    with pytest.raises(
        GenePanelError, match="1 of 60 genes that a cell's total is taken over are missing, which carry"
    ):
        bind(without(some, [heavy]), allow_missing_genes=0.02)


# -- the scale ---------------------------------------------------------------------------------------------------------


def test_counts_are_refused_by_a_model_of_normalised_values(some, schema, preprocessing):
    """How its training file was normalised is not known."""
    normalised = replace(preprocessing, scale="log1p", normalisation_genes=())
    with pytest.raises(ConfigurationError, match="trained on log1p values as given"):
        PanelCells(open_cells(some), schema, normalised, expression="counts")


def test_normalised_values_are_taken_by_a_model_of_counts(some, bind):
    """The one way round is known: they are read as they are."""
    counts = some.X.toarray().astype(float)
    values = np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4).astype(np.float32)
    normalised = anndata.AnnData(values, some.obs.copy(), some.var.copy())
    read = bind(normalised, expression="log1p").read(slice(0, CELLS)).expression
    np.testing.assert_allclose(read, bind(some).read(slice(0, CELLS)).expression, rtol=1e-5)


def test_an_unknown_scale_is_refused(some, bind):
    with pytest.raises(ConfigurationError, match="expression scale 'tpm' is not known"):
        bind(some, expression="tpm")


def test_values_that_are_not_what_was_declared_are_refused_as_they_are_read(some, bind):
    bound = bind(some, expression="log1p")
    with pytest.raises(ExpressionError, match="declared as log1p, but holds whole numbers"):
        bound.read(slice(0, 3))


def test_cells_that_can_not_be_bound_are_closed(two, generator, monkeypatch):
    cells = open_cells(two["a"])
    closed = []
    monkeypatch.setattr(cells, "close", lambda: closed.append(True))
    with pytest.raises(ConfigurationError):
        generator.bind(cells, "tpm")
    assert closed == [True]
    monkeypatch.undo()
    cells.close()


# -- where they came from ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("several", [False, True], ids=["one file", "two files"])
def test_a_source_is_pickled_and_opens_the_same_rows(two, schema, preprocessing, bind, several):
    """As a worker does, with the same query, layer, scale and share of missing genes."""
    files = two if several else two["a"]
    options = {"expression": "counts", "allow_missing_genes": 0.1}
    bound = bind(files, layer="doubled", where="donor != 'd2'", **options)
    source = pickle.loads(pickle.dumps(bound.source))
    assert source == bound.source
    with source.open(schema, preprocessing) as again:
        every = slice(0, len(bound))
        assert len(again) == len(bound)
        assert again.read(every).names.tolist() == bound.read(every).names.tolist()
        np.testing.assert_array_equal(again.read(every).expression, bound.read(every).expression)
        np.testing.assert_array_equal(again.labels, bound.labels)
        assert again.source == bound.source


def test_a_source_opens_values_of_the_scale_that_was_declared(some, schema, preprocessing, bind, tmp_path):
    """A worker that took log1p values for counts would refuse them."""
    normalised = some.copy()
    counts = some.X.toarray().astype(float)
    normalised.X = np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4).astype(np.float32)
    normalised.write_h5ad(tmp_path / "log1p.h5ad")
    bound = bind(tmp_path / "log1p.h5ad", expression="log1p")
    with bound.source.open(schema, preprocessing) as again:
        np.testing.assert_array_equal(again.read(slice(0, 9)).expression, bound.read(slice(0, 9)).expression)


def test_a_source_does_not_depend_on_the_working_directory(two, schema, preprocessing, bind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = bind("first.h5ad").source
    monkeypatch.chdir("/")
    with source.open(schema, preprocessing) as again:
        assert len(again) == 25


def test_a_source_opened_again_uses_the_copy_by_rows_and_says_nothing(some, schema, preprocessing, bind, tmp_path):
    by_columns = some.copy()
    by_columns.X = sparse.csc_matrix(some.X)
    by_columns.write_h5ad(tmp_path / "columns.h5ad")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with pytest.warns(CausCellWarning, match="by columns"):
        bound = bind(tmp_path / "columns.h5ad", scratch=scratch)
        expected = bound.read(slice(0, CELLS)).expression
    made = sorted(scratch.rglob("*"))
    assert made
    with warnings.catch_warnings():
        warnings.simplefilter("error", CausCellWarning)
        with bound.source.open(schema, preprocessing, announce=False) as again:
            np.testing.assert_array_equal(again.read(slice(0, CELLS)).expression, expected)
    assert sorted(scratch.rglob("*")) == made


def test_cells_in_memory_have_no_source(some, two, bind):
    assert bind(some).source is None
    assert bind({"a": two["a"], "b": some[25:].copy()}).source is None


def test_the_origin_names_files_sizes_layer_and_query(some, two, bind):
    origin = bind(two, layer="doubled", where="stim == 'IFN'").describe_origin()
    assert (origin["layer"], origin["where"]) == ("doubled", "stim == 'IFN'")
    assert [file["key"] for file in origin["files"]] == ["a", "b"]
    for file, path in zip(origin["files"], two.values(), strict=True):
        status = path.stat()
        assert (file["path"], file["bytes"], file["modified"]) == (str(path), status.st_size, status.st_mtime_ns)
    assert bind(some).describe_origin() == {
        "files": [{"key": None, "path": None, "bytes": None, "modified": None}],
        "layer": None,
        "where": None,
    }
