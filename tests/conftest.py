"""Models that tests share: trained once a session on small simulated cells, with a few epochs.

An environment without training has the client's tests alone; its model is the one that `shared_model` exported
elsewhere, in the folder ``CAUSCELL_TEST_MODELS``.
"""

from __future__ import annotations

import importlib.util
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anndata
import fuzzing
import pytest
from simulation import simulated_cells

from causcell.generator import Generator

if TYPE_CHECKING:
    from causcell_training import Run

# Started in the background, a shell has Ctrl-C ignored by all that is started here; tests send it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# With --doctest-modules every file would be imported; these are programs of their own.
collect_ignore_glob = ["installed_client.py", "archive/make.py", "benchmarks/[!t]*.py", "support/shared_model.py"]

SERVERS = re.compile(r"tests/inference/(engine/triton|serve)/")
"""Files whose tests look at what is left in shared memory: side by side they would see each other's."""

TRAINING = importlib.util.find_spec("torch") is not None
if not TRAINING:
    imports = re.compile(r"^(from|import) (causcell_(training|export)|short_runs|exported|torch|onnx)\b", re.MULTILINE)
    here = Path(__file__).parent
    collect_ignore_glob += ["training", "export", "benchmarks"]
    collect_ignore_glob += [
        str(path.relative_to(here)) for path in here.rglob("*.py") if imports.search(path.read_text())
    ]


@pytest.fixture(scope="session")
def cells() -> anndata.AnnData:
    """Raw counts with labels of four concepts; treat as read-only (copy before changing)."""
    return simulated_cells()


@pytest.fixture(scope="session")
def run(cells: anndata.AnnData, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished training run on `cells`."""
    if not TRAINING:
        pytest.skip("takes causcell[train]")
    from short_runs import small_config

    from causcell_training import fit

    return fit(cells, tmp_path_factory.mktemp("trained") / "run", config=small_config())


@pytest.fixture(scope="session")
def repository(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The exported run; treat as read-only (copy the folder before changing)."""
    if not TRAINING and "CAUSCELL_TEST_MODELS" in os.environ:
        return Path(os.environ["CAUSCELL_TEST_MODELS"])
    run = request.getfixturevalue("run")
    from causcell_export import export

    return export(run, tmp_path_factory.mktemp("exported") / "repository")


@pytest.fixture(scope="session")
def generator(repository: Path) -> Iterator[Generator]:
    """The embedded engine over `repository`, one thread."""
    with Generator.open(repository, threads=1, batch_size=64) as opened:
        yield opened


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give the tests of a file to one process, where they run in several; those of `SERVERS` all to the same one."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "servers" if SERVERS.match(nodeid) else super()._split_scope(nodeid)

    return Scheduling(config, log)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hand the counts of fuzzed inputs to the process that prints them, where tests run in several."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["fuzzed"] = fuzzing.counts()


class Gathered:
    """What processes of pytest-xdist hand over as they end."""

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Add a process's counts of fuzzed inputs; one that was ended has none."""
        fuzzing.add(*getattr(node, "workeroutput", {}).get("fuzzed", ({}, {})))


def pytest_configure(config: pytest.Config) -> None:
    """Register what gathers from processes."""
    config.pluginmanager.register(Gathered())


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many inputs of each reader were tried."""
    fuzzing.summarise(terminalreporter)
