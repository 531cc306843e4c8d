"""Data of an evaluation: a model, the cells that test it, and the cells that its baselines are trained on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from causcell._deprecation import renamed_arguments
from causcell._internal.batching import batches
from causcell.cells.panel_cells import Reading
from causcell.concepts import UNLABELLED, ConceptSchema
from causcell.errors import DataError
from causcell.generator import Generator

if TYPE_CHECKING:
    import anndata
    from sklearn.decomposition import PCA

_READ_ROWS = 1024
_MIN_TEST_ROWS = 16
_MAX_TEST_ROWS = 4096
_MAX_TRAINING_ROWS = 20_000


@dataclass(frozen=True)
class EvaluationData:
    """A model and the cells that it is evaluated with.

    Attributes
    ----------
    generator
        The model, on any engine.
    cells
        All cells, those of the test rows and those of the training rows.
    expression
        Expression of the panel, log scale, float32 [n x G].
    labels
        Label codes, int32 [n x m]; -1 is unlabelled.
    test_rows
        Rows that measures are taken on, int [t], ascending; the model was not trained on them.
    training_rows
        Rows that baselines learn from, int [r], ascending.
    scale
        ``counts`` or ``log1p``: what the values of ``cells`` are; what the model was trained on for `None`.
    layer, raw, totals, round_counts, allow_missing_genes
        How the values of ``cells`` are read; see `causcell.generator.Generator.counterfactual`.
    """

    generator: Generator
    cells: anndata.AnnData
    expression: np.ndarray
    labels: np.ndarray
    test_rows: np.ndarray
    training_rows: np.ndarray
    scale: str | None = None
    layer: str | None = None
    raw: bool = False
    totals: str | None = None
    round_counts: bool = False
    allow_missing_genes: float = 0.0

    @property
    def schema(self) -> ConceptSchema:
        """Concepts of the model and their graph."""
        return self.generator.schema

    @cached_property
    def stratum_concept(self) -> int:
        """Index of the concept within whose labels cells are compared."""
        return self.schema.index(self.schema.cell_type_like)

    @property
    def stratum_name(self) -> str:
        """Name of the concept within whose labels cells are compared."""
        return self.schema.names[self.stratum_concept]

    @property
    def read_options(self) -> dict[str, Any]:
        """Arguments that tell the generator how to read the cells."""
        return {
            "expression": self.scale,
            "layer": self.layer,
            "raw": self.raw,
            "totals": self.totals,
            "round_counts": self.round_counts,
            "allow_missing_genes": self.allow_missing_genes,
        }

    @cached_property
    def test_embeddings(self) -> anndata.AnnData:
        """Embeddings of the test cells; see `Generator.embed`."""
        return self.generator.embed(self.cells[self.test_rows], **self.read_options)

    @cached_property
    def mean_estimate(self) -> np.ndarray:
        """Mean estimates of the test cells, float32 [t x G]."""
        return np.asarray(self.generator.reconstruct(self.cells[self.test_rows], preset="mean", **self.read_options).X)

    def generate_samples(self, seed: int = 0) -> np.ndarray:
        """Generate a sample of each test cell by the default preset, float32 [t x G]."""
        return np.asarray(self.generator.reconstruct(self.cells[self.test_rows], seed=seed, **self.read_options).X)

    @property
    def test_expression(self) -> np.ndarray:
        """Expression of the test cells, float32 [t x G]."""
        return np.asarray(self.expression[self.test_rows])

    @property
    def test_labels(self) -> np.ndarray:
        """Label codes of the test cells, int32 [t x m]."""
        return np.asarray(self.labels[self.test_rows])

    @property
    def training_expression(self) -> np.ndarray:
        """Expression of the training cells, float32 [r x G]."""
        return np.asarray(self.expression[self.training_rows])

    @property
    def training_labels(self) -> np.ndarray:
        """Label codes of the training cells, int32 [r x m]."""
        return np.asarray(self.labels[self.training_rows])

    def fit_components(self, count: int) -> PCA:
        """Fit principal components to the training cells, at most ``count``."""
        from sklearn.decomposition import PCA

        x = self.training_expression
        return PCA(min(count, *x.shape), svd_solver="randomized", random_state=0).fit(x)

    def project_on_components(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Project the test cells on `fit_components`: scores [t x count], and expression rebuilt from them [t x G]."""
        pca = self.fit_components(count)
        scores = pca.transform(self.test_expression)
        return scores, np.maximum(pca.inverse_transform(scores), 0)

    @cached_property
    def label_means(self) -> np.ndarray:
        """For each test cell the mean of the training cells that share its `stratum_concept` label, [t x G]."""
        codes, x = self.training_labels[:, self.stratum_concept], self.training_expression
        overall = x.mean(axis=0)
        means = {code: x[codes == code].mean(axis=0) for code in np.unique(codes[codes != UNLABELLED])}
        return np.stack([means.get(code, overall) for code in self.test_labels[:, self.stratum_concept]])


@renamed_arguments(judged="test_rows", learned="training_rows")
def read_evaluation_data(
    generator: Generator,
    cells: anndata.AnnData,
    *,
    test_rows: np.ndarray | None = None,
    training_rows: np.ndarray | None = None,
    scale: str | None = None,
    seed: int = 0,
    **options: Any,
) -> EvaluationData:
    """Read the cells' expression, and settle which cells are test cells and which baselines learn from.

    Parameters
    ----------
    generator
        The model.
    cells
        In memory or backed.
    test_rows, training_rows
        Rows, int, ascending. If not given: the cells that the model was not trained on, and those that it was (by
        digests of their names). Where none of the cells was trained on, a random half of them is taken for training
        rows and the other half for test rows.
    scale
        Scale of the cells' values (``counts`` or ``log1p``).
    seed
        Seed of the choice of at most 4,096 test rows and 20,000 training rows.
    options
        Further ways to read the cells: ``layer``, ``raw``, ``totals``, ``round_counts``, ``allow_missing_genes``; see
        `causcell.generator.Generator.counterfactual`.

    Raises
    ------
    DataError
        Fewer than 16 test cells are left.
    """
    rng = np.random.default_rng(seed)
    if test_rows is None or training_rows is None:
        trained = generator.manifest.training_cells.contain(cells.obs_names.astype(str).tolist())
        test_rows, training_rows = np.flatnonzero(~trained), np.flatnonzero(trained)
        if not len(training_rows):
            training_rows, test_rows = (np.sort(half) for half in np.array_split(rng.permutation(test_rows), 2))
    if len(test_rows) < _MIN_TEST_ROWS:
        raise DataError(
            f"{len(test_rows)} of {cells.n_obs} cells are left that the model was not trained on; an evaluation needs "
            f"at least {_MIN_TEST_ROWS}: give held-out cells (their names, not their values, tell)"
        )
    test_rows = _choose_at_most(test_rows, _MAX_TEST_ROWS, rng)
    training_rows = _choose_at_most(training_rows, _MAX_TRAINING_ROWS, rng)
    rows = np.union1d(test_rows, training_rows)
    kept = cells[rows].to_memory()
    reading = Reading(expression=scale, **options)
    with generator.bind(reading.open(kept), **reading.bind_options) as bound:
        parts = [bound.read(part).expression for part in batches(len(bound), _READ_ROWS)]
        labels = bound.labels
    test_rows, training_rows = np.searchsorted(rows, test_rows), np.searchsorted(rows, training_rows)
    expression = np.concatenate(parts)
    return EvaluationData(generator, kept, expression, labels, test_rows, training_rows, scale, **options)


def _choose_at_most(rows: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    return rows if len(rows) <= count else np.sort(rng.choice(rows, count, replace=False))
