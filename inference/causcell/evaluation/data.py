"""Data of an evaluation: who predicts, the cells that test it, and the cells that its baselines are trained on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from causcell._deprecation import renamed_arguments
from causcell._internal.batching import batches
from causcell.cells.panel_cells import Reading
from causcell.concepts import UNLABELLED, ConceptSchema
from causcell.errors import DataError
from causcell.evaluation.gene_shifts import find_gene_symbols
from causcell.evaluation.predictor import Embeddings, ModelPredictor, Predictor
from causcell.evaluation.row_choice import MIN_CELLS, choose_rows
from causcell.generator import Generator

if TYPE_CHECKING:
    import anndata
    from sklearn.decomposition import PCA

_READ_ROWS = 1024
JUDGED_FURTHER = "judged further for effects of rare labels"
"""Name, in a report, of the number of cells that were added to those drawn at random."""

MIN_TEST_ROWS = 16
"""Cells that an evaluation needs at least."""


@dataclass(frozen=True)
class EvaluationData:
    """Who predicts, and the cells that its predictions are evaluated with.

    Attributes
    ----------
    predictor
        A model, or the predictions of a method.
    cells
        All cells, those of the test rows and those of the training rows.
    expression
        Expression of the panel, log scale, float32 [n x G].
    labels
        Label codes, int32 [n x m]; -1 is unlabelled.
    test_rows
        Rows that measures of all cells are taken on, int [t], ascending; the predictor was not trained on them.
    training_rows
        Rows that baselines learn from, int [r], ascending.
    effect_rows
        Rows that effects are taken on, int [e], ascending: the test rows, and further ones of rare labels.
    baseline_rows
        Rows that trivial effects are taken from, int [b], ascending: training rows, and further ones of rare labels.
    seen_labels
        Label codes of cells trained on, also of those not among these cells, each combination once, int32 [s x m].
    """

    predictor: Predictor
    cells: anndata.AnnData
    expression: np.ndarray
    labels: np.ndarray
    test_rows: np.ndarray
    training_rows: np.ndarray
    effect_rows: np.ndarray
    baseline_rows: np.ndarray
    seen_labels: np.ndarray
    _samples: dict[int, np.ndarray | None] = field(default_factory=dict, init=False, repr=False, compare=False)
    _components: dict[int, PCA] = field(default_factory=dict, init=False, repr=False, compare=False)
    _projections: dict[int, tuple[np.ndarray, np.ndarray]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @property
    def schema(self) -> ConceptSchema:
        """Concepts and their graph."""
        return self.predictor.schema

    @property
    def genes(self) -> tuple[str, ...]:
        """The panel: names of the G genes."""
        return self.predictor.preprocessing.genes

    @cached_property
    def gene_symbols(self) -> tuple[str, ...]:
        """Names of the G genes to print: symbols, where the cells' ``var`` has them."""
        return find_gene_symbols(self.genes, self.cells.var)

    @cached_property
    def stratum_concept(self) -> int:
        """Index of the concept within whose labels cells are compared."""
        return self.schema.index(self.schema.cell_type_like)

    @property
    def stratum_name(self) -> str:
        """Name of the concept within whose labels cells are compared."""
        return self.schema.names[self.stratum_concept]

    @cached_property
    def test_embeddings(self) -> Embeddings | None:
        """Embeddings of the test cells; `None` if the predictor has none."""
        return self.predictor.embed(self.cells[self.test_rows])

    @cached_property
    def mean_estimate(self) -> np.ndarray | None:
        """Mean estimates of the test cells, float32 [t x G]; `None` if the predictor has none."""
        return self.predictor.predict(self.cells[self.test_rows], {}, estimate="mean")

    def generate_samples(self, seed: int = 0) -> np.ndarray | None:
        """Generate a sample of each test cell, float32 [t x G]; `None` if the predictor has none."""
        if seed not in self._samples:
            made = self.predictor.predict(self.cells[self.test_rows], {}, estimate="sample", seed=seed)
            self._samples[seed] = made
        return self._samples[seed]

    def predict_means(
        self, rows: np.ndarray, do: Mapping[str, str], *, mode: str = "do", seed: int = 0
    ) -> np.ndarray | None:
        """Predict the expected expression of some cells under an intervention, float32 [rows x G].

        Parameters
        ----------
        rows
            Rows of the cells, int.
        do
            Labels by concept; without any, the factual cells, which are the real ones where nobody predicts factual
            cells (`predicts_factual`).
        mode
            One of the predictor's.
        seed
            Of the reference cells that an intervention draws.

        Returns
        -------
        Mean estimates, or averages of samples; `None` unless each cell has a prediction.
        """
        if not do and not self.predicts_factual:
            return np.asarray(self.expression[rows])
        if not do and self.mean_estimate is not None and np.isin(rows, self.test_rows).all():
            return self.mean_estimate[np.searchsorted(self.test_rows, rows)]  # once for all interventions
        return self.predictor.expect(self.cells[rows], do, mode=mode, seed=seed)

    @cached_property
    def predicts_factual(self) -> bool:
        """Tell whether any cell has a factual prediction."""
        return bool(self.predictor.covers(self.cells, {}).any())

    def keep_predicted(self, rows: np.ndarray, concept: int, target: int) -> np.ndarray:
        """Keep the cells for which there are the predictions that an effect takes.

        Parameters
        ----------
        rows
            Rows of the cells, int.
        concept, target
            Index of the concept that is set, and the code of the label that it is set to.
        """
        cells, found = self.cells[rows], self.schema.concepts[concept]
        covered = self.predictor.covers(cells, {found.name: found.labels[target]})
        if self.predicts_factual:
            covered &= self.predictor.covers(cells, {})
        return np.asarray(rows[covered])

    def find_source_label(self, concept: int) -> int:
        """Find the label that effects of a concept start from: the most frequent one of test cells that are predicted.

        Labels that no training cell of some stratum carries come last: what was never seen is to be predicted, not to
        be started from. Without a prediction of an effect it is the most frequent label of all, without a labelled cell
        the first one.
        """
        codes = self.test_labels[:, concept]
        counts = np.bincount(codes[codes != UNLABELLED], minlength=1)
        labels = range(len(self.schema.concepts[concept].labels))
        columns = [concept, self.stratum_concept]
        seen = {tuple(pair) for pair in np.unique(self.seen_labels[:, columns], axis=0).tolist()}
        pairs, cells = np.unique(self.effect_labels[:, columns], axis=0, return_counts=True)
        met = [tuple(pair) for pair in pairs[cells >= MIN_CELLS].tolist() if UNLABELLED not in pair]
        unseen = {pair[0] for pair in met if pair not in seen}
        for source in sorted(range(len(counts)), key=lambda code: (code in unseen, -counts[code])):
            rows = self.test_rows[codes == source]
            if any(len(self.keep_predicted(rows, concept, target)) for target in labels if target != source):
                return int(source)
        return int(counts.argmax())

    def with_factual(self) -> EvaluationData | None:
        """Return the same with the test rows that have factual predictions, of each kind that there is.

        Returns
        -------
        The same where all have; `None` where fewer than 16 have.
        """
        cells = self.cells[self.test_rows]
        covered = np.zeros(len(self.test_rows), dtype=bool)
        kinds = [self.predictor.covers(cells, {}, estimate) for estimate in ("mean", "sample")]
        if any(each.any() for each in kinds):
            covered = np.all([each for each in kinds if each.any()], axis=0)
        if covered.all():
            return self
        return replace(self, test_rows=self.test_rows[covered]) if covered.sum() >= MIN_TEST_ROWS else None

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

    @property
    def effect_labels(self) -> np.ndarray:
        """Label codes of the cells that effects are taken on, int32 [e x m]."""
        return np.asarray(self.labels[self.effect_rows])

    @property
    def baseline_labels(self) -> np.ndarray:
        """Label codes of the cells that trivial effects are taken from, int32 [b x m]."""
        return np.asarray(self.labels[self.baseline_rows])

    @property
    def baseline_expression(self) -> np.ndarray:
        """Expression of the cells that trivial effects are taken from, float32 [b x G]."""
        return np.asarray(self.expression[self.baseline_rows])

    @property
    def counts(self) -> dict[str, int]:
        """Numbers of cells that a report states."""
        counts = {"judged": len(self.test_rows), "learned from by baselines": len(self.training_rows)}
        added = len(self.effect_rows) - len(self.test_rows)
        return counts | ({JUDGED_FURTHER: added} if added else {})

    def fit_components(self, count: int) -> PCA:
        """Fit principal components to the training cells, at most ``count``."""
        from sklearn.decomposition import PCA

        if count not in self._components:
            x = self.training_expression
            self._components[count] = PCA(min(count, *x.shape), svd_solver="randomized", random_state=0).fit(x)
        return self._components[count]

    def project_on_components(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Project the test cells on `fit_components`: scores [t x count], and expression rebuilt from them [t x G]."""
        if count not in self._projections:
            pca = self.fit_components(count)
            scores = pca.transform(self.test_expression)
            self._projections[count] = scores, np.maximum(pca.inverse_transform(scores), 0)
        return self._projections[count]

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
        Seed of the choice of cells where there are many; see `causcell.evaluation.row_choice.choose_rows`.
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
    if len(test_rows) < MIN_TEST_ROWS:
        raise DataError(
            f"{len(test_rows)} of {cells.n_obs} cells are left that the model was not trained on; an evaluation needs "
            f"at least {MIN_TEST_ROWS}: give held-out cells (their names, not their values, tell)"
        )
    return gather_evaluation_data(
        ModelPredictor(generator, Reading(expression=scale, **options)),
        cells,
        Reading(expression=scale, **options),
        test_rows=test_rows,
        training_rows=training_rows,
        rng=rng,
    )


def gather_evaluation_data(
    predictor: Predictor,
    cells: anndata.AnnData,
    reading: Reading,
    *,
    test_rows: np.ndarray,
    training_rows: np.ndarray,
    rng: np.random.Generator,
) -> EvaluationData:
    """Read the expression and labels of test and training cells: those that `choose_rows` chooses.

    Parameters
    ----------
    predictor
        Whoever predicts.
    cells
        In memory or backed.
    reading
        How their values are read.
    test_rows, training_rows
        Rows of the cells, int, ascending.
    rng
        Chooses rows where there are more.
    """
    of_all = predictor.schema.encode(cells.obs)
    chosen = choose_rows(test_rows, training_rows, of_all, predictor.schema, rng)
    rows = np.union1d(chosen.test_of_labels, chosen.training_of_labels)
    kept = cells[rows].to_memory()
    with reading.open(kept) as opened:
        bound = reading.bind(opened, predictor.schema, predictor.preprocessing)
        parts = [bound.read(part).expression for part in batches(len(bound), _READ_ROWS)]
        labels = bound.labels
    return EvaluationData(
        predictor,
        kept,
        np.concatenate(parts),
        labels,
        test_rows=np.searchsorted(rows, chosen.test),
        training_rows=np.searchsorted(rows, chosen.training),
        effect_rows=np.searchsorted(rows, chosen.test_of_labels),
        baseline_rows=np.searchsorted(rows, chosen.training_of_labels),
        seen_labels=np.unique(of_all[training_rows], axis=0),
    )
