"""Machines that are not like ours: batch systems, no GPU, few CPUs."""

from pathlib import Path
from typing import Any

import anndata
import pytest
import torch
from commands import refused, says, train_words
from short_runs import assert_same_weights, interrupt, read_metrics, short_config, tiny_config

from causcell.errors import CausCellError, ConfigurationError
from causcell_training import fit
from causcell_training.loop.environment import check_accelerator

BATCH_SYSTEMS = {
    "SLURM with --ntasks": {
        "SLURM_JOB_ID": "1", "SLURM_JOB_NAME": "train", "SLURM_NTASKS": "4", "SLURM_NNODES": "1", "SLURM_PROCID": "2",
        "SLURM_LOCALID": "2", "SLURM_NODEID": "0", "SLURM_NODELIST": "n1", "SLURM_NTASKS_PER_NODE": "4",
    },
    "torchrun": {
        "RANK": "3", "LOCAL_RANK": "3", "GROUP_RANK": "1", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "4",
        "MASTER_ADDR": "n1", "MASTER_PORT": "29500", "TORCHELASTIC_RUN_ID": "a",
    },
    "MPI": {"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "2", "OMPI_COMM_WORLD_LOCAL_RANK": "2"},
    "LSF": {
        "LSB_JOBID": "1", "LSB_DJOB_RANKFILE": "/nonexistent", "JSM_NAMESPACE_LOCAL_RANK": "1",
        "JSM_NAMESPACE_SIZE": "4", "JSM_NAMESPACE_RANK": "1",
    },
    "Kubeflow": {
        "KUBERNETES_PORT": "1", "MASTER_ADDR": "n1", "MASTER_PORT": "1", "WORLD_SIZE": "4", "RANK": "2",
        "NODE_RANK": "1",
    },
}  # fmt: skip


@pytest.mark.parametrize("name", BATCH_SYSTEMS)
def test_variables_of_a_batch_system_are_not_taken_for_those_of_a_distributed_training(
    cells: anndata.AnnData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    config = tiny_config(**{"optimisation.epochs": 2})
    plain = fit(cells, tmp_path / "plain", config=config)
    for variable, value in BATCH_SYSTEMS[name].items():
        monkeypatch.setenv(variable, value)
    assert_same_weights(fit(cells, tmp_path / "run", config=config), plain)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_told_before_anything_is_written(
    cells: anndata.AnnData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigurationError, match=r"accelerator='gpu': .*available are 'auto', 'cpu'"):
        check_accelerator("gpu")
    cells.write_h5ad(tmp_path / "cells.h5ad")
    words = train_words(tmp_path / "cells.h5ad", tmp_path / "run", "--set", "optimisation.accelerator=gpu")
    says(refused(capsys, *words), "optimisation.accelerator='gpu'", "'auto', 'cpu'")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("name", "near"), [("GPU", "gpu"), ("cuda", "gpu"), ("cpus", "cpu"), ("tpu", "cpu")])
def test_an_accelerator_of_another_name_is_told_the_allowed_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, near: str
) -> None:
    words = train_words(tmp_path / "absent.h5ad", tmp_path / "run", "--set", f"optimisation.accelerator={name}")
    says(refused(capsys, *words), f"'{name}'", "'auto'", "'cpu'", f"'{near}'")


@pytest.mark.parametrize(
    ("gpu", "settings", "expected"),
    [
        (True, {}, "bf16-mixed"),
        (True, {"optimisation.precision": "float32"}, "32-true"),
        (True, {"optimisation.accelerator": "cpu"}, "32-true"),
        (False, {}, "32-true"),
        (True, {"optimisation.precision": "bfloat16"}, "bf16-mixed"),
    ],
)
def test_products_are_of_half_precision_on_a_gpu_alone_and_unless_asked_not_to(
    cells: anndata.AnnData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpu: bool, settings: dict, expected: str
) -> None:
    class AskedError(Exception):
        pass

    def ask(**arguments: object) -> None:
        raise AskedError(arguments["precision"])

    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr("causcell_training.loop.trainer.lightning.Trainer", ask)
    with pytest.raises(AskedError, match=expected):
        fit(cells, tmp_path / "run", config=tiny_config(**settings))


def test_bfloat16_on_a_cpu_takes_one_that_computes_with_it(
    cells: anndata.AnnData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it has the instructions, a training in it comes near the one in single precision."""
    lowered = tiny_config(**{"optimisation.precision": "bfloat16", "optimisation.accelerator": "cpu"})
    monkeypatch.setattr("causcell_training.loop.environment._computes_bfloat16", lambda: False)
    with pytest.raises(ConfigurationError, match=r"precision='bfloat16': this CPU has no .*'float32'"):
        fit(cells, tmp_path / "run", config=lowered)
    assert not (tmp_path / "run").exists()
    monkeypatch.setattr("causcell_training.loop.environment._computes_bfloat16", lambda: True)
    runs = [fit(cells, tmp_path / name, config=config) for name, config in (("low", lowered), ("full", tiny_config()))]
    low, full = (run.provenance["best_held_out_mse"] for run in runs)
    assert low == pytest.approx(full, rel=0.05)
    assert low != full


def test_gradients_of_several_batches_make_a_step(cells: anndata.AnnData, tmp_path: Path) -> None:
    config = tiny_config(**{"optimisation.accumulate": 2, "optimisation.batch_size": 50})
    run = fit(cells, tmp_path / "run", config=config)
    assert run.provenance["steps"] == 6 * 3  # of 288 cells 5 batches, and the last alone
    again = tmp_path / "again"
    with pytest.MonkeyPatch.context() as patch:
        interrupt(patch, 5, RuntimeError("power cut"))
        with pytest.raises(RuntimeError, match="power cut"):
            fit(cells, again, config=config)
    assert_same_weights(fit(cells, again, config=config, resume=True), run)


@pytest.mark.parametrize(("cache", "strategy"), [("memory", "auto"), ("disk", "ddp_spawn"), ("memory", "ddp_fork")])
def test_two_processes_train_as_one(
    cells: anndata.AnnData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: str, strategy: str
) -> None:
    """The same steps over the same cells with other random numbers; and no batch system's variables are taken."""
    for variable, value in BATCH_SYSTEMS["torchrun"].items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")  # a copy that computed with two threads would wait for its parent's
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    one = fit(cells, tmp_path / "one", config=short_config())
    two = fit(cells, tmp_path / "two", config=short_config(), devices=2, strategy=strategy, cache=cache)
    torch.set_num_threads(before)
    assert {path.name for path in one.path.iterdir()} == {path.name for path in two.path.iterdir()}
    for name in ("steps", "epochs"):
        assert one.provenance[name] == two.provenance[name]
    losses = [run.provenance["best_held_out_mse"] for run in (one, two)]
    assert losses[1] == pytest.approx(losses[0], rel=0.05)  # seeds differ by as much
    metrics = [[(row["epoch"], row["name"]) for row in read_metrics(run.path / "metrics.csv")] for run in (one, two)]
    assert metrics[0] == metrics[1]


def test_devices_and_strategy_are_flags(
    cells: anndata.AnnData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[dict[str, Any]] = []

    class AskedError(CausCellError):
        pass

    def ask(**arguments: Any) -> None:
        asked.append(arguments)
        raise AskedError("as asked")

    monkeypatch.setattr("causcell_training.loop.trainer.lightning.Trainer", ask)
    cells.write_h5ad(tmp_path / "cells.h5ad")
    words = train_words(tmp_path / "cells.h5ad", tmp_path / "run")
    for flags, name in (([], "spawn"), (["--strategy", "ddp_fork"], "fork"), (["--strategy", "ddp_spawn"], "spawn")):
        assert "as asked" in refused(capsys, *words, "--devices", "2", "--overwrite", *flags)
        assert (asked[-1]["devices"], asked[-1]["strategy"]) == (2, f"ddp_{name}_find_unused_parameters_true")
    says(refused(capsys, *words, "--devices", "0"), "--devices 0", "greater than or equal to 1")
    says(
        refused(capsys, *words, "--devices", "2", "--strategy", "fsdp"), "--strategy fsdp", "'ddp_spawn'", "'ddp_fork'"
    )
    alone = refused(capsys, *words, "--strategy", "ddp_fork", "--overwrite")
    says(alone, "--strategy ddp_fork", "there is one device", "--devices")


def test_devices_that_are_not_there_or_have_nothing_to_do_are_told(
    cells: anndata.AnnData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigurationError, match=r"devices=40: batches of 64 cells .*; take 32 or fewer"):
        fit(cells, tmp_path / "run", config=tiny_config(**{"optimisation.devices": 40}))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ConfigurationError, match=r"devices=3: torch finds 2 GPUs here; .*accelerator='cpu'"):
        fit(cells, tmp_path / "run", config=tiny_config(), devices=3)
    with pytest.raises(ConfigurationError, match=r"strategy='ddp_fork' copies a process, .*'ddp_spawn'.*='cpu'"):
        fit(cells, tmp_path / "run", config=tiny_config(), devices=2, strategy="ddp_fork")
    assert not (tmp_path / "run").exists()
