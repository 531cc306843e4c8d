"""Results of consecutive cells, block by block: read, encode, predict and decode overlap, in bounded memory."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeVar

import numpy as np

from causcell._internal.batching import batches, pad_batch
from causcell._internal.prefetch import StageClock, map_ordered, prefetch
from causcell._internal.stages import progress_bar
from causcell.cells.by_rows import Rows
from causcell.cells.panel_cells import CellBatch, PanelCells
from causcell.counterfactual.counts import panel_totals, share_out
from causcell.counterfactual.model import CounterfactualModel, Posterior, abduct
from causcell.counterfactual.outputs import (
    Accumulator,
    Block,
    Decode,
    Prediction,
    SparseSamples,
    make_accumulator,
    mean_numbers,
    most_frequent,
)
from causcell.counterfactual.request import Library, Request
from causcell.counterfactual.tables import warn_unmatched
from causcell.counterfactual.uncertainty import EffectUncertainty, cell_half_width
from causcell.diffusion.solvers import Solver
from causcell.randomness import CellNoise, cell_keys

_READ_AHEAD = 2
"""Batches that are read before they are needed."""


class Batch(Protocol):
    """Consecutive cells as a source reads them."""

    @property
    def rows(self) -> slice:
        """Places of the cells."""
        ...

    @property
    def names(self) -> np.ndarray:
        """Their names, str objects [n]."""
        ...

    @property
    def library(self) -> np.ndarray | None:
        """Library sizes that counts are made for, float64 [n]; `None` where none are."""
        ...

    @property
    def panel_totals(self) -> np.ndarray | None:
        """Part of these that falls on the panel, float64 [n]; see `causcell.counterfactual.counts`."""
        ...


B = TypeVar("B", bound=Batch)
E = TypeVar("E")


class EmbeddingSource(Protocol[B, E]):
    """Source of the embeddings of a stream: read off measured cells (`MeasuredCells`), or stored.

    ``read`` runs in a thread of its own, ahead of its use; ``encode`` and ``predict`` in as many threads as the engine
    gains from.
    """

    @property
    def labels(self) -> Rows:
        """The cells' own label codes, int32 [n x m], by slices."""
        ...

    @property
    def numbers(self) -> Rows | None:
        """The cells' own standardised numbers, float32 [n x c], by slices; `None` where no concept has numbers."""
        ...

    @property
    def missing(self) -> Sequence[str]:
        """Panel genes that were filled."""
        ...

    def __len__(self) -> int: ...

    def read(self, rows: slice) -> B:
        """Read consecutive cells."""
        ...

    def encode(self, batch: B) -> E:
        """Give what predictions are made from."""
        ...

    def predict(self, encoded: E, keys: np.ndarray, request: Request, solver: Solver) -> Iterator[Prediction]:
        """Give a prediction for every draw and intervention, interventions fastest; arrays have the batch size."""
        ...


class EncodedCells(NamedTuple):
    """A batch of measured cells: posterior of exogenous embeddings, own label codes and own numbers (or `None`)."""

    posterior: Posterior
    labels: np.ndarray
    numbers: np.ndarray | None


@dataclass(frozen=True)
class MeasuredCells:
    """Embeddings of measured cells: abduction from their expression, then action. See `EmbeddingSource`.

    Attributes
    ----------
    model
        Reads the embeddings.
    cells
        The cells.
    library
        Library size that counts are made for, as of `causcell.counterfactual.request.Request.library`.

    Raises
    ------
    ConfigurationError
        Each cell's own is asked for, and the cells' values do not tell it.
    """

    model: CounterfactualModel
    cells: PanelCells
    library: Library = None

    def __post_init__(self) -> None:
        if self.library == "own":
            self.cells.require_library_sizes()

    @property
    def labels(self) -> Rows:
        """The cells' own label codes, int32 [n x m]."""
        return self.cells.label_rows

    @property
    def numbers(self) -> Rows | None:
        """The cells' own standardised numbers, float32 [n x c]; `None` where no concept has numbers."""
        return self.cells.number_rows

    @property
    def missing(self) -> Sequence[str]:
        """Panel genes that were filled."""
        return self.cells.missing

    def __len__(self) -> int:
        return len(self.cells)

    def read(self, rows: slice) -> CellBatch:
        """Read consecutive cells, their expression padded to the batch size."""
        batch = self.cells.read_with_library(rows) if self.library == "own" else self.cells.read(rows)
        library, totals = batch.library, None
        if isinstance(self.library, int):
            library = np.full(len(batch.names), float(self.library))
        if library is not None:
            totals = panel_totals(batch.expression, library)
        expression = pad_batch(batch.expression, self.model.batch_size)
        return CellBatch(batch.rows, batch.names, expression, library, totals)

    def encode(self, batch: CellBatch) -> EncodedCells:
        """Give the posterior of exogenous embeddings, and the cells' own labels and numbers, padded."""
        size, numbers = self.model.batch_size, self.numbers
        own = None if numbers is None else pad_batch(numbers[batch.rows], size)
        return EncodedCells(self.model.encode(batch.expression), pad_batch(self.labels[batch.rows], size), own)

    def predict(
        self, encoded: EncodedCells, keys: np.ndarray, request: Request, solver: Solver
    ) -> Iterator[Prediction]:
        """Give a prediction for every draw and intervention, interventions fastest.

        Abduction draws a cell's exogenous embeddings (for a single draw of a mean estimate it takes their mean), and
        tells them the cell's known labels and numbers.
        """
        posterior, labels, numbers = encoded
        scm = self.model.scm
        for draw in range(request.draws):
            read = abduct(posterior, keys, draw) if solver.random or request.draws > 1 else posterior.mean
            exogenous = scm.inform(read, labels, numbers)
            factual = scm.factual(exogenous, ("endogenous",))["endogenous"]
            for place, intervention in enumerate(request.interventions):
                after = scm.intervene(
                    intervention,
                    exogenous=exogenous,
                    endogenous=factual,
                    labels=labels,
                    keys=keys,
                    numbers=numbers,
                    mode=request.mode,
                    match_parents=request.match_parents,
                    draw=draw,
                    keep_own=request.target == "own",
                )
                yield Prediction(place, draw, factual, after.endogenous, after.labels, after.unmatched, after.numbers)


def stream_blocks(
    model: CounterfactualModel,
    source: EmbeddingSource[B, E],
    request: Request,
    ranges: Iterable[slice],
    clock: StageClock | None = None,
    *,
    sparse: bool = False,
) -> Iterator[Block]:
    """Generate results for ranges of cells: one block a batch, and batches start anew with each range.

    Parameters
    ----------
    model
        Decodes embeddings.
    source
        Gives embeddings.
    request
        What to generate.
    ranges
        Places of cells, in the order of the results.
    clock
        Counts the stages ``read``, ``encode`` and ``sample``.
    sparse
        Give expression of draws as CSR matrices where the model draws them so; see
        `causcell.counterfactual.model.CounterfactualModel.draws_sparse`.

    Raises
    ------
    CausCellError
        Cells that can't be read, or an engine that fails.
    """
    solver = model.prepare_solver(request)
    clock = clock or StageClock()
    labels, numbers = source.labels, source.numbers  # assembled before threads ask for them

    def read() -> Iterator[B]:
        for within in ranges:
            for rows in batches(within.stop - within.start, model.batch_size):
                with clock("read"):
                    batch = source.read(slice(within.start + rows.start, within.start + rows.stop))
                yield batch

    def generate(batch: B) -> Block:
        with clock("encode"):
            encoded = source.encode(batch)
        with clock("sample"):
            keys = pad_batch(cell_keys(request.seed, batch.names), model.batch_size)
            predictions = source.predict(encoded, keys, request, solver)
            own = labels[batch.rows], None if numbers is None else numbers[batch.rows]
            return _collect(model, batch, own, predictions, keys, request, solver, sparse)

    if len(source) <= model.batch_size:  # one batch is no pipeline
        return map(generate, read())
    return map_ordered(generate, prefetch(read(), _READ_AHEAD), model.engine.concurrency)


def stream_all(
    model: CounterfactualModel,
    source: EmbeddingSource[B, E],
    request: Request,
    *,
    progress: bool = False,
    sparse: bool = False,
) -> Iterator[Block]:
    """Generate results for all cells in their order, behind a progress bar; warns of unmatched reference cells."""
    total, unmatched = len(source) * request.rows_per_cell, 0
    with progress_bar(total=total, desc="generating", unit="row", disable=not progress) as bar:
        for block in stream_blocks(model, source, request, [slice(0, len(source))], sparse=sparse):
            unmatched += int(block.unmatched.sum())
            yield block
            bar.update(len(block.labels))
    warn_unmatched(unmatched, total)


def _collect(
    model: CounterfactualModel,
    batch: Batch,
    own: tuple[np.ndarray, np.ndarray | None],
    predictions: Iterable[Prediction],
    keys: np.ndarray,
    request: Request,
    solver: Solver,
    sparse: bool,
) -> Block:
    """Decode predictions and keep of them what the request asks for, beside the cells' own labels and numbers."""
    factual, own_numbers = own
    genes, concepts = len(model.preprocessing.genes), len(model.schema.concepts)
    count = len(batch.names)
    shape = (count, len(request.interventions), request.draws)
    dtype = request.dtype if request.store == "expression" else "float32"  # what is computed with is not rounded
    decode: Decode = functools.partial(model.decode, solver=solver, dtype=dtype)
    if request.store == "counts":
        assert batch.panel_totals is not None, "a source of counts gives their totals"
        decode = _count(decode, pad_batch(batch.panel_totals, model.batch_size))

    def half_width(place: int, effect: np.ndarray, deviation: np.ndarray) -> np.ndarray:
        uncertainty = EffectUncertainty.of(model)  # which asks for the reference cells: summaries alone need it
        targets = request.interventions[place].targets
        return cell_half_width(uncertainty, targets, factual, effect, deviation, request.draws, request.interval)

    accumulator: Accumulator
    if sparse and request.store == "expression" and dtype == "float32" and model.draws_sparse(solver):
        accumulator = SparseSamples(functools.partial(model.draw, solver=solver), shape, half_width)
    else:
        accumulator = make_accumulator(request.store, decode, shape, half_width)
    labels, unmatched = np.empty((*shape, concepts), dtype=np.int32), np.empty(shape, dtype=bool)
    numbers = None if own_numbers is None else np.empty((*shape, own_numbers.shape[1]), dtype=np.float32)
    for draw, of_draw in itertools.groupby(predictions, key=lambda prediction: prediction.draw):
        noise = CellNoise(keys, genes, draw)  # a draw's interventions share it
        for prediction in of_draw:
            accumulator.add(prediction, noise)
            place = (slice(None), prediction.intervention, draw)
            labels[place], unmatched[place] = prediction.labels[:count], prediction.unmatched[:count]
            if numbers is not None:
                assert prediction.numbers is not None, "a source whose cells have numbers gives those of predictions"
                numbers[place] = prediction.numbers[:count]
    if request.store == "summary":
        labels, unmatched = most_frequent(labels), np.logical_or.reduce(unmatched, axis=2)
        numbers = None if numbers is None else mean_numbers(numbers)
    flat = labels.reshape(-1, concepts)
    rows = None if numbers is None else numbers.reshape(-1, numbers.shape[-1])
    arrays = accumulator.arrays()
    return Block(batch.rows, batch.names, factual, arrays, flat, unmatched.ravel(), batch.library, own_numbers, rows)


def _count(decode: Decode, totals: np.ndarray) -> Decode:
    """Return what gives counts of the samples that ``decode`` gives, of these totals over the panel."""
    return lambda endogenous, noise: share_out(decode(endogenous, noise), totals)
