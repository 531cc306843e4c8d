"""Zarr stores from strangers: codecs that carry no code, and nothing outside of the store."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import Any

from zarr.storage import LocalStore, ObjectStore, WrapperStore, ZipStore

from causcell._internal.remote import WRITABLE, AnyPath, RemotePath, is_there, list_below, open_store, read_small
from causcell.errors import DataError, format_list

_TO_BYTES = {"bytes", "endian", "vlen-utf8", "vlen-bytes", "vlen-array", "sharding_indexed", "packbits", "base64"}
_COMPRESSORS = {"zstd", "gzip", "zlib", "blosc", "lz4", "bz2", "lzma"}
_CHECKSUMS = {"crc32c", "crc32", "adler32", "fletcher32", "jenkins_lookup3"}
_FILTERS = {"transpose", "delta", "shuffle", "fixedscaleoffset", "quantize", "astype", "bitround"}
_CODECS = _TO_BYTES | _COMPRESSORS | _CHECKSUMS | _FILTERS
"""Codecs that turn bytes into bytes, numbers or text and nothing else; also as ``numcodecs.NAME``."""

_METADATA = ("zarr.json", ".zarray", ".zgroup", ".zattrs", ".zmetadata")


class StrangersStore(WrapperStore[Any]):
    """A store read with mistrust: every document of metadata and every chunk passes here.

    Consolidated metadata are left aside, so that a part nobody asks for is not even parsed.

    Parameters
    ----------
    store
        The store.
    title
        What messages call it.
    root
        Folder of a store on disk.

    Attributes
    ----------
    absent
        Keys of chunks that were asked for and are not there; zarr reads those as fill values.
    """

    def __init__(self, store: Any, title: str, root: Path | None) -> None:
        super().__init__(store)
        self._title = title
        self._root = None if root is None else os.path.realpath(root)
        self.absent: list[str] = []

    @property
    def supports_sync_io(self) -> bool:
        """Tell zarr that no chunk is read past `get`."""
        return False

    async def get(self, key: str, *arguments: Any, **options: Any) -> Any:
        """Get a value by its key, `None` where there is none; see `zarr.abc.store.Store.get`."""
        self._check_place(key)
        name = key.rpartition("/")[2]
        if name == ".zmetadata":
            return None
        value = await super().get(key, *arguments, **options)
        if value is None:
            if name not in _METADATA:
                self.absent.append(key)
            return None
        return self._checked_metadata(key, value) if name in ("zarr.json", ".zarray") else value

    def take_absent(self, path: str) -> bool:
        """Return whether a chunk of an array was absent since this was last asked, and forget it."""
        mine = [key for key in tuple(self.absent) if key.startswith(f"{path}/")]
        for key in mine:  # one by one: other threads read other arrays and append
            self.absent.remove(key)
        return bool(mine)

    def children(self, path: str) -> list[str]:
        """Return the names of the groups and arrays within a group, ascending, without reading them."""
        return sorted(set(self._find_children(path)))

    def _find_children(self, path: str) -> Iterator[str]:
        if isinstance(self._store, ObjectStore):
            for name in list_below(self._store.store, path):
                if any(is_there(self._store.store, f"{path}/{name}/{each}") for each in _METADATA[:3]):
                    yield name
            return
        if self._root is not None:
            folder = Path(self._root, path)
            yield from (each.name for each in folder.iterdir() if any((each / name).exists() for name in _METADATA[:3]))
            return
        for key in self._store._zf.namelist():
            parent, _, name = key.rpartition("/")
            above, _, child = parent.rpartition("/")
            if name in _METADATA[:3] and above == path and child:
                yield child

    def _check_place(self, key: str) -> None:
        """Refuse symbolic links that lead out of the store, and what is no regular file (a pipe would hang)."""
        if self._root is None:
            return
        place = os.path.realpath(os.path.join(self._root, key))  # noqa: PTH118 once a chunk
        if not place.startswith(self._root + os.sep):
            raise DataError(
                f"{self._title} can't be used: {key!r} is a link to {place!r}, outside of the store, and only values "
                "that stand in the store itself are read"
            )
        try:
            mode = os.stat(place).st_mode  # noqa: PTH116 once a chunk
        except OSError:
            return
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise DataError(f"{self._title} can't be used: {key!r} is no regular file")

    def _checked_metadata(self, key: str, value: Any) -> Any:
        document = json.loads(value.to_bytes())
        if not isinstance(document, dict):
            return value
        strange = sorted(set(_find_codecs(document)) - _CODECS)
        if strange:
            place = key.rpartition("/")[0] or key
            raise DataError(
                f"{self._title} can't be used: {place!r} is stored with {format_list(strange)}; only codecs and "
                "filters that carry no code are read (zstd, gzip, blosc and their like): if you trust the store, read "
                "it with anndata and write it again"
            )
        if document.pop("consolidated_metadata", None) is None:
            return value
        return type(value).from_bytes(json.dumps(document).encode())


def _find_codecs(document: dict[str, Any]) -> Iterator[str]:
    """Find the names of all codecs, filters and compressors of an array's metadata, sharding's inner ones too."""
    pending: list[Any] = [document.get(key) for key in ("codecs", "filters", "compressor", "storage_transformers")]
    while pending:
        each = pending.pop()
        if isinstance(each, list):
            pending += each
        elif isinstance(each, str):
            yield each
        elif isinstance(each, dict):
            yield str(each.get("name", each.get("id"))).removeprefix("numcodecs.")
            inner = each.get("configuration")
            if isinstance(inner, dict):
                pending += [inner.get("codecs"), inner.get("index_codecs")]
                pending += [{"name": str(inner["id"])}] if "id" in inner else []


class UnlistedStore(StrangersStore):
    """A store whose server does not list what it has, as those of ``https://`` do not: its consolidated metadata tell.

    Parameters
    ----------
    store, title
        As for `StrangersStore`.
    names
        Paths of all groups and arrays.
    """

    def __init__(self, store: Any, title: str, names: Iterable[str]) -> None:
        super().__init__(store, title, None)
        self._names = {name.strip("/") for name in names}

    def _find_children(self, path: str) -> Iterator[str]:
        inside = f"{path.strip('/')}/" if path.strip("/") else ""
        for name in self._names:
            rest = name.removeprefix(inside) if name.startswith(inside) else ""
            if rest and "/" not in rest:
                yield rest

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Return the names within a group; see `zarr.abc.store.Store.list_dir`."""
        for name in self.children(prefix):
            yield name


def _open_remote(path: RemotePath) -> StrangersStore:
    title = repr(str(path))
    if path.suffix != ".zarr":
        raise DataError(f"{title} can't be read from where it is: a zip file has to be on this machine; copy it here")
    store = open_store(path)
    root = ObjectStore(store, read_only=True)
    documents = {name: read_small(store, path, name) for name in ("zarr.json", ".zmetadata", ".zgroup")}
    if not any(documents.values()):
        raise DataError(f"there is no zarr store {title}: it has neither zarr.json nor .zgroup")
    if path.scheme in WRITABLE:
        return StrangersStore(root, title, None)
    names = _consolidated_names(documents["zarr.json"] or documents[".zmetadata"] or b"")
    if names is None:
        raise DataError(
            f"{title} can't be read from where it is: its server does not list files, and its metadata are not "
            "consolidated, which would tell what there is; write it again with anndata, or give its s3:// or gs:// URL"
        )
    return UnlistedStore(root, title, names)


def _consolidated_names(content: bytes) -> set[str] | None:
    """Return the paths of groups and arrays by consolidated metadata of either form; `None` where there are none."""
    try:
        document = json.loads(content)
        if "consolidated_metadata" in document:  # zarr v3
            return {str(name) for name in document["consolidated_metadata"]["metadata"]}
        return {str(name).rpartition("/")[0] for name in document["metadata"]}
    except (ValueError, RecursionError, KeyError, TypeError):
        return None


def open_zarr(path: AnyPath) -> tuple[Any, StrangersStore]:
    """Open the root group of a store (a folder, a zip file of one, or a URL) for reading.

    Raises
    ------
    DataError
        It is neither folder nor zip file; or its server can't be used.
    """
    import zarr

    store: Any
    root: Path | None = None
    if isinstance(path, RemotePath):
        remote = _open_remote(path)
        return zarr.open_group(remote, mode="r", use_consolidated=False), remote
    if path.is_dir():
        store, root = LocalStore(path, read_only=True), path
    elif path.is_file() and path.name.endswith(".zip"):
        store = ZipStore(path, mode="r")
    else:
        raise DataError(
            f"{str(path)!r} can't be read as AnnData: it is no folder, which a zarr store is (adata.write_zarr)"
        )
    watched = StrangersStore(store, repr(str(path)), root)
    return zarr.open_group(watched, mode="r", use_consolidated=False), watched
