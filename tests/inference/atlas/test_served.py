"""Workers need no model of their own: an address will do."""

import anndata
import numpy as np
import pytest
from atlases import SMALL

from causcell.atlas.executors.processes import on_processes
from causcell.atlas.plan import make_plan
from causcell.atlas.task import Job, Measured
from causcell.atlas.write import run_plan, write_atlas
from causcell.cells.collection import Cells
from causcell.counterfactual.interventions import plan_interventions
from causcell.counterfactual.request import Request
from causcell.generator import Generator

pytestmark = pytest.mark.filterwarnings("ignore::causcell.errors.CausCellWarning")


def test_workers_of_a_served_model_make_the_same_atlas(server, generator, cells, tmp_path):
    """As the embedded one: within 1e-3, but for one value in 10,000 that lies at its threshold."""
    cells[:150].write_h5ad(tmp_path / "cells.h5ad")
    request = Request(plan_interventions(generator.schema, {"stim": "IFN"}), generator.solver_settings(), seed=2)
    with Generator.open(server.grpc, batch_size=64) as served, Cells(tmp_path / "cells.h5ad") as source:
        reader = served.reader(source)
        plan = make_plan(served, source, reader, request, **SMALL)
        assert plan.threads is None
        job = Job(
            location=server.grpc,
            connection=None,
            sources=str(tmp_path / "cells.h5ad"),
            layer=None,
            where=None,
            expression=None,
            allow_missing_genes=0.0,
            scratch="",
            plan=plan,
            path=str(tmp_path / "served.zarr"),
        )
        run_plan(plan, Measured(served, source, reader), tmp_path / "served.zarr", make=on_processes(job, 2))
        write_atlas(generator, source, generator.reader(source), request, tmp_path / "embedded.zarr", **SMALL)
    served_atlas, embedded = (anndata.read_zarr(tmp_path / f"{name}.zarr") for name in ("served", "embedded"))
    assert (np.abs(served_atlas.X - embedded.X) > 1e-3).mean() <= 1e-4
    assert served_atlas.obs.equals(embedded.obs)
