"""What an engine answers is what the manifest states, or an error; nothing of a wrong answer is used."""

import threading
import timeit

import numpy as np
import pytest
from paths import MODEL_REPOSITORY

from causcell import open_repository
from causcell._internal.values import first_unsound
from causcell.engine.open import open_engine
from causcell.engine.outputs import check_answer
from causcell.engine.triton.connection import Connection
from causcell.engine.triton.endpoints import Endpoints
from causcell.engine.triton.engine import TritonEngine
from causcell.errors import EngineError

B = 3


@pytest.fixture(scope="module")
def manifest():
    return open_repository(MODEL_REPOSITORY).manifest


def good(manifest, graph, outputs=None):
    """An answer of a graph that is what the manifest states."""
    stated = manifest.graphs[graph].outputs
    return {name: np.full((B, *stated[name].shape), 0.5, dtype=stated[name].dtype) for name in outputs or stated}


def check(manifest, graph, answer, outputs=None):
    info = manifest.graphs[graph]
    names = list(info.outputs) if outputs is None else outputs
    return check_answer(graph, info, names, B, answer, origin="grpc://a:1", genes=manifest.genes.names)


@pytest.mark.parametrize("graph", ["encoder_scm", "abduction", "scm", "denoiser", "sampler", "decoder"])
def test_an_answer_that_is_right_is_returned_as_it_is(manifest, graph):
    answer = good(manifest, graph)
    found = check(manifest, graph, answer)
    assert list(found) == list(manifest.graphs[graph].outputs)
    assert all(found[name] is answer[name] for name in answer)


def test_a_probability_may_exceed_one_by_rounding(manifest):
    """ONNX Runtime's sigmoid gives 1 + 2^-23 for large numbers on some processors."""
    answer = good(manifest, "denoiser")
    answer["slab_probability"][1, 2] = np.nextafter(np.float32(1), np.float32(2))
    assert check(manifest, "denoiser", answer)["slab_probability"] is answer["slab_probability"]


def test_outputs_that_nobody_asked_for_are_left_out(manifest):
    assert list(check(manifest, "denoiser", good(manifest, "denoiser"), ["x0"])) == ["x0"]


@pytest.mark.parametrize(
    "lost", [lambda answer: answer.pop("expression"), lambda answer: answer.update(expression=None)]
)
def test_a_missing_output(manifest, lost):
    answer = good(manifest, "decoder")
    lost(answer)
    with pytest.raises(
        EngineError, match=r"grpc://a:1 answered graph 'decoder' without output 'expression' .*'expression_float16'"
    ):
        check(manifest, "decoder", answer)


@pytest.mark.parametrize(
    "form",
    [(np.float64, (B, 765)), (">f4", (B, 765)), (np.float32, (1, 765)), (np.float32, (B, 1)), (np.float32, (765,))],
)
def test_another_type_or_shape_is_never_broadcast(manifest, form):
    kind, shape = form
    answer = good(manifest, "decoder") | {"expression": np.ones(shape, dtype=kind)}
    with pytest.raises(
        EngineError,
        match=r"output 'expression' of graph 'decoder' with .*the manifest states float32 \[3, 765\]",
    ):
        check(manifest, "decoder", answer)


@pytest.mark.parametrize("output", ["expression", "expression_float16"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, -1e-3])
def test_expression_is_finite_and_not_negative(manifest, output, bad):
    answer = good(manifest, "decoder")
    answer[output][2, 7] = bad
    gene = manifest.genes.names[7]
    with pytest.raises(
        EngineError,
        match=rf"output '{output}' of graph 'decoder' with {answer[output][2, 7]} in row 2 of the batch, place 7 "
        rf"\(gene '{gene}'\), where a finite number, at least 0, is allowed",
    ):
        check(manifest, "decoder", answer)


@pytest.mark.parametrize("output", ["expression", "expression_float16"])
def test_both_zeros_are_zero(manifest, output):
    answer = good(manifest, "decoder")
    answer[output][0, :2] = 0.0, -0.0
    check(manifest, "decoder", answer)


@pytest.mark.parametrize(
    ("output", "bad", "allowed"),
    [
        ("slab_probability", 1.001, "0 to 1"),
        ("slab_probability", -0.001, "0 to 1"),
        ("slab_probability", np.nan, "0 to 1"),
        ("slab_deviation", -0.1, "a finite number, at least 0,"),
        ("slab_mean", np.inf, "a finite number"),
        ("x0", np.nan, "a finite number"),
    ],
)
def test_values_of_the_posterior_are_within_their_ranges(manifest, output, bad, allowed):
    answer = good(manifest, "denoiser")
    answer[output][1, 0] = bad
    with pytest.raises(EngineError, match=rf"output '{output}' .* in row 1 of the batch, place 0 .*where {allowed} is"):
        check(manifest, "denoiser", answer)


def test_values_below_zero_are_allowed_where_they_can_be(manifest):
    answer = {name: -array for name, array in good(manifest, "encoder_scm").items()}
    check(manifest, "encoder_scm", answer)


def test_an_embedding_is_named_by_its_place(manifest):
    answer = good(manifest, "scm")
    answer["endogenous"][1, 2, 3] = np.nan
    with pytest.raises(EngineError, match=r"with nan in row 1 of the batch, place 2, 3, where a finite number"):
        check(manifest, "scm", answer)


# -- the engine in this process ----------------------------------------------------------------------------------------


@pytest.fixture
def engine():
    opened = open_engine(MODEL_REPOSITORY, threads=1)
    yield opened
    opened.close()


def test_what_onnx_runtime_answers_is_checked(engine):
    """Cells of NaN make embeddings of NaN: no result, where there was one of NaN before."""
    with pytest.raises(
        EngineError, match=r"encoder_scm/1/model\.onnx answered .*'exogenous_mean' .* with nan in row 1"
    ):
        expression = np.zeros((2, 765), dtype=np.float32)
        expression[1, 0] = np.nan
        engine.run("encoder_scm", {"expression": expression})


def test_a_closed_engine_says_so(engine):
    engine.close()
    with pytest.raises(EngineError, match=r"the engine of .*model_repository' is closed; open the model again"):
        engine.run("encoder_scm", {"expression": np.zeros((2, 765), dtype=np.float32)})


def test_a_check_is_a_pass_over_the_values():
    """A bound far above the measured cost (0.05 ms for 256 cells of 2,000 genes), so that a slow pass is found."""
    expression = np.ones((256, 2000), dtype=np.float32)
    assert min(timeit.repeat(lambda: first_unsound(expression, low=0), number=1, repeat=20)) < 0.005


# -- the engine over servers -------------------------------------------------------------------------------------------


class Server:
    """A server that answers what it likes."""

    address = "grpc://a:1"

    def __init__(self, answer):
        self.answer = answer

    def infer(self, graph, inputs, wanted):
        return self.answer

    def close(self):
        """Nothing is open."""


def served(manifest, answer):
    """A Triton engine whose server answers this."""
    engine = object.__new__(TritonEngine)
    engine.connection, engine.location, engine.manifest = Connection(patience=0), Server.address, manifest
    engine._largest_batch = dict.fromkeys(manifest.graphs, 1024)
    engine._in_flight, engine._endpoints = threading.Semaphore(1), Endpoints([Server(answer)])
    return engine


def decoder_inputs(manifest):
    return {
        name: np.full((B, *tensor.shape), 0.5, dtype=np.float32)
        for name, tensor in manifest.graphs["decoder"].inputs.items()
    }


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"expression": None}, "without output 'expression'"),
        ({"expression": np.ones((1, 765), dtype=np.float32)}, r"with float32 \[1, 765\]"),
        ({"expression": np.ones((B, 765))}, r"with float64 \[3, 765\]"),
        ({"expression": np.full((B, 765), -1, dtype=np.float32)}, "with -1.0 in row 0"),
        ({"expression": np.full((B, 765), np.nan, dtype=np.float32)}, "with nan in row 0"),
    ],
)
def test_what_a_server_answers_is_checked(manifest, wrong, message):
    engine = served(manifest, good(manifest, "decoder") | wrong)
    with pytest.raises(EngineError, match=rf"grpc://a:1 answered .*{message}"):
        engine.run("decoder", decoder_inputs(manifest), ("expression",))


def test_a_closed_engine_over_servers_says_so(manifest):
    engine = served(manifest, good(manifest, "decoder"))
    assert set(engine.run("decoder", decoder_inputs(manifest))) == {"expression", "expression_float16"}
    engine.close()
    with pytest.raises(EngineError, match="the engine of grpc://a:1 is closed; open the model again"):
        engine.run("decoder", decoder_inputs(manifest))
