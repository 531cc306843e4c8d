"""The manifest of a model repository: all that a client needs to know and the graphs do not say."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from causcell._internal.digests import name_digests
from causcell.concepts import Concept, ConceptSchema, Edge
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

SCHEMA_VERSION = 1


MANIFEST_FILE = "manifest.json"


REFERENCE_FILE = "reference.npz"


EXPRESSION_FLOAT16 = "expression_float16"
"""The graphs ``decoder`` and ``sampler`` give ``expression`` by this name too, rounded to half the bytes."""


Float32 = Annotated[float, Field(allow_inf_nan=False)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class GenePanel(_Part):
    """The genes a model reads and writes, in order, and the digest of that order."""

    names: tuple[str, ...]
    digest: str


class ExpressionInfo(_Part):
    """Scale of the files the model was trained on, genes of a cell's total, and standardisation per panel gene."""

    scale: Scale
    target_sum: float | None
    normalisation_genes: tuple[str, ...]
    mean: tuple[Float32, ...]
    deviation: tuple[Float32, ...]


class Dimensions(_Part):
    """Lengths of the arrays: panel genes G, observed concepts m, numbers per concept k."""

    genes: int
    concepts: int
    embedding: int


class TensorInfo(_Part):
    """Type and shape of a graph's input or output, the batch axis left out; -1 is an axis of any length."""

    dtype: Literal["float32", "float16", "int64", "uint8"]
    shape: tuple[int, ...]


class GraphInfo(_Part):
    """Inputs and outputs of one graph, by name, and its arithmetic.

    ``products`` are the shapes [k x n] of the weight matrices that each cell's rows are multiplied by (in a loop: at
    each step), 2 k n operations each.
    """

    inputs: dict[str, TensorInfo]
    outputs: dict[str, TensorInfo]
    products: tuple[tuple[int, int], ...] = ()


class Parity(_Part):
    """Differences between an exported graph's outputs and the trained model's, on real cells, over batch sizes.

    ``flips`` is the share of values beyond the limit, which draws and long loops have a few of, at the threshold of
    zero; the differences are without.
    """

    maximum: float
    mean: float
    limit: float
    flips: float = 0.0


class Preset(_Part):
    """A named solver setting, and its quality on held-out cells (`None` where no cells were held out)."""

    solver: SolverSettings
    quality: dict[str, float] | None = None


class TrainingCells(_Part):
    """Digests of the training cells' names: base64 of sorted little-endian uint64 (blake2b, 8 bytes)."""

    count: int
    digests: str

    @classmethod
    def of(cls, names: Iterable[str]) -> TrainingCells:
        """Digests of these names."""
        digests = np.unique(name_digests(names))
        return cls(count=len(digests), digests=base64.b64encode(digests.astype("<u8").tobytes()).decode())

    def contain(self, names: Sequence[str]) -> np.ndarray:
        """Which of the names are training cells', bool [n]."""
        known = np.frombuffer(base64.b64decode(self.digests), dtype="<u8")
        return np.isin(name_digests(names), known)


class Manifest(_Part):
    """What ``manifest.json`` holds.

    Attributes
    ----------
    schema_version
        Of this form; a client reads its own version and older ones.
    digest
        SHA-256 of the manifest without this field and ``speed``: the model's identity.
    genes, expression, concepts, edges, schedule, dimensions, head, precision
        The model's panel, scale, concepts and graph, diffusion, shapes, and the precision of its matrix products.
    presets, default_preset
        Solver settings by name.
    speed
        Cells per second of each preset where the model was exported, as `causcell.bench.measure` measures: one thread.
    graphs, parity
        Graphs by name; what export measured of each against the trained model.
    files
        SHA-256 of every file of the repository, by path.
    training_cells, provenance, versions
        What the model was trained on, how, and with which packages.
    """

    schema_version: int = SCHEMA_VERSION
    digest: str = ""
    genes: GenePanel
    expression: ExpressionInfo
    concepts: tuple[Concept, ...]
    edges: tuple[Edge, ...]
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
    provenance: dict[str, Any]
    versions: dict[str, str]

    @property
    def concept_schema(self) -> ConceptSchema:
        """Concepts and graph."""
        return ConceptSchema(self.concepts, self.edges)

    @property
    def preprocessing(self) -> Preprocessing:
        """How values of a file become model input."""
        return Preprocessing(
            genes=self.genes.names,
            scale=self.expression.scale,
            normalisation_genes=self.expression.normalisation_genes,
            mean=np.array(self.expression.mean, dtype=np.float32),
            deviation=np.array(self.expression.deviation, dtype=np.float32),
        )

    def preset(self, name: str | None) -> Preset:
        """A preset by name, or the default one; raises `ConfigurationError`."""
        chosen = self.default_preset if name is None else name
        if chosen not in self.presets:
            raise ConfigurationError(f"there is no preset {chosen!r}; this model has {format_list(self.presets)}")
        return self.presets[chosen]

    def sealed(self) -> Manifest:
        """The manifest with its own digest."""
        return self.model_copy(update={"digest": _own_digest(self.model_dump(mode="json"))})

    def to_json(self) -> str:
        """Text of ``manifest.json``."""
        return json.dumps(self.model_dump(mode="json"), indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, source: str) -> Manifest:
        """Read and check a manifest.

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
            fields = json.loads(text)
            version = int(fields["schema_version"])
        except (ValueError, KeyError, TypeError) as error:
            raise CorruptFileError(f"{source} is no manifest of a model repository ({error}); export again") from error
        if version > SCHEMA_VERSION:
            raise SchemaVersionError(
                f"{source} has schema version {version}, this CausCell reads up to {SCHEMA_VERSION}; update causcell"
            )
        try:
            manifest = cls.model_validate(fields)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"])
            raise CorruptFileError(
                f"{source} is not a valid manifest: {place}: {first['msg']}; export again"
            ) from error
        except CausCellError as error:  # a concept, schedule or solver that its own class refuses
            raise CorruptFileError(f"{source} is not a valid manifest: {error}; export again") from error
        if _own_digest(fields) != manifest.digest:
            raise DigestError(
                f"{source} was edited after export: its content does not match its digest {manifest.digest[:12]}...; "
                "restore it, or export again"
            )
        if gene_digest(manifest.genes.names) != manifest.genes.digest:
            raise DigestError(f"the gene panel in {source} does not match its digest; export again")
        return manifest


def _own_digest(fields: Mapping[str, Any]) -> str:
    """Of a manifest as it was written: a field that a later version adds does not change it."""
    identity = {name: value for name, value in fields.items() if name not in ("digest", "speed")}
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def logits_name(concept: str) -> str:
    """Name of the ``scm`` graph's output with a concept's label logits."""
    return f"logits_{concept}"
