"""Configurations of a repository name no code: no other backend, no library, no agent."""

import pytest
from paths import MODEL_REPOSITORY
from strangers import ARCHIVED

from causcell.errors import CorruptFileError
from causcell.repository.triton_config import check_config
from causcell_export.triton_config import DEVICES, triton_config


@pytest.mark.parametrize(
    ("root", "graphs"), [(MODEL_REPOSITORY, 7), (ARCHIVED, 5)], ids=["checked in", "archived, without abduction"]
)
def test_what_was_exported_passes(root, graphs):
    files = sorted(root.rglob("*.pbtxt"))
    assert len(files) == 2 * graphs + 1  # for CPUs and GPUs, and that of the reference cells
    for file in files:
        check_config(file.read_bytes(), str(file))


@pytest.mark.parametrize("backend", ["onnxruntime", "pytorch"])
@pytest.mark.parametrize("device", DEVICES)
def test_what_export_writes_passes(manifest, backend, device):
    for name, info in manifest.graphs.items():
        text = triton_config(name, info, parameters={"a'\"\\": "b\"\\'"}, backend=backend, device=device)
        check_config(text.encode(), name)


@pytest.fixture(scope="module")
def manifest():
    from causcell import open_repository

    return open_repository(ARCHIVED).manifest


@pytest.mark.parametrize(
    "text",
    [
        "",
        'backend: "python"',
        "backend: 'python'",
        'backend: "onnxruntime" backend: "python"',
        'backend: "onnx" "runtime"',
        'backend: "onnxruntime" "/../x"',
        'name: \'backend: "onnxruntime"\' backend: "python"',
        'name: "a\\" backend: \\"onnxruntime\\"" backend: "python"',
        'backend { "onnxruntime" }',
        "backend: onnxruntime",
        "backend:",
        '"backend": "onnxruntime"',
    ],
)
def test_another_backend(text):
    with pytest.raises(
        CorruptFileError, match=r"config\.pbtxt (does not name one backend, 'onnxruntime' or 'pytorch'|has )"
    ):
        check_config(text.encode(), "config.pbtxt")


@pytest.mark.parametrize(
    "text",
    [
        'model_operations { op_library_filename: "/opt/x.so" }',
        'model_repository_agents { agents { name: "x" } }',
        'default_model_filename: "../x"',
        'cc_model_filenames { key: "a" value: "b" }',
        "platform: 'ensemble'",
        "# backend",
        "sequence_batching { }",
        'input { label_filename: "/etc/passwd" }',
        'model_warmup { inputs { value { input_data_file: "/etc/passwd" } } }',
    ],
)
def test_fields_that_make_a_server_load_other_files(text):
    with pytest.raises(CorruptFileError, match=r"config\.pbtxt has '.*', which export does not write"):
        check_config(f'backend: "onnxruntime" {text}'.encode(), "config.pbtxt")
