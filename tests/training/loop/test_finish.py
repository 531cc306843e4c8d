"""What a finished training leaves for export."""

import json

import anndata
import numpy as np
import torch
from scipy import sparse
from short_runs import EPOCHS

from causcell._internal.digests import name_digests
from causcell_training import Run
from causcell_training.data.cells import prepare


def test_held_out_cells_are_kept_as_the_model_reads_them(cells: anndata.AnnData, finished: Run) -> None:
    data = prepare(cells, finished.config)
    held_out = finished.held_out()
    rows = np.flatnonzero(data.part != "train")
    assert held_out.obs_names.tolist() == data.names[rows].tolist()
    assert held_out.var_names.tolist() == list(data.preprocessing.genes)
    assert sparse.issparse(held_out.X)
    np.testing.assert_array_equal(held_out.X.toarray(), data.expression[rows].toarray())
    assert held_out.obs["part"].astype(str).tolist() == data.part[rows].tolist()
    for name in finished.model.schema.names:
        assert held_out.obs[name].astype(str).tolist() == cells.obs[name].iloc[rows].astype(str).tolist()


def test_reference_cells_are_the_training_cells_embeddings(cells: anndata.AnnData, finished: Run) -> None:
    data = prepare(cells, finished.config)
    train = data.rows("train")
    reference = finished.reference
    # 288 training cells are fewer than are kept for one label: all of them are reference cells
    np.testing.assert_array_equal(reference.labels, data.labels[train])
    with torch.no_grad():
        expression, labels = data.batch(train)
        informed = finished.model.inform(finished.model.encode(expression)[0], labels).numpy()
    np.testing.assert_allclose(reference.exogenous, informed, rtol=1e-5, atol=1e-5)  # float32, batches of another size
    np.testing.assert_array_equal(reference.combinations, np.unique(data.labels[train], axis=0))


def test_training_cells_are_known_by_name(cells: anndata.AnnData, finished: Run) -> None:
    data = prepare(cells, finished.config)
    np.testing.assert_array_equal(finished.training_cells.contain(cells.obs_names), data.part == "train")
    assert finished.training_cells.count == len(np.unique(name_digests(data.names[data.rows("train")])))


def test_provenance_is_plain_json(finished: Run) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    fields = json.loads((finished.path / "run.json").read_text(), parse_constant=refuse)
    assert fields["provenance"]["epochs"] == EPOCHS
    assert fields["provenance"]["cells"] == {"train": 288, "choose": 16, "report": 16}
    assert set(fields["provenance"]["held_out"]) == {"pcc", "mse"}
