"""The causal model over an engine: abduction, action and prediction for batches of cells."""

from __future__ import annotations

import copy
import functools
import os
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from causcell._internal.files import local_path
from causcell._internal.numbers import whole_number
from causcell._internal.values import first_unsound
from causcell.counterfactual.counts import check_counts
from causcell.counterfactual.outputs import OutputKind, array_widths
from causcell.counterfactual.scm import StructuralCausalModel
from causcell.counterfactual.targets import describe_concept
from causcell.diffusion.sampling import POSTERIOR_OUTPUTS, draw_spike_slab, sample
from causcell.diffusion.slab import SlabScale
from causcell.diffusion.solvers import Solver, SolverSettings
from causcell.engine.open import is_address, open_engine
from causcell.engine.protocol import Engine
from causcell.engine.triton.connection import Connection
from causcell.errors import ConfigurationError, EngineError
from causcell.randomness import CellNoise, Purpose, normals
from causcell.repository.hub import is_hub_name, pin_revision
from causcell.repository.manifest import EXPRESSION_FLOAT16, SLAB, Manifest

if TYPE_CHECKING:
    from scipy import sparse

    from causcell.counterfactual.request import Request

LARGEST_BATCH = 2**20
"""Cells of a network evaluation at most."""

_LANES = 16
"""Batches are of multiples of it: float32 values of the widest registers, whose loops then leave none over."""


@dataclass(frozen=True)
class ModelSource:
    """Location of a model and how it is opened, for a worker to open the same one. It can be pickled.

    Attributes
    ----------
    location
        Absolute path of a repository, its name on a hub with the commit, or address of a server.
    provider, connection
        See `causcell.engine.open.open_engine`.
    """

    location: str
    provider: str | None = None
    connection: Connection | None = None

    @classmethod
    def of(
        cls, location: str | os.PathLike[str], provider: str | None = None, connection: Connection | None = None
    ) -> ModelSource:
        """Make a source that is good in any working directory; of a hub's model, its commit of now."""
        place = os.fspath(location)
        if is_hub_name(place):
            place = pin_revision(place)
        elif not is_address(place):
            place = str(local_path(place, "models").absolute())
        return cls(place, provider, connection)

    def open(self, *, threads: int | None, batch_size: int, spinning: bool = False) -> CounterfactualModel:
        """Open the model; see `causcell.engine.open.open_engine`."""
        engine = open_engine(
            self.location, threads=threads, provider=self.provider, connection=self.connection, spinning=spinning
        )
        return CounterfactualModel(engine, batch_size=batch_size)


class Posterior(NamedTuple):
    """Posterior of cells' exogenous embeddings, q(eps | x): a diagonal Gaussian; each float32 [B x M x k]."""

    mean: np.ndarray
    logvar: np.ndarray


class CounterfactualModel:
    """A model's steps from expression to counterfactual expression, a batch at a time.

    Shapes: B cells, G panel genes, m labelled concepts, M = m + 1 with the unexplained one last, k numbers a concept.

    Parameters
    ----------
    engine
        Evaluates the graphs.
    batch_size
        Cells of a network evaluation: whoever streams cells pads every batch to it, and takes one that they fill
        (`with_full_batches`).

    Attributes
    ----------
    scm
        The structural causal model: factual embeddings and those under an intervention.
    schema, preprocessing
        Concepts and graph; panel and scale.

    Raises
    ------
    ConfigurationError
        A batch size that is no whole number from 1 to `LARGEST_BATCH`.
    """

    def __init__(self, engine: Engine, *, batch_size: int = 256) -> None:
        self.engine, self.batch_size = engine, whole_number(batch_size, "batch_size", 1, LARGEST_BATCH)
        self.schema = engine.manifest.concept_schema
        self.preprocessing = engine.manifest.preprocessing
        self.scm = StructuralCausalModel(engine)

    @property
    def manifest(self) -> Manifest:
        """The model's manifest."""
        return self.engine.manifest

    def with_full_batches(self, cells: int) -> CounterfactualModel:
        """Return the same model with the fewest batches of so many cells, and those as full as may be.

        What is missing in a batch is padded, at the price of cells. The engine and what is kept of its answers are
        shared.
        """
        parts = max(1, -(-cells // self.batch_size))
        full = max(1, -(-cells // parts))
        return self.with_batch_size(min(-(-full // _LANES) * _LANES, self.batch_size))

    def with_batch_size(self, batch_size: int) -> CounterfactualModel:
        """Return the same model with other batches; the engine and what is kept of its answers are shared."""
        other = copy.copy(self)
        other.batch_size = batch_size
        return other

    def describe(self) -> dict[str, str]:
        """Return facts of the model by name, for people."""
        manifest = self.manifest
        presets = (f"{name} (default)" if name == manifest.default_preset else name for name in manifest.presets)
        return {
            "genes": f"{len(manifest.genes.names):,}, trained on {manifest.expression.scale}",
            **{f"concept {each.name}": describe_concept(each) for each in manifest.concepts},
            "edges": (", ".join(f"{edge.parent} -> {edge.child}" for edge in manifest.edges) or "none")
            + ("" if manifest.mechanism == "linear" else f" ({manifest.mechanism} mechanisms)"),
            "presets": ", ".join(presets),
            "trained on": f"{manifest.training_cells.count:,} cells",
            **{f"verdict on {each.title}": each.reason for each in manifest.verdicts},
            "engine": self.engine.description,
        }

    def encode(self, expression: np.ndarray) -> Posterior:
        """Read the posterior of exogenous embeddings from expression, float32 [B x G], log scale."""
        outputs = self.engine.run("encoder_scm", {"expression": expression}, ("exogenous_mean", "exogenous_logvar"))
        return Posterior(outputs["exogenous_mean"], outputs["exogenous_logvar"])

    def build_solver(self, settings: SolverSettings) -> Solver:
        """Return the solver's table on the model's noise schedule.

        Raises
        ------
        ConfigurationError
            The solver draws from a posterior that the model's head does not have.
        """
        solver, graphs = settings.build(self.manifest.schedule), self.manifest.graphs
        one_step = solver.steps == 1 and "decoder" in graphs
        if solver.draw and not one_step and not set(POSTERIOR_OUTPUTS) <= set(graphs["denoiser"].outputs):
            raise ConfigurationError(
                f"solver {settings.solver!r} with {solver.steps} steps draws from a posterior that the head of this "
                f"model, {self.manifest.head!r}, does not give; take ddpm or ddim"
                + (", or one step" if "decoder" in graphs else "")
            )
        return solver

    def prepare_solver(self, request: Request) -> Solver:
        """Return the solver's table for a request; see `build_solver`.

        Raises
        ------
        ConfigurationError
            The model does not give what is asked for; see `causcell.counterfactual.counts.check_counts` and
            `causcell.counterfactual.request.Request.check_targets`.
        """
        request.check_targets(self.manifest)
        if request.store == "counts":
            check_counts(self.manifest, request.settings)
        return self.build_solver(request.settings)

    def decode(self, endogenous: np.ndarray, noise: CellNoise, solver: Solver, dtype: str = "float32") -> np.ndarray:
        """Generate expression of cells with given concepts.

        Parameters
        ----------
        endogenous
            float32 [B x M x k].
        noise
            The cells' own random numbers.
        solver
            The sampling loop.
        dtype
            ``float32``, or ``float16``: half the bytes, from the server on where the graphs are served.

        Returns
        -------
        Log scale, of that type, [B x G].
        """
        shape = (len(endogenous), len(self.preprocessing.genes))
        if solver.one_draw:
            if self._slab_at_hand:
                return _cast(self.draw(endogenous, noise, solver).toarray(), dtype)
            uniforms = noise.posterior(int(solver.table[0, 0]))
            return self._expression("decoder", {"endogenous": endogenous, "uniforms": uniforms}, dtype)
        if solver.one_mean and SLAB in self.manifest.graphs:
            probability, mean = self._slab(endogenous)
            with np.errstate(over="ignore", invalid="ignore"):
                return _sound(self._slab_scale.mean_expression(probability, mean), dtype)
        if solver.deterministic:
            inputs = {
                "endogenous": endogenous,
                "noise": noise.initial if solver.from_noise else np.zeros(shape, dtype=np.float32),
                "solver": np.tile(solver.table.astype(np.float32), (shape[0], 1, 1)),
            }
            return self._expression("sampler", inputs, dtype)

        def denoise(x: np.ndarray, t: int) -> np.ndarray:
            timestep = np.full((shape[0], 1), t, dtype=np.int64)
            wanted = POSTERIOR_OUTPUTS if solver.draw else ("x0",)
            outputs = self.engine.run("denoiser", {"x_t": x, "timestep": timestep, "endogenous": endogenous}, wanted)
            if not solver.draw:
                return outputs["x0"]
            probability, mean, deviation = (outputs[name] for name in wanted)
            return draw_spike_slab(probability, mean, deviation, self.preprocessing.zero, noise.posterior(t))

        with np.errstate(over="ignore", invalid="ignore"):  # told below
            x0 = sample(denoise, solver, shape, initial_noise=lambda: noise.initial, step_noise=noise.fresh)
            expression = self.preprocessing.expression(x0)
        return _sound(expression, dtype)

    def draws_sparse(self, solver: Solver) -> bool:
        """Tell if `draw` is how this model draws by a solver: zeros, most of the values, are then never written."""
        return solver.one_draw and self._slab_at_hand

    def draw(self, endogenous: np.ndarray, noise: CellNoise, solver: Solver) -> sparse.csr_matrix:
        """Draw expression of cells with given concepts, zeros left out: the values that `decode` gives.

        Parameters
        ----------
        endogenous, noise, solver
            See `decode`; of a solver that `draws_sparse`.

        Returns
        -------
        Log scale, float32 [B x G].
        """
        probability, mean = self._slab(endogenous)
        with np.errstate(over="ignore", invalid="ignore"):  # told below
            drawn = self._slab_scale.draw(probability, mean, noise.posterior(int(solver.table[0, 0])))
        place = first_unsound(drawn.data, low=0)
        if place is not None:
            row = int(np.searchsorted(drawn.indptr, place[0], side="right")) - 1
            raise _unsound(drawn.data[place], row, "float32")
        return drawn

    @property
    def _slab_at_hand(self) -> bool:
        return self.engine.at_hand and SLAB in self.manifest.graphs

    def _slab(self, endogenous: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the slab's probability and mean, standardised, float32 [B x G] each."""
        probability, mean, _ = POSTERIOR_OUTPUTS
        outputs = self.engine.run(SLAB, {"endogenous": endogenous}, (probability, mean))
        return outputs[probability], outputs[mean]

    @cached_property
    def _slab_scale(self) -> SlabScale:
        """The slab's scale; its deviation is the same for every cell."""
        any_cell = np.zeros((1, self.schema.size, self.manifest.dimensions.embedding), dtype=np.float32)
        name = POSTERIOR_OUTPUTS[2]
        deviation = self.engine.run(SLAB, {"endogenous": any_cell}, (name,))[name][0]
        scale = self.preprocessing
        return SlabScale(scale.mean, scale.deviation, deviation * scale.deviation)

    def _expression(self, graph: str, inputs: dict[str, np.ndarray], dtype: str) -> np.ndarray:
        """Return the graph's expression output in ``dtype``; older exports fall back to float32 and are cast."""
        half = dtype == "float16" and EXPRESSION_FLOAT16 in self.manifest.graphs[graph].outputs
        output = EXPRESSION_FLOAT16 if half else "expression"
        return _cast(self.engine.run(graph, inputs, (output,))[output], dtype)

    def output_widths(self, kind: OutputKind) -> dict[str, int]:
        """Return the columns of each array of an output kind, by place in an AnnData."""
        return array_widths(kind, len(self.preprocessing.genes), self.schema.size * self.manifest.dimensions.embedding)

    def provenance(self) -> dict[str, Any]:
        """Return what ``uns["causcell"]`` records of model, engine and versions."""
        return {
            "model_digest": self.manifest.digest,
            "engine": self.engine.description,
            "batch_size": self.batch_size,
            "versions": dict(_versions()),
        }


@functools.cache
def _versions() -> tuple[tuple[str, str], ...]:
    return tuple((name, metadata.version(name)) for name in ("causcell", "numpy", "anndata"))


def _cast(expression: np.ndarray, dtype: str) -> np.ndarray:
    """Return expression that an engine answered, which is sound, in another type; see `_sound`."""
    return expression if expression.dtype == dtype else _sound(expression, dtype)


def _sound(expression: np.ndarray, dtype: str) -> np.ndarray:
    """Return expression in a type; raises `EngineError` for values that are not finite in it, or negative."""
    with np.errstate(over="ignore"):
        cast = expression.astype(dtype, copy=False)
    place = first_unsound(cast, low=0)
    if place is not None:
        raise _unsound(expression[place], place[0], dtype)
    return cast


def _unsound(value: float, row: int, dtype: str) -> EngineError:
    return EngineError(
        f"the model gave expression of {value:.3g} (log scale) in row {row} of the batch, which is no {dtype} value to "
        "keep; nothing of this batch is used: real cells have values up to 10, so look at the model"
    )


def abduct(posterior: tuple[np.ndarray, np.ndarray], keys: np.ndarray, draw: int = 0) -> np.ndarray:
    """Draw exogenous embeddings from their posterior, keyed by cell.

    What decodes them was trained on draws: from posterior means cells vary less than they should (Kang, three seeds,
    energy distance of one draw to held-out cells: from means .059, from draws .052).

    Parameters
    ----------
    posterior
        Mean and log-variance, each [B x M x k].
    keys
        The cells' keys, uint64 [B x 2].
    draw
        Index of the draw.

    Returns
    -------
    float32 [B x M x k].
    """
    mean, logvar = posterior
    noise = normals(keys, mean[0].size, Purpose.ABDUCTION, draw=draw).reshape(mean.shape)
    return np.asarray(mean + np.exp(0.5 * logvar) * noise)
