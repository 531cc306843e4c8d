"""Description of a model: its concepts, their graph and its preprocessing, as a run folder and a manifest store them.

A run folder (``run.json``) and a model repository (``manifest.json``) hold the same facts in other forms. Both are
written from one `ModelDescription`, so that a model means the same to training and to serving.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer, model_validator

from causcell.concepts import Concept, ConceptSchema, Edge, Mechanism
from causcell.preprocessing import TARGET_SUM, Preprocessing, Scale, gene_digest
from causcell.repository.manifest import Dimensions, ExpressionInfo, Float32, GenePanel, Share, Sum
from causcell.repository.scale_facts import check_scale_facts, leave_out_linear, leave_out_unknown
from causcell.repository.value_facts import leave_out_plain_values


class ModelDescription(BaseModel):
    """Concepts, graph, gene panel and standardisation of a model, in plain values.

    Attributes
    ----------
    concepts
        The m observed concepts with their labels, in the order of every array's concept axis.
    edges
        Edges of the concept graph, with their weights in the linear structural causal model.
    mechanism
        How causes act: ``linear``, which is left out where the description is written, or ``nonlinear``.
    genes
        Names of the G panel genes, in order.
    scale
        Scale of the files that the model reads: ``counts`` or ``log1p``.
    normalisation_genes
        Genes over which a cell's total is taken (``counts`` only, else empty).
    mean, deviation
        Mean and standard deviation of each panel gene over the training cells, log scale, length G. Each number is the
        shortest decimal text of a float32, so that files stay readable and give back the same float32.
    totals, shares, panel_sums
        See `causcell.preprocessing.Preprocessing`; empty in descriptions that earlier versions wrote. Shares and sums
        are kept to four digits.

    Raises
    ------
    ValueError
        ``mean`` or ``deviation`` does not have one number for each gene (pydantic's ``ValidationError``).
    ConceptError
        The concepts or their labels are not usable.

    Examples
    --------
    >>> import numpy as np
    >>> from causcell.concepts import Concept, ConceptSchema, Edge
    >>> from causcell.preprocessing import Preprocessing
    >>> concepts = (Concept("stim", ("ctrl", "IFN")), Concept("state", ("a", "b")))
    >>> schema = ConceptSchema(concepts, (Edge("stim", "state"),))
    >>> numbers = np.array([0.1, 0.7], dtype=np.float32)
    >>> preprocessing = Preprocessing(("ISG15", "CD3D"), "log1p", (), numbers, numbers)
    >>> description = ModelDescription.of(schema, preprocessing)
    >>> description.mean
    (0.1, 0.7)
    >>> description.concept_schema == schema
    True
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    concepts: tuple[Concept, ...]
    edges: tuple[Edge, ...]
    mechanism: Mechanism = "linear"
    genes: tuple[str, ...]
    scale: Scale
    normalisation_genes: tuple[str, ...]
    mean: tuple[Float32, ...]
    deviation: tuple[Float32, ...]
    totals: str | None = None
    shares: tuple[Share, ...] = ()
    panel_sums: tuple[Sum, ...] = ()

    @model_validator(mode="after")
    def _check_lengths(self) -> ModelDescription:
        for name in ("mean", "deviation"):
            length = len(getattr(self, name))
            if length != len(self.genes):
                raise ValueError(f"{name} has {length} numbers for {len(self.genes)} genes; it has one for each gene")
        check_scale_facts(self.normalisation_genes, self.shares, self.panel_sums)
        return self

    @model_serializer(mode="wrap")
    def _leave_out_what_is_not_known(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return leave_out_plain_values(leave_out_linear(leave_out_unknown(dump(self))))

    @classmethod
    def of(cls, schema: ConceptSchema, preprocessing: Preprocessing) -> ModelDescription:
        """Describe a model by its concept schema and its preprocessing."""
        return cls(
            concepts=schema.concepts,
            edges=schema.edges,
            mechanism=schema.mechanism,
            genes=preprocessing.genes,
            scale=preprocessing.scale,
            normalisation_genes=preprocessing.normalisation_genes,
            mean=_shortest_decimals(preprocessing.mean),
            deviation=_shortest_decimals(preprocessing.deviation),
            totals=preprocessing.totals,
            shares=_four_digits(preprocessing.shares),
            panel_sums=_four_digits(preprocessing.panel_sums),
        )

    @property
    def concept_schema(self) -> ConceptSchema:
        """Concepts and graph; raises `ConceptGraphError` if the edges are no DAG over the concepts."""
        return ConceptSchema(self.concepts, self.edges, self.mechanism)

    @property
    def preprocessing(self) -> Preprocessing:
        """Preprocessing from the values of a file to model input, its moments as float32 [G]."""
        return self._expression_info.preprocessing(self.genes)

    @property
    def _expression_info(self) -> ExpressionInfo:
        return ExpressionInfo(
            scale=self.scale,
            target_sum=TARGET_SUM if self.scale == "counts" else None,
            normalisation_genes=self.normalisation_genes,
            mean=self.mean,
            deviation=self.deviation,
            totals=self.totals,
            shares=self.shares,
            panel_sums=self.panel_sums,
        )

    def manifest_parts(self, embedding: int) -> dict[str, Any]:
        """Return the fields of a `Manifest` that describe the model.

        Parameters
        ----------
        embedding
            Numbers per concept, k.

        Returns
        -------
        dict
            Arguments ``genes``, ``expression``, ``concepts``, ``edges``, ``mechanism`` and ``dimensions`` of
            `Manifest`.
        """
        return {
            "genes": GenePanel(names=self.genes, digest=gene_digest(self.genes)),
            "expression": self._expression_info,
            "concepts": self.concepts,
            "edges": self.edges,
            "mechanism": self.mechanism,
            "dimensions": Dimensions(genes=len(self.genes), concepts=len(self.concepts), embedding=embedding),
        }


def _shortest_decimals(values: np.ndarray) -> tuple[float, ...]:
    """Return float32 values [G] as the numbers that their shortest decimal texts denote."""
    return tuple(float(str(value)) for value in np.asarray(values, dtype=np.float32))


def _four_digits(values: np.ndarray | None) -> tuple[float, ...]:
    """Return values rounded to four digits; none for `None`."""
    return () if values is None else tuple(float(f"{value:.4g}") for value in values)
