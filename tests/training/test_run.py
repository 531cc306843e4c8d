"""A finished run: what its folder holds, and that it comes back as it was."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import anndata
import numpy as np
import pytest
import torch

from causcell.concepts import Concept, ConceptSchema, Edge
from causcell.errors import CausCellError, RunError
from causcell.preprocessing import Preprocessing
from causcell.repository.manifest import TrainingCells
from causcell_training import CausCell, Run, TrainConfig
from causcell_training.run_folder import read_config

FILES = {
    "run.json",
    "config.toml",
    "weights.safetensors",
    "reference.npz",
    "held_out.h5ad",
    "split.csv",
    "metrics.csv",
}
"""What the docstring of causcell_training.run_folder lists of a finished run that had no logger."""


def test_a_finished_run_holds_the_documented_files_and_no_pickle(finished: Run) -> None:
    assert {path.name for path in finished.path.iterdir()} == FILES
    assert all(path.is_file() for path in finished.path.iterdir())
    with np.load(finished.path / "reference.npz", allow_pickle=False) as arrays:  # raises for a pickled array
        assert all(arrays[name].dtype.kind in "fi" for name in arrays.files)


RUN_JSON = """ "concepts": [
  {
   "name": "stim",
   "labels": [
    "IFN",
    "ctrl"
   ],
   "kind": "categorical"
  },
  {
   "name": "stage",
   "labels": [
    "early",
    "late"
   ],
   "kind": "ordinal"
  }
 ],
 "edges": [
  {
   "parent": "stim",
   "child": "stage",
   "weight": 1.0
  }
 ],
 "genes": [
  "ISG15",
  "CD3D"
 ],
 "scale": "counts",
 "normalisation_genes": [
  "ISG15",
  "CD3D",
  "ACTB"
 ],
 "mean": [
  0.1,
  0.33333334
 ],
 "deviation": [
  0.1,
  1e-07
 ],
 "training_cells": {
  "count": 2,
  "digests": "QPieOVtmQi+EcsLjTYVPdQ=="
 },
 "provenance": {
  "epochs": 3
 },
 "versions": {
  "causcell": "0.1.0"
 }
}
"""
"""The file as version 0.1.0 writes it, from its second field on; the first, ``config``, grows with the settings."""


def test_the_description_of_a_run_is_written_as_it_always_was(tmp_path: Path) -> None:
    """Byte for byte: digests are taken of such files."""
    schema = ConceptSchema(
        (Concept("stim", ("IFN", "ctrl")), Concept("stage", ("early", "late"), "ordinal")), (Edge("stim", "stage"),)
    )
    mean, deviation = np.array([[0.1, 1 / 3], [0.1, 1e-7]], dtype=np.float32)
    preprocessing = Preprocessing(("ISG15", "CD3D"), "counts", ("ISG15", "CD3D", "ACTB"), mean, deviation)
    config = TrainConfig()
    model = CausCell(schema, preprocessing, config.model)
    run = Run(tmp_path, config, model, TrainingCells.of(["a", "b"]), {"epochs": 3}, {"causcell": "0.1.0"})
    run.save()
    first, description = (tmp_path / "run.json").read_text().split(' "concepts": [', 1)
    assert json.loads(first.rstrip().rstrip(",") + "}") == {"config": config.model_dump(mode="json")}
    assert ' "concepts": [' + description == RUN_JSON


def test_a_loaded_run_gives_the_same_answers(cells: anndata.AnnData, finished: Run) -> None:
    loaded = Run.load(finished.path)
    assert loaded.config == finished.config
    assert loaded.model.schema == finished.model.schema
    assert loaded.training_cells == finished.training_cells
    assert loaded.provenance == finished.provenance
    assert loaded.versions == finished.versions
    assert loaded.model.preprocessing.genes == finished.model.preprocessing.genes
    expression = torch.from_numpy(finished.held_out().X.toarray())
    with torch.no_grad():
        for mine, theirs in zip(loaded.model.encode(expression), finished.model.encode(expression), strict=True):
            assert torch.equal(mine, theirs)
        z = finished.model.scm(mine)
        assert torch.equal(loaded.model.mean_estimate(z), finished.model.mean_estimate(z))
        for mine, theirs in zip(loaded.model.label_logits(z), finished.model.label_logits(z), strict=True):
            assert torch.equal(mine, theirs)


def test_a_run_of_a_version_that_normalised_the_last_hidden_state_goes_on_doing_so(
    finished: Run, tmp_path: Path
) -> None:
    """Its settings do not say so: there was no other way."""
    path = Path(shutil.copytree(finished.path, tmp_path / "run"))
    shapes = finished.config.model.model_copy(update={"last_norm": True})
    old = CausCell(finished.model.schema, finished.model.preprocessing, shapes).eval()
    Run(
        path, finished.config, old, finished.training_cells, finished.provenance, finished.versions, finished.reference
    ).save()
    fields = json.loads((path / "run.json").read_text())
    del fields["config"]["model"]["last_norm"]
    (path / "run.json").write_text(json.dumps(fields))
    loaded = Run.load(path)
    assert loaded.config.model.last_norm
    z = torch.randn(4, old.schema.size, shapes.embedding, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(loaded.model.mean_estimate(z), old.mean_estimate(z))


def test_settings_of_an_unfinished_run_say_what_an_earlier_version_did(finished: Run, tmp_path: Path) -> None:
    path = Path(shutil.copytree(finished.path, tmp_path / "run"))
    assert read_config(path) == finished.config
    text = (path / "config.toml").read_text()
    (path / "config.toml").write_text(text.replace("last_norm = false\n", ""))
    assert "last_norm" not in (path / "config.toml").read_text()
    assert read_config(path).model == finished.config.model.model_copy(update={"last_norm": True})


@pytest.mark.parametrize("damaged", ["run.json", "weights.safetensors"])
def test_a_damaged_run_is_reported(finished: Run, tmp_path: Path, damaged: str) -> None:
    path = Path(shutil.copytree(finished.path, tmp_path / "run"))
    content = (path / damaged).read_bytes()
    (path / damaged).write_bytes(content[: len(content) // 2])
    with pytest.raises(RunError, match="can't be read"):
        Run.load(path)


@pytest.mark.parametrize("missing", ["weights.safetensors", "held_out.h5ad", "reference.npz"])
def test_a_run_that_lacks_a_file_is_reported(finished: Run, tmp_path: Path, missing: str) -> None:
    path = Path(shutil.copytree(finished.path, tmp_path / "run"))
    (path / missing).unlink()
    with pytest.raises(CausCellError, match=missing):
        run = Run.load(path)
        run.held_out()
        _ = run.reference


def test_an_unfinished_run_is_not_loaded_and_says_how_to_go_on(broken_off: Path) -> None:
    assert {path.name for path in broken_off.iterdir()} == {
        *("config.toml", "split.csv", "held_out.h5ad", "metrics.csv", "checkpoints")
    }
    with pytest.raises(RunError, match=r"not finished.*resume=True.*unfinished=True"):
        Run.load(broken_off)


def test_a_run_shows_what_it_is(finished: Run) -> None:
    lines = repr(finished).splitlines()
    assert lines[0] == f"Run {str(finished.path)!r}"
    shown = dict(line.strip().split("  ", 1) for line in lines[1:])
    assert shown["trained on"].strip() == "288 cells x 60 genes"
    assert shown["concepts"].strip().startswith("stim: 'IFN', 'ctrl'; donor: 'd1', 'd2', 'd3'; ")
    assert shown["edges"].strip() == "donor:cell_type, cell_type:state, stim:state"
    assert shown["epochs"].strip().startswith("6 in ")
    assert f"MSE {finished.provenance['held_out']['mse']:.3f}" in shown["held out"]
    assert "16 validation and 16 test cells" in shown["held out"]


def test_a_run_without_test_cells_shows_no_measure(finished: Run) -> None:
    untested = replace(finished, provenance=finished.provenance | {"held_out": {}})
    assert "held out    16 validation and 16 test cells" in repr(untested).splitlines()[-1]
    assert "MSE" not in repr(untested)


def test_a_run_shows_its_graph_in_a_notebook(finished: Run) -> None:
    html = finished._repr_html_()
    assert "<svg" in html
    assert "288 cells x 60 genes" in html
    assert "&#x27;IFN&#x27;" in html


def test_a_page_of_zeros_among_the_texts_of_held_out_cells_is_told(finished: Run, tmp_path: Path) -> None:
    """HDF5 2.0 reads such a heap for ever."""
    data = bytearray((finished.path / "held_out.h5ad").read_bytes())
    heap = data.index(b"GCOL")
    data[heap + 64 : heap + 512] = bytes(448)
    (tmp_path / "held_out.h5ad").write_bytes(data)
    with pytest.raises(RunError, match=r"held_out\.h5ad can't be read: .*heap of texts"):
        replace(finished, path=tmp_path).held_out()
