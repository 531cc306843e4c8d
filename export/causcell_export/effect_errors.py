"""The measured error of an exported model's effects, for its manifest."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from causcell.evaluation.effect_errors import measure_effect_errors
from causcell.generator import Generator
from causcell.repository.manifest import Manifest
from causcell_training.data.groups import GROUPS
from causcell_training.data.split import PART, TEST, VALIDATION

if TYPE_CHECKING:
    import anndata


def with_effect_errors(manifest: Manifest, root: Path, held_out: anndata.AnnData) -> Manifest:
    """Measure the error of the effects of every concept by the embedded engine.

    Parameters
    ----------
    manifest
        Manifest of the repository.
    root
        The repository, with a manifest written.
    held_out
        Held-out cells, panel expression on the log scale [n x G], with ``obs["causcell:part"]``, and statistics of the
        training cells in ``uns``.

    Returns
    -------
    The manifest with the errors; without any for a run of a version that kept no statistics of its training cells.
    """
    groups = held_out.uns.get(GROUPS)
    if groups is None:
        return manifest
    validation, test = (held_out[held_out.obs[PART] == part].to_memory() for part in (VALIDATION, TEST))
    with Generator.open(root) as generator:
        errors = measure_effect_errors(generator, validation, test, groups)
    return manifest.model_copy(update={"effect_errors": errors})
