"""Workers need no model of their own: an address will do."""

import anndata
import numpy as np
import pytest
from atlases import SMALL, AtlasRecipe

from causcell.atlas.executors import Processes
from causcell.generator import Generator

pytestmark = pytest.mark.filterwarnings("ignore::causcell.errors.CausCellWarning")


def test_workers_of_a_served_model_make_the_same_atlas(server, generator, cells, tmp_path):
    """As the embedded one: within 1e-3, but for one value in 10,000 that lies at its threshold."""
    cells[:150].write_h5ad(tmp_path / "cells.h5ad")
    options = {"do": {"stim": "IFN"}, "seed": 2, **SMALL}
    with Generator.open(server.grpc, batch_size=64) as opened:
        served = AtlasRecipe(opened, tmp_path / "cells.h5ad", options)
        assert served.plan().threads is None
        served.write(tmp_path / "served.zarr", executor=Processes(2))
    AtlasRecipe(generator, tmp_path / "cells.h5ad", options).write(tmp_path / "embedded.zarr")
    atlas, embedded = (anndata.read_zarr(tmp_path / f"{name}.zarr") for name in ("served", "embedded"))
    assert (np.abs(atlas.X - embedded.X) > 1e-3).mean() <= 1e-4
    assert atlas.obs.equals(embedded.obs)
