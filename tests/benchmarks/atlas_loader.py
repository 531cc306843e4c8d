"""Rate at which annbatch's loader takes random batches out of an atlas whose ``X`` is a CSR matrix.

annbatch needs Python 3.12 and the newest anndata and zarr, so it gets an environment of its own:

    python3.12 -m venv loader && loader/bin/pip install annbatch==0.3.1
    loader/bin/python tests/benchmarks/atlas_loader.py ATLAS.zarr

Every batch's rows are compared with those that anndata reads of the same places.
"""

from __future__ import annotations

import argparse
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import zarr
from annbatch import Loader
from anndata.io import sparse_dataset


def main() -> None:
    """Load all rows in random order, by contiguous runs of several lengths."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("atlas", type=Path)
    parser.add_argument("--batch-size", type=int, default=4096)
    arguments = parser.parse_args()
    print(", ".join(f"{name} {version(name)}" for name in ("annbatch", "anndata", "zarr", "scipy")))
    matrix = zarr.open_group(arguments.atlas, mode="r")["X"]
    whole = sparse_dataset(matrix).to_memory()
    for chunk in (64, 512):
        loader = Loader(
            batch_size=arguments.batch_size,
            chunk_size=chunk,
            preload_nchunks=16_384 // chunk,
            shuffle=True,
            preload_to_gpu=False,
            return_index=True,
            rng=np.random.default_rng(0),
        ).add_dataset(sparse_dataset(matrix))
        started, seconds, rows = time.perf_counter(), 0.0, 0
        for batch in loader:
            seconds += time.perf_counter() - started
            assert (batch["X"] != whole[batch["index"]]).nnz == 0
            rows += len(batch["index"])
            started = time.perf_counter()
        assert rows == whole.shape[0]
        print(f"runs of {chunk} rows: {rows:,} rows, {rows / seconds:,.0f} rows/s")


if __name__ == "__main__":
    main()
