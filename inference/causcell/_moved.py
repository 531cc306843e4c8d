"""Homes today of the modules and names of version 0.1; see `causcell._deprecation`."""

from __future__ import annotations

MOVED = {
    "causcell.cli.atlas": ("causcell.cli.generate", "causcell.cli.verify", "causcell.cli.materialize"),
    "causcell.cli.commands": (
        "causcell.cli.inspect",
        "causcell.cli.embed",
        "causcell.cli.bench",
        "causcell.cli.serve",
    ),
    "causcell.contents": ("causcell.counterfactual.outputs",),
    "causcell.expression": ("causcell.preprocessing", "causcell.cells.panel"),
    "causcell.interventions": ("causcell.counterfactual.interventions", "causcell.counterfactual.scm"),
    "causcell.journal": ("causcell.atlas.journal", "causcell.atlas.records"),
    "causcell.manifest": ("causcell.repository.manifest", "causcell._internal.digests"),
    "causcell.materialize": ("causcell.atlas.materialize",),
    "causcell.metrics": (
        "causcell.evaluation.metrics",
        "causcell.evaluation.correlations",
        "causcell.evaluation.quality",
    ),
    "causcell.onnx_engine": ("causcell.engine.onnx",),
    "causcell.output": ("causcell._internal.files",),
    "causcell.pipeline": ("causcell._internal.prefetch",),
    "causcell.plan": ("causcell.atlas.plan", "causcell.atlas.estimate"),
    "causcell.reference": ("causcell.repository.reference_cells",),
    "causcell.results": ("causcell.counterfactual.tables",),
    "causcell.rowwise": ("causcell.cells.csc",),
    "causcell.sampling": ("causcell.diffusion.sampling",),
    "causcell.schedule": ("causcell.diffusion.schedule",),
    "causcell.schema": ("causcell.concepts", "causcell.concept_columns"),
    "causcell.sizes": ("causcell._internal.units",),
    "causcell.solvers": ("causcell.diffusion.solvers",),
    "causcell.sources": ("causcell.cells.backing", "causcell.cells.file_source", "causcell.cells.matrices"),
    "causcell.store": ("causcell.atlas.zarr_store", "causcell.atlas.shards"),
    "causcell.trials": ("causcell.effects", "causcell._internal.significance"),
    "causcell.triton.connection": ("causcell.engine.triton.connection", "causcell.engine.triton.client"),
    "causcell.triton.engine": ("causcell.engine.triton.engine", "causcell.engine.triton.endpoints"),
    "causcell.triton.install": ("causcell.serve.install",),
    "causcell.triton.served": ("causcell.repository.served",),
    "causcell.triton.server": ("causcell.serve.server",),
    "causcell.triton.shared_memory": ("causcell.engine.triton.shared_memory",),
    "causcell.work": ("causcell.atlas.task",),
    "causcell.workers": ("causcell.atlas.task", "causcell.atlas.executors"),
}
"""By old module, the modules that hold its names today; the first one took its place."""

SPLIT = {
    "causcell.atlas": (
        "causcell.atlas.write",
        "causcell.atlas.estimate",
        "causcell.atlas.plan",
        "causcell.atlas.verify",
    ),
    "causcell.bench": (
        "causcell.bench.measure",
        "causcell.bench.workload",
        "causcell.bench.reference_design",
        "causcell.bench.timing",
    ),
    "causcell.cells": ("causcell.cells.collection", "causcell._internal.batching"),
    "causcell.engine": ("causcell.engine.protocol", "causcell.engine.open"),
    "causcell.generator": (
        "causcell.counterfactual.request",
        "causcell.counterfactual.outputs",
        "causcell.counterfactual.model",
    ),
    "causcell.repository": ("causcell.repository.folder", "causcell._internal.digests"),
}
"""By module that is still there, the modules that hold the names that left it."""

RENAMED = {
    "CausalGraph": "StructuralCausalModel",
    "Estimate": "Forecast",
    "Keeper": "Accumulator",
    "Outcome": "Prediction",
    "REFERENCE_CONFIG": "CARRIER_CONFIG",
    "REFERENCE_GRAPH": "CARRIER_GRAPH",
    "REFERENCE_MODEL": "CARRIER_MODEL",
    "STORES": "OUTPUT_KINDS",
    "Server": "TritonClient",
    "Store": "OutputKind",
    "StoredCells": "StoredEmbeddings",
    "Written": "AtlasSummary",
    "abandoned": "find_abandoned",
    "ahead": "prefetch",
    "calibrate": "forecast_atlas",
    "checked_graph": "check_request",
    "full_disk_told": "raise_on_full_disk",
    "hardware": "describe_hardware",
    "in_order": "map_ordered",
    "keeper": "make_accumulator",
    "offsets": "place_arrays",
    "padded": "pad_batch",
    "unseen_rows": "count_unseen_rows",
}
"""New names by old ones."""

REPLACED = {
    "causcell.atlas.Make": "causcell.atlas.executors.Executor",
    "causcell.atlas.run_plan": "Generator.write_atlas",
    "causcell.cells.AnyReader": "Generator.bind",
    "causcell.cells.CellTable": "causcell.counterfactual.stream.EmbeddingSource",
    "causcell.cells.CollectionReader": "Generator.bind",
    "causcell.contents.check_store": "causcell.counterfactual.request.Request, which checks it",
    "causcell.generator.R": "a type variable of your own",
    "causcell.generator.check_dtype": "causcell.counterfactual.request.Request, which checks it",
    "causcell.interventions.check_mode": "causcell.counterfactual.request.Request, which checks it",
    "causcell.journal.put": "causcell.atlas.storage.LocalStorage.put",
    "causcell.materialize.Embedded": "causcell.atlas.materialize.StoredEmbeddings",
    "causcell.results.count_unseen": "causcell.counterfactual.tables.ResultTable.count_unseen",
    "causcell.results.result_obs": "causcell.counterfactual.tables.ResultTable.obs",
    "causcell.results.result_uns": "causcell.counterfactual.tables.ResultTable.uns",
    "causcell.results.result_var": "causcell.counterfactual.tables.ResultTable.var",
    "causcell.work.Inputs": "causcell.counterfactual.stream.EmbeddingSource",
    "causcell.work.Job": "causcell.atlas.task.AtlasTask",
    "causcell.work.Measured": "causcell.counterfactual.stream.MeasuredCells",
    "causcell.work.make_shards": "causcell.atlas.task.ShardMaker.make",
    "causcell.workers.Make": "causcell.atlas.executors.Executor",
    "causcell.workers.on_dask": "causcell.atlas.executors.Dask",
    "causcell.workers.on_processes": "causcell.atlas.executors.Processes",
}
"""Names whose place something of another form took: asking for one is an error that names it."""

KEPT = ("causcell.triton.connection",)
"""Old modules that stay public: importing them does not warn."""
