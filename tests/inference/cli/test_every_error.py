"""Every class of `causcell.errors` reaches the command line as one message and exit status 2."""

import os
import shutil
import socket
import sys
import threading
from collections import namedtuple
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from multiprocessing import get_context
from pathlib import Path

import anndata
import pytest
from commands import embed_words, generate_words, refused, train_words, truncate
from false_hub import run_hub, use_hub

from causcell import errors
from causcell._internal.files import staging_place
from causcell.atlas.executors import processes
from causcell.atlas.journal import Journal
from causcell.cli import main
from causcell.repository.manifest import PLAIN_SCHEMA_VERSION

BASES = {
    "CausCellError": "a base; nothing raises it itself",
    "ModelRepositoryError": "a base; its three classes are what commands raise",
}
"""Classes that no command line reaches, with the reason."""

Usage = namedtuple("Usage", "total used free")


@dataclass
class Case:
    """What commands are given: good cells and models, a folder to write in, and what is undone after the test."""

    good: Path
    models: Path
    folder: Path
    patch: pytest.MonkeyPatch
    request: pytest.FixtureRequest
    undo: ExitStack = field(default_factory=ExitStack)

    @property
    def out(self) -> Path:
        return self.folder / "out.zarr"

    def generate(self, *words: object, data: Path | None = None, models: object = None) -> list[object]:
        words = words or ("--do", "stim=IFN")
        return generate_words(data or self.good, models or self.models, self.out, *words)

    def cells(self, change: Callable[[anndata.AnnData], None]) -> Path:
        cells = anndata.read_h5ad(self.good)[:40].copy()
        change(cells)
        cells.write_h5ad(self.folder / "changed.h5ad")
        return self.folder / "changed.h5ad"

    def copied_models(self, change: Callable[[Path], object]) -> Path:
        models = Path(shutil.copytree(self.models, self.folder / "models"))
        change(models)
        return models

    def at_server(self, address: str, **settings: float) -> list[object]:
        file = self.folder / "connection.toml"
        file.write_text("".join(f"{name} = {value}\n" for name, value in settings.items()))
        return ["inspect", address, "--connection", file]


def negative(cells: anndata.AnnData) -> None:
    cells.X = cells.X.toarray() if hasattr(cells.X, "toarray") else cells.X
    cells.X[3, 2] = -1


def other_genes(cells: anndata.AnnData) -> None:
    cells.var_names = [f"other {i}" for i in range(cells.n_vars)]


def twins(cells: anndata.AnnData) -> None:
    cells.obs_names = ["twin", "twin", *cells.obs_names[2:]]


def rewrite(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def no_anndata(case: Case) -> list[object]:
    (case.folder / "cells.h5ad").write_text("no HDF5")
    return case.generate(data=case.folder / "cells.h5ad")


def silent_server(case: Case) -> list[object]:
    listening = case.undo.enter_context(socket.create_server(("127.0.0.1", 0)))
    return case.at_server(f"http://127.0.0.1:{listening.getsockname()[1]}", deadline=0.2, patience=0.0)


def server_that_answers(case: Case, status: int) -> list[object]:
    class Refusal(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    server = case.undo.enter_context(HTTPServer(("127.0.0.1", 0), Refusal))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    case.undo.callback(thread.join)
    case.undo.callback(server.shutdown)
    return case.at_server(f"http://127.0.0.1:{server.server_port}", patience=0.0)


def no_server(case: Case) -> list[object]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    return case.at_server(f"http://127.0.0.1:{port}", patience=0.0)


def no_such_model(case: Case) -> list[object]:
    pytest.importorskip("huggingface_hub", reason="takes causcell[hub]")
    hub = case.undo.enter_context(run_hub())
    use_hub(case.patch, hub.address, case.folder)
    return ["inspect", "hf://lab/nothing"]


def graphs_of_another_type(case: Case) -> list[object]:
    """Stand in for a fault of the exporter: no run that can be read makes one."""
    run = case.request.getfixturevalue("run")
    from causcell_export import verification

    case.patch.setattr(verification, "_ONNX_TYPES", dict.fromkeys(verification._ONNX_TYPES, "tensor(double)"))
    return ["export", run.path, "--out", case.folder / "models"]


def workers_that_end(case: Case) -> list[object]:
    def start(*_: object) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(1, get_context("spawn"), initializer=os._exit, initargs=(1,))

    case.patch.setattr(processes, "_start_worker", start)
    case.patch.setattr(processes, "_MOST_LOST", 0)
    return case.generate("--do", "stim=IFN", "--workers", 2)


def another_run(case: Case) -> list[object]:
    case.undo.enter_context(Journal(case.out).locked())
    return case.generate()


def little_space(case: Case) -> list[object]:
    case.patch.setattr(shutil, "disk_usage", lambda place: Usage(1000, 0, 1000))
    return case.generate()


def a_link_in_the_way(case: Case) -> list[object]:
    out = case.folder / "out.h5ad"
    staging_place(out).symlink_to(case.good.parent)
    return embed_words(case.good, case.models, out)


def something_there(case: Case) -> list[object]:
    case.out.mkdir()
    (case.out / "file").write_text("kept")
    return case.generate()


WAYS: dict[str, Callable[[Case], list[object]]] = {
    "DataError": no_anndata,
    "ExpressionError": lambda case: case.generate(data=case.cells(negative)),
    "GenePanelError": lambda case: case.generate(data=case.cells(other_genes)),
    "CellNameError": lambda case: case.generate(data=case.cells(twins)),
    "ConceptError": lambda case: train_words(case.good, case.folder / "run", "--edge", "stim"),
    "UnknownConceptError": lambda case: train_words(case.good, case.folder / "run", concept="stimulus"),
    "UnknownLabelError": lambda case: case.generate("--do", "stim=IFN9"),
    "ConceptGraphError": lambda case: train_words(case.good, case.folder / "run", "--edge", "stim:nowhere"),
    "InterventionError": lambda case: case.generate("--do", "stim=IFN", "--do", "stim=ctrl"),
    "ConfigurationError": lambda case: case.generate("--do", "stim=IFN", "--batch-size", 0),
    "CorruptFileError": lambda case: case.generate(
        models=case.copied_models(lambda models: (models / "denoiser/1/model.onnx").unlink())
    ),
    "DigestError": lambda case: case.generate(
        models=case.copied_models(lambda models: truncate(models / "denoiser/1/model.onnx"))
    ),
    "SchemaVersionError": lambda case: case.generate(
        models=case.copied_models(
            lambda models: rewrite(
                models / "manifest.json", f'"schema_version": {PLAIN_SCHEMA_VERSION}', '"schema_version": 99'
            )
        )
    ),
    "HubError": no_such_model,
    "RunError": lambda case: ["export", case.folder / "nothing", "--out", case.folder / "models"],
    "RuntimeUnavailableError": lambda case: ["inspect", case.models, "--provider", "cuda"],
    "EngineError": lambda case: server_that_answers(case, 401),
    "ServerBusyError": lambda case: server_that_answers(case, 429),
    "ServerUnavailableError": no_server,
    "DeadlineExceededError": silent_server,
    "ExportVerificationError": graphs_of_another_type,
    "AtlasError": lambda case: ["verify", case.folder / "nothing.zarr"],
    "WorkerLostError": workers_that_end,
    "OutputError": a_link_in_the_way,
    "OutputExistsError": something_there,
    "OutputBusyError": another_run,
    "OutputFullError": little_space,
}
"""A command line that ends in the error, by the error's class."""

OF_TRAINING = {"ConceptError", "UnknownConceptError", "ConceptGraphError", "RunError", "ExportVerificationError"}


def test_every_class_has_a_command_line_or_a_reason() -> None:
    """A new class of errors is entered above."""
    classes = {name for name in errors.__all__ if name.endswith("Error")}
    assert classes == WAYS.keys() | BASES.keys()
    assert not WAYS.keys() & BASES.keys()


@pytest.mark.parametrize("name", WAYS)
@pytest.mark.filterwarnings("ignore::causcell.errors.CausCellWarning")
def test_one_message_and_exit_status_2(
    name: str,
    folder: Path,
    repository: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
) -> None:
    if name in OF_TRAINING:
        pytest.importorskip("torch", reason="takes causcell[train]")
    raised: list[type[BaseException] | None] = []

    def note(message: str, flags: object) -> str:
        raised.append(sys.exc_info()[0])
        return original(message, flags)

    original = main.name_flags
    monkeypatch.setattr(main, "name_flags", note)
    case = Case(folder / "good.h5ad", repository, tmp_path, monkeypatch, request)
    with case.undo:
        message = refused(capsys, *WAYS[name](case))
    assert [each.__name__ for each in raised] == [name]
    assert len(message.splitlines()) == 1
