"""Servers that are no Triton, sick or hostile: an error that says so, by the deadline, in bounded memory."""

import contextlib
import resource
import socket
import threading
import time

import grpc
import numpy as np
import pytest
from false_servers import (
    BUSY,
    CHUNKED,
    ENDLESS,
    FINAL,
    PAGE,
    ROWS,
    SLOW,
    STRANGE,
    UNAVAILABLE,
    WANTED,
    WRONG_INFERENCES,
    grpc_bomb,
    grpc_inference,
    grpc_server,
    http_server,
    listening,
    refuses,
    response,
    says,
    truth,
)

from causcell.cli.main import main
from causcell.engine.triton.client import TritonClient
from causcell.engine.triton.connection import Connection, parse_location
from causcell.engine.triton.endpoints import Endpoints
from causcell.engine.triton.retries import retry_transient
from causcell.errors import DeadlineExceededError, EngineError, ServerBusyError, ServerUnavailableError

SHORT = 0.4  # seconds, of deadlines that are to pass
LONG = 10.0  # of those that are not, however busy the machine is
ASKED = {"x": ROWS}
MEMORY = 100  # MB that the process may grow by, with what its allocator keeps; bombs have 160 and more


def infer(client: TritonClient) -> dict[str, np.ndarray]:
    return client.infer("model", ASKED, WANTED)


WAYS = {
    "infer": infer,
    "version": TritonClient.version,
    "index": TritonClient.model_names,
    "config": lambda client: client.config("model"),
    "statistics": TritonClient.statistics,
}


@contextlib.contextmanager
def client_of(location: str, deadline: float = LONG):
    connection = Connection(deadline=deadline, shared_memory=False, headers={"authorization": "Bearer secret"})
    with contextlib.closing(TritonClient(*parse_location(location), connection)) as client:
        yield client


@pytest.fixture(autouse=True)
def bounded():
    """No test here waits longer than its deadline allows, or takes the memory that a server would like it to."""
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    yield
    assert time.monotonic() - start < 15
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MEMORY * 1024


@pytest.mark.parametrize("way", WAYS)
def test_a_true_server_is_understood(way):
    with http_server(says(b""), lies=lambda asked: False) as location, client_of(location) as client:
        for _ in range(2):
            found = WAYS[way](client)
    expected = {
        "infer": {"y": ROWS},
        "version": "2.99.0",
        "index": ["model"],
        "config": {"name": "model", "max_batch_size": 8},
    }
    if way == "infer":
        np.testing.assert_array_equal(found["y"], ROWS, strict=True)
    elif way in expected:
        assert found == expected[way]


@pytest.mark.parametrize("name", SLOW)
def test_the_deadline_is_of_the_whole_request(name):
    """Though every byte comes in time."""
    with http_server(SLOW[name]) as location, client_of(location, SHORT) as client:
        start = time.monotonic()
        with pytest.raises(DeadlineExceededError, match=f"{location} did not answer within the deadline"):
            infer(client)
        assert SHORT <= time.monotonic() - start < SHORT + 5  # the slow ones would go on for a minute


def test_the_deadline_is_of_sending_and_connecting_too():
    """A server that takes a byte at a time, and one that does not take the connection."""
    large = {"x": np.zeros((1, 30_000_000), np.float32)}
    stop = threading.Event()
    with (
        listening(lambda sock: stop.wait(10)) as port,
        client_of(f"http://127.0.0.1:{port}", SHORT) as client,
        pytest.raises(DeadlineExceededError),
    ):
        client.infer("model", large, WANTED)
        stop.set()
    with socket.socket() as full, socket.socket() as first, socket.socket() as second:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for each in (first, second):  # the queue of connections is full with these
            each.setblocking(False)
            each.connect_ex(full.getsockname())
        location = f"http://127.0.0.1:{full.getsockname()[1]}"
        with client_of(location, SHORT) as client, pytest.raises(DeadlineExceededError):
            infer(client)


@pytest.mark.parametrize("way", ["infer", "config"])
@pytest.mark.parametrize("name", ENDLESS)
def test_no_more_is_read_than_was_asked_for(name, way):
    with (
        http_server(ENDLESS[name]) as location,
        client_of(location, 1.0) as client,
        pytest.raises(EngineError, match=r"not a Triton answer|did not answer within the deadline"),
    ):
        WAYS[way](client)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", STRANGE)
def test_an_answer_that_is_none_of_tritons_is_told(name, way):
    with (
        http_server(STRANGE[name]) as location,
        client_of(location) as client,
        pytest.raises(EngineError, match=f"{location} gave an answer that is not a Triton answer .*; name the"),
    ):
        WAYS[way](client)


def test_what_a_stranger_said_is_shown():
    with (
        http_server(STRANGE["a page"]) as location,
        client_of(location) as client,
        pytest.raises(EngineError, match=r"which begins with '<!DOCTYPE html><html>.*'\.\.\.\)"),
    ):
        client.version()


@pytest.mark.parametrize("name", FINAL)
def test_a_refusal_is_final_and_says_why(name):
    behaviour, message = FINAL[name]
    with (
        http_server(behaviour) as location,
        client_of(location) as client,
        pytest.raises(EngineError, match=message) as caught,
    ):
        infer(client)
    assert type(caught.value) is EngineError
    assert len(str(caught.value)) < 1000
    assert str(caught.value).isprintable()


def test_a_redirection_gets_no_headers():
    """The token goes to the server that was named, and to no other."""
    asked = []
    with (
        http_server(lambda sock, seen: asked.append(seen)) as elsewhere,
        http_server(says(f"HTTP/1.1 307 x\r\nLocation: {elsewhere}/v2\r\n\r\n".encode())) as location,
        client_of(location) as client,
        pytest.raises(EngineError, match="not followed"),
    ):
        client.version()
    assert asked == []


@pytest.mark.parametrize("name", UNAVAILABLE)
def test_what_may_pass_is_unavailable(name):
    with (
        http_server(UNAVAILABLE[name]) as location,
        client_of(location) as client,
        pytest.raises(ServerUnavailableError, match=location) as caught,
    ):
        infer(client)
    assert type(caught.value) is ServerUnavailableError


@pytest.mark.parametrize("name", WRONG_INFERENCES)
def test_arrays_that_were_not_asked_for_are_no_answer(name):
    with (
        http_server(says(WRONG_INFERENCES[name])) as location,
        client_of(location) as client,
        pytest.raises(EngineError, match="not a Triton answer"),
    ):
        infer(client)


def test_a_connection_that_was_closed_while_idle_is_opened_again():
    """Nothing is said of the server: its keep-alive time was over."""
    answered = []

    def once(sock, asked):
        answered.append(asked)
        sock.sendall(truth(asked))

    with http_server(once) as location, client_of(location) as client:
        for _ in range(3):
            np.testing.assert_array_equal(infer(client)["y"], ROWS)
            time.sleep(0.05)
    assert len(answered) == 3


def test_no_encoding_is_asked_for():
    asked = []

    def listen(sock, seen):
        asked.append(seen)
        sock.sendall(truth(seen))

    with http_server(listen) as location, client_of(location) as client:
        infer(client)
    assert asked[0].headers["accept-encoding"] == "identity"
    assert asked[0].headers["authorization"] == "Bearer secret"


def test_an_idle_connection_is_closed_soon():
    """A server that stops waits for connections that are open."""
    closed = threading.Event()

    def serve(sock):
        stream = sock.makefile("rb")
        while (line := stream.readline()).strip():
            pass
        if line:
            sock.sendall(response(b'{"name": "triton", "version": "1"}'))
            if not stream.read(1):
                closed.set()

    with listening(serve) as port, client_of(f"http://127.0.0.1:{port}") as client:
        client.version()
        assert not closed.is_set()
        assert closed.wait(LONG)


def test_a_request_larger_than_servers_take_is_sent_in_pieces(monkeypatch):
    """Rows are independent; each piece is an answer of its own, and their order holds."""
    monkeypatch.setattr("causcell.engine.triton.client._LARGEST_BODY", ROWS.nbytes)
    sizes = []

    def count(sock, asked):
        sizes.append(int(asked.headers["content-length"]))
        sock.sendall(truth(asked))

    with http_server(count) as location, client_of(location) as client:
        found = client.infer("model", {"x": np.zeros((6, 3), np.float32)}, {"y": ("float32", (6, 3))})
    np.testing.assert_array_equal(found["y"], np.concatenate([ROWS] * 3))
    assert len(sizes) == 3


@pytest.mark.parametrize("host", ["a" * 70, "no-such-host.invalid", "a..b"])
def test_a_host_that_there_is_not_is_unavailable(host):
    with client_of(f"http://{host}:8000") as client, pytest.raises(ServerUnavailableError, match="can't be reached"):
        client.version()


# -- busy servers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BUSY)
def test_a_busy_server_is_waited_out(name, caplog):
    """As often as it says so, within the patience; it is not called sick."""
    refusals = iter(range(3))

    def lies(asked):
        return next(refusals, None) is not None

    with http_server(BUSY[name], lies) as location, client_of(location) as client:
        endpoints = Endpoints([client])
        found = retry_transient(lambda: endpoints.use(infer), patience=5, skip_pause=endpoints.is_any_healthy)
    np.testing.assert_array_equal(found["y"], ROWS)
    assert next(refusals, None) is None
    assert "leaving it alone" not in caplog.text


def test_a_busy_server_is_waited_for_no_longer_than_the_patience():
    with (
        http_server(BUSY["a full queue"]) as location,
        client_of(location) as client,
        pytest.raises(ServerBusyError, match="has more requests than it takes: Exceeds maximum queue size"),
    ):
        retry_transient(lambda: infer(client), patience=0.5)


def test_a_busy_server_on_the_command_line_is_one_message(tmp_path, capsys):
    (tmp_path / "connection.toml").write_text("patience = 0.1")
    with http_server(BUSY["a gateway's limit"]) as location, pytest.raises(SystemExit) as ended:
        main(["inspect", location, "--connection", str(tmp_path / "connection.toml")])
    told = capsys.readouterr().err
    assert ended.value.code == 2
    assert told.count(f"error: {location} has more requests than it takes: 429 Too Many Requests") == 1
    assert "Traceback" not in told


def test_a_page_on_the_command_line_is_one_message(capsys):
    with http_server(STRANGE["a page"]) as location, pytest.raises(SystemExit) as ended:
        main(["inspect", location])
    told = capsys.readouterr().err
    assert ended.value.code == 2
    assert f"error: {location} gave an answer that is not a Triton answer" in told
    assert "Traceback" not in told


# -- gRPC --------------------------------------------------------------------------------------------------------------

_STATUS = grpc.StatusCode
GRPC_REFUSALS = {
    "a full queue": (_STATUS.UNAVAILABLE, "Exceeds maximum queue size", ServerBusyError),
    "a limit": (_STATUS.RESOURCE_EXHAUSTED, "slow down", ServerBusyError),
    "away": (_STATUS.UNAVAILABLE, "no", ServerUnavailableError),
    "late": (_STATUS.DEADLINE_EXCEEDED, "no", DeadlineExceededError),
    "a larger message": (_STATUS.RESOURCE_EXHAUSTED, "Received message larger than max (9 vs. 4)", EngineError),
    "another service": (_STATUS.UNIMPLEMENTED, "Method not found!", EngineError),
    "a token": (_STATUS.UNAUTHENTICATED, "no", EngineError),
    "fails": (_STATUS.INTERNAL, "\x1b[2J" + "x" * 3000, EngineError),
    "is lost": (_STATUS.DATA_LOSS, "", EngineError),
}


@pytest.mark.parametrize("name", GRPC_REFUSALS)
def test_a_status_of_grpc_is_the_error_it_means(name):
    code, message, error = GRPC_REFUSALS[name]
    with (
        grpc_server(refuses(code, message)) as location,
        client_of(location) as client,
        pytest.raises(error, match=location) as caught,
    ):
        infer(client)
    assert type(caught.value) is error
    assert len(str(caught.value)) < 1000
    assert str(caught.value).isprintable()


GRPC_ANSWERS = {
    "nothing": b"",
    "no message": b"\xff" * 100,
    "a page": PAGE,
    "bytes less": grpc_inference(raw=[ROWS.tobytes()[:-1]]),
    "bytes more": grpc_inference(raw=[ROWS.tobytes() + b"1"]),
    "no bytes": grpc_inference(raw=[]),
    "bytes twice": grpc_inference(raw=[ROWS.tobytes()] * 2),
    "another output": grpc_inference(name="z"),
    "another type": grpc_inference(datatype="FP64"),
    "another shape": grpc_inference(shape=[3, 2]),
    "a shape with a hole": grpc_inference(shape=[2, -1]),
    "a shape beyond all": grpc_inference(shape=[2**62, 2**62]),
}


@pytest.mark.parametrize("name", GRPC_ANSWERS)
def test_a_message_of_grpc_that_was_not_asked_for_is_no_answer(name):
    with (
        grpc_server(lambda method, context: GRPC_ANSWERS[name]) as location,
        client_of(location) as client,
        pytest.raises(EngineError, match="not a Triton answer"),
    ):
        infer(client)


@pytest.mark.parametrize("compression", ["NoCompression", "Gzip"])
def test_no_more_is_read_of_grpc_than_was_asked_for(compression):
    """160 MB, as they are and as a bomb."""
    with (
        grpc_bomb([40 << 20], compression) as location,
        client_of(location) as client,
        pytest.raises(EngineError, match=r"no message that large|not a Triton answer|refused the request"),
    ):
        infer(client)


def test_arrays_larger_than_other_messages_come_by_grpc():
    with grpc_bomb([5, 1 << 20]) as location, client_of(location) as client:
        found = client.infer("model", ASKED, {"y": ("float32", (5, 1 << 20))})
    assert found["y"].shape == (5, 1 << 20)


def test_a_server_of_grpc_that_says_nothing_is_left_at_the_deadline():
    with (
        grpc_server(lambda method, context: time.sleep(2) or b"") as location,
        client_of(location, SHORT) as client,
        pytest.raises(DeadlineExceededError),
    ):
        infer(client)


@pytest.mark.parametrize("content", [b"", response(PAGE), b"SSH-2.0-OpenSSH_9.6\r\n", CHUNKED], ids=repr)
def test_what_does_not_speak_grpc_is_told(content):
    with (
        listening(says_at_once(content)) as port,
        client_of(f"grpc://127.0.0.1:{port}") as client,
        pytest.raises(EngineError, match=r"not available|did not answer|not a Triton answer"),
    ):
        infer(client)


def says_at_once(content):
    def serve(sock):
        sock.sendall(content)
        time.sleep(0.1)

    return serve


def test_a_client_that_was_closed_says_so():
    with grpc_server(lambda method, context: b"") as location, client_of(location) as client:
        client.close()
        with pytest.raises(EngineError, match=r"is closed .*; open the model again"):
            client.version()
