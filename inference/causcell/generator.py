"""The door to the client: embed cells, generate counterfactuals and write atlases with an exported model."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Unpack, overload

from causcell._deprecation import moved_names
from causcell._internal.confidence import LEVEL
from causcell._moved import RENAMED, REPLACED, SPLIT
from causcell.atlas.estimate import forecast_atlas
from causcell.atlas.events import OnEvent
from causcell.atlas.executors.base import Executor
from causcell.atlas.open import atlas_path, open_atlas
from causcell.atlas.options import AtlasOptions, complete_options, spell_out_options
from causcell.atlas.plan import Plan
from causcell.atlas.write import AtlasSummary, write_atlas, write_h5ad
from causcell.cells.annotations import Kept
from causcell.cells.collection import AnySource
from causcell.cells.panel_cells import Reading
from causcell.counterfactual.embedding import embed_cells
from causcell.counterfactual.request import make_request, solver_settings
from causcell.counterfactual.stream import stream_all
from causcell.counterfactual.tables import ResultTable, check_row_names
from causcell.diffusion.solvers import SolverSettings
from causcell.effects.cells import cell_effects
from causcell.effects.trial import simulated_trial
from causcell.errors import ConfigurationError
from causcell.opened_model import OpenedModel

if TYPE_CHECKING:
    import anndata


__getattr__ = moved_names(__name__, SPLIT[__name__], RENAMED, REPLACED)


class Generator(OpenedModel):
    """Embed cells and generate counterfactuals with an exported model.

    Open one with `Generator.open`; it is a context manager.

    Examples
    --------
    >>> from scanpy.datasets import pbmc68k_reduced
    >>> cells = pbmc68k_reduced().raw.to_adata()[:3]
    >>> with Generator.open("model_repository", threads=1) as generator:
    ...     result = generator.counterfactual(cells, do={"phase": "S"}, seed=0)
    >>> result.shape
    (3, 765)
    >>> result.obs["phase"].tolist()
    ['S', 'S', 'S']
    """

    def counterfactual(
        self,
        adata: AnySource,
        do: Mapping[str, object] | Sequence[Mapping[str, object]] | None = None,
        *,
        grid: Sequence[str] = (),
        mode: str = "do",
        match_parents: bool = False,
        target: str = "reference",
        preset: str | None = None,
        solver: str | None = None,
        steps: int | None = None,
        spacing: str | None = None,
        eta: float | None = None,
        draws: int = 1,
        seed: int = 0,
        store: str = "expression",
        interval: float = LEVEL,
        library_size: int | None = None,
        keep_obs: str | Sequence[str] | None = None,
        keep_obsm: str | Sequence[str] | None = None,
        expression: str | None = None,
        layer: str | None = None,
        raw: bool = False,
        totals: str | None = None,
        round_counts: bool = False,
        where: str | None = None,
        allow_missing_genes: float = 0.0,
        progress: bool = False,
    ) -> anndata.AnnData:
        """Generate what every cell would express, had its concepts been set.

        Parameters
        ----------
        adata
            An AnnData, a path to one, or a mapping from keys to either (cells are then named ``key:name``).
        do
            Labels or values by concept (a number, members of a set as ``"A+B"`` or a list, a label known by its
            features), one joint intervention; or a sequence of such mappings. Without any: the factual cell.
        grid
            Concepts to take every label of (of a continuous one the medians of its bins), or a range of numbers,
            ``dose=0:10:0.5``; several multiply.
        mode, match_parents
            ``do``, ``exogenous`` or ``isolated``; draw reference cells with the same labels of the target's parents.
            See `causcell.counterfactual.scm.StructuralCausalModel.intervene`.
        target
            ``reference``: embeddings of cells that carry a label, and draws from the concept's prior where a value is
            none; ``prior``: from the prior always; ``own``: the cell's own embedding, moved by the difference of the
            means of the two labels or values. See `causcell.counterfactual.targets`.
        preset
            Named solver setting of the model (default: the manifest's default).
        solver, steps, spacing, eta
            A solver in place of a preset; see `causcell.diffusion.solvers`.
        draws, seed
            Samples of a cell and intervention; seed of all random numbers, which are keyed by cell name.
        store
            ``expression``, ``counts``, ``embeddings``, ``effects`` or ``summary``; see
            `causcell.counterfactual.outputs`.
        interval
            Level of the intervals of effects that a summary has; see `causcell.counterfactual.uncertainty`.
        library_size
            Total of counts that every cell's counts are made for (default: the cell's own); see
            `causcell.counterfactual.counts`.
        keep_obs, keep_obsm
            Columns of ``obs`` and elements of ``obsm`` that travel into the result, by name; by default all columns
            and ``spatial``, ``"none"`` for none. Columns of ``var`` travel with them. See `causcell.cells.annotations`.
        expression
            ``counts`` or ``log1p`` (default: as in training), which is checked. log1p values for a model of counts are
            natural logarithms for a total of 10,000 over all genes of training; others are refused.
        layer, raw
            A layer, or genes and values of ``adata.raw``, in place of ``X``.
        totals
            Column of ``obs`` with each cell's total of counts, for a file that lacks genes which the total counts.
        round_counts
            Round counts that are not whole: floating point left a rest, or they were corrected for ambient RNA or
            estimated. Their totals are then those of the rounded counts.
        where
            A condition on the columns of ``obs``: only these cells; see `causcell.cells.where`.
        allow_missing_genes
            Share of the model's genes that may be absent, which are filled with the training mean, and share of a
            cell's total that absent genes may carry, by which totals are corrected; both are reported.
        progress
            Show a progress bar.

        Returns
        -------
        AnnData, one row a (cell, intervention, draw), cells in input order, with float32 expression of the panel (log
        scale) in ``X``, or what ``store`` asks for; the columns of ``obs`` are those of
        `causcell.counterfactual.tables`, then the cells' own.
        """
        settings = self.solver_settings(preset=preset, solver=solver, steps=steps, spacing=spacing, eta=eta)
        kept: dict[str, Any] = {"match_parents": match_parents, "draws": draws, "seed": seed, "store": store}
        kept |= {"interval": interval, "library_size": library_size, "target": target}
        request = make_request(self.manifest, do, grid, mode=mode, settings=settings, **kept)
        reading = Reading(layer, raw, expression, totals, round_counts, allow_missing_genes)
        with self.bind(reading.open(adata, where=where), **reading.bind_options) as cells:
            check_row_names(cells, request)
            source = self.prepare(cells, request)
            table = ResultTable.of(source.model, request)
            annotations = table.select_annotations(cells.cells, Kept(keep_obs, keep_obsm))
            annotations.warn_of_left_out()
            blocks = stream_all(source.model, source, request, progress=progress, sparse=True)
            return table.to_anndata(blocks, cells.missing, annotations)

    def reconstruct(self, adata: AnySource, **options: Any) -> anndata.AnnData:
        """Generate the cells themselves from their own embeddings: `counterfactual` without any intervention.

        Parameters
        ----------
        adata, options
            As in `counterfactual`.
        """
        return self.counterfactual(adata, None, grid=(), **options)

    @overload
    def embed(self, adata: AnySource, *, inplace: Literal[False] = False, **options: Any) -> anndata.AnnData: ...

    @overload
    def embed(self, adata: AnySource, *, inplace: Literal[True], **options: Any) -> None: ...

    def embed(  # type: ignore[misc]  # the forms above leave out the other options, which both have
        self,
        adata: AnySource,
        *,
        expression: str | None = None,
        layer: str | None = None,
        raw: bool = False,
        totals: str | None = None,
        round_counts: bool = False,
        where: str | None = None,
        allow_missing_genes: float = 0.0,
        key_added: str = "X_causcell",
        inplace: bool = False,
        progress: bool = False,
    ) -> anndata.AnnData | None:
        """Read concept embeddings of cells.

        Parameters
        ----------
        adata, expression, layer, raw, totals, round_counts, where, allow_missing_genes, progress
            As in `counterfactual`.
        key_added
            Key in ``obsm``.
        inplace
            Write into the AnnData given, which keeps all that it has, and return `None`.

        Returns
        -------
        AnnData with all that belongs to the cells but values (``X`` and layers): ``obs``, ``var``, ``obsm``, ``varm``,
        ``obsp``, ``uns`` (of several files ``obs`` and the ``obsm`` that all have); or `None`. In it, or in the one
        given:

        - ``obsm[key_added]``: endogenous embeddings of all concepts side by side, float32 [n x M k];
        - ``obsm[f"{key_added}_{concept}"]``: those of one concept (the last is ``unexplained``), float32 [n x k];
        - ``obsm[f"{key_added}_exogenous"]``: exogenous posterior means, float32 [n x M k];
        - ``obs[f"{concept}_predicted"]``: the label read from the concept's embedding; a number, in the data's units,
          of a continuous concept;
        - ``uns["causcell"]``: model digest and versions.

        Raises
        ------
        ConfigurationError
            ``inplace`` for what is no AnnData in memory, or with ``where``.
        """
        import anndata

        if inplace and not (isinstance(adata, anndata.AnnData) and where is None):
            raise ConfigurationError(
                "inplace=True writes into an AnnData, all of its cells; give one in memory without where=, or leave "
                "inplace out"
            )
        reading = Reading(layer, raw, expression, totals, round_counts, allow_missing_genes)
        into = adata if inplace and isinstance(adata, anndata.AnnData) else None
        with self.bind(reading.open(adata, where=where), **reading.bind_options) as cells:
            embedded = embed_cells(self.model, cells, into, key_added=key_added, progress=progress)
        return None if inplace else embedded

    @spell_out_options
    def plan_atlas(
        self,
        cells: AnySource,
        do: Mapping[str, object] | Sequence[Mapping[str, object]] | None = None,
        *,
        grid: Sequence[str] = (),
        forecast: bool = False,
        **options: Unpack[AtlasOptions],
    ) -> Plan:
        """Plan an atlas and write nothing.

        Parameters
        ----------
        cells, do, grid
            As in `counterfactual`.
        forecast
            Generate a few batches, to tell time and bytes.
        options
            See `causcell.atlas.options.AtlasOptions`.

        Returns
        -------
        The plan; it prints its rows, shards and bytes.

        Raises
        ------
        CausCellError
            Cells, concepts or options can't be used; the message says why.
        """
        chosen = complete_options(options, "plan_atlas")
        with open_atlas(self.model, self.source, cells, None, do, grid, chosen) as opened:
            plan = opened.maker.plan
            return plan.with_forecast(forecast_atlas(opened.maker)) if forecast else plan

    @spell_out_options
    def write_atlas(
        self,
        cells: AnySource,
        out: str | os.PathLike[str],
        do: Mapping[str, object] | Sequence[Mapping[str, object]] | None = None,
        *,
        grid: Sequence[str] = (),
        executor: Executor | None = None,
        progress: bool = False,
        on_event: OnEvent | None = None,
        **options: Unpack[AtlasOptions],
    ) -> AtlasSummary:
        """Write an atlas of counterfactual cells shard by shard, or continue one that was interrupted.

        Parameters
        ----------
        cells, do, grid
            As in `counterfactual`.
        out
            The store, a folder or a URL (``s3://``, ``gs://``) that ends in ``.zarr``; a small atlas also as one file,
            ``.h5ad``.
        executor
            Has the shards made: `causcell.atlas.executors.InProcess` (if not given), ``Processes`` or ``Dask``. The
            last two open model and cells by their locations, so that cells are given by path.
        progress
            Show a progress bar.
        on_event
            Called with every `causcell.atlas.events.AtlasEvent`.
        options
            See `causcell.atlas.options.AtlasOptions`.

        Raises
        ------
        OutputExistsError
            Something else, or an atlas of another plan, is at ``out`` already.
        OutputBusyError, OutputFullError
            Another run writes there; there is no space.
        CausCellError
            Cells, concepts or options can't be used; the message says why.
        """
        place = atlas_path(out).absolute()
        write = write_atlas if place.suffix == ".zarr" else write_h5ad
        chosen = complete_options(options, "write_atlas")
        with open_atlas(self.model, self.source, cells, place, do, grid, chosen) as opened:
            return write(opened.maker, opened.origin, executor=executor, progress=progress, on_event=on_event)

    def trial(
        self,
        cells: AnySource,
        concept: str | None = None,
        do: Mapping[str, object] | None = None,
        *,
        baseline: str | None = None,
        replicate: str | None = None,
        keep_obs: str | Sequence[str] | None = None,
        keep_obsm: str | Sequence[str] | None = None,
        progress: bool = False,
        **settings: Any,
    ) -> anndata.AnnData:
        """Measure effects and their uncertainty: of a concept's labels on average, as in a trial, or on each cell.

        Parameters
        ----------
        cells
            As in `counterfactual`.
        concept
            Every cell is set to each of its labels in turn; see `causcell.effects.trial.simulated_trial`.
        do
            In place of ``concept``: labels or values by concept, one joint intervention, and its effect on each cell;
            see `causcell.effects.cells.cell_effects`.
        baseline, replicate
            Label that the others are compared with; column of ``obs`` with independent units, such as donors. They
            belong to ``concept``.
        keep_obs, keep_obsm
            As in `counterfactual`, for effects on each cell; they belong to ``do``.
        progress
            Show a progress bar.
        settings
            Arguments of `causcell.effects.EffectSettings`.

        Returns
        -------
        AnnData, one row a label, or a cell, with effect, interval and test of every gene; `causcell.get.effects_df`
        gives a row as a table.

        Raises
        ------
        ConfigurationError
            Both or neither of ``concept`` and ``do``; ``baseline`` or ``replicate`` with ``do``; ``keep_obs`` or
            ``keep_obsm`` with ``concept``.
        """
        if (concept is None) == (not do):
            raise ConfigurationError("give either concept= (average effects) or do= (effects on each cell)")
        if concept is not None:
            if keep_obs is not None or keep_obsm is not None:
                raise ConfigurationError("keep_obs= and keep_obsm= belong to do=; a row of a trial is no cell")
            return simulated_trial(
                self, cells, concept, baseline=baseline, replicate=replicate, progress=progress, **settings
            )
        if baseline is not None or replicate is not None:
            raise ConfigurationError("baseline= and replicate= belong to concept=; effects on each cell have neither")
        kept: dict[str, Any] = {"keep_obs": keep_obs, "keep_obsm": keep_obsm}
        return cell_effects(self, cells, do or {}, progress=progress, **kept, **settings)

    def solver_settings(self, **choice: Any) -> SolverSettings:
        """Return a preset of the model, or a solver by name; see `causcell.counterfactual.request.solver_settings`."""
        return solver_settings(self.manifest, **choice)
