"""Half precision: the same model to a thousandth, in half the bytes, with nothing that overflows."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from exported import export_unmeasured

from causcell.engine.open import open_engine
from causcell.errors import ConfigurationError
from causcell.generator import Generator
from causcell.repository.folder import open_repository
from causcell_export import export
from causcell_training import Run

pytestmark = pytest.mark.slow  # models are exported

LOWERED = ("denoiser", "decoder", "sampler")


@pytest.fixture(scope="module")
def half(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_unmeasured(run, tmp_path_factory.mktemp("half") / "repository", precision="fp16")


def weights(repository: Path, graph: str) -> list[onnx.TensorProto]:
    """Matrices of a graph, a loop's too."""
    model = onnx.load(repository / graph / "1" / "model.onnx").graph
    bodies = [each.g for node in model.node for each in node.attribute if each.type == onnx.AttributeProto.GRAPH]
    return [tensor for part in (model, *bodies) for tensor in part.initializer if len(tensor.dims) == 2]


def test_the_manifest_says_so(repository: Path, half: Path) -> None:
    assert open_repository(repository).manifest.precision == "fp32"
    assert open_repository(half).manifest.precision == "fp16"


@pytest.mark.parametrize("graph", LOWERED)
def test_the_denoisers_matrices_are_halves(repository: Path, half: Path, graph: str) -> None:
    assert {tensor.data_type for tensor in weights(repository, graph)} == {onnx.TensorProto.FLOAT}
    kinds = [tensor.data_type for tensor in weights(half, graph)]
    assert kinds.count(onnx.TensorProto.FLOAT16) >= len(open_repository(half).manifest.graphs[graph].products) > 5


@pytest.mark.parametrize("graph", ["encoder_scm", "scm"])
def test_concepts_are_read_at_full_precision(repository: Path, half: Path, graph: str) -> None:
    files = [open_repository(each).manifest.files[f"{graph}/1/model.onnx"] for each in (repository, half)]
    assert files[0] == files[1]


def test_cells_are_those_of_full_precision(generator: Generator, half: Path, run: Run) -> None:
    """Half has 11 bits: a thousandth a sum, a few of them; draws flip where u is as near to its threshold."""
    cells = run.held_out()
    with Generator.open(half, threads=1, batch_size=64) as lowered:
        for options, beyond in (
            ({"preset": "mean"}, 0.0),
            ({"preset": "draw"}, 0.01),
            ({"solver": "dpmpp", "steps": 10}, 0.01),
        ):
            expected = generator.reconstruct(cells, expression="log1p", **options).X
            found = lowered.reconstruct(cells, expression="log1p", **options).X
            assert (np.abs(found - expected) / (1 + expected) > 0.02).mean() <= beyond
            assert (found != expected).any()


def test_large_activations_do_not_overflow(repository: Path, half: Path) -> None:
    """x_t of 90 deviations, a rare gene's, is 8,100 squared and over a variance of 1e-4 far beyond half's 65,504.

    An overflow to infinity may come back as a zero, without a NaN: so values are compared.
    """
    rng = np.random.default_rng(0)
    x_t = rng.standard_normal((64, 50), dtype=np.float32)
    x_t[:, ::5] = 90
    inputs = {
        "x_t": x_t,
        "timestep": rng.integers(20, size=(64, 1)),
        "endogenous": 5 * rng.standard_normal((64, 5, 8), dtype=np.float32),
    }
    found, expected = (open_engine(each, threads=1).run("denoiser", inputs) for each in (half, repository))
    for name in expected:
        assert np.isfinite(found[name]).all()
        np.testing.assert_allclose(found[name], expected[name], rtol=0.02, atol=0.02, err_msg=name)


def test_unknown_precision(run: Run, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="precision='int4' is not known; known are 'fp32', 'fp16'"):
        export(run, tmp_path / "models", precision="int4")
    assert list(tmp_path.iterdir()) == []
