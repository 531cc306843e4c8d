"""Cells at a URL are trained on as the same file here."""

from pathlib import Path

import anndata
import pytest
from http_files import run_files
from short_runs import small_config

from causcell_training.data.cells import prepare


def test_a_url_gives_what_the_file_gives(cells: anndata.AnnData, tmp_path: Path) -> None:
    pytest.importorskip("obstore", reason="reads URLs by obstore; install causcell[cloud]")
    cells.write_h5ad(tmp_path / "cells.h5ad")
    with run_files(tmp_path) as (address, _):
        there = prepare(f"{address}/cells.h5ad", small_config())
    assert there.digest() == prepare(tmp_path / "cells.h5ad", small_config()).digest()
