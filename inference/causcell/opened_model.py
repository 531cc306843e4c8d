"""An exported model that is open: what it is, what it generates of cells, and how it is closed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from causcell._deprecation import warn_deprecated
from causcell._internal.html import graph_svg, html_card
from causcell.cells.collection import AnyCells
from causcell.cells.panel_cells import PanelCells
from causcell.concepts import ConceptSchema
from causcell.counterfactual.model import CounterfactualModel, ModelSource
from causcell.counterfactual.outputs import Block
from causcell.counterfactual.request import Request
from causcell.counterfactual.stream import MeasuredCells, stream_all
from causcell.engine.protocol import Engine
from causcell.preprocessing import Preprocessing
from causcell.repository.manifest import Manifest
from causcell.repository.verdicts import warn_of_unusable

if TYPE_CHECKING:
    from causcell.engine.triton.connection import Connection

_MOVED = {
    "array_widths": "output_widths",
    "build_solver": "build_solver",
    "causal_graph": "scm",
    "decode": "decode",
    "provenance": "provenance",
}
"""Old attributes of a generator, by their names in its model."""

_REPLACED = {"blocks": "causcell.counterfactual.stream.stream_blocks", "reader": "Generator.bind"}
"""Old methods of a generator whose place something of another form took."""


class OpenedModel:
    """A model that is open: what it is, what it generates of cells, and how it is closed.

    Parameters
    ----------
    engine
        Evaluates the model's graphs.
    batch_size
        Cells of a network evaluation at most; batches are padded to one size, which the cells fill.
    source
        Where another process opens the same model from; `open` fills it in.

    Attributes
    ----------
    model
        The steps of abduction, action and prediction.
    engine, source
        As given.
    """

    def __init__(self, engine: Engine, *, batch_size: int = 256, source: ModelSource | None = None) -> None:
        self.engine, self.source = engine, source
        self.model = CounterfactualModel(engine, batch_size=batch_size)

    @classmethod
    def open(
        cls,
        location: str | os.PathLike[str],
        *,
        threads: int | None = None,
        provider: str | None = None,
        batch_size: int = 256,
        connection: Connection | None = None,
    ) -> Self:
        """Open a model repository, or a model that is served.

        Parameters
        ----------
        location
            Folder of the repository; or its name on a Hugging Face hub, ``hf://OWNER/NAME[@REVISION]``; or the address
            of a Triton server, ``grpc://host:8001`` or ``http://host:8000`` (with TLS ``grpcs://``, ``https://``;
            several are joined by commas).
        threads
            Compute threads in this process; the CPUs that it may use, if not given.
        provider
            Execution provider in this process: ``cpu`` (if not given) or ``cuda``.
        batch_size
            Cells of a network evaluation at most; batches are padded to one size, which the cells fill.
        connection
            Deadlines, retries and headers of requests to servers.

        Raises
        ------
        ModelRepositoryError
            The repository can't be used.
        HubError
            A hub does not have the model, does not give it, or can't be reached.
        RuntimeUnavailableError
            ONNX Runtime, the provider, tritonclient or huggingface_hub is not available.
        ServerUnavailableError
            No server answers.
        """
        source = ModelSource.of(location, provider, connection)
        model = source.open(threads=threads, batch_size=batch_size)
        return cls(model.engine, batch_size=batch_size, source=source)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the engine."""
        self.engine.close()

    def bind(
        self,
        cells: AnyCells,
        expression: str | None = None,
        allow_missing_genes: float = 0.0,
        *,
        totals: str | None = None,
        round_counts: bool = False,
    ) -> PanelCells:
        """Bind cells to the model's concepts and panel; a warning names missing genes.

        Parameters
        ----------
        cells
            Opened cells; see `causcell.cells.collection.open_cells`. They are closed with what is returned.
        expression, allow_missing_genes, totals, round_counts
            As in `causcell.Generator.counterfactual`.
        """
        try:
            return PanelCells(
                cells,
                self.schema,
                self.preprocessing,
                expression=expression,
                allow_missing_genes=allow_missing_genes,
                totals=totals,
                round_counts=round_counts,
            )
        except BaseException:
            cells.close()
            raise

    def generate(
        self, cells: PanelCells, request: Request, *, progress: bool = False, sparse: bool = False
    ) -> Iterator[Block]:
        """Generate results for all cells, block by block (one block a batch of cells), in input order.

        Parameters
        ----------
        cells, request
            See `prepare`.
        progress
            Show a progress bar.
        sparse
            Give expression of draws as CSR matrices where the model draws them so.
        """
        source = self.prepare(cells, request)
        return stream_all(source.model, source, request, progress=progress, sparse=sparse)

    def prepare(self, cells: PanelCells, request: Request) -> MeasuredCells:
        """Return the source of the cells' embeddings for a request, or for some of its interventions at a time.

        Its model, which decodes them, has batches that these cells fill.

        A warning names concepts that are intervened on although export judged their effects not usable, and one the
        interventions that set values beyond what the model was trained on.

        Parameters
        ----------
        cells
            Cells bound to the model; see `bind`.
        request
            What to generate.
        """
        warn_of_unusable(self.manifest.verdicts, request.concepts(self.schema))
        request.warn_of_extrapolation(self.schema)
        return MeasuredCells(self.model.with_full_batches(len(cells)), cells, request.library)

    @property
    def manifest(self) -> Manifest:
        """The model's manifest."""
        return self.engine.manifest

    @property
    def schema(self) -> ConceptSchema:
        """Concepts and graph."""
        return self.model.schema

    @property
    def preprocessing(self) -> Preprocessing:
        """Panel and scale."""
        return self.model.preprocessing

    @property
    def batch_size(self) -> int:
        """Cells of a network evaluation at most."""
        return self.model.batch_size

    @property
    def threads(self) -> int | None:
        """Compute threads in this process; `None` where the model is served."""
        return self.engine.threads

    def __getattr__(self, name: str) -> Any:
        if name in _REPLACED:
            raise AttributeError(f"Generator.{name} is no longer there; use {_REPLACED[name]}")
        if name not in _MOVED:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        warn_deprecated(f"Generator.{name}", f"Generator.model.{_MOVED[name]}")
        return getattr(self.model, _MOVED[name])

    def __repr__(self) -> str:
        facts = (f"\n  {name}: {text}" for name, text in self.model.describe().items())
        return f"{type(self).__name__} of model {self.manifest.digest[:12]}{''.join(facts)}"

    def _repr_html_(self) -> str:
        return html_card(f"Model {self.manifest.digest[:12]}", self.model.describe(), graph_svg(self.schema))
