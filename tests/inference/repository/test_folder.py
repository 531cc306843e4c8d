"""A model repository that is not what was exported is refused."""

import json
import shutil

import numpy as np
import onnx
import pytest
from engine_contract import zero_inputs

from causcell import Generator, open_repository
from causcell._internal.digests import file_digest
from causcell.engine.open import open_engine
from causcell.errors import CorruptFileError, DigestError, ModelRepositoryError, SchemaVersionError
from causcell.repository.manifest import SCHEMA_VERSION, GenePanel, Manifest
from causcell.repository.served import CARRIER_CONFIG, manifest_parameter
from causcell_export.triton_config import reference_config

GRAPHS = ("encoder_scm", "scm", "denoiser")


@pytest.fixture
def copy(repository, tmp_path):
    """A copy of the repository to spoil."""
    return shutil.copytree(repository, tmp_path / "copy")


def edit_manifest(folder, change):
    """Change the manifest's fields and leave its digest as it was."""
    path = folder / "manifest.json"
    fields = json.loads(path.read_text())
    change(fields)
    path.write_text(json.dumps(fields))


def reseal(folder, **fields):
    """Change the manifest as an export would: with the digest of its new content, and in the file that carries it."""
    path = folder / "manifest.json"
    manifest = Manifest.from_json(path.read_bytes(), str(path))
    text = manifest.model_copy(update=fields).sealed().to_json()
    path.write_text(text)
    size = (folder / "reference.npz").stat().st_size
    (folder / CARRIER_CONFIG).write_text(reference_config(manifest_parameter(json.loads(text)), size))


def reseal_file(folder, name):
    manifest = open_manifest(folder)
    reseal(folder, files=manifest.files | {name: file_digest(folder / name)})


def open_manifest(folder):
    return Manifest.from_json((folder / "manifest.json").read_bytes(), "manifest.json")


# -- a whole repository ------------------------------------------------------------------------------------------------


def test_a_copy_is_the_same_model(repository, copy):
    assert open_repository(copy).manifest == open_repository(repository).manifest
    assert open_repository(str(copy)).manifest.digest == open_repository(repository).manifest.digest


def test_every_file_has_a_digest(repository):
    files = {path.relative_to(repository).as_posix() for path in repository.rglob("*") if path.is_file()}
    assert set(open_repository(repository).manifest.files) == files - {"manifest.json", CARRIER_CONFIG}


def test_the_file_that_carries_the_manifest_to_clients_of_a_server_must_hold_it(copy):
    """It can't have a digest: it holds the manifest, which would hold that."""
    path = copy / CARRIER_CONFIG
    path.write_text(path.read_text().replace("cell_type", "cell_kind", 1))
    with pytest.raises(DigestError, match=r"reference/config\.pbtxt.*holds another than manifest\.json"):
        open_repository(copy)


def test_training_cells_are_known_by_name(repository, run):
    training = open_repository(repository).manifest.training_cells
    held_out = run.held_out().obs_names.tolist()
    everyone = [f"cell_{i:04d}" for i in range(320)]
    np.testing.assert_array_equal(training.contain(everyone), ~np.isin(everyone, held_out))
    assert training.count == 320 - len(held_out)


# -- spoiled -----------------------------------------------------------------------------------------------------------


def test_truncated_graph(copy):
    path = copy / "denoiser" / "1" / "model.onnx"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(
        DigestError, match=r"denoiser/1/model\.onnx is not the file that was exported \(1000 bytes.*trunc"
    ):
        open_repository(copy)


@pytest.mark.parametrize("name", ["scm/1/model.onnx", "scm/config.pbtxt", "reference.npz"])
def test_one_changed_byte(copy, name):
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    with pytest.raises(DigestError, match=f"{name} is not the file that was exported"):
        open_repository(copy)


@pytest.mark.parametrize("name", ["scm/1/model.onnx", "scm/config.pbtxt", "reference.npz"])
def test_removed_file(copy, name):
    (copy / name).unlink()
    with pytest.raises(CorruptFileError, match=f"{name} is missing; restore it, or export again"):
        open_repository(copy)


def relabel(fields):
    fields["concepts"][0]["labels"].reverse()


def rename_gene(fields):
    fields["genes"]["names"][0] = "OTHER"


def change_default(fields):
    fields["default_preset"] = "accurate"


def change_digest(fields):
    fields["digest"] = "0" * 64


def forget_a_file(fields):
    fields["files"].pop("reference.npz")


@pytest.mark.parametrize("edit", [relabel, rename_gene, change_default, change_digest, forget_a_file])
def test_edited_manifest(copy, edit):
    edit_manifest(copy, edit)
    with pytest.raises(DigestError, match=r"manifest\.json was edited after export"):
        open_repository(copy)


def drop_labels(fields):
    fields["concepts"][0]["labels"] = ["only"]


def shorten_schedule(fields):
    fields["schedule"]["timesteps"] = 5


def step_the_mean(fields):
    fields["presets"]["mean"]["solver"]["steps"] = 5


@pytest.mark.parametrize("edit", [drop_labels, shorten_schedule, step_the_mean])
def test_edited_manifest_that_contradicts_itself(copy, edit):
    """A fault of the repository, though it shows in the concepts, the schedule or a solver."""
    edit_manifest(copy, edit)
    with pytest.raises(ModelRepositoryError, match=r"manifest\.json"):
        open_repository(copy)


def drop_schedule(fields):
    del fields["schedule"]


def add_field(fields):
    fields["colour"] = "red"


def text_for_number(fields):
    fields["dimensions"]["genes"] = "many"


@pytest.mark.parametrize(
    ("edit", "place"), [(drop_schedule, "schedule"), (add_field, "colour"), (text_for_number, "dimensions.genes")]
)
def test_manifest_of_another_form(copy, edit, place):
    edit_manifest(copy, edit)
    with pytest.raises(CorruptFileError, match=f"is not a valid manifest: {place}: .*; export again"):
        open_repository(copy)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"{}", b"\xff\xfe\x00", b'{"schema_version": "x"}'])
def test_corrupt_manifest(copy, content):
    (copy / "manifest.json").write_bytes(content)
    with pytest.raises(CorruptFileError, match=r"manifest\.json is no manifest of a model repository .*; export again"):
        open_repository(copy)


def test_newer_schema(copy):
    """Told before anything else: a newer form may well have other fields."""
    edit_manifest(copy, lambda fields: fields.update(schema_version=SCHEMA_VERSION + 1, colour="red"))
    with pytest.raises(
        SchemaVersionError, match=rf"has schema version {SCHEMA_VERSION + 1}, .*up to {SCHEMA_VERSION}; update causcell"
    ):
        open_repository(copy)


def test_wrong_gene_digest(copy):
    genes = open_manifest(copy).genes
    reseal(copy, genes=GenePanel(names=genes.names[::-1], digest=genes.digest))
    with pytest.raises(DigestError, match=r"gene panel in .*manifest\.json does not match its digest"):
        open_repository(copy)


@pytest.mark.parametrize("graph", GRAPHS)
def test_graph_of_another_panel(copy, graph):
    """The panel's digest stands in every graph, so that graphs of two exports can't be mixed."""
    path = copy / graph / "1" / "model.onnx"
    model = onnx.load(path)
    stamp = next(prop for prop in model.metadata_props if prop.key == "causcell.gene_digest")
    stamp.value = "0" * 64
    onnx.save(model, path)
    reseal_file(copy, f"{graph}/1/model.onnx")
    engine = open_engine(copy, threads=1)
    with pytest.raises(DigestError, match=f"{graph}/1/model.onnx was exported for another gene panel"):
        engine.run(graph, zero_inputs(engine, graph))


def test_graph_that_the_runtime_cannot_load(copy):
    """Its digest holds: it was exported so."""
    path = copy / "scm" / "1" / "model.onnx"
    model = onnx.load(path)
    model.graph.node[0].op_type = "NoSuchOperator"
    onnx.save(model, path)
    reseal_file(copy, "scm/1/model.onnx")
    engine = open_engine(copy, threads=1)
    with pytest.raises(CorruptFileError, match=r"scm/1/model\.onnx can't be loaded by ONNX Runtime"):
        engine.run("scm", zero_inputs(engine, "scm"))


def test_truncated_graph_whose_digest_holds(copy):
    path = copy / "scm" / "1" / "model.onnx"
    path.write_bytes(path.read_bytes()[:1000])
    reseal_file(copy, "scm/1/model.onnx")
    with pytest.raises(CorruptFileError, match=r"scm/1/model\.onnx is no ONNX file \(it ends too early\)"):
        open_repository(copy)


def test_file_without_a_digest(copy):
    manifest = open_manifest(copy)
    reseal(copy, files={name: digest for name, digest in manifest.files.items() if name != "reference.npz"})
    with pytest.raises(CorruptFileError, match=r"lists no digest of 'reference\.npz'"):
        open_repository(copy)


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.mkdir(), lambda path: path.write_text("x")])
def test_not_a_repository(tmp_path, make):
    make(tmp_path / "place")
    with pytest.raises(CorruptFileError, match=r"place' is no model repository: it has no manifest\.json"):
        open_repository(tmp_path / "place")


def test_a_spoiled_repository_does_not_open_as_a_generator(copy):
    (copy / "reference.npz").unlink()
    with pytest.raises(CorruptFileError, match=r"reference\.npz is missing"):
        Generator.open(copy)
