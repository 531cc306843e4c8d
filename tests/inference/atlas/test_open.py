"""Cells of an atlas are opened once, and what is read of them is read as few times as it can be."""

from collections import Counter

import numpy as np
import pytest
from atlases import ROW, AtlasRecipe, write_zarr

from causcell._internal.digests import name_digests
from causcell.cells.backing import FileSource, ObjectSource
from causcell.cells.collection import Cells, Collection
from causcell.concepts import ConceptSchema
from causcell.counterfactual.interventions import Intervention
from causcell.counterfactual.request import Request
from causcell.counterfactual.tables import check_row_names
from causcell.errors import CellNameError, ExpressionError

pytestmark = pytest.mark.filterwarnings("ignore::causcell.errors.CausCellWarning")

# -- reads -------------------------------------------------------------------------------------------------------------


class Reads:
    """Counts of what is read of cells."""

    def __init__(self, monkeypatch):
        self.names = Counter()
        """Reads of each cell's name, by source and place."""
        self.labels = Counter()
        """How often labels were assembled, by the number of cells that they were of."""
        self.asked = Counter()
        """How often the labels of a file, or of a collection of files, were asked for."""
        encode = ConceptSchema.encode

        def counted_encode(schema, obs):
            self.labels[len(obs)] += 1
            return encode(schema, obs)

        monkeypatch.setattr(ConceptSchema, "encode", counted_encode)
        for kind in (Cells, Collection):
            monkeypatch.setattr(kind, "labels", self._asked(kind.labels))
        for kind in (FileSource, ObjectSource):
            monkeypatch.setattr(kind, "names", self._counted(kind.names))

    def _asked(self, labels):
        def asked(cells, schema):
            self.asked[len(cells)] += 1
            return labels(cells, schema)

        return asked

    def _counted(self, read):
        def names(source, start, stop):
            self.names.update((id(source), row) for row in range(start, stop))
            return read(source, start, stop)

        return names


@pytest.mark.parametrize("where", [None, "donor != 'd1'"])
@pytest.mark.parametrize("form", ["memory", "h5ad", "zarr"])
def test_a_cells_name_is_read_twice_and_labels_are_assembled_once(generator, cells, tmp_path, monkeypatch, form, where):
    """A name once when cells are opened, where all have to differ, and once when rows are generated. 280 cells are more
    than those whose values are looked at for the plan, and shards are made of several batches."""
    source = cells[:280].copy()
    if form != "memory":
        path = tmp_path / f"cells.{form}"
        source.write_h5ad(path) if form == "h5ad" else write_zarr(source, path)
        source = path
    chosen = 280 if where is None else int((cells.obs["donor"][:280] != "d1").sum())
    reads = Reads(monkeypatch)
    options = {"do": [{}, {"stim": "IFN"}], "where": where, "shard_size": 260 * ROW, "chunk_size": 26 * ROW}
    summary = AtlasRecipe(generator, source, options).write(tmp_path / "atlas.zarr")
    assert summary.made == 2 * chosen
    assert len(reads.names) >= chosen
    assert max(reads.names.values()) == 2
    assert reads.labels == reads.asked == {chosen: 1}


def test_going_on_with_an_atlas_reads_no_more(recipe, finished, monkeypatch):
    """A finished one is not generated: names are read for their digests alone."""
    reads = Reads(monkeypatch)
    assert recipe.write(finished).made == 0
    assert set(reads.names.values()) == {1}
    assert sum(reads.labels.values()) == 1


def test_files_of_a_collection_are_each_read_once(two_files, tmp_path, monkeypatch):
    reads = Reads(monkeypatch)
    two_files.write(tmp_path / "atlas.zarr")
    assert (len(reads.names), max(reads.names.values())) == (160, 2)
    assert reads.labels == {100: 1, 60: 1}
    assert reads.asked == {160: 1, 100: 1, 60: 1}


@pytest.mark.parametrize("where", [None, "donor != 'd1'"])
def test_a_cell_that_cannot_be_read_is_named_when_the_plan_looks_at_it(two_files, cells, where):
    """Though names are not read along with the values that are looked at."""
    second = cells[100:160].copy()
    kept = np.arange(60) if where is None else np.flatnonzero(second.obs["donor"] != "d1")
    row = int(kept[7])
    second.X = second.X.toarray().astype("float32")
    second.X[row] = 0.5
    files = {"a": two_files.cells["a"], "b": second}
    with pytest.raises(ExpressionError, match=rf"holds 0\.5 in cell 'b:{second.obs_names[row]}'"):
        two_files.generator.plan_atlas(files, where=where)


# -- names of rows -----------------------------------------------------------------------------------------------------


class NamedCells:
    """Cells of which only names matter."""

    def __init__(self, *names):
        self._names = np.array(names, dtype=object)
        self.name_digests = name_digests(names)
        self.cells = self

    def __len__(self):
        return len(self._names)

    def read_names(self, rows):
        return self._names[rows]


def test_rows_of_one_name_are_refused_beforehand(generator):
    """``a`` under ``x=1|x=2``, and ``a|x=1`` under ``x=2``: labels may hold a bar."""
    interventions = (Intervention(((0, 0),), "x=1|x=2"), Intervention(((0, 1),), "x=2"))
    request = Request(interventions=interventions, settings=generator.solver_settings())
    check_row_names(NamedCells("a", "a|x=2", "b|x=1"), request)
    with pytest.raises(CellNameError, match=r"not unique, such as those of 'a\|x=1'; rename cells"):
        check_row_names(NamedCells("a", "a|x=1"), request)
