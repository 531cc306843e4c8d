"""When a request is tried again, and which server gets it; without servers, by a clock that tests set."""

import pytest

from causcell.engine.triton.endpoints import Endpoints
from causcell.engine.triton.retries import retry_transient
from causcell.errors import DeadlineExceededError, EngineError, ServerBusyError, ServerUnavailableError


class Call:
    """Fails so often, then answers."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.tries = 0

    def __call__(self) -> str:
        self.tries += 1
        if self.errors:
            raise self.errors.pop(0)
        return "answer"


@pytest.mark.parametrize("error", [ServerUnavailableError("away"), DeadlineExceededError("late")], ids=repr)
def test_a_transient_failure_is_tried_again(error):
    call = Call(error, error)
    assert retry_transient(call, patience=60, skip_pause=lambda: True) == "answer"
    assert call.tries == 3


@pytest.mark.parametrize("error", [EngineError("refused"), ValueError("mistake")], ids=repr)
def test_any_other_failure_is_final(error):
    call = Call(error)
    with pytest.raises(type(error)) as caught:
        retry_transient(call, patience=60)
    assert caught.value is error
    assert call.tries == 1


def test_without_patience_there_is_one_try_and_its_error():
    call = Call(*(ServerUnavailableError(f"away {i}") for i in range(9)))
    with pytest.raises(ServerUnavailableError, match="away 0"):
        retry_transient(call, patience=0)
    assert call.tries == 1


class Server:
    """Answers with its name, or fails."""

    def __init__(self, name: str) -> None:
        self.name, self.fails, self.busy, self.resets = name, False, False, 0

    def ask(self) -> str:
        if self.fails:
            raise ServerUnavailableError(f"{self.name} is away")
        if self.busy:
            raise ServerBusyError(f"{self.name} is busy")
        return self.name

    def reset(self) -> None:
        self.resets += 1


def test_a_failing_server_is_left_alone_for_longer_each_time():
    """0.5 s, then 1 s, and so on; while it is, the other is asked; a success makes it as good as new."""
    now = 0.0
    first, second = Server("first"), Server("second")
    endpoints = Endpoints([first, second], clock=lambda: now)
    assert endpoints.use(Server.ask) == "first"
    first.fails = True
    for pause in (0.5, 1.0, 2.0):
        with pytest.raises(ServerUnavailableError):
            endpoints.use(Server.ask)
        now += pause - 0.01
        assert endpoints.use(Server.ask) == "second"
        now += 0.02
    assert first.resets == 3
    first.fails = False
    assert endpoints.use(Server.ask) == "first"
    first.fails = True
    with pytest.raises(ServerUnavailableError):
        endpoints.use(Server.ask)
    now += 0.51
    first.fails = False
    assert endpoints.use(Server.ask) == "first"


def test_if_all_are_ejected_the_one_whose_time_is_up_first_is_asked():
    now = 0.0
    servers = [Server("first"), Server("second")]
    endpoints = Endpoints(servers, clock=lambda: now)
    for server in servers:
        server.fails = True
        with pytest.raises(ServerUnavailableError, match=server.name):
            endpoints.use(Server.ask)
        now += 0.1
        server.fails = False
    assert not endpoints.is_any_healthy()
    assert endpoints.use(Server.ask) == "first"
    assert endpoints.is_any_healthy()


def test_the_least_busy_server_is_asked():
    endpoints = Endpoints([Server("first"), Server("second")])
    assert endpoints.use(lambda outer: endpoints.use(Server.ask)) == "second"


def test_a_busy_server_rests_for_a_moment_and_is_not_called_sick(caplog):
    """Others are asked meanwhile; its shared memory is kept, and its rest is no longer the tenth time."""
    now = 0.0
    first, second = Server("first"), Server("second")
    endpoints = Endpoints([first, second], clock=lambda: now)
    first.busy = True
    for _ in range(10):
        with pytest.raises(ServerBusyError):
            endpoints.use(Server.ask)
        assert endpoints.use(Server.ask) == "second"
        assert endpoints.is_any_healthy()
        now += 0.21
    assert first.resets == 0
    assert caplog.text == ""
    second.busy = True
    for _ in range(2):
        with pytest.raises(ServerBusyError):
            endpoints.use(Server.ask)
    assert not endpoints.is_any_healthy()  # so that the next try waits


def test_a_busy_server_is_waited_for_with_pauses_that_differ(monkeypatch):
    """So that clients that were refused together do not come back together."""
    pauses = []
    monkeypatch.setattr("tenacity.nap.time.sleep", pauses.append)
    for _ in range(2):
        assert retry_transient(Call(*[ServerBusyError("busy")] * 5), patience=60) == "answer"
    first, second = pauses[:5], pauses[5:]
    assert first != second
    assert max(pauses) <= 2.0
