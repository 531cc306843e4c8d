"""Files from strangers: nothing outside of the file is read, no code runs, and what nobody asks for does no harm."""

import json
import os
import pickle
import shutil

import anndata
import h5py
import numpy as np
import pytest
import zarr
from damage import cells as small_cells
from damage import read_all, same

from causcell.cells.backing import open_anndata
from causcell.cells.collection import Cells
from causcell.errors import DataError

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # of zarr and anndata, as stores are written


@pytest.fixture
def h5ad(tmp_path):
    path = tmp_path / "cells.h5ad"
    small_cells("csr").write_h5ad(path)
    return path


@pytest.fixture(params=[2, 3])
def store(tmp_path, request):
    with anndata.settings.override(zarr_write_format=request.param):
        small_cells("csr").write_zarr(tmp_path / "cells.zarr")
    return tmp_path / "cells.zarr"


OPENERS = [pytest.param(Cells, id="cells"), pytest.param(open_anndata, id="whole")]


@pytest.mark.parametrize("open_", OPENERS)
@pytest.mark.parametrize("place", ["X/data", "obs/_index", "uns/extra", "obs"])
@pytest.mark.parametrize(
    ("link", "kind"),
    [
        (lambda place: h5py.SoftLink("/elsewhere"), "a soft link"),
        (lambda place: h5py.ExternalLink("/etc/passwd", "/"), "an external link"),
    ],
)
def test_links_are_refused_by_name(h5ad, open_, place, link, kind):
    with h5py.File(h5ad, "r+") as file:
        if place in file:
            file.move(place, "elsewhere")
        file[place] = link(place)
    with pytest.raises(DataError, match=rf"cells\.h5ad' can't be used: '{place}' is {kind}"):
        open_(h5ad)


@pytest.mark.parametrize("open_", OPENERS)
def test_bytes_of_another_file_never_become_names(h5ad, tmp_path, open_):
    secret = tmp_path / "secret"
    secret.write_bytes(b"a secret of the user's, not a name ".ljust(12 * 8))
    with h5py.File(h5ad, "r+") as file:
        kept = dict(file["obs/_index"].attrs)
        del file["obs/_index"]
        file.create_dataset("obs/_index", (12,), "S8", external=[(str(secret), 0, 96)])
        file["obs/_index"].attrs.update(kept)
        assert file["obs/_index"][0] == b"a secret"  # what HDF5 would do
    with pytest.raises(DataError, match=r"'obs/_index' is a data set whose values stand in another file \('.*secret'"):
        open_(h5ad)


@pytest.mark.parametrize("open_", OPENERS)
def test_virtual_data_sets_and_references_are_refused(h5ad, open_):
    with h5py.File(h5ad, "r+") as file:
        layout = h5py.VirtualLayout((12,), "f8")
        layout[...] = h5py.VirtualSource("other.h5", "x", (12,))
        file.create_virtual_dataset("obs/virtual", layout)
    with pytest.raises(DataError, match="'obs/virtual' is a virtual data set"):
        open_(h5ad)
    with h5py.File(h5ad, "r+") as file:
        del file["obs/virtual"]
        file["obs"].create_dataset("pointers", data=np.array([file["X"].ref] * 12, dtype=h5py.ref_dtype))
    with pytest.raises(DataError, match="'obs/pointers' is a data set of object references"):
        open_(h5ad)


def test_a_filter_that_a_plugin_would_read_is_named(h5ad):
    with h5py.File(h5ad, "r+") as file:
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_chunk((4,))
        properties.set_filter(32999, h5py.h5z.FLAG_OPTIONAL, ())
        space = h5py.h5s.create_simple((12,))
        h5py.h5d.create(file["obs"].id, b"packed", h5py.h5t.NATIVE_INT32, space, properties)
    with pytest.raises(DataError, match=r"'obs/packed' is compressed with filter 32999.*import hdf5plugin.*gzip"):
        Cells(h5ad)


@pytest.mark.parametrize("options", [{"compression": "gzip"}, {"compression": "lzf", "shuffle": True}])
def test_filters_of_the_library_are_read(h5ad, options):
    expected = read_all(h5ad)
    with h5py.File(h5ad, "r+") as file:
        kept, values = dict(file["obs/score"].attrs), file["obs/score"][()]
        del file["obs/score"]
        file.create_dataset("obs/score", data=values, fletcher32=True, **options)
        file["obs/score"].attrs.update(kept)
    same(read_all(h5ad), expected)


def test_an_object_with_two_names_and_a_circle_of_groups_are_walked_once(h5ad):
    with h5py.File(h5ad, "r+") as file:
        file["uns/again"] = file["X"]
        file["uns/circle"] = file["uns"]
    with Cells(h5ad) as cells:
        assert len(cells) == 12


def test_groups_without_end_are_refused(h5ad):
    with h5py.File(h5ad, "r+") as file:
        file.create_group("uns/" + "/".join("d" * 100))
    with pytest.raises(DataError, match="lies deeper than 64 groups"):
        Cells(h5ad)


def test_a_page_of_zeros_among_texts_is_told(h5ad):
    """HDF5 2.0 reads such a heap for ever."""
    data = bytearray(h5ad.read_bytes())
    for place in range(len(data)):
        if data[place : place + 4] == b"GCOL":
            data[place + 64 : place + 512] = bytes(448)
    h5ad.write_bytes(data)
    for read in (Cells, open_anndata):
        with pytest.raises(DataError, match=r"can't be read as AnnData: .*heap of texts"):
            read(h5ad)


def test_a_pipe_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "cells.h5ad")
    with pytest.raises(DataError, match="it is no file"):
        Cells(tmp_path / "cells.h5ad")


# -- zarr --------------------------------------------------------------------------------------------------------------


class Touch:
    """Unpickled, it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("open_", OPENERS)
def test_no_code_of_a_store_runs(tmp_path, open_):
    """A column of pickled objects, which zarr itself would unpickle."""
    with anndata.settings.override(zarr_write_format=2):
        small_cells("csr").write_zarr(tmp_path / "cells.zarr")
    column = tmp_path / "cells.zarr" / "obs" / "score"
    document = json.loads((column / ".zarray").read_text())
    document |= {"dtype": "|O", "filters": [{"id": "pickle", "protocol": 5}], "compressor": None, "fill_value": 0}
    (column / ".zarray").write_text(json.dumps(document))
    (column / "0").write_bytes(pickle.dumps(Touch(tmp_path / "ran")))
    with pytest.raises(DataError, match=r"cells\.zarr' can't be used: 'obs/score' is stored with 'pickle'"):
        opened = open_(tmp_path / "cells.zarr")
        _ = opened.obs
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "codecs",
    [
        [{"name": "numcodecs.pickle", "configuration": {"id": "pickle"}}],
        [{"name": "bytes"}, {"name": "numcodecs.json2"}],
        [{"name": "sharding_indexed", "configuration": {"codecs": [{"name": "pickle"}], "index_codecs": []}}],
        [{"name": "bytes"}, {"name": "mine.of-my-own"}],
        ["pickle"],
    ],
)
def test_codecs_that_are_not_known_to_be_harmless_are_named(tmp_path, codecs):
    with anndata.settings.override(zarr_write_format=3):
        small_cells("csr").write_zarr(tmp_path / "cells.zarr")
    path = tmp_path / "cells.zarr" / "X" / "data" / "zarr.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"codecs": codecs}))
    with Cells(tmp_path / "cells.zarr") as cells, pytest.raises(DataError, match=r"'X/data' is stored with '.*no code"):
        cells.values(slice(0, 2))


@pytest.mark.parametrize("place", ["X/data", "obs/score", "X"])
def test_links_out_of_a_store_are_refused(store, tmp_path, place):
    shutil.move(store / place, tmp_path / "elsewhere")
    (store / place).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match=rf"'{place}/.*' is a link to '.*elsewhere.*outside of the store"):
        read_all(store)


def test_links_to_and_within_a_store_are_followed(store, tmp_path):
    expected = read_all(store)
    shutil.move(store / "X", store / "matrix")
    (store / "X").symlink_to("matrix")
    (tmp_path / "link.zarr").symlink_to(store)
    same(read_all(tmp_path / "link.zarr"), expected)


def test_a_part_that_nobody_asks_for_may_be_of_a_type_that_zarr_does_not_know(store):
    """In the consolidated metadata, which would be parsed as a whole, and on its own."""
    expected = read_all(store)
    group = zarr.open_group(store, mode="r+", use_consolidated=False)
    group["uns"].create_array("table", shape=(1,), dtype="i4")
    zarr.consolidate_metadata(store)
    consolidated = 0
    for path in [store / "zarr.json", store / ".zmetadata", *(store / "uns" / "table").glob("*")]:
        if path.is_file():
            text = path.read_text().replace('"data_type": "int32"', '"data_type": "tables"')
            text = text.replace('"dtype": "<i4"', '"dtype": "<tables"')
            consolidated += path.parent == store
            path.write_text(text)
    assert consolidated
    same(read_all(store), expected)
    assert open_anndata(store).obs_names.tolist() == expected["names"]


def test_a_zip_file_of_a_store_is_read(store):
    expected = read_all(store)
    archive = shutil.make_archive(str(store), "zip", store)
    same(read_all(archive), expected)
    assert open_anndata(archive).obs_names.tolist() == expected["names"]
