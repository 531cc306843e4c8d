"""What is evaluated: a model, the cells it is judged by, and the cells that baselines learn from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from causcell._internal.batching import batches
from causcell.cells.collection import Cells
from causcell.concepts import UNLABELLED, ConceptSchema
from causcell.errors import DataError
from causcell.generator import Generator

if TYPE_CHECKING:
    import anndata
    from sklearn.decomposition import PCA

_READ_ROWS = 1024


_MOST_JUDGED = 4096


_MOST_LEARNED = 20_000


@dataclass(frozen=True)
class Subject:
    """A model and the cells that it meets.

    Attributes
    ----------
    generator
        The model, on any engine.
    cells
        All cells, those judged and those learned from.
    expression
        Of the panel, log scale, float32 [n x G].
    labels
        Codes, int32 [n x m].
    judged
        Rows that measures are taken on; the model was not trained on them.
    learned
        Rows that baselines learn from.
    scale
        ``counts`` or ``log1p``: what the values of ``cells`` are.
    layer
        Of ``cells``, in place of ``X``.
    """

    generator: Generator
    cells: anndata.AnnData
    expression: np.ndarray
    labels: np.ndarray
    judged: np.ndarray
    learned: np.ndarray
    scale: str | None = None
    layer: str | None = None

    @property
    def schema(self) -> ConceptSchema:
        """Concepts and graph of the model."""
        return self.generator.schema

    @cached_property
    def stratum(self) -> int:
        """Index of the concept within whose labels cells are compared."""
        return self.schema.index(self.schema.cell_type_like)

    @property
    def options(self) -> dict[str, Any]:
        """How the generator reads the cells."""
        return {"expression": self.scale, "layer": self.layer}

    @cached_property
    def embedded(self) -> anndata.AnnData:
        """The judged cells' embeddings; see `Generator.embed`."""
        return self.generator.embed(self.cells[self.judged], **self.options)

    @cached_property
    def mean_estimate(self) -> np.ndarray:
        """The judged cells' mean estimates, float32 [judged x G]."""
        return np.asarray(self.generator.reconstruct(self.cells[self.judged], preset="mean", **self.options).X)

    def samples(self, seed: int = 0) -> np.ndarray:
        """A sample of each judged cell by the default preset, float32 [judged x G]."""
        return np.asarray(self.generator.reconstruct(self.cells[self.judged], seed=seed, **self.options).X)

    @property
    def real(self) -> np.ndarray:
        """Expression of the judged cells, [judged x G]."""
        return self.expression[self.judged]

    @property
    def truth(self) -> np.ndarray:
        """Labels of the judged cells, [judged x m]."""
        return self.labels[self.judged]

    def components(self, count: int) -> PCA:
        """Principal components of the cells learned from."""
        from sklearn.decomposition import PCA

        x = self.expression[self.learned]
        return PCA(min(count, *x.shape), svd_solver="randomized", random_state=0).fit(x)

    def principal_components(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Scores [judged x count] and reconstruction [judged x G] by `components`."""
        pca = self.components(count)
        scores = pca.transform(self.real)
        return scores, np.maximum(pca.inverse_transform(scores), 0)

    @cached_property
    def label_means(self) -> np.ndarray:
        """For each judged cell the mean of the cells learned from that share its `stratum` label, [judged x G]."""
        codes, x = self.labels[self.learned, self.stratum], self.expression[self.learned]
        overall = x.mean(axis=0)
        means = {code: x[codes == code].mean(axis=0) for code in np.unique(codes[codes != UNLABELLED])}
        return np.stack([means.get(code, overall) for code in self.truth[:, self.stratum]])


def read_subject(
    generator: Generator,
    cells: anndata.AnnData,
    *,
    judged: np.ndarray | None = None,
    learned: np.ndarray | None = None,
    scale: str | None = None,
    layer: str | None = None,
    seed: int = 0,
) -> Subject:
    """Read the cells' expression and settle who is judged and who is learned from.

    Parameters
    ----------
    generator
        The model.
    cells
        In memory or backed.
    judged, learned
        Rows, ascending. If not given: the cells that the model was not trained on, and those that it was (by digests
        of their names). Where none of the cells was trained on, a random half of them is learned from and the other
        half judged.
    scale, layer
        Of the cells' values.
    seed
        Of the choice of at most 4,096 cells to judge and 20,000 to learn from.

    Raises
    ------
    DataError
        Fewer than 16 cells are left to judge.
    """
    rng = np.random.default_rng(seed)
    if judged is None or learned is None:
        trained = generator.manifest.training_cells.contain(cells.obs_names.astype(str).tolist())
        judged, learned = np.flatnonzero(~trained), np.flatnonzero(trained)
        if not len(learned):
            learned, judged = (np.sort(half) for half in np.array_split(rng.permutation(judged), 2))
    if len(judged) < 16:
        raise DataError(
            f"{len(judged)} of {cells.n_obs} cells are left that the model was not trained on; an evaluation needs at "
            "least 16: give held-out cells (their names, not their values, tell)"
        )
    judged, learned = _at_most(judged, _MOST_JUDGED, rng), _at_most(learned, _MOST_LEARNED, rng)
    rows = np.union1d(judged, learned)
    kept = cells[rows].to_memory()
    with Cells(kept, layer=layer) as read:
        reader = generator.reader(read, scale)
        # the reader of one source goes with its cells
        parts = [read.read(reader, part) for part in batches(len(read), _READ_ROWS)]  # type: ignore[arg-type]
        labels = generator.schema.encode(read.obs)
    judged, learned = np.searchsorted(rows, judged), np.searchsorted(rows, learned)
    return Subject(generator, kept, np.concatenate(parts), labels, judged, learned, scale, layer)


def _at_most(rows: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    return rows if len(rows) <= count else np.sort(rng.choice(rows, count, replace=False))
