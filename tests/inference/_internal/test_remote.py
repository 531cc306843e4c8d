"""URLs of objects: which are taken, and what is never shown of them."""

import sys
from pathlib import Path

import pytest
from commands import check_missing, without_package

from causcell._internal.remote import READABLE, RemotePath, any_path, open_store
from causcell.errors import ConfigurationError, RuntimeUnavailableError

MODELS = str(Path(__file__).parents[3] / "model_repository")


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("s3://bucket/folder/atlas.zarr", "s3://bucket/folder/atlas.zarr"),
        ("S3://bucket/atlas.zarr/", "s3://bucket/atlas.zarr"),
        (Path("gs://bucket/a@b/atlas.zarr"), "gs://bucket/a@b/atlas.zarr"),  # as the command line gives it
    ],
)
def test_a_url_of_an_object(given: str | Path, url: str) -> None:
    place = any_path(given)
    assert place == RemotePath(url)
    assert (place.name, place.suffix, str(place), place.absolute()) == ("atlas.zarr", ".zarr", url, place)
    assert any_path(place) == place


def test_https_is_read_and_http_from_this_machine_alone() -> None:
    assert any_path("https://host/cells.h5ad", "data", READABLE) == RemotePath("https://host/cells.h5ad")
    assert any_path("http://127.0.0.1:8000/cells.h5ad", "data", READABLE).suffix == ".h5ad"
    with pytest.raises(ConfigurationError, match=r"data='http://host/cells\.h5ad' is read unprotected.*https://"):
        any_path("http://host/cells.h5ad", "data", READABLE)
    with pytest.raises(ConfigurationError, match=r"out='https://host/a\.zarr' is a URL"):
        any_path("https://host/a.zarr")


@pytest.mark.parametrize(
    "url",
    [
        "s3://me:hunter2@bucket/a.zarr",
        "https://hunter2@host/a.zarr",
        "https://host/a.zarr?X-Amz-Signature=hunter2",
        "https://host/a.zarr#hunter2",
        "s3://me:hunter2@[bucket/a.zarr",
    ],
)
def test_nothing_secret_is_shown(url: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        any_path(url, "data", READABLE)
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize(
    "url",
    ["s3://bucket", "s3://bucket/a//b.zarr", "s3://bucket/../a.zarr", "s3://bucket/%2e%2e/a.zarr", "s3:///a.zarr"],
)
def test_what_names_no_object(url: str) -> None:
    with pytest.raises(ConfigurationError, match="names no object"):
        any_path(RemotePath(url))


def test_a_package_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("obstore", "obstore.store", "obstore.exceptions"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(RuntimeUnavailableError, match=r"'s3://bucket/a\.zarr' needs .* install causcell\[cloud\]"):
        open_store(RemotePath("s3://bucket/a.zarr"))


@pytest.mark.parametrize(
    ("words", "url"),
    [
        (["verify", "s3://bucket/a.zarr"], "s3://bucket/a.zarr"),
        (["embed", "s3://bucket/a.h5ad", "--models", MODELS, "--out", "a.h5ad"], "s3://bucket/a.h5ad"),
        (["embed", "https://host/a.zarr", "--models", MODELS, "--out", "a.h5ad"], "https://host/a.zarr"),
    ],
)
def test_commands_say_what_to_install(words: list[str], url: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    check_missing(without_package("obstore", *words), f"{url!r} needs the package obstore; install causcell[cloud]")
    assert list(tmp_path.iterdir()) == []
