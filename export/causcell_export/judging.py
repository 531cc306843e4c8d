"""Verdicts on the concepts of an exported model, judged on its held-out cells."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from causcell.cells.panel_cells import Reading
from causcell.counterfactual.interventions import MODES
from causcell.evaluation.cases import choose_largest, find_seen_cases
from causcell.evaluation.data import gather_evaluation_data
from causcell.evaluation.embeddings import tabulate_own_labels
from causcell.evaluation.predictor import ModelPredictor
from causcell.evaluation.shifts import tabulate_effects
from causcell.evaluation.verdicts import judge_concepts
from causcell.generator import Generator
from causcell.repository.manifest import Manifest
from causcell.repository.verdicts import Verdict
from causcell_training.data.split import PART, TEST, VALIDATION

if TYPE_CHECKING:
    import anndata

_MIN_CELLS = 16
_MOST_SHIFTS = 12
"""Shifts of each concept that are judged, those of most cells: every one takes a fraction of a second."""


class _ModeDo(ModelPredictor):
    """A model that intervenes in its default mode alone."""

    @property
    def modes(self) -> tuple[str, ...]:
        return MODES[:1]


def with_verdicts(manifest: Manifest, root: Path, held_out: anndata.AnnData) -> Manifest:
    """Judge every concept on the test cells; trivial predictors learn from the validation cells.

    Parameters
    ----------
    manifest
        Manifest of the repository, as written.
    root
        The repository.
    held_out
        Held-out cells, panel expression on the log scale [n x G], with ``obs["causcell:part"]``.

    Returns
    -------
    The manifest with a verdict on each concept; see `causcell.evaluation.verdicts`.
    """
    test, validation = (np.flatnonzero(held_out.obs[PART] == part) for part in (TEST, VALIDATION))
    names = manifest.concept_schema.names
    if min(len(test), len(validation)) < _MIN_CELLS:
        why = (
            f"not judged: {len(test)} test cells and {len(validation)} validation cells were held out, and it takes "
            f"{_MIN_CELLS} of each"
        )
        return manifest.model_copy(update={"verdicts": tuple(Verdict(concept=name, reason=why) for name in names)})
    with Generator.open(root) as generator:
        reading = Reading(expression="log1p")
        data = gather_evaluation_data(
            _ModeDo(generator, reading),
            held_out,
            reading,
            test_rows=test,
            training_rows=validation,
            rng=np.random.default_rng(0),
        )
        tables = [tabulate_own_labels(data, probes=False)]
        tables += tabulate_effects(
            data, choose_largest(find_seen_cases(data), _MOST_SHIFTS), "Interventions", quick=True
        )
    return manifest.model_copy(update={"verdicts": tuple(judge_concepts(tables, names))})
