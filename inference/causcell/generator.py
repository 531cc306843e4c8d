"""From cells to counterfactual cells: the one class that users meet."""

from __future__ import annotations

import functools
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from importlib import metadata
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from causcell._internal.batching import batches, pad_batch
from causcell._internal.prefetch import StageClock, map_ordered, prefetch
from causcell.cells.collection import AnyCells, AnyReader, Cells, CollectionReader, open_cells
from causcell.cells.panel import PanelReader
from causcell.concepts import UNEXPLAINED
from causcell.counterfactual.interventions import check_mode, plan_interventions
from causcell.counterfactual.model import abduct
from causcell.counterfactual.outputs import Outcome, Store, array_widths, check_store, keeper, most_frequent
from causcell.counterfactual.request import Request
from causcell.counterfactual.scm import StructuralCausalModel
from causcell.counterfactual.stream import _READ_AHEAD, Block, _Batch
from causcell.counterfactual.tables import (
    check_row_names,
    count_unseen,
    result_obs,
    result_uns,
    result_var,
    warn_unmatched,
)
from causcell.diffusion.sampling import draw_spike_slab, sample
from causcell.diffusion.solvers import Solver, SolverSettings
from causcell.engine.open import open_engine
from causcell.engine.protocol import Engine
from causcell.errors import CausCellWarning, ConfigurationError, format_list
from causcell.preprocessing import check_scale
from causcell.randomness import CellNoise, cell_keys
from causcell.repository.manifest import EXPRESSION_FLOAT16, Manifest, logits_name

if TYPE_CHECKING:
    import anndata

    from causcell.engine.triton.connection import Connection

R = TypeVar("R")


class Generator:
    """A model that embeds cells and generates their counterfactuals.

    Open one with `Generator.open`; it is a context manager.
    """

    def __init__(self, engine: Engine, *, batch_size: int = 256) -> None:
        if batch_size < 1:
            raise ConfigurationError(f"batch size is {batch_size}; take at least 1")
        self.engine = engine
        self.batch_size = batch_size
        self.schema = engine.manifest.concept_schema
        self.scm = StructuralCausalModel(engine)
        self.preprocessing = engine.manifest.preprocessing

    @classmethod
    def open(
        cls,
        location: str | os.PathLike[str],
        *,
        threads: int | None = None,
        provider: str | None = None,
        batch_size: int = 256,
        connection: Connection | None = None,
    ) -> Generator:
        """Open a model repository, or one that is served.

        Parameters
        ----------
        location
            Its folder; or the address of a Triton server, ``grpc://host:8001`` or ``http://host:8000`` (with TLS
            ``grpcs://``, ``https://``; several are joined by commas).
        threads
            Compute threads in this process; the CPUs that it may use, if not given.
        provider
            In this process: ``cpu`` (if not given) or ``cuda``.
        batch_size
            Cells a network evaluation; every batch is padded to it.
        connection
            Deadlines, retries and headers of requests to servers.

        Raises
        ------
        ModelRepositoryError
            The repository can't be used.
        RuntimeUnavailableError
            ONNX Runtime, the provider or tritonclient is not available.
        ServerUnavailableError
            No server answers.
        """
        engine = open_engine(location, threads=threads, provider=provider, connection=connection)
        return cls(engine, batch_size=batch_size)

    def __enter__(self) -> Generator:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the engine."""
        self.engine.close()

    @property
    def manifest(self) -> Manifest:
        """Of the model."""
        return self.engine.manifest

    @property
    def threads(self) -> int | None:
        """Compute threads in this process; `None` where the model is served."""
        return getattr(self.engine, "threads", None)

    # -- the main job ------------------------------------------------------------------------------------------------

    def counterfactual(
        self,
        adata: anndata.AnnData | str | os.PathLike[str] | Mapping[str, Any],
        do: Mapping[str, str] | Sequence[Mapping[str, str]] | None = None,
        *,
        grid: Sequence[str] = (),
        mode: str = "do",
        match_parents: bool = False,
        preset: str | None = None,
        solver: str | None = None,
        steps: int | None = None,
        spacing: str | None = None,
        eta: float | None = None,
        draws: int = 1,
        seed: int = 0,
        store: str = "expression",
        expression: str | None = None,
        layer: str | None = None,
        where: str | None = None,
        allow_missing_genes: float = 0.0,
        progress: bool = False,
    ) -> anndata.AnnData:
        """Counterfactual cells: what every cell would express, had its concepts been set.

        Parameters
        ----------
        adata
            Cells: an AnnData, a path to one, or a mapping from keys to either (each cell is then named ``key:name``).
        do
            Labels by concept: one joint intervention; or a sequence of such mappings. Without any: the factual cell.
        grid
            Concepts to take every label of; several multiply.
        mode
            ``do``, ``exogenous`` or ``isolated``; see `causcell.counterfactual.scm.StructuralCausalModel.intervene`.
        match_parents
            Draw reference cells with the same labels of the target's parents.
        preset
            Named solver setting of the model (default: the manifest's default).
        solver, steps, spacing, eta
            A solver in place of a preset: ``draw``, ``ddim`` (eta 0 to 1), ``dpmpp``, ``ddpm`` or ``mean``; see
            `causcell.diffusion.solvers`.
        draws
            Samples a cell and intervention.
        seed
            Of all random numbers, keyed by cell name.
        store
            ``expression``, ``embeddings``, ``effects`` or ``summary``; see `causcell.counterfactual.outputs`.
        expression
            ``counts`` or ``log1p``: what the values are (default: what the model was trained on); it is checked.
        layer
            Read this layer in place of ``X``.
        where
            Only these cells: a pandas query over ``obs``.
        allow_missing_genes
            Share of the model's genes that may be absent; they are filled with the training mean and reported.
        progress
            Show a progress bar.

        Returns
        -------
        AnnData, one row a (cell, intervention, draw), cells in input order, with float32 expression of the panel
        (log scale) in ``X`` (or what ``store`` asks for); the columns of ``obs`` are described in
        `causcell.counterfactual.tables`.
        """
        import anndata

        settings = self.solver_settings(preset=preset, solver=solver, steps=steps, spacing=spacing, eta=eta)
        request = Request(
            plan_interventions(self.schema, do, grid),
            settings,
            check_mode(mode),
            match_parents,
            draws,
            seed,
            check_store(store),
        )
        with open_cells(adata, layer=layer, where=where) as cells:
            check_row_names(cells, request)
            reader = self.reader(cells, expression, allow_missing_genes)
            blocks = list(self.generate(cells, reader, request, progress=progress))
            labels = np.concatenate([block.labels for block in blocks])
            factual, seen = cells.labels(self.schema), self.engine.reference.combinations
            obs = result_obs(self.schema, request, cells.names, factual, labels, seen)
            var = result_var(self.preprocessing.genes, reader.missing)
            result = anndata.AnnData(obs=obs, var=var, uns={"causcell": result_uns(self, request)})
        count_unseen(obs, request, self.schema.names).warn(len(obs))
        for place in blocks[0].arrays:
            array = np.concatenate([block.arrays[place] for block in blocks])
            element, _, name = place.partition("/")
            if name:
                getattr(result, element)[name] = array
            else:
                result.X = array
        return result

    def reconstruct(self, adata: anndata.AnnData | str | os.PathLike[str], **options: Any) -> anndata.AnnData:
        """The cells themselves, generated from their own embeddings: `counterfactual` without any intervention."""
        return self.counterfactual(adata, None, grid=(), **options)

    def embed(
        self,
        adata: anndata.AnnData | str | os.PathLike[str],
        *,
        expression: str | None = None,
        layer: str | None = None,
        where: str | None = None,
        allow_missing_genes: float = 0.0,
        key_added: str = "X_causcell",
        progress: bool = False,
    ) -> anndata.AnnData:
        """Concept embeddings of cells.

        Returns
        -------
        AnnData without ``X``, with the cells' ``obs`` and

        - ``obsm[key_added]``: endogenous embeddings of all concepts side by side, float32 [n x M k];
        - ``obsm[f"{key_added}_{concept}"]``: those of one concept (the last is ``unexplained``), float32 [n x k];
        - ``obsm[f"{key_added}_exogenous"]``: exogenous posterior means, float32 [n x M k];
        - ``obs[f"{concept}_predicted"]``: the label read from the concept's embedding;
        - ``uns["causcell"]``: model digest and versions.
        """
        import anndata

        exogenous, endogenous = [], []
        logits: dict[str, list[np.ndarray]] = {name: [] for name in self.schema.names}
        with Cells(adata, layer=layer, where=where) as cells:
            reader = self.reader(cells, expression, allow_missing_genes)
            obs = cells.obs.copy()

            def embedded(batch: _Batch) -> tuple[int, np.ndarray, dict[str, np.ndarray]]:
                mean, _ = self._encode(batch.expression)
                return batch.count, mean, self.scm.factual(mean)

            read = self._read(cells, reader, batches(len(cells), self.batch_size), StageClock())
            done = map_ordered(embedded, read, self.engine.concurrency)
            for count, mean, outputs in self._progress(done, progress, "embedding", len(cells), lambda each: each[0]):
                exogenous.append(mean[:count])
                endogenous.append(outputs["endogenous"][:count])
                for name in self.schema.names:
                    logits[name].append(outputs[logits_name(name)][:count])
        z = np.concatenate(endogenous)
        result = anndata.AnnData(obs=obs)
        result.obsm[key_added] = z.reshape(len(z), -1)
        for i, name in enumerate((*self.schema.names, UNEXPLAINED)):
            result.obsm[f"{key_added}_{name}"] = z[:, i]
        result.obsm[f"{key_added}_exogenous"] = np.concatenate(exogenous).reshape(len(z), -1)
        for name in self.schema.names:
            codes = np.concatenate(logits[name]).argmax(axis=1)
            result.obs[f"{name}_predicted"] = self.schema.label_names(codes, name)
        result.uns["causcell"] = self.provenance()
        return result

    # -- its parts, for callers that stream --------------------------------------------------------------------------

    def reader(self, cells: AnyCells, expression: str | None = None, allow_missing_genes: float = 0.0) -> AnyReader:
        """What turns the cells' values into panel expression; missing genes are reported by a warning."""
        preprocessing = self.preprocessing
        declared = preprocessing.scale if expression is None else check_scale(expression)
        if declared == "counts" and preprocessing.scale == "log1p":
            raise ConfigurationError(
                "this model was trained on log1p values as given, whose scale for raw counts is not known; "
                "give log1p values normalised as the training file's were"
            )
        readers = []
        for part in cells.parts:
            reader = PanelReader(replace(preprocessing, scale=declared), part.genes, allow_missing=allow_missing_genes)
            readers.append(reader)
            if reader.missing:
                warnings.warn(
                    f"{len(reader.missing)} of {len(preprocessing.genes)} panel genes are missing"
                    f"{f' in {part.key!r}' if part.key else ''} and were filled with the training mean: "
                    f"{format_list(reader.missing)}",
                    CausCellWarning,
                    stacklevel=3,
                )
        return readers[0] if isinstance(cells, Cells) else CollectionReader(tuple(readers))

    def solver_settings(
        self,
        *,
        preset: str | None = None,
        solver: str | None = None,
        steps: int | None = None,
        spacing: str | None = None,
        eta: float | None = None,
    ) -> SolverSettings:
        """A preset of the model, or a solver by name; raises `ConfigurationError` for both or neither's options."""
        if solver is None:
            if any(option is not None for option in (steps, spacing, eta)):
                raise ConfigurationError(
                    "steps, spacing and eta belong to a solver; name one (--solver ddim), or leave them out"
                )
            return self.manifest.preset(preset).solver
        if preset is not None:
            raise ConfigurationError(f"preset {preset!r} and solver {solver!r} exclude each other; leave one out")
        if steps is None and solver in ("ddim", "dpmpp", "ddpm"):
            raise ConfigurationError(f"solver {solver!r} needs a number of steps (--steps)")
        given = {"steps": steps, "spacing": spacing, "eta": eta}
        return SolverSettings(solver, **{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]

    def generate(
        self, cells: AnyCells, reader: AnyReader, request: Request, *, progress: bool = False
    ) -> Iterator[Block]:
        """Results for all cells, block by block (one block a batch of cells), in input order."""
        total, unmatched = len(cells) * request.rows_per_cell, 0
        done = self.blocks(cells, reader, request, [slice(0, len(cells))])
        for block in self._progress(done, progress, "generating", total, lambda each: len(each.labels)):
            unmatched += int(block.unmatched.sum())
            yield block
        warn_unmatched(unmatched, total)

    def blocks(
        self,
        cells: AnyCells,
        reader: AnyReader,
        request: Request,
        ranges: Iterable[slice],
        clock: StageClock | None = None,
    ) -> Iterator[Block]:
        """Results for ranges of cells, block by block: one block a batch, and batches start anew with each range.

        Cells are read in a thread of its own, a little ahead; ``clock`` is told of the stages ``read``, ``encode`` and
        ``sample``.
        """
        solver = self.build_solver(request.settings)
        clock = clock or StageClock()
        labels = cells.labels(self.schema)

        def generated(batch: _Batch) -> Block:
            with clock("encode"):
                posterior = self._encode(batch.expression)
            with clock("sample"):
                return self._outcomes(
                    batch,
                    posterior,
                    pad_batch(labels[batch.rows], self.batch_size),
                    pad_batch(cell_keys(request.seed, batch.names), self.batch_size),
                    request,
                    solver,
                )

        slices = (
            slice(within.start + rows.start, within.start + rows.stop)
            for within in ranges
            for rows in batches(within.stop - within.start, self.batch_size)
        )
        return map_ordered(generated, self._read(cells, reader, slices, clock), self.engine.concurrency)

    def build_solver(self, settings: SolverSettings) -> Solver:
        """The solver on the model's schedule; raises `ConfigurationError` for one that its head has no use of."""
        solver = settings.build(self.manifest.schedule)
        if solver.draw and "decoder" not in self.manifest.graphs:
            raise ConfigurationError(
                f"solver 'draw' needs the head spike_slab, this model's is {self.manifest.head!r}; take ddpm or ddim"
            )
        return solver

    def array_widths(self, store: Store) -> dict[str, int]:
        """Columns of each array of a store, by place in an AnnData."""
        return array_widths(store, len(self.preprocessing.genes), self.schema.size * self.manifest.dimensions.embedding)

    def _outcomes(
        self,
        batch: _Batch,
        posterior: tuple[np.ndarray, np.ndarray],
        labels: np.ndarray,
        keys: np.ndarray,
        request: Request,
        solver: Solver,
    ) -> Block:
        genes, concepts = len(self.preprocessing.genes), len(self.schema.concepts)
        shape = (batch.count, len(request.interventions), request.draws)
        dtype = request.dtype if request.store == "expression" else "float32"  # what is computed with is not rounded
        decode = functools.partial(self.decode, solver=solver, dtype=dtype)
        kept = keeper(request.store, decode, shape)
        after = np.empty((*shape, concepts), dtype=np.int32)
        unmatched = np.empty(shape, dtype=bool)
        sampled = solver.random or request.draws > 1
        for draw in range(request.draws):
            exogenous = abduct(posterior, keys, draw) if sampled else posterior[0]
            endogenous = self.scm.factual(exogenous)["endogenous"]
            noise = CellNoise(keys, genes, draw)
            for i, intervention in enumerate(request.interventions):
                result = self.scm.intervene(
                    intervention,
                    exogenous=exogenous,
                    endogenous=endogenous,
                    labels=labels,
                    keys=keys,
                    mode=request.mode,
                    match_parents=request.match_parents,
                    draw=draw,
                )
                kept.add(Outcome(i, draw, endogenous, result, noise))
                after[:, i, draw] = result.labels[: batch.count]
                unmatched[:, i, draw] = result.unmatched[: batch.count]
        if request.store == "summary":
            after, unmatched = most_frequent(after), np.logical_or.reduce(unmatched, axis=2)
        arrays = {place: array.reshape(-1, array.shape[-1]) for place, array in kept.arrays().items()}
        return Block(batch.rows, arrays, after.reshape(-1, concepts), unmatched.ravel())

    def _read(self, cells: AnyCells, reader: AnyReader, slices: Iterable[slice], clock: StageClock) -> Iterator[_Batch]:
        """Padded batches, read ahead of their use."""

        def read() -> Iterator[_Batch]:
            for rows in slices:
                with clock("read"):
                    # the reader of one source goes with its cells, that of a collection with the collection
                    values = cells.read(reader, rows)  # type: ignore[arg-type]
                    batch = _Batch(rows, cells.names_of(rows), pad_batch(values, self.batch_size))
                yield batch

        return prefetch(read(), _READ_AHEAD)

    def _encode(self, expression: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and log-variance of the exogenous embeddings, float32 [batch_size x M x k]."""
        wanted = ("exogenous_mean", "exogenous_logvar")
        outputs = self.engine.run("encoder_scm", {"expression": expression}, wanted)
        return outputs["exogenous_mean"], outputs["exogenous_logvar"]

    def decode(self, endogenous: np.ndarray, noise: CellNoise, solver: Solver, dtype: str = "float32") -> np.ndarray:
        """Expression of cells with given concepts.

        Parameters
        ----------
        endogenous
            float32 [B x M x k].
        noise
            The cells' own random numbers.
        solver
            The sampling loop.
        dtype
            ``float32``, or ``float16``: half the bytes, from the server on where the graph is served.

        Returns
        -------
        Log scale, of that type [B x G].
        """
        shape = (len(endogenous), len(self.preprocessing.genes))
        if solver.draw and solver.steps == 1:
            inputs = {"endogenous": endogenous, "uniforms": noise.posterior(int(solver.table[0, 0]))}
            return self._expression("decoder", inputs, dtype)
        if solver.deterministic:
            inputs = {
                "endogenous": endogenous,
                "noise": noise.initial if solver.from_noise else np.zeros(shape, dtype=np.float32),
                "solver": np.tile(solver.table.astype(np.float32), (shape[0], 1, 1)),
            }
            return self._expression("sampler", inputs, dtype)

        def denoise(x: np.ndarray, t: int) -> np.ndarray:
            timestep = np.full((shape[0], 1), t, dtype=np.int64)
            wanted = ("slab_probability", "slab_mean", "slab_deviation") if solver.draw else ("x0",)
            outputs = self.engine.run("denoiser", {"x_t": x, "timestep": timestep, "endogenous": endogenous}, wanted)
            if not solver.draw:
                return outputs["x0"]
            probability, mean, deviation = (outputs[name] for name in wanted)
            return draw_spike_slab(probability, mean, deviation, self.preprocessing.zero, noise.posterior(t))

        x0 = sample(denoise, solver, shape, initial_noise=lambda: noise.initial, step_noise=noise.fresh)
        return self.preprocessing.expression(x0).astype(dtype, copy=False)

    def _expression(self, graph: str, inputs: dict[str, np.ndarray], dtype: str) -> np.ndarray:
        """Of a graph's two outputs the one of the type; a model exported before it had two has the first."""
        half = dtype == "float16" and EXPRESSION_FLOAT16 in self.manifest.graphs[graph].outputs
        output = EXPRESSION_FLOAT16 if half else "expression"
        return self.engine.run(graph, inputs, (output,))[output].astype(dtype, copy=False)

    def provenance(self) -> dict[str, Any]:
        """What ``uns["causcell"]`` records of model, engine and versions."""
        return {
            "model_digest": self.manifest.digest,
            "engine": self.engine.description,
            "batch_size": self.batch_size,
            "versions": {name: metadata.version(name) for name in ("causcell", "numpy", "anndata")},
        }

    @staticmethod
    def _progress(done: Iterator[R], show: bool, what: str, total: int, rows: Callable[[R], int]) -> Iterator[R]:
        from tqdm.auto import tqdm

        with tqdm(total=total, desc=what, unit="cell", disable=not show) as bar:
            for each in done:
                yield each
                bar.update(rows(each))
