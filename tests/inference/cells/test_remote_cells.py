"""Cells of files elsewhere: what is read of them is what is read of the same files here, in slices."""

import ssl
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
from http_files import run_files

from causcell.cells.backing import open_anndata
from causcell.cells.collection import Cells
from causcell.cells.elements import read_elements
from causcell.errors import DataError

pytest.importorskip("obstore", reason="reads URLs by obstore; install causcell[cloud]")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cells with a sparse matrix, a layer, a column with missing values and an embedding, in both forms."""
    from scipy import sparse

    path, count = tmp_path_factory.mktemp("remote"), 600
    values = np.random.default_rng(0).poisson(0.3, (count, 400)).astype(np.float32)
    obs = pd.DataFrame({"stim": pd.Categorical(["a", "b", "c"] * 200)}, index=[f"cell{i}" for i in range(count)])
    obs["number"] = pd.array([1, None, 3] * 200, dtype="Int64")
    adata = anndata.AnnData(sparse.csr_matrix(values), obs=obs, layers={"more": values + 1})
    adata.obsm["X_pca"] = values[:, :3]
    adata.write_h5ad(path / "cells.h5ad")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # notices of other defaults to come
        adata.write_zarr(path / "cells.zarr")
        anndata.settings.zarr_write_format = 3
        try:
            adata.write_zarr(path / "third.zarr")
        finally:
            anndata.settings.reset("zarr_write_format")
    return path


@pytest.fixture(scope="module")
def web(folder: Path) -> Iterator[str]:
    with run_files(folder) as (address, _):
        yield address


@pytest.fixture(scope="module")
def bucket(folder: Path) -> Iterator[str]:
    """The same files as objects of an S3 server."""
    pytest.importorskip("moto", reason="needs an S3 server, moto's; install causcell[dev]")
    from object_store import make_bucket, run_moto, settings, store_of

    with run_moto() as address, pytest.MonkeyPatch.context() as patch:
        for name, value in settings(address).items():
            patch.setenv(name, value)
        url = make_bucket(address, "bucket")
        store = store_of(url)
        for path in folder.rglob("*"):
            if path.is_file():
                store.put(path.relative_to(folder).as_posix(), path.read_bytes())
        yield url


def dense(values: Any) -> np.ndarray:
    return np.asarray(values.toarray() if hasattr(values, "toarray") else values)


@pytest.mark.parametrize("name", ["cells.h5ad", "cells.zarr", "third.zarr"])
@pytest.mark.parametrize("server", ["web", "bucket"])
def test_it_is_what_is_here(request: pytest.FixtureRequest, folder: Path, server: str, name: str) -> None:
    url = f"{request.getfixturevalue(server)}/{name}"
    for layer in (None, "more"):
        options = {"layer": layer, "where": "stim != 'b'"}
        with Cells(url, **options) as there, Cells(folder / name, **options) as here:
            assert (str(there.path), there.names.tolist()) == (url, here.names.tolist())
            pd.testing.assert_frame_equal(there.obs, here.obs)
            np.testing.assert_array_equal(dense(there.values(slice(5, 90))), dense(here.values(slice(5, 90))))
    whole, expected = open_anndata(url), open_anndata(folder / name)
    assert whole.shape == expected.shape
    assert list(whole.layers) == ["more"]
    found = read_elements(url, ["obsm/X_pca", "obsm/absent"])
    near = read_elements(folder / name, ["obsm/X_pca"])
    np.testing.assert_array_equal(found["obsm/X_pca"], near["obsm/X_pca"])
    assert list(found) == ["obsm/X_pca"]


def test_a_certificate_is_asked_for(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of an authority that the machine does not know is refused; ``SSL_CERT_FILE`` names others."""
    trustme = pytest.importorskip("trustme")
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    with run_files(folder, context=context) as (address, _):
        with pytest.raises(DataError, match=r"'https://localhost:\d+/cells\.h5ad' can't be used"):
            Cells(f"{address}/cells.h5ad")
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
        with Cells(f"{address}/cells.h5ad") as cells:
            assert len(cells) == 600


def test_slices_alone_are_read(tmp_path: Path) -> None:
    """A few rows of a large file take a few blocks."""
    values = np.random.default_rng(0).normal(size=(3000, 2000)).astype(np.float32)
    anndata.AnnData(values).write_h5ad(tmp_path / "large.h5ad")
    with run_files(tmp_path) as (address, sent), Cells(f"{address}/large.h5ad") as cells:
        np.testing.assert_array_equal(cells.values(slice(1000, 1010)), values[1000:1010])
        assert sum(sent) < (tmp_path / "large.h5ad").stat().st_size / 3


def test_what_is_not_there_or_can_not_be_read(web: str, folder: Path, tmp_path: Path) -> None:
    for name, message in {
        "absent.h5ad": "there is no file",
        "absent.zarr": "there is no zarr store",
        "cells.zarr.zip": "a zip file has to be on this machine",
        "cells.csv": "is neither .h5ad nor .zarr",
    }.items():
        with pytest.raises(DataError, match=message):
            Cells(f"{web}/{name}")
    with pytest.raises(DataError, match="can't be read as AnnData"), run_files(tmp_path) as (address, _):
        (tmp_path / "broken.h5ad").write_bytes((folder / "cells.h5ad").read_bytes()[:3000])
        Cells(f"{address}/broken.h5ad")


def test_a_server_without_parts_of_files(folder: Path) -> None:
    with (
        run_files(folder, ranges=False) as (address, _),
        pytest.raises(DataError, match=r"can't be read in slices: its server does not answer requests for parts of a"),
    ):
        Cells(f"{address}/cells.h5ad")


def test_a_store_without_consolidated_metadata_on_a_server_that_does_not_list(folder: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(folder / "cells.zarr", tmp_path / "cells.zarr")
    (tmp_path / "cells.zarr" / ".zmetadata").unlink()
    with run_files(tmp_path) as (address, _), pytest.raises(DataError, match="its metadata are not consolidated"):
        Cells(f"{address}/cells.zarr")


def test_an_object_that_changes_under_way(bucket: str, tmp_path: Path) -> None:
    from object_store import store_of

    values = np.random.default_rng(0).normal(size=(3000, 500)).astype(np.float32)
    anndata.AnnData(values).write_h5ad(tmp_path / "cells.h5ad")
    store = store_of(bucket)
    store.put("changing.h5ad", tmp_path / "cells.h5ad", use_multipart=False)
    with Cells(f"{bucket}/changing.h5ad") as cells:
        anndata.AnnData(values + 1).write_h5ad(tmp_path / "others.h5ad")
        store.put("changing.h5ad", tmp_path / "others.h5ad", use_multipart=False)
        with pytest.raises(DataError, match="was changed while it was read"):
            cells.values(slice(2000, 2900))


def test_two_files_are_told_apart_by_size_and_etag(bucket: str) -> None:
    from causcell._internal.remote import any_path
    from causcell._internal.remote_file import state_of

    size, tag = state_of(any_path(f"{bucket}/cells.h5ad"))
    assert size > 0
    assert isinstance(tag, str)
    assert state_of(any_path(f"{bucket}/cells.zarr")) != (size, tag)
