"""A graph that needs other files, foreign operators or impossible sizes is refused before ONNX Runtime sees it."""

import json

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from strangers import ARCHIVED, stranger

from causcell import open_repository
from causcell.engine.open import open_engine
from causcell.errors import CorruptFileError, DigestError
from causcell.repository.onnx_scan import check_onnx


def tensor(name="w", external=False):
    made = numpy_helper.from_array(np.ones(4, dtype=np.float32), name)
    if external:
        made.ClearField("raw_data")
        made.data_location = TensorProto.EXTERNAL
        entry = made.external_data.add()
        entry.key, entry.value = "location", "/etc/passwd"
    return made


def model(nodes, initializers=(), functions=(), domains=()):
    value = helper.make_tensor_value_info
    graph = helper.make_graph(nodes, "g", [value("x", 1, [4])], [value("y", 1, [4])], initializer=list(initializers))
    opsets = [helper.make_opsetid("", 20), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(graph, opset_imports=opsets, functions=list(functions))


def in_a_constant():
    return model(
        [
            helper.make_node("Constant", [], ["w"], value=tensor(external=True)),
            helper.make_node("Add", ["x", "w"], ["y"]),
        ]
    )


def in_an_initializer():
    return model([helper.make_node("Add", ["x", "w"], ["y"])], [tensor(external=True)])


def branch(initializers=(), nodes=None):
    made = helper.make_graph(
        nodes or [helper.make_node("Identity", ["w"], ["o"])],
        "branch",
        [],
        [helper.make_tensor_value_info("o", 1, [4])],
        initializer=list(initializers),
    )
    return helper.make_node("If", ["c"], ["y"], then_branch=made, else_branch=made)


def in_a_branch():
    return model([branch([tensor(external=True)])])


def in_a_function():
    body = [
        helper.make_node("Constant", [], ["w"], value=tensor(external=True)),
        helper.make_node("Add", ["a", "w"], ["b"]),
    ]
    made = helper.make_function("own", "F", ["a"], ["b"], body, [helper.make_opsetid("", 20)])
    return model([helper.make_node("F", ["x"], ["y"], domain="own")], functions=[made], domains=["own"])


def in_a_sparse_tensor():
    made = model([helper.make_node("Add", ["x", "x"], ["y"])])
    made.graph.sparse_initializer.add().values.CopyFrom(tensor(external=True))
    return made


def in_training_information():
    made = model([helper.make_node("Add", ["x", "x"], ["y"])])
    made.training_info.add().initialization.initializer.append(tensor(external=True))
    return made


def by_its_entries_alone():
    made = in_an_initializer()
    made.graph.initializer[0].data_location = TensorProto.DEFAULT
    return made


@pytest.mark.parametrize(
    "make",
    [
        in_a_constant,
        in_an_initializer,
        in_a_branch,
        in_a_function,
        in_a_sparse_tensor,
        in_training_information,
        by_its_entries_alone,
    ],
)
def test_external_data_is_refused_wherever_it_is(make):
    with pytest.raises(CorruptFileError, match=r"model\.onnx keeps weights in other files \(external data\)"):
        check_onnx(make().SerializeToString(), "model.onnx")


@pytest.mark.parametrize("nested", [False, True])
def test_operators_of_other_domains_are_refused(nested):
    node = helper.make_node("Read", ["x"], ["o" if nested else "y"], domain="com.stranger")
    made = model([branch(nodes=[node])] if nested else [node], domains=["com.stranger"])
    with pytest.raises(CorruptFileError, match=r"uses operators that are not ONNX's own: 'com\.stranger\.Read'"):
        check_onnx(made.SerializeToString(), "model.onnx")


def test_functions_that_the_file_defines_are_its_own():
    body = [helper.make_node("Add", ["a", "a"], ["b"])]
    made = helper.make_function("own", "F", ["a"], ["b"], body, [helper.make_opsetid("", 20)])
    check_onnx(
        model(
            [helper.make_node("F", ["x"], ["y"], domain="own")], functions=[made], domains=["own"]
        ).SerializeToString(),
        "model.onnx",
    )
    with pytest.raises(CorruptFileError, match=r"own\.G"):
        check_onnx(
            model([helper.make_node("G", ["x"], ["y"], domain="own")], functions=[made]).SerializeToString(),
            "model.onnx",
        )


@pytest.mark.parametrize("dims", [[2**40], [-1], [2**20, 2**20], [2**62, 4]])
def test_a_tensor_that_its_bytes_cannot_fill(dims):
    made = tensor()
    del made.dims[:]
    made.dims.extend(dims)
    with pytest.raises(CorruptFileError, match=r"states a tensor of shape .* which can't hold it"):
        check_onnx(model([helper.make_node("Add", ["x", "w"], ["y"])], [made]).SerializeToString(), "model.onnx")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00" * 100,
        b"\xff" * 100,
        b"ONNX",
        b"\x00\x00\x00\x00ORTM" + bytes(100),
        b"\x3a\xff\xff\xff\xff\x0f",
        b"\x3a\x02\x0b\x0c",  # a group
        b"\x3a\x00\x3a\x00",  # two graphs
        b"\xba\x80\x80\x80\x80\x20\x00",  # field 7 with a number above 32 bits, which other readers cut off
    ],
)
def test_what_is_no_onnx_file(content):
    with pytest.raises(CorruptFileError, match=r"model\.onnx is no ONNX file \(.*\); export again"):
        check_onnx(content, "model.onnx")


def test_graphs_nested_without_end():
    inner = b""
    for _ in range(40):  # graph > node > attribute > graph
        attribute = b"\x32" + _length(inner)
        inner = b"\x0a" + _length(b"\x2a" + _length(attribute))
    with pytest.raises(CorruptFileError, match="nested deeper than 64"):
        check_onnx(b"\x3a" + _length(inner), "model.onnx")


def _length(content):
    count, prefix = len(content), b""
    while count > 127:
        prefix, count = prefix + bytes([count & 127 | 128]), count >> 7
    return prefix + bytes([count]) + content


@pytest.mark.parametrize("path", sorted(ARCHIVED.rglob("model.onnx")), ids=lambda path: path.parts[-3])
def test_it_sees_what_onnx_sees(path):
    """Every graph of an export passes; and the operators of a file are found wherever ``onnx`` finds them."""
    content = path.read_bytes()
    check_onnx(content, "model.onnx")
    proto = onnx.load_from_string(content)
    for node in proto.graph.node[-1:]:
        node.domain = "com.stranger"
    with pytest.raises(CorruptFileError, match=r"com\.stranger"):
        check_onnx(proto.SerializeToString(), "model.onnx")


# -- in a repository ---------------------------------------------------------------------------------------------------


def test_a_repository_with_external_data_does_not_open_and_the_runtime_never_sees_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda *_, **__: pytest.fail("ONNX Runtime was asked"))
    proto = onnx.load(ARCHIVED / "scm" / "1" / "model.onnx")
    proto.graph.initializer.append(tensor("w", external=True))
    copy = stranger(tmp_path / "models", {"scm/1/model.onnx": proto.SerializeToString()})
    with pytest.raises(CorruptFileError, match=r"scm/1/model\.onnx keeps weights in other files"):
        open_repository(copy)


def test_a_graph_that_is_exchanged_after_it_was_checked_is_not_loaded(tmp_path):
    """The bytes whose digest is verified are the bytes that ONNX Runtime gets."""
    copy = stranger(tmp_path / "models")
    engine = open_engine(copy, threads=1)
    path = copy / "encoder_scm" / "1" / "model.onnx"
    path.write_bytes(in_an_initializer().SerializeToString())
    with pytest.raises(DigestError, match=r"encoder_scm/1/model\.onnx is not the file that was exported"):
        engine.run("encoder_scm", {"expression": np.zeros((1, 40), dtype=np.float32)})


def test_a_graph_of_other_outputs_than_the_manifest_states(tmp_path):
    proto = onnx.load(ARCHIVED / "decoder" / "1" / "model.onnx")
    del proto.graph.output[1]
    copy = stranger(tmp_path / "models", {"decoder/1/model.onnx": proto.SerializeToString()})
    width = json.loads((copy / "manifest.json").read_bytes())["dimensions"]
    inputs = {
        "endogenous": np.zeros((1, width["concepts"] + 1, width["embedding"]), dtype=np.float32),
        "uniforms": np.full((1, 40), 0.5, dtype=np.float32),
    }
    with pytest.raises(CorruptFileError, match=r"decoder/1/model\.onnx has outputs .*, where the manifest states"):
        open_engine(copy, threads=1).run("decoder", inputs)
