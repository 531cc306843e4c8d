"""What ``causcell bench`` writes: every key that is documented, and figures that fit together."""

import os
import re

import numpy as np
import pytest

from causcell._internal.cpus import available_cpus
from causcell.bench import measure, reference_design
from causcell.bench.measure import run_bench
from causcell.bench.metered_engine import MeteredEngine
from causcell.bench.reference_design import ReferenceDesign, gemm_gflops
from causcell.bench.timing import BATCH_SIZE
from causcell.errors import ConfigurationError, RuntimeUnavailableError

pytestmark = pytest.mark.slow  # figures are measured


@pytest.fixture(scope="module")
def results(repository):
    return run_bench(repository, batches=[4, 32], seconds=0.05)


def test_every_documented_key_is_there(results):
    described = measure.__doc__.split("::\n")[1].split("\n\nA percentile")[0]
    keys = [name for line in described.splitlines() for name in re.findall(r"^    ([a-z_.<>, ]+?)(?:  |$)", line)]
    names = {name.strip() for key in keys for name in key.split(",")} - {""}
    assert len(names) >= 15
    assert {name.partition(".")[0] for name in names} <= set(results)
    cpus = len(os.sched_getaffinity(0))
    assert results["threads"] == sorted({1, cpus})
    assert results["provider"] == "cpu"
    for preset in results["presets"].values():
        assert set(preset) - {"cells_per_second_threads"} == {"cells_per_second", "latency", "split_ms"}
        assert (preset.get("cells_per_second_threads", 0) > 0) == (available_cpus() > 1)
        assert set(preset["latency"]) == {str(threads) for threads in results["threads"]}
        assert set(preset["split_ms"]) == {"encode", "intervene", "noise", "network", "draw"}


def test_latencies_are_percentiles_of_their_repeats(results):
    for preset in results["presets"].values():
        for rows in preset["latency"].values():
            assert set(rows) == {"4", "32"}
            for batch, row in rows.items():
                assert 0 < row["p50_ms"] <= row["p95_ms"] <= row["p99_ms"]
                assert row["repeats"] >= 3
                assert row["cells_per_second"] == pytest.approx(int(batch) / row["p50_ms"] * 1e3, rel=0.01)


def test_ratios_are_those_of_their_figures(results):
    """The ratio to GEMM is the median of three: within the range of the two medians' drift, a factor of two here."""
    default = results["presets"][results["default_preset"]]["cells_per_second"]
    assert results["ratio_to_reference"] == pytest.approx(default / results["reference_cells_per_second"], rel=0.01)
    ratio = results["network_gflops"] / results["gemm_gflops"]
    assert ratio / 2 < results["ratio_to_gemm"] < 2 * ratio


def test_the_split_adds_up_to_the_whole(results):
    """Each part is measured by itself: a factor of ten for a machine that does other work too."""
    for preset in results["presets"].values():
        parts = sum(value for name, value in preset["split_ms"].items() if name != "encode")
        whole = BATCH_SIZE / preset["cells_per_second"] * 1e3
        assert whole / 10 < parts < 10 * whole


def test_gemm_counts_its_operations(monkeypatch):
    """Two products of 3 rows: 2 x 3 x (4 x 5 + 6 x 7) operations, over the median time."""
    monkeypatch.setattr(reference_design, "time_calls", lambda call, seconds: (call(), np.array([1.0, 2.0, 9.0]))[1])
    assert gemm_gflops([(4, 5), (6, 7)], 1.0, batch=3) == pytest.approx(2 * 3 * (20 + 42) / 2.0 / 1e9)


def test_the_reference_design_is_as_wide_as_the_panel_and_takes_a_thousand_steps(monkeypatch):
    design = ReferenceDesign(50)
    x, tokens = np.ones((3, 50), dtype=np.float32), np.ones((3, 4, 36), dtype=np.float32)
    first, second = design.step(x, tokens, 500), design.step(x, tokens, 500)
    assert first.shape == (3, 50)
    assert np.isfinite(first).all()
    assert (first != second).all()  # fresh noise
    monkeypatch.setattr(reference_design, "time_calls", lambda call, seconds: np.array([0.5]))
    assert design.cells_per_second(1.0, batch=100) == pytest.approx(100 / (0.5 * 1000))


def test_a_metered_engine_counts_and_passes_on(generator):
    engine = MeteredEngine(generator.engine)
    expression = np.zeros((4, 50), dtype=np.float32)
    found = engine.run("encoder_scm", {"expression": expression}, ["endogenous"])
    assert engine.bytes == expression.nbytes + found["endogenous"].nbytes
    assert engine.seconds > 0
    for name in ("manifest", "reference", "description", "concurrency", "threads", "at_hand"):
        assert getattr(engine, name) is getattr(generator.engine, name)
    assert engine.status() == generator.engine.status()


# -- what can not be measured ------------------------------------------------------------------------------------------


def test_cuda_where_the_runtime_has_none(repository):
    with pytest.raises(RuntimeUnavailableError, match="CUDAExecutionProvider"):
        run_bench(repository, provider="cuda", batches=[2], seconds=0.01)


def test_a_servers_provider_is_chosen_there():
    with pytest.raises(ConfigurationError, match=r"provider is 'cuda', but is chosen where grpc://.* is served"):
        run_bench("grpc://127.0.0.1:9", provider="cuda")


@pytest.mark.parametrize("options", [{"seconds": 0}, {"batches": []}, {"batches": [4, 0]}], ids=str)
def test_nothing_to_measure(repository, options):
    with pytest.raises(ConfigurationError, match="take numbers above 0"):
        run_bench(repository, **options)


def test_a_model_of_a_hub_is_timed_by_its_commit(monkeypatch):
    """So that starts are timed without a question to the hub, and results say what was measured."""
    asked = []
    monkeypatch.setattr(measure, "pin_revision", lambda location: f"{location}@{'0' * 40}")
    monkeypatch.setattr(measure, "_measure_here", lambda bench: asked.append(bench.location) or {})
    measure.run_bench("hf://lab/kang")
    assert asked == [f"hf://lab/kang@{'0' * 40}"]
