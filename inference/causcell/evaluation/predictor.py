"""What an evaluation asks of whoever predicts, and how an exported model answers it.

A predictor says what given cells express, factual or had a concept been set, and what it reads in them. What it can't
say it answers by `None`; the tables that need it are then left out. See `causcell.evaluation.predictions` for files of
any method.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from causcell.cells.panel_cells import Reading
from causcell.concepts import UNEXPLAINED, ConceptSchema
from causcell.counterfactual.interventions import MODES
from causcell.diffusion.solvers import Estimate
from causcell.errors import CausCellWarning
from causcell.generator import Generator
from causcell.preprocessing import Preprocessing

if TYPE_CHECKING:
    import anndata


@dataclass(frozen=True)
class Embeddings:
    """Readings of a predictor in n cells.

    Attributes
    ----------
    concepts
        Embeddings by concept, [n x k] each; that of the unexplained concept too, if there is one.
    joint
        Embedding of all concepts together, [n x k]; `None` if there is none.
    readings
        Label codes read by the predictor itself, by concept, int [n] each.
    exogenous
        Exogenous embeddings by concept, [n x k] each: what is not a concept's parents'.
    """

    concepts: Mapping[str, np.ndarray]
    joint: np.ndarray | None = None
    readings: Mapping[str, np.ndarray] = field(default_factory=dict)
    exogenous: Mapping[str, np.ndarray] = field(default_factory=dict)


class Predictor(Protocol):
    """Whoever predicts: a model, or the file of a method's predictions.

    Attributes
    ----------
    schema
        Concepts and their graph.
    preprocessing
        The genes that are predicted, and the scale of them.
    modes
        Ways in which interventions are carried out; see `causcell.counterfactual.interventions.MODES`.
    """

    @property
    def schema(self) -> ConceptSchema: ...  # noqa: D102

    @property
    def preprocessing(self) -> Preprocessing: ...  # noqa: D102

    @property
    def modes(self) -> tuple[str, ...]: ...  # noqa: D102

    def covers(self, cells: anndata.AnnData, do: Mapping[str, str], estimate: Estimate | None = None) -> np.ndarray:
        """Tell which cells there is a prediction of, bool [n].

        Parameters
        ----------
        cells
            The cells, [n x any genes].
        do
            Labels by concept, one joint intervention; without any, the factual cell.
        estimate
            ``mean`` or ``sample``; either, if not given.
        """
        ...

    def predict(
        self, cells: anndata.AnnData, do: Mapping[str, str], *, estimate: Estimate, mode: str = "do", seed: int = 0
    ) -> np.ndarray | None:
        """Predict the expression of cells that it `covers`, float32 [n x G], log scale.

        Parameters
        ----------
        cells, do
            As in `covers`.
        estimate
            ``mean`` or ``sample``.
        mode
            One of ``modes``.
        seed
            Of samples; the same for a factual and a counterfactual cell, where noise is shared.

        Returns
        -------
        The expression; `None` if the predictor has no such estimate of each cell.
        """
        ...

    def expect(
        self, cells: anndata.AnnData, do: Mapping[str, str], *, mode: str = "do", seed: int = 0
    ) -> np.ndarray | None:
        """Predict expected expression as well as there are means for it: mean estimates, else samples averaged.

        Parameters
        ----------
        cells, do, mode, seed
            As in `predict`, which says what is returned.
        """
        ...

    def embed(self, cells: anndata.AnnData) -> Embeddings | None:
        """Read embeddings of cells; `None` if there are none."""
        ...


@dataclass(frozen=True)
class ModelPredictor:
    """An exported model; see `Predictor`.

    Attributes
    ----------
    generator
        The model, on any engine.
    reading
        How the values of cells are read.
    """

    generator: Generator
    reading: Reading

    @property
    def schema(self) -> ConceptSchema:
        """Concepts and their graph."""
        return self.generator.schema

    @property
    def preprocessing(self) -> Preprocessing:
        """The panel and its scale."""
        return self.generator.preprocessing

    @property
    def modes(self) -> tuple[str, ...]:
        """All modes: a model carries out each."""
        return MODES

    def covers(self, cells: anndata.AnnData, do: Mapping[str, str], estimate: Estimate | None = None) -> np.ndarray:
        """Tell that every cell can be predicted, bool [n]."""
        return np.ones(cells.n_obs, dtype=bool)

    def predict(
        self, cells: anndata.AnnData, do: Mapping[str, str], *, estimate: Estimate, mode: str = "do", seed: int = 0
    ) -> np.ndarray:
        """Predict expression, float32 [n x G]: mean estimates, or samples by the default preset."""
        preset = "mean" if estimate == "mean" else None
        with warnings.catch_warnings():
            if do:
                warnings.simplefilter("ignore", CausCellWarning)  # of combinations that no training cell carries: meant
            made = self.generator.counterfactual(
                cells, do or None, mode=mode, preset=preset, seed=seed, **self._read_options
            )
        return np.asarray(made.X)

    def expect(self, cells: anndata.AnnData, do: Mapping[str, str], *, mode: str = "do", seed: int = 0) -> np.ndarray:
        """Predict mean estimates, float32 [n x G]."""
        return self.predict(cells, do, estimate="mean", mode=mode, seed=seed)

    def embed(self, cells: anndata.AnnData) -> Embeddings:
        """Read embeddings of all concepts, and the labels that the model reads; see `Generator.embed`."""
        embedded = self.generator.embed(cells, **self._read_options)
        names = self.schema.names
        every = (*names, UNEXPLAINED)
        predicted = embedded.obs[[f"{name}_predicted" for name in names]].set_axis(list(names), axis=1)
        codes = self.schema.encode(predicted)  # of numbers, those of their bins
        exogenous = np.split(embedded.obsm["X_causcell_exogenous"], len(every), axis=1)
        return Embeddings(
            {name: embedded.obsm[f"X_causcell_{name}"] for name in every},
            embedded.obsm["X_causcell"],
            {name: codes[:, i] for i, name in enumerate(names)},
            dict(zip(every, exogenous, strict=True)),
        )

    @property
    def _read_options(self) -> dict[str, Any]:
        return {"layer": self.reading.layer, "raw": self.reading.raw, **self.reading.bind_options}
