"""The manifest of a model repository: all that a client needs to know and the ONNX graphs do not say."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from causcell._internal.choices import suggest
from causcell._internal.strict_json import parse_object, shorten
from causcell.concepts import Concept, ConceptSchema, Edge, Mechanism
from causcell.diffusion.schedule import NoiseSchedule
from causcell.diffusion.solvers import SolverSettings
from causcell.errors import (
    CausCellError,
    ConfigurationError,
    CorruptFileError,
    DigestError,
    SchemaVersionError,
    format_list,
)
from causcell.preprocessing import Preprocessing, Scale, gene_digest
from causcell.repository.consistency import check_consistency
from causcell.repository.effect_error import EffectError
from causcell.repository.names import ABDUCTION as ABDUCTION
from causcell.repository.names import EXPRESSION_FLOAT16 as EXPRESSION_FLOAT16
from causcell.repository.names import INFORMED as INFORMED
from causcell.repository.names import MANIFEST_FILE as MANIFEST_FILE
from causcell.repository.names import PRIOR as PRIOR
from causcell.repository.names import REFERENCE_FILE as REFERENCE_FILE
from causcell.repository.names import SLAB as SLAB
from causcell.repository.names import graph_file as graph_file
from causcell.repository.names import logits_name as logits_name
from causcell.repository.names import value_name as value_name
from causcell.repository.scale_facts import check_scale_facts, leave_out_linear, leave_out_unknown
from causcell.repository.training_cells import TrainingCells as TrainingCells
from causcell.repository.value_facts import leave_out_plain_values
from causcell.repository.verdicts import Verdict

SCHEMA_VERSION = 3
"""Newest version of the manifest's form; this CausCell reads it and older ones."""

PLAIN_SCHEMA_VERSION = 2
"""Version of a model that has nothing which earlier clients do not know; see `needed_version`."""

LARGEST_MANIFEST = 2**28
"""Bytes of a manifest at most. Those of today stay below 20 MB; earlier ones had 10.7 bytes a training cell."""

_MOST_VALUES = 2_000_000
"""Values of a manifest at most, counted by its commas; a panel of 60,000 genes has 300,000."""

_SINCE_2 = ("verdicts", "effect_errors")
"""Fields that models of version 1 of the form do not have, and others may lack."""

Float32 = Annotated[float, Field(allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Sum = Annotated[float, Field(ge=0, le=1e12)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class GenePanel(_Part):
    """The genes that a model reads and writes.

    Attributes
    ----------
    names
        Gene names, in the order of every expression array.
    digest
        Digest of the names in this order, see `causcell.preprocessing.gene_digest`.
    """

    names: tuple[str, ...]
    digest: str


class ExpressionInfo(_Part):
    """Scale of the training file, and what turns its values into the network's input.

    Attributes
    ----------
    scale
        ``counts`` or ``log1p``: what the values of the training file are.
    target_sum
        Total that counts are scaled to for each cell; `None` for ``log1p``.
    normalisation_genes
        Names of the genes that a cell's total is taken over.
    mean, deviation
        Training mean and standard deviation of each panel gene, on the log scale.
    totals, shares, panel_sums
        See `causcell.preprocessing.Preprocessing`; since version 2 of the form.
    """

    scale: Scale
    target_sum: float | None
    normalisation_genes: tuple[str, ...]
    mean: tuple[Float32, ...]
    deviation: tuple[Float32, ...]
    totals: str | None = None
    shares: tuple[Share, ...] = ()
    panel_sums: tuple[Sum, ...] = ()

    @model_validator(mode="after")
    def _check_scale_facts(self) -> ExpressionInfo:
        check_scale_facts(self.normalisation_genes, self.shares, self.panel_sums)
        return self

    @model_serializer(mode="wrap")
    def _leave_out_what_is_not_known(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return leave_out_unknown(dump(self))

    def preprocessing(self, genes: tuple[str, ...]) -> Preprocessing:
        """Return the transformation of a file's values to the model's input, for a panel of these genes."""
        return Preprocessing(
            genes=genes,
            scale=self.scale,
            normalisation_genes=self.normalisation_genes,
            mean=np.array(self.mean, dtype=np.float32),
            deviation=np.array(self.deviation, dtype=np.float32),
            totals=self.totals,
            shares=np.array(self.shares, dtype=np.float32) if self.shares else None,
            panel_sums=np.array(self.panel_sums) if self.panel_sums else None,
        )


class Dimensions(_Part):
    """Lengths of the arrays.

    Attributes
    ----------
    genes
        G, genes of the panel.
    concepts
        m, observed concepts; embeddings have one more, the unexplained concept, last.
    embedding
        k, numbers of each concept's embedding.
    """

    genes: int
    concepts: int
    embedding: int


class TensorInfo(_Part):
    """An input or output of an ONNX graph.

    Attributes
    ----------
    dtype
        NumPy's name of the element type.
    shape
        Shape without the leading batch axis; -1 is an axis of any length.
    """

    dtype: Literal["float32", "float16", "int64", "uint8"]
    shape: tuple[int, ...]


class GraphInfo(_Part):
    """An ONNX graph: its inputs, its outputs and its arithmetic.

    Attributes
    ----------
    inputs, outputs
        Tensors by name.
    products
        Shapes [k x n] of the weight matrices that each cell's rows are multiplied by (in a loop: at each step); each
        takes 2 k n floating-point operations a cell.
    """

    inputs: dict[str, TensorInfo]
    outputs: dict[str, TensorInfo]
    products: tuple[tuple[int, int], ...] = ()


class Parity(_Part):
    """Differences between an exported graph's outputs and the trained model's, on real cells, over batch sizes.

    Attributes
    ----------
    maximum, mean
        Largest and mean difference of the values within ``limit``. The difference of a value from the trained model's
        value v is taken as a share of 1 + abs(v).
    limit
        Largest difference allowed.
    flips
        Fraction of values beyond ``limit``; excluded from ``maximum`` and ``mean``. Draws and long loops have a few,
        where a value is at the threshold between zero and expressed.
    """

    maximum: float
    mean: float
    limit: float
    flips: float = 0.0


class Preset(_Part):
    """A named solver setting and its measured quality.

    Attributes
    ----------
    solver
        The setting.
    quality
        Measures on held-out cells by name; `None` where no cells were held out.
    """

    solver: SolverSettings
    quality: dict[str, float] | None = None


def needed_version(schema: ConceptSchema, training_cells: TrainingCells) -> int:
    """Return the version of the form that a model needs: a client that can't use it says that it is to be updated."""
    newer = schema.has_values or schema.mechanism != "linear" or training_cells.hashes
    return SCHEMA_VERSION if newer else PLAIN_SCHEMA_VERSION


class Manifest(_Part):
    """The content of ``manifest.json``.

    Attributes
    ----------
    schema_version
        Version of the manifest's form; a client reads its own version and older ones.
    digest
        SHA-256 of the manifest without this field and ``speed``: the model's identity.
    genes
        Gene panel.
    expression
        Scale of the training file and standardisation.
    concepts, edges
        Observed concepts with their labels; edges of the concept graph with their weights.
    mechanism
        How causes act on a concept: ``linear`` (left out of the file), or ``nonlinear``: the graph ``scm`` alone holds
        what they do, and weights are those of its linear part.
    schedule
        Noise schedule of the diffusion.
    dimensions
        Lengths of the arrays.
    head
        Name of the denoiser's head.
    precision
        Precision of the network's matrix products.
    presets, default_preset
        Solver settings by name, and the name of the one used if none is asked for.
    speed
        Cells per second of each preset where the model was exported, as `causcell.bench.measure` measures: one thread.
    graphs, parity
        ONNX graphs by name; what export measured of each against the trained model.
    files
        SHA-256 of every file of the repository, by path.
    training_cells
        Cells that the model was trained on.
    effect_errors
        Measured errors of effects, by concept; none in older models.
    verdicts
        Verdicts on the concepts, judged on held-out cells; none in older models, which were not judged.
    provenance, versions
        How the model was trained, and with which packages.
    """

    schema_version: int = PLAIN_SCHEMA_VERSION
    digest: str = ""
    genes: GenePanel
    expression: ExpressionInfo
    concepts: tuple[Concept, ...]
    edges: tuple[Edge, ...]
    mechanism: Mechanism = "linear"
    schedule: NoiseSchedule
    dimensions: Dimensions
    head: str
    precision: Literal["fp32", "fp16"] = "fp32"
    presets: dict[str, Preset]
    default_preset: str
    speed: dict[str, float] = {}
    graphs: dict[str, GraphInfo]
    parity: dict[str, Parity]
    files: dict[str, str]
    training_cells: TrainingCells
    effect_errors: dict[str, EffectError] = {}
    verdicts: tuple[Verdict, ...] = ()
    provenance: dict[str, Any]
    versions: dict[str, str]

    @model_serializer(mode="wrap")
    def _leave_out_what_was_not_judged(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what earlier versions did not measure: their files are written as they were."""
        fields = leave_out_plain_values(leave_out_linear(dump(self)))
        return {name: value for name, value in fields.items() if value or name not in _SINCE_2}

    @property
    def concept_schema(self) -> ConceptSchema:
        """The observed concepts and the concept graph."""
        return ConceptSchema(self.concepts, self.edges, self.mechanism)

    @property
    def preprocessing(self) -> Preprocessing:
        """The transformation of a file's values to the model's input."""
        return self.expression.preprocessing(self.genes.names)

    def preset(self, name: str | None) -> Preset:
        """Return a preset by name, or the default one; raises `ConfigurationError` if there is no such preset."""
        chosen = self.default_preset if name is None else name
        if chosen not in self.presets:
            raise ConfigurationError(
                f"there is no preset {chosen!r}; {suggest(chosen, self.presets)}this model has "
                f"{format_list(self.presets)}"
            )
        return self.presets[chosen]

    def sealed(self) -> Manifest:
        """Return a copy with the digest of its content."""
        return self.model_copy(update={"digest": _own_digest(self.model_dump(mode="json"))})

    def to_json(self) -> str:
        """Return the text of ``manifest.json``."""
        return json.dumps(self.model_dump(mode="json"), indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, source: str) -> Manifest:
        """Read and check a manifest.

        Parameters
        ----------
        text
            Content of ``manifest.json``.
        source
            Name of the place it is from, for messages.

        Raises
        ------
        SchemaVersionError
            Written by a newer CausCell.
        CorruptFileError
            No manifest, or one that lacks something.
        DigestError
            Edited after export.
        """
        try:
            fields = parse_object(text, longest=LARGEST_MANIFEST, most=_MOST_VALUES)
        except ValueError as error:
            raise CorruptFileError(
                f"{source} is no manifest of a model repository ({shorten(error)}); export again"
            ) from error
        version = fields.get("schema_version")
        if not isinstance(version, int) or isinstance(version, bool) or version < 1:
            raise CorruptFileError(
                f"{source} is no manifest of a model repository (it has no schema_version); export again"
            )
        if version > SCHEMA_VERSION:
            raise SchemaVersionError(
                f"{source} has schema version {shorten(version)}, this CausCell reads up to {SCHEMA_VERSION}; update "
                "causcell"
            )
        manifest = cls._validate(fields, source)
        if _own_digest(fields) != manifest.digest:
            raise DigestError(
                f"{source} was edited after export: its content does not match its digest {manifest.digest[:12]}...; "
                "restore it, or export again"
            )
        if gene_digest(manifest.genes.names) != manifest.genes.digest:
            raise DigestError(f"the gene panel in {source} does not match its digest; export again")
        try:
            check_consistency(manifest)
        except (ValueError, CausCellError) as error:
            raise CorruptFileError(f"{source} is not a valid manifest: {shorten(error)}; export again") from error
        return manifest

    @classmethod
    def _validate(cls, fields: Mapping[str, Any], source: str) -> Manifest:
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            first = error.errors()[0]
            place = shorten(".".join(str(part) for part in first["loc"]))
            raise CorruptFileError(
                f"{source} is not a valid manifest: {place}: {shorten(first['msg'])}; export again"
            ) from error
        except (CausCellError, OverflowError) as error:  # a concept, schedule or solver that its own class refuses
            raise CorruptFileError(f"{source} is not a valid manifest: {shorten(error)}; export again") from error


def _own_digest(fields: Mapping[str, Any]) -> str:
    """Compute the digest of the fields that a manifest was written with, which later versions may add to."""
    identity = {name: value for name, value in fields.items() if name not in ("digest", "speed")}
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
