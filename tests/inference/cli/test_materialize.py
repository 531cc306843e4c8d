"""``causcell materialize``: the expression that an atlas of embeddings stands for."""

from pathlib import Path

import anndata
from commands import generated, run_command


def test_materialize_makes_expression_of_embeddings(data: Path, made: Path, tmp_path: Path) -> None:
    stored, out = tmp_path / "stored.zarr", tmp_path / "made.zarr"
    generated(data, made, stored, "--store", "embeddings", "--grid", "stim", "--threads", "2")
    assert run_command("materialize", stored, "--models", made / "models", "--out", out, "--no-progress") == 0
    direct = generated(data, made, tmp_path / "direct.zarr", "--grid", "stim", "--threads", "2")
    made_of_embeddings = anndata.read_zarr(out).X
    assert (made_of_embeddings != direct.X).nnz == 0
