"""The plan of an atlas: everything that decides what is in it, as one value with a digest.

Two runs with equal plans write the same bytes (on one machine), whoever makes which shard, so that one can go on where
the other was interrupted. Batch size and compute threads are part of it: they decide which values the vectorised loops
of the runtime leave over, whose last bit may differ. What changes no byte is not: paths, workers, and where the model
is served.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    SerializerFunctionWrapHandler,
    field_serializer,
    model_serializer,
    model_validator,
)

from causcell._internal.html import html_card
from causcell._internal.units import format_count, format_duration, format_size
from causcell.atlas.annotations import KeptAnnotations
from causcell.atlas.layout import DENSER, GROUP, GROUPED_FROM, Layout, check_csr, choose_layout, fit_rows
from causcell.atlas.source_digests import SourceDigests, digest_source
from causcell.cells.panel_cells import PanelCells
from causcell.counterfactual.model import CounterfactualModel
from causcell.counterfactual.request import Request
from causcell.errors import ConfigurationError, format_list
from causcell.randomness import cell_keys

CHUNK_SIZE = 2 * 10**6
"""Uncompressed bytes that readers fetch at once, if not chosen."""

SHARD_SIZE = 128 * 10**6
"""Uncompressed bytes that are made and committed at once, if not chosen."""

MOST_SHARDS = 10**7
"""Shards that a plan may have; each is a file of every array, and a record."""

_MOST_ROWS = 2**48


@dataclass(frozen=True)
class Forecast:
    """Time and bytes that an atlas would take, from a few of its batches.

    Attributes
    ----------
    rows_per_second
        Rate of one worker.
    bytes
        Bytes on disk.
    unseen_rows
        Counterfactual rows whose labels no training cell carries together, as far as labels tell.
    scratch_bytes
        Further bytes on disk while it is written.
    """

    rows_per_second: float
    bytes: int
    unseen_rows: int
    scratch_bytes: int = 0


class Plan(BaseModel):
    """Plan of an atlas: what it is made of and how it is laid out.

    Attributes
    ----------
    version
        Version of this form.
    model
        Digest of the model.
    genes
        Number of its panel's genes.
    cells, source
        Number of cells, and digests of what they are.
    request
        What is generated for each cell.
    arrays
        Columns of each array, by place in the store.
    batch_size
        Cells of a network evaluation at most.
    threads
        Compute threads of each worker; `None` where the model is served.
    cells_per_shard
        Cells of a shard; batches start anew with each.
    chunk_rows
        Rows of a chunk, which readers fetch whole.
    layout
        Layout of ``X``. What is dense does not say so in its text, so that plans of earlier versions keep their
        digests.
    annotations
        What is kept of the cells' annotations; `None`, and left out of the plan's text, where nothing is.
    group
        Shards that have their annotations together in one file an array; `None`, and left out of the plan's text, where
        each has files of its own.
    padded
        Cells that every batch is padded to; `None`, and left out of the plan's text, where that is ``batch_size``, as
        in plans of earlier versions. Shards of few cells would be padding for the most part.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1] = 1
    model: str
    genes: int = Field(ge=1)
    cells: int = Field(ge=1)
    source: SourceDigests
    request: Request
    arrays: dict[str, Annotated[int, Field(ge=1)]]
    batch_size: int = Field(ge=1)
    threads: int | None
    cells_per_shard: int = Field(ge=1)
    chunk_rows: int = Field(ge=1)
    layout: Layout = "dense"
    annotations: KeptAnnotations | None = None
    group: Annotated[int, Field(ge=2)] | None = None
    padded: Annotated[int, Field(ge=1)] | None = None
    _forecast: Forecast | None = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _check_sizes(self) -> Plan:
        strange = [place for place in self.arrays if not re.fullmatch(r"X|(layers|obsm)/\w+", place)]
        if strange or not self.arrays:
            raise ValueError(f"arrays are {format_list(self.arrays)}")
        if not self.request.interventions or self.rows > _MOST_ROWS or self.shards > MOST_SHARDS:
            raise ValueError(
                f"{self.rows} rows in {self.shards} shards; a plan has between 1 and {_MOST_ROWS} rows, in up to "
                f"{MOST_SHARDS} shards"
            )
        if self.sparse:
            check_csr(self.request, self.arrays)
        return self

    @field_serializer("request", mode="wrap")
    def _leave_out_unused(self, request: Request, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields = {name: each for name, each in dump(request).items() if name not in request.unused}
        for each in fields["interventions"]:
            if not each["values"]:  # of labels alone, as in plans of earlier versions
                del each["values"]
        return fields

    @model_serializer(mode="wrap")
    def _leave_out_usual(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        usual = {"annotations": None, "layout": "dense", "group": None, "padded": None}
        return {name: value for name, value in dump(self).items() if name not in usual or value != usual[name]}

    @property
    def digest(self) -> str:
        """SHA-256 of the plan, in hexadecimal digits."""
        return hashlib.sha256(json.dumps(self.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()

    @property
    def rows(self) -> int:
        """Number of rows of the atlas."""
        return self.cells * self.request.rows_per_cell

    @property
    def shards(self) -> int:
        """Number of shards of the atlas."""
        return -(-self.cells // self.cells_per_shard)

    @property
    def shard_rows(self) -> int:
        """Rows of every shard but the last, which may be shorter."""
        return self.cells_per_shard * self.request.rows_per_cell

    def adapt(self, model: CounterfactualModel) -> CounterfactualModel:
        """Return the model with the batches that the plan pads to."""
        return model.with_batch_size(self.padded or self.batch_size)

    def cells_of(self, shard: int) -> slice:
        """Return the places of a shard's cells."""
        return slice(shard * self.cells_per_shard, min((shard + 1) * self.cells_per_shard, self.cells))

    @property
    def groups(self) -> int:
        """Number of groups of shards, 0 where there are none."""
        return -(-self.shards // self.group) if self.group else 0

    def shards_of(self, group: int) -> range:
        """Return the shards of a group."""
        size = self.group or 1
        return range(group * size, min((group + 1) * size, self.shards))

    @property
    def sparse(self) -> tuple[str, ...]:
        """Places of the arrays that are kept as CSR matrices."""
        return ("X",) if self.layout == "csr" else ()

    @property
    def dense(self) -> tuple[str, ...]:
        """Places of the arrays that are kept as they are."""
        return tuple(place for place in self.arrays if place not in self.sparse)

    @property
    def chunk_nonzeros(self) -> int:
        """Nonzero values of a chunk of a CSR matrix."""
        return max(self.chunk_rows * self.genes // DENSER, 1)

    @property
    def file_nonzeros(self) -> int:
        """Nonzero values of a file of a CSR matrix: whole chunks."""
        return -(-max(self.shard_rows * self.genes // DENSER, 1) // self.chunk_nonzeros) * self.chunk_nonzeros

    @property
    def bytes_uncompressed(self) -> int:
        """Bytes of the arrays of values before compression, a CSR matrix's as if it were dense."""
        return self.rows * sum(
            width * np.dtype(self.array_dtype(place)).itemsize for place, width in self.arrays.items()
        )

    def array_dtype(self, place: str) -> str:
        """Return the type of an array's values: embeddings are always float32, counts int32."""
        if self.request.store == "counts":
            return "int32"
        return "float32" if place.startswith("obsm/") else self.request.dtype

    @property
    def forecast(self) -> Forecast | None:
        """Time and bytes that the atlas would take, where they were asked for; no part of the digest."""
        return self._forecast

    def with_forecast(self, forecast: Forecast) -> Plan:
        """Return the same plan with a forecast."""
        plan = self.model_copy()
        plan._forecast = forecast
        return plan

    def differences(self, other: Plan) -> list[str]:
        """List what differs in another plan, for people."""
        mine, its = ({"layout": each.layout} | _flat(each.model_dump(mode="json")) for each in (self, other))
        return [
            f"{name} ({_short(mine.get(name))} there, {_short(its.get(name))} asked for)"
            for name in dict.fromkeys([*mine, *its])
            if mine.get(name) != its.get(name)
        ]

    def describe(self) -> dict[str, str]:
        """Return the plan's facts by name, for people."""
        request, forecast = self.request, self.forecast
        interventions = [each.name for each in request.interventions]
        facts = {
            "rows": f"{self.rows:,} ({format_count(self.cells, 'cell')}, "
            f"{format_count(len(interventions), 'intervention')}: "
            f"{format_list(interventions, 4)}, {format_count(request.draws, 'draw')})",
            "holds": f"{request.store} ({request.settings.estimate}), {self.array_dtype('X')}, {self.genes:,} genes"
            + (", a CSR matrix" if self.sparse else ""),
            "shards": f"{self.shards:,} of {self.shard_rows:,} rows in chunks of {self.chunk_rows:,}",
            "size": f"{format_size(self.bytes_uncompressed)} {'as a dense array' if self.sparse else 'uncompressed'}",
        }
        if self.annotations is not None:
            facts["keeps"] = self.annotations.describe()
        if forecast is None:
            return facts
        seconds = format_duration(self.rows / forecast.rows_per_second)
        return facts | {
            "size": f"about {format_size(forecast.bytes)} ({facts['size']})",
            "time": f"about {seconds} at {forecast.rows_per_second:,.0f} rows/s, by one worker",
            "unseen": f"{forecast.unseen_rows:,} rows with combinations of labels that no training cell carries, as "
            "far as labels tell",
        }

    def __repr__(self) -> str:
        facts = (f"\n  {name}: {text}" for name, text in self.describe().items())
        return f"Plan {self.digest[:12]}{''.join(facts)}"

    __str__ = __repr__

    def _repr_html_(self) -> str:
        return html_card(f"Atlas plan {self.digest[:12]}", self.describe())


def _flat(fields: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in fields.items():
        if name == "interventions":
            flat["interventions"] = [each["name"] for each in value]
        elif isinstance(value, dict):
            flat |= _flat(value, "" if name in ("request", "settings") else f"{name} ")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _short(value: Any) -> str:
    if isinstance(value, str) and len(value) == 64:
        return f"{value[:8]}..."
    return f"{len(value)}: {format_list(value, 4)}" if isinstance(value, list) else repr(value)


def make_plan(
    model: CounterfactualModel,
    cells: PanelCells,
    request: Request,
    *,
    layout: str | None = None,
    annotations: KeptAnnotations | None = None,
    chunk_size: int = CHUNK_SIZE,
    shard_size: int = SHARD_SIZE,
) -> Plan:
    """Plan an atlas.

    Parameters
    ----------
    model
        The model, with its batch size and threads.
    cells
        The cells, bound to the model.
    request
        What is generated for each cell.
    layout
        ``csr`` or ``dense``; if not given, ``csr`` for float32 expression and counts of a solver whose last step draws,
        of which most values are zero, and ``dense`` for all else.
    annotations
        What is kept of the cells' annotations.
    chunk_size, shard_size
        Uncompressed bytes of a dense array that readers fetch, and that are made and committed, at once; rounded to
        whole rows, cells and batches. A shard of embeddings is that of the expression that they stand for. A chunk of
        a CSR matrix has an eighth of the values.

    Raises
    ------
    ConfigurationError
        A solver or seed that can't be used, chunks larger than shards, or a CSR matrix of what is none.
    """
    source = digest_source(cells)
    sizes = {"chunk_size": chunk_size, "shard_size": shard_size}
    return plan_layout(model, len(cells), source, request, annotations=annotations, layout=layout, **sizes)


def plan_layout(
    model: CounterfactualModel,
    cells: int,
    source: SourceDigests,
    request: Request,
    *,
    layout: str | None = None,
    annotations: KeptAnnotations | None = None,
    chunk_size: int,
    shard_size: int,
) -> Plan:
    """Plan an atlas of a number of cells with these digests; see `make_plan`."""
    solver = model.prepare_solver(request)  # what can't be used is told before anything is written
    cell_keys(request.seed, [""])
    if chunk_size > shard_size:
        raise ConfigurationError(f"chunks of {chunk_size} bytes are larger than shards of {shard_size}")
    arrays, genes = model.output_widths(request.store), len(model.preprocessing.genes)
    chosen = choose_layout(layout, request, solver, arrays)
    itemsize = np.dtype(request.dtype).itemsize
    row = max(arrays.values()) * (4 if request.store == "embeddings" else itemsize)
    cells_per_shard, chunk_rows = fit_rows(
        cells, request.rows_per_cell, model.batch_size, chunk_size // row, shard_size // (genes * itemsize)
    )
    shards, padded = -(-cells // cells_per_shard), model.with_full_batches(cells_per_shard).batch_size
    if shards > MOST_SHARDS:
        raise ConfigurationError(
            f"shards of {shard_size} bytes would be {shards}; take larger ones (shard_size=), of "
            f"which there are up to {MOST_SHARDS}"
        )
    return Plan(
        model=model.manifest.digest,
        genes=genes,
        cells=cells,
        source=source,
        request=request,
        arrays=arrays,
        batch_size=model.batch_size,
        threads=model.engine.threads,
        cells_per_shard=cells_per_shard,
        chunk_rows=chunk_rows,
        layout=chosen,
        annotations=annotations,
        group=GROUP if shards > GROUPED_FROM else None,
        padded=padded if padded < model.batch_size else None,
    )
