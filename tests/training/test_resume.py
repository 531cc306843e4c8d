"""A resumed run is the uninterrupted one, bit for bit, wherever it was interrupted; nothing in its folder is run."""

import contextlib
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import anndata
import lightning.pytorch as lightning
import pytest
import torch
from short_runs import EPOCHS, assert_same_weights, interrupt, tiny_config, weights

from causcell.errors import RunError
from causcell_training import Run, TrainingPlan, fit
from causcell_training.checkpoint_file import read_checkpoint
from causcell_training.config import TrainConfig, load_config
from causcell_training.loop import finish
from causcell_training.run_folder import is_finished

KILLS = int(os.environ.get("CAUSCELL_KILLS", "4"))


class FallingPlan(TrainingPlan):
    """A learning rate that falls each epoch."""

    def configure_optimizers(self) -> Any:
        optimizer = super().configure_optimizers()
        return {"optimizer": optimizer, "lr_scheduler": torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.7)}


def broken_off(
    cells: anndata.AnnData, path: Path, epoch: int, config: TrainConfig, plan: type[TrainingPlan] | None = None
) -> Path:
    """A training that ends within an epoch (counted from 0)."""
    with pytest.MonkeyPatch.context() as patch:
        interrupt(patch, epoch, RuntimeError("power cut"))
        with pytest.raises(RuntimeError, match="power cut"):
            fit(cells, path, config=config, plan=plan)
    return path


def facts(run: Run) -> dict[str, Any]:
    """What of a run's provenance is no time."""
    return {name: value for name, value in run.provenance.items() if name not in ("finished", "seconds")}


def assert_the_same(one: Run, other: Run) -> None:
    assert_same_weights(one, other)
    assert facts(one) == facts(other)
    assert (one.path / "metrics.csv").read_text() == (other.path / "metrics.csv").read_text()
    assert (one.path / "split.csv").read_text() == (other.path / "split.csv").read_text()
    assert {path.name for path in one.path.iterdir()} == {path.name for path in other.path.iterdir()}


@pytest.fixture(scope="module")
def whole(cells: anndata.AnnData, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return fit(cells, tmp_path_factory.mktemp("whole") / "run", config=tiny_config())


@pytest.fixture(scope="module")
def cut(cells: anndata.AnnData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Broken off in its fifth epoch, with the state after the fourth. Copy before use."""
    return broken_off(cells, tmp_path_factory.mktemp("cut") / "run", 4, tiny_config())


@pytest.fixture
def unfinished(cut: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(cut, tmp_path / "run"))


# -- the same numbers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("validate_every", [1, 2, 5])
def test_a_resumed_run_is_the_uninterrupted_one(cells: anndata.AnnData, tmp_path: Path, validate_every: int) -> None:
    config = tiny_config(**{"optimisation.validate_every": validate_every})
    uninterrupted = fit(cells, tmp_path / "whole", config=config, plan=FallingPlan)
    for epoch in (1, 5):
        path = broken_off(cells, tmp_path / f"run{epoch}", epoch, config, FallingPlan)
        assert_the_same(fit(cells, path, config=config, plan=FallingPlan, resume=True), uninterrupted)


def test_a_run_interrupted_again_and_again_is_the_uninterrupted_one(
    cells: anndata.AnnData, whole: Run, unfinished: Path
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        interrupt(patch, 5, RuntimeError("power cut"))
        with pytest.raises(RuntimeError, match="power cut"):
            fit(cells, unfinished, config=tiny_config(), resume=True)
    assert_the_same(fit(cells, unfinished, config=tiny_config(), resume=True), whole)


def test_a_run_that_stops_early_stops_at_the_same_epoch(cells: anndata.AnnData, tmp_path: Path) -> None:
    """The validations without improvement before the interruption count."""
    changes = {"optimisation.learning_rate": 1e-30, "optimisation.epochs": 30, "optimisation.patience": 3}
    config = tiny_config(**changes, **{"optimisation.validate_every": 1})
    uninterrupted = fit(cells, tmp_path / "whole", config=config)
    assert uninterrupted.provenance["epochs"] == 4
    path = broken_off(cells, tmp_path / "run", 3, config)
    assert_the_same(fit(cells, path, config=config, resume=True), uninterrupted)


def test_a_resumed_run_counts_the_seconds_of_all_its_sessions(cells: anndata.AnnData, unfinished: Path) -> None:
    before = read_checkpoint(unfinished / "checkpoints" / "last.safetensors")
    assert fit(cells, unfinished, config=tiny_config(), resume=True).provenance["seconds"] >= round(
        before["callbacks"]["RunCheckpoints"]["seconds"], 1
    )


def test_a_run_folder_that_was_moved_is_resumed(
    cells: anndata.AnnData, whole: Run, unfinished: Path, tmp_path: Path
) -> None:
    (tmp_path / "else").mkdir()
    moved = unfinished.rename(tmp_path / "else" / "where")
    assert_the_same(fit(cells, moved, config=tiny_config(), resume=True), whole)


# -- what may differ ---------------------------------------------------------------------------------------------------


def test_more_epochs_on_resume_give_the_longer_run(cells: anndata.AnnData, tmp_path: Path) -> None:
    longer = tiny_config(**{"optimisation.epochs": 8})
    uninterrupted = fit(cells, tmp_path / "whole", config=longer)
    path = broken_off(cells, tmp_path / "run", 5, tiny_config())
    assert_the_same(fit(cells, path, config=longer, resume=True), uninterrupted)


def test_a_run_that_an_earlier_version_began_is_resumed_with_what_it_did(
    cells: anndata.AnnData, tmp_path: Path
) -> None:
    """Its config.toml does not name the norm of the last hidden state, which it had."""
    normed = tiny_config(model__last_norm=True)
    path = broken_off(cells, tmp_path / "run", 4, normed)
    text = (path / "config.toml").read_text()
    (path / "config.toml").write_text(text.replace("last_norm = true\n", ""))
    assert "last_norm" not in (path / "config.toml").read_text()
    with pytest.raises(RunError, match=r"model\.last_norm is True there and False here.*does not name it"):
        fit(cells, path, config=load_config(path / "config.toml"), resume=True)
    resumed = fit(cells, path, config=normed, resume=True)
    assert_same_weights(resumed, fit(cells, tmp_path / "whole", config=normed))


def test_fewer_epochs_on_resume_finish_with_the_best_so_far(cells: anndata.AnnData, unfinished: Path) -> None:
    best = read_checkpoint(unfinished / "checkpoints" / "best.safetensors")["state_dict"]
    run = fit(cells, unfinished, config=tiny_config(**{"optimisation.epochs": 4}), resume=True)
    assert run.provenance["epochs"] == 4
    assert all((array == best[f"model.{name}"].numpy()).all() for name, array in weights(run).items())


def test_patience_and_accelerator_may_differ_on_resume(cells: anndata.AnnData, unfinished: Path) -> None:
    config = tiny_config(**{"optimisation.patience": 3, "optimisation.accelerator": "cpu"})
    assert fit(cells, unfinished, config=config, resume=True).config == config
    assert Run.load(unfinished).config == config


def test_less_patience_stops_at_once(cells: anndata.AnnData, tmp_path: Path) -> None:
    changes = {"optimisation.learning_rate": 1e-30, "optimisation.epochs": 30, "optimisation.validate_every": 1}
    path = broken_off(cells, tmp_path / "run", 4, tiny_config(**changes))
    run = fit(cells, path, config=tiny_config(**changes, **{"optimisation.patience": 2}), resume=True)
    assert run.provenance["epochs"] == 4


def test_what_depends_on_the_device_is_the_resumed_runs_own(cells: anndata.AnnData, tmp_path: Path) -> None:
    """An optimiser state of a GPU says that its steps are not fused; this one's are."""
    found = []

    class UnfusedPlan(TrainingPlan):
        fused = False

        def configure_optimizers(self) -> Any:
            optimizer = super().configure_optimizers()
            for group in optimizer.param_groups:
                group["fused"] = self.fused
            return optimizer

        def on_train_end(self) -> None:
            found.append({group["fused"] for group in self.trainer.optimizers[0].param_groups})

    path = broken_off(cells, tmp_path / "run", 4, tiny_config(), UnfusedPlan)
    UnfusedPlan.fused = True
    fit(cells, path, config=tiny_config(), plan=UnfusedPlan, resume=True)
    assert found == [{True}]


# -- the very end ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["measure_test_cells", "find_versions", "describe"])
def test_a_run_interrupted_while_it_is_finished_is_resumed_and_finishes(
    cells: anndata.AnnData, whole: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def killed(*_: Any) -> None:
        raise RuntimeError("power cut")

    place: Any = Run if step == "describe" else finish
    with monkeypatch.context() as patch:
        patch.setattr(place, step, killed)
        with pytest.raises(RuntimeError, match="power cut"):
            if step == "find_versions":  # the first of them
                patch.setattr(Run, "save_weights", killed)
            fit(cells, tmp_path / "run", config=tiny_config())
    assert not is_finished(tmp_path / "run")
    assert_the_same(fit(cells, tmp_path / "run", config=tiny_config(), resume=True), whole)


@pytest.mark.parametrize("content", [b"", b"{", b'{"config": {}', b"null", b"\xff\xfe"])
def test_a_description_that_was_cut_off_is_no_finished_run(
    cells: anndata.AnnData, whole: Run, unfinished: Path, content: bytes
) -> None:
    """What versions before 0.2 left behind when they were killed as they wrote it in place."""
    (unfinished / "run.json").write_bytes(content)
    assert_the_same(fit(cells, unfinished, config=tiny_config(), resume=True), whole)


@pytest.mark.parametrize("content", [b"", b"epoch,st", b"epoch,step,name,value\n0,5,train/to", b"\xff\x00\n\n,,", None])
def test_a_metrics_file_never_ends_a_resume(
    cells: anndata.AnnData, whole: Run, unfinished: Path, content: bytes | None
) -> None:
    metrics = unfinished / "metrics.csv"
    metrics.unlink() if content is None else metrics.write_bytes(content)
    assert_same_weights(fit(cells, unfinished, config=tiny_config(), resume=True), whole)
    lines = metrics.read_text().splitlines()
    assert lines[0] == "epoch,step,name,value"
    assert {line.split(",")[0] for line in lines[1:]} == {"4", "5"}


def test_finished_means_that_the_files_are_those_that_training_wrote(whole: Run, tmp_path: Path) -> None:
    for name in ("weights.safetensors", "reference.npz", "held_out.h5ad"):
        path = Path(shutil.copytree(whole.path, tmp_path / name))
        assert is_finished(path)
        content = bytearray((path / name).read_bytes())
        content[len(content) // 2] ^= 1
        (path / name).write_bytes(content)
        assert not is_finished(path)
        with pytest.raises(RunError, match=f"{name} is not the file that training wrote"):
            Run.load(path)


# -- nothing is run ----------------------------------------------------------------------------------------------------


class Bomb:
    """A pickle that makes a folder when it is loaded."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


FILES = (
    "checkpoints/last.safetensors", "checkpoints/best.safetensors", "checkpoints/data.safetensors", "config.toml",
    "run.json", "metrics.csv", "split.csv", "held_out.h5ad", "weights.safetensors", "reference.npz",
    "checkpoints/last.ckpt", "checkpoints/best.ckpt", "hpc_ckpt_1.ckpt",
)  # fmt: skip


@pytest.mark.parametrize("kind", ["pickle", "torch"])
def test_no_file_of_a_run_folder_is_unpickled(
    cells: anndata.AnnData, unfinished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setenv("SLURM_NTASKS", "1")  # Lightning then looks for checkpoints of its own
    mark = tmp_path / "exploded"
    for name in FILES:
        path = Path(shutil.copytree(unfinished, tmp_path / "copy"))
        (path / name).unlink(missing_ok=True)
        if kind == "pickle":
            (path / name).write_bytes(pickle.dumps(Bomb(mark)))
        else:
            torch.save({"state_dict": Bomb(mark)}, path / name)
        try:
            fit(cells, path, config=tiny_config(), resume=True)
        except RunError as error:
            assert str(path) in str(error) or name in str(error)
        else:  # what is not needed is written anew or left alone
            assert name not in FILES[:4]
        for load in (lambda path=path: Run.load(path), lambda path=path: Run.load(path, unfinished=True)):
            with contextlib.suppress(RunError):
                load().held_out()
        assert not mark.exists(), name
        shutil.rmtree(path)


def test_checkpoints_of_older_versions_are_refused_as_pickles(cells: anndata.AnnData, unfinished: Path) -> None:
    for file in (unfinished / "checkpoints").iterdir():
        file.rename(file.with_suffix(".ckpt"))
    with pytest.raises(RunError, match=r"older version.*pickles.*overwrite=True"):
        fit(cells, unfinished, config=tiny_config(), resume=True)


def test_a_damaged_checkpoint_names_the_file_and_the_remedy(cells: anndata.AnnData, unfinished: Path) -> None:
    last = unfinished / "checkpoints" / "last.safetensors"
    content = bytearray(last.read_bytes())
    content[-5] ^= 1
    last.write_bytes(content)
    with pytest.raises(RunError, match=r"last\.safetensors is damaged.*overwrite=True"):
        fit(cells, unfinished, config=tiny_config(), resume=True)


@pytest.mark.parametrize("name", ["metrics.csv", "checkpoints", "config.toml", "weights.safetensors"])
def test_a_link_in_a_run_folder_is_not_followed(
    cells: anndata.AnnData, unfinished: Path, tmp_path: Path, name: str
) -> None:
    """A stranger's run folder could have this training write over any file of the user."""
    mine = tmp_path / "mine"
    if (unfinished / name).exists():
        (unfinished / name).rename(mine)
    else:
        mine.write_text("mine")
    (unfinished / name).symlink_to(mine)
    before = mine.read_bytes() if mine.is_file() else sorted(mine.iterdir())
    with pytest.raises(RunError, match=f"links in place of '{name}'"):
        fit(cells, unfinished, config=tiny_config(), resume=True)
    assert (mine.read_bytes() if mine.is_file() else sorted(mine.iterdir())) == before


# -- other people's callbacks ------------------------------------------------------------------------------------------


class Counting(lightning.Callback):
    """A callback with a state."""

    def __init__(self, state: Any) -> None:
        self.state = state

    def state_dict(self) -> dict[str, Any]:
        return {"state": self.state}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.state = state_dict["state"]


def test_the_state_of_a_callback_comes_back(cells: anndata.AnnData, tmp_path: Path) -> None:
    state = {"counts": {3: torch.arange(3), "x": (1, [2.5, None])}}
    with pytest.MonkeyPatch.context() as patch:
        interrupt(patch, 4, RuntimeError("power cut"))
        with pytest.raises(RuntimeError, match="power cut"):
            fit(cells, tmp_path / "run", config=tiny_config(), callbacks=[Counting(state)])
    after = Counting(None)
    fit(cells, tmp_path / "run", config=tiny_config(), callbacks=[after], resume=True)
    assert after.state["counts"]["x"] == (1, [2.5, None])
    assert after.state["counts"][3].tolist() == [0, 1, 2]


def test_a_state_that_no_checkpoint_can_hold_is_named(cells: anndata.AnnData, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"callbacks.*Counting.*'state'.*is a PosixPath.*tensors, numbers, texts"):
        fit(cells, tmp_path / "run", config=tiny_config(), callbacks=[Counting(Path("a"))])


# -- killed ------------------------------------------------------------------------------------------------------------

PROGRAM = """
import sys
sys.path.insert(0, {support!r})
from short_runs import tiny_config
from simulation import simulated_cells
from causcell_training import fit
fit(simulated_cells(), sys.argv[1], config=tiny_config(**{{"optimisation.validate_every": 1}}),
    **{{sys.argv[2]: True}})
"""


@pytest.mark.slow
def test_a_run_killed_at_any_moment_is_resumed_as_the_uninterrupted_one(cells: anndata.AnnData, tmp_path: Path) -> None:
    """SIGKILL, at moments spread over a whole training; CAUSCELL_KILLS says how many."""
    config = tiny_config(**{"optimisation.validate_every": 1})
    uninterrupted = fit(cells, tmp_path / "whole", config=config)
    program = PROGRAM.format(support=str(Path(__file__).parents[1] / "support"))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(str(Path(each).resolve()) for each in sys.path if each)}

    def start(path: Path, how: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", program, str(path), how], env=environment)

    def wait_for(path: Path, child: subprocess.Popen[bytes]) -> float:
        begun = time.monotonic()
        while not path.exists() and child.poll() is None:
            time.sleep(0.005)
        return time.monotonic() - begun

    path, how = tmp_path / "run", "overwrite"
    seconds = 2.0
    for kill in range(KILLS):
        child = start(path, how)
        wait_for(path / "config.toml", child)
        time.sleep(seconds * kill / KILLS)
        child.send_signal(signal.SIGKILL)
        child.wait()
        if is_finished(path):  # the kill came too late: sooner from now on
            seconds /= 2
            shutil.rmtree(path)
        how = "resume" if (path / "checkpoints" / "data.safetensors").exists() and kill % 3 else "overwrite"
    if not is_finished(path):
        begun = (path / "checkpoints" / "data.safetensors").exists()
        fit(cells, path, config=config, resume=begun, overwrite=not begun)
    assert_the_same(Run.load(path), uninterrupted)
    assert not [each.name for each in path.iterdir() if each.name.startswith(".")]


def test_provenance_is_that_of_an_uninterrupted_run(whole: Run) -> None:
    fields = json.loads((whole.path / "run.json").read_text())
    assert fields["provenance"]["epochs"] == EPOCHS
    assert set(fields["files"]) == {"weights.safetensors", "reference.npz", "held_out.h5ad"}


def test_a_pass_of_several_epochs_is_resumed_within(cells: anndata.AnnData, tmp_path: Path) -> None:
    few = tiny_config(optimisation__epoch_cells=150, optimisation__batch_size=32)
    whole = fit(cells, tmp_path / "whole", config=few)
    run = fit(cells, broken_off(cells, tmp_path / "run", 5, few), config=few, resume=True)
    assert_the_same(run, whole)
    assert whole.provenance["steps"] == EPOCHS * (288 // 2 // 32)
