"""The end of a training: everything that export needs of it is written to the run folder."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from causcell._internal.files import new_file
from causcell_training.config import TrainConfig
from causcell_training.fitted_mechanisms import fit_mechanisms
from causcell_training.learned_graph import keep_found_edges
from causcell_training.model import CausCell
from causcell_training.run import Run
from causcell_training.run_data import RunData, TrainingFacts, measure_test_cells
from causcell_training.run_folder import REFERENCE_FILE
from causcell_training.target_priors import fit_target_priors


def finish_run(path: Path, data: RunData, config: TrainConfig, model: CausCell, facts: TrainingFacts) -> Run:
    """Write weights, reference cells and description of a trained model, in this order.

    Parameters
    ----------
    path
        The run folder; it has the held-out cells.
    data
        What the run keeps of its cells.
    config
        Settings.
    model
        The trained model, in evaluation mode on the CPU.
    facts
        How the training went.

    Returns
    -------
    Run
        The finished run.
    """
    model, found = keep_found_edges(model)
    reference = data.embed_reference_cells(model)
    reference = replace(reference, exogenous=fit_mechanisms(model, reference.exogenous))
    fit_target_priors(model, reference.exogenous, data.values)
    run = Run(path, config, model, data.training_cells, {}, find_versions())
    run.save_weights()
    with new_file(path / REFERENCE_FILE, overwrite=True) as staging:
        reference.save(staging)
    provenance = {"finished": datetime.now(UTC).isoformat(timespec="seconds"), **data.provenance(config, facts)}
    provenance |= data.describe_edges(model, found, reference)
    run.provenance.update(provenance, held_out=measure_test_cells(model, run.held_out()))
    run.describe()
    return run


def find_versions() -> dict[str, str]:
    """Find the versions of the packages that training depends on."""
    packages = ("causcell", "torch", "lightning", "numpy", "anndata", "scanpy")
    return {name: metadata.version(name) for name in packages}
