"""From cells to counterfactual cells: the one class that users meet."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from causcell.cells import Cells, batches, padded
from causcell.engine import Engine, open_engine
from causcell.errors import CausCellWarning, ConfigurationError, listed
from causcell.expression import PanelReader, check_scale
from causcell.interventions import (
    CausalGraph,
    Intervention,
    Mode,
    check_mode,
    logits_name,
    plan_interventions,
)
from causcell.manifest import EXPRESSION_FLOAT16, Manifest
from causcell.pipeline import in_order
from causcell.randomness import CellNoise, Purpose, cell_keys, normals
from causcell.results import result_obs, result_uns, result_var
from causcell.sampling import draw_spike_slab, sample
from causcell.schema import UNEXPLAINED
from causcell.solvers import Solver, SolverSettings

if TYPE_CHECKING:
    import anndata

    from causcell.triton.connection import Connection

R = TypeVar("R")

DTYPES = ("float32", "float16")
"""Of generated expression."""


@dataclass(frozen=True)
class Request:
    """What to generate for every cell: each intervention, ``draws`` times.

    Attributes
    ----------
    interventions
        In the order of a cell's rows.
    settings
        The solver.
    mode, match_parents
        See `causcell.interventions.CausalGraph.intervene`.
    draws
        Samples a cell and intervention; more than one are also drawn from the posterior of the cell's embeddings.
    seed
        Of all random numbers, keyed by cell.
    dtype
        Of the expression: ``float32``, or ``float16`` (half the bytes; values within 5e-4 of their size).
    """

    interventions: tuple[Intervention, ...]
    settings: SolverSettings
    mode: Mode = "do"
    match_parents: bool = False
    draws: int = 1
    seed: int = 0
    dtype: str = "float32"

    def __post_init__(self) -> None:
        if self.draws < 1:
            raise ConfigurationError(f"draws is {self.draws}; take at least 1")
        if self.dtype not in DTYPES:
            raise ConfigurationError(f"dtype {self.dtype!r} is not known; known are {listed(DTYPES)}")

    @property
    def rows_per_cell(self) -> int:
        """Rows of the result for each cell."""
        return len(self.interventions) * self.draws


@dataclass(frozen=True)
class Block:
    """Results for consecutive cells; rows are (cell, intervention, draw), the last fastest.

    Attributes
    ----------
    expression
        Of the request's type [rows x G].
    labels
        Codes after the intervention, int32 [rows x m].
    unmatched
        Rows whose reference cell does not carry the parents' labels, bool [rows].
    """

    expression: np.ndarray
    labels: np.ndarray
    unmatched: np.ndarray


@dataclass(frozen=True)
class _Batch:
    """Consecutive cells, and their expression padded to the batch size."""

    rows: slice
    expression: np.ndarray

    @property
    def count(self) -> int:
        return self.rows.stop - self.rows.start


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
        self.causal_graph = CausalGraph(engine)
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

    # -- the main job ------------------------------------------------------------------------------------------------

    def counterfactual(
        self,
        adata: anndata.AnnData | str | os.PathLike[str],
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
        expression: str | None = None,
        layer: str | None = None,
        allow_missing_genes: float = 0.0,
        progress: bool = False,
    ) -> anndata.AnnData:
        """Counterfactual cells: what every cell would express, had its concepts been set.

        Parameters
        ----------
        adata
            Cells: an AnnData, or a path to one.
        do
            Labels by concept: one joint intervention; or a sequence of such mappings. Without any: the factual cell.
        grid
            Concepts to take every label of; several multiply.
        mode
            ``do``, ``exogenous`` or ``isolated``; see `causcell.interventions.CausalGraph.intervene`.
        match_parents
            Draw reference cells with the same labels of the target's parents.
        preset
            Named solver setting of the model (default: the manifest's default).
        solver, steps, spacing, eta
            A solver in place of a preset: ``draw``, ``ddim`` (eta 0 to 1), ``dpmpp``, ``ddpm`` or ``mean``; see
            `causcell.solvers`.
        draws
            Samples a cell and intervention.
        seed
            Of all random numbers, keyed by cell name.
        expression
            ``counts`` or ``log1p``: what the values are (default: what the model was trained on); it is checked.
        layer
            Read this layer in place of ``X``.
        allow_missing_genes
            Share of the model's genes that may be absent; they are filled with the training mean and reported.
        progress
            Show a progress bar.

        Returns
        -------
        AnnData, one row a (cell, intervention, draw), cells in input order, with float32 expression of the panel
        (log scale) in ``X``; the columns of ``obs`` are described in `causcell.results`.
        """
        import anndata

        settings = self.solver_settings(preset=preset, solver=solver, steps=steps, spacing=spacing, eta=eta)
        request = Request(
            plan_interventions(self.schema, do, grid), settings, check_mode(mode), match_parents, draws, seed
        )
        with Cells(adata, layer=layer) as cells:
            reader = self.reader(cells, expression, allow_missing_genes)
            blocks = list(self.generate(cells, reader, request, progress=progress))
            return anndata.AnnData(
                X=np.concatenate([block.expression for block in blocks]),
                obs=result_obs(self, cells, request, np.concatenate([block.labels for block in blocks])),
                var=result_var(self, reader),
                uns={"causcell": result_uns(self, request)},
            )

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
                return batch.count, mean, self.causal_graph.factual(mean)

            done = self._over_batches(embedded, cells, reader)
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

    def reader(self, cells: Cells, expression: str | None = None, allow_missing_genes: float = 0.0) -> PanelReader:
        """What turns the cells' values into panel expression; missing genes are reported by a warning."""
        preprocessing = self.preprocessing
        declared = preprocessing.scale if expression is None else check_scale(expression)
        if declared == "counts" and preprocessing.scale == "log1p":
            raise ConfigurationError(
                "this model was trained on log1p values as given, whose scale for raw counts is not known; "
                "give log1p values normalised as the training file's were"
            )
        reader = PanelReader(replace(preprocessing, scale=declared), cells.genes, allow_missing=allow_missing_genes)
        if reader.missing:
            warnings.warn(
                f"{len(reader.missing)} of {len(preprocessing.genes)} panel genes are missing and were filled with the "
                f"training mean: {listed(reader.missing)}",
                CausCellWarning,
                stacklevel=3,
            )
        return reader

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
        self, cells: Cells, reader: PanelReader, request: Request, *, progress: bool = False
    ) -> Iterator[Block]:
        """Results for all cells, block by block (one block a batch of cells), in input order."""
        solver = request.settings.build(self.manifest.schedule)
        if solver.draw and "decoder" not in self.manifest.graphs:
            raise ConfigurationError(
                f"solver 'draw' needs the head spike_slab, this model's is {self.manifest.head!r}; take ddpm or ddim"
            )
        labels = self.schema.encode(cells.obs)
        total = len(cells) * request.rows_per_cell
        unmatched = 0

        def generated(batch: _Batch) -> Block:
            return self._generate_batch(
                self._encode(batch.expression),
                padded(labels[batch.rows], self.batch_size),
                padded(cell_keys(request.seed, cells.names[batch.rows]), self.batch_size),
                request,
                solver,
                batch.count,
            )

        done = self._over_batches(generated, cells, reader)
        for block in self._progress(done, progress, "generating", total, lambda each: len(each.expression)):
            unmatched += int(block.unmatched.sum())
            yield block
        if unmatched:
            warnings.warn(
                f"{unmatched} of {total} rows found no reference cell with the target label and the parents' labels "
                "together; theirs was drawn by the target label alone",
                CausCellWarning,
                stacklevel=2,
            )

    def _generate_batch(
        self,
        posterior: tuple[np.ndarray, np.ndarray],
        labels: np.ndarray,
        keys: np.ndarray,
        request: Request,
        solver: Solver,
        count: int,
    ) -> Block:
        genes, concepts = len(self.preprocessing.genes), len(self.schema.concepts)
        shape = (count, len(request.interventions), request.draws)
        expression = np.empty((*shape, genes), dtype=request.dtype)
        after = np.empty((*shape, concepts), dtype=np.int32)
        unmatched = np.empty(shape, dtype=bool)
        for draw in range(request.draws):
            exogenous = self._abduct(posterior, keys, draw if request.draws > 1 else None)
            endogenous = self.causal_graph.factual(exogenous)["endogenous"]
            noise = CellNoise(keys, genes, draw)
            for i, intervention in enumerate(request.interventions):
                result = self.causal_graph.intervene(
                    intervention,
                    exogenous=exogenous,
                    endogenous=endogenous,
                    labels=labels,
                    keys=keys,
                    mode=request.mode,
                    match_parents=request.match_parents,
                    draw=draw,
                )
                expression[:, i, draw] = self.decode(result.endogenous, noise, solver, request.dtype)[:count]
                after[:, i, draw] = result.labels[:count]
                unmatched[:, i, draw] = result.unmatched[:count]
        return Block(expression.reshape(-1, genes), after.reshape(-1, concepts), unmatched.ravel())

    def _over_batches(self, work: Callable[[_Batch], R], cells: Cells, reader: PanelReader) -> Iterator[R]:
        """Results of padded batches of all cells, in order; cells are read by one thread, and no sooner than needed."""

        def read() -> Iterator[_Batch]:
            for rows in batches(len(cells), self.batch_size):
                yield _Batch(rows, padded(reader.read(cells.values(rows), cells.names[rows]), self.batch_size))

        return in_order(work, read(), self.engine.concurrency)

    def _encode(self, expression: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and log-variance of the exogenous embeddings, float32 [batch_size x M x k]."""
        wanted = ("exogenous_mean", "exogenous_logvar")
        outputs = self.engine.run("encoder_scm", {"expression": expression}, wanted)
        return outputs["exogenous_mean"], outputs["exogenous_logvar"]

    def _abduct(self, posterior: tuple[np.ndarray, np.ndarray], keys: np.ndarray, draw: int | None) -> np.ndarray:
        """Exogenous embeddings: the posterior mean, or a keyed draw from the posterior."""
        mean, logvar = posterior
        if draw is None:
            return mean
        noise = normals(keys, mean[0].size, Purpose.ABDUCTION, draw=draw).reshape(mean.shape)
        return mean + np.exp(0.5 * logvar) * noise

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
