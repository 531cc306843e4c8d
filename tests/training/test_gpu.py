"""Training on a GPU: as on a CPU, but for the precision of products; runs go from one to the other."""

import numpy as np
import pytest
import torch
from short_runs import interrupt, short_config, weights

from causcell_export import export
from causcell_training import Run, fit

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU")]

GPU = {"optimisation__accelerator": "gpu"}


def held_out_error(run: Run) -> float:
    return run.provenance["best_held_out_mse"]


@pytest.mark.parametrize("precision", ["auto", "float32"])
def test_a_run_is_as_good_as_one_of_the_cpu(cells, tmp_path, precision):
    config = short_config(**GPU, optimisation__precision=precision)
    run = fit(cells, tmp_path / "gpu", config=config)
    assert run.provenance["device"].startswith("cuda")
    other = fit(cells, tmp_path / "cpu", config=short_config(optimisation__accelerator="cpu"))
    assert held_out_error(run) == pytest.approx(held_out_error(other), rel=0.1)
    assert all(np.isfinite(array).all() and array.dtype == np.float32 for array in weights(run).values())


def test_a_run_of_a_gpu_is_exported_on_the_cpu(cells, tmp_path):
    run = fit(cells, tmp_path / "run", config=short_config(**GPU))
    assert all(tensor.device.type == "cpu" for tensor in run.model.state_dict().values())
    assert (export(tmp_path / "run", tmp_path / "models") / "manifest.json").is_file()


@pytest.mark.parametrize(("first", "second"), [("gpu", "cpu"), ("cpu", "gpu"), ("gpu", "gpu")])
def test_an_interrupted_run_goes_on_elsewhere(cells, tmp_path, monkeypatch, first, second):
    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="power cut"):
        interrupt(patch, 3, RuntimeError("power cut"))
        fit(cells, tmp_path / "run", config=short_config(optimisation__accelerator=first))
    run = fit(cells, tmp_path / "run", config=short_config(optimisation__accelerator=second), resume=True)
    assert run.provenance["epochs"] == short_config().optimisation.epochs
    assert run.provenance["device"].startswith({"gpu": "cuda", "cpu": "cpu"}[second])
