"""Start a process that ends with this one, however this one ends."""

from __future__ import annotations

import ctypes
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path

_SET_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG


def spawn(command: Sequence[str], environment: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
    """Start a process in a session of its own, which is asked to end when this process ends.

    It is started from a thread that lives as long as the new process: the "parent" whose end the kernel watches is a
    thread.

    Parameters
    ----------
    command
        Program and arguments.
    environment
        Environment variables.
    log
        File that the process's output is appended to.

    Raises
    ------
    OSError
        The program can't be started, or the log can't be written to.
    """
    spawned: Future[subprocess.Popen[bytes]] = Future()

    def live() -> None:
        try:
            with log.open("ab") as file:
                process = subprocess.Popen(
                    command,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    stdin=subprocess.DEVNULL,
                    env=environment,
                    start_new_session=True,
                    preexec_fn=_die_with_parent,
                )
        except BaseException as error:
            spawned.set_exception(error)
        else:
            spawned.set_result(process)
            process.wait()

    threading.Thread(target=live, name=f"causcell-{Path(command[0]).name}", daemon=True).start()
    return spawned.result()


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGTERM)
