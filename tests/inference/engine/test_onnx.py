"""The engine in this process: the contract of engines, and what ONNX Runtime adds to it."""

import numpy as np
import onnxruntime
import pytest
from engine_contract import EngineContract, zero_inputs

from causcell import Generator
from causcell.engine import runtime as engine_runtime
from causcell.engine.open import open_engine
from causcell.errors import ConfigurationError, RuntimeUnavailableError


@pytest.fixture(scope="module")
def engine(repository):
    opened = open_engine(repository, threads=1)
    yield opened
    opened.close()


class TestOnnxEngine(EngineContract):
    """The contract, against a second engine on the same model."""

    @pytest.fixture
    def embedded(self, generator):
        return generator.engine


def test_its_status_is_this_process(engine, repository):
    (endpoint,) = engine.status()
    assert endpoint == {
        "address": str(repository),
        "ready": True,
        "runtime": "ONNX Runtime",
        "version": onnxruntime.__version__,
        "provider": "cpu",
        "threads": 1,
    }


def test_threads_stand_in_the_description(repository):
    engine = open_engine(repository, threads=3)
    assert engine.threads == 3
    assert engine.description.endswith("CPUExecutionProvider, 3 threads")


@pytest.mark.parametrize(("threads", "at_once", "each"), [(1, 1, 1), (2, 2, 1), (7, 4, 1), (16, 4, 4)])
def test_threads_are_shared_out_between_batches(repository, threads, at_once, each):
    engine = open_engine(repository, threads=threads)
    assert (engine.concurrency, engine._options.intra_op_num_threads) == (at_once, each)


def test_batches_at_once_give_the_cells_of_one_after_the_other(repository, cells):
    made = []
    for threads in (1, 3):
        with Generator.open(repository, threads=threads, batch_size=32) as generator:
            made.append(generator.counterfactual(cells, {"stim": "IFN"}, draws=2, seed=1).X)
    np.testing.assert_array_equal(*made)


@pytest.mark.parametrize("threads", [0, -1, 5000, 2**120, True, 1.5, "2"])
def test_a_number_of_threads_that_cannot_be(repository, threads):
    with pytest.raises(ConfigurationError, match=r"^threads=.*: take (at least 1|at most 4096|a whole number)"):
        open_engine(repository, threads=threads)


def test_threads_that_wait_for_work_leave_the_cpu_to_others(repository, monkeypatch):
    entries = {}
    monkeypatch.setattr(
        onnxruntime.SessionOptions, "add_session_config_entry", lambda _, key, value: entries.update({key: value})
    )
    open_engine(repository, threads=2)
    assert entries["session.intra_op.allow_spinning"] == "0"


# -- providers ---------------------------------------------------------------------------------------------------------


def test_an_unknown_provider(repository):
    with pytest.raises(ConfigurationError, match="provider 'tpu' is not known; known are 'cpu', 'cuda'"):
        open_engine(repository, provider="tpu")


def test_a_provider_that_this_runtime_was_built_without(repository, monkeypatch):
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(
        RuntimeUnavailableError, match=r"no CUDAExecutionProvider; it has 'CPU.*install causcell\[gpu\]"
    ):
        open_engine(repository, provider="cuda")


def test_a_provider_that_did_not_load(repository, monkeypatch):
    """ONNX Runtime falls back to the CPU silently where CUDA's libraries are missing; this engine does not."""
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    only_cpu = onnxruntime.InferenceSession

    def fall_back(path, options, providers):
        return only_cpu(path, options, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(onnxruntime, "InferenceSession", fall_back)
    engine = open_engine(repository, provider="cuda")
    with pytest.raises(
        RuntimeUnavailableError, match="CUDAExecutionProvider was asked for, but did not load for 'scm'"
    ):
        engine.run("scm", zero_inputs(engine, "scm"))


def test_a_library_that_is_missing_is_named(repository, monkeypatch, capsys):
    """ONNX Runtime prints it, where the answers of commands go."""
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(
        onnxruntime,
        "preload_dlls",
        lambda: print("Failed to load libcublas.so.13: no such file\nPlease follow the page"),
        raising=False,
    )
    only_cpu = onnxruntime.InferenceSession
    monkeypatch.setattr(
        onnxruntime, "InferenceSession", lambda path, options, providers: only_cpu(path, options, providers=None)
    )
    engine = open_engine(repository, provider="cuda")
    with pytest.raises(
        RuntimeUnavailableError, match=r"the driver \(Failed to load libcublas\.so\.13: no such file\)$"
    ):
        engine.run("scm", zero_inputs(engine, "scm"))
    assert capsys.readouterr().out == ""


def test_no_library_of_a_gpu_is_looked_for_on_the_cpu(repository, monkeypatch):
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: pytest.fail("looked for"), raising=False)
    open_engine(repository)


def test_products_on_a_gpu_keep_single_precision(repository, monkeypatch):
    """ONNX Runtime's own choice, TF32, keeps 10 bits of the factors: engines would differ by a thousandth."""
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None, raising=False)
    asked = []
    only_cpu = onnxruntime.InferenceSession

    def note(path, options, providers):
        asked.extend(providers)
        return only_cpu(path, options, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(onnxruntime, "InferenceSession", note)
    engine = open_engine(repository, provider="cuda")
    with pytest.raises(RuntimeUnavailableError):
        engine.run("scm", zero_inputs(engine, "scm"))
    assert asked == [("CUDAExecutionProvider", {"use_tf32": 0})]


def test_both_runtimes_installed(repository, monkeypatch):
    monkeypatch.setattr(engine_runtime, "installed_versions", lambda *names: dict.fromkeys(names, "1.0"))
    with pytest.raises(RuntimeUnavailableError, match="both installed and overwrite each other; uninstall both"):
        open_engine(repository)
