"""The commands, from training to atlas, as a user types them."""

import json
import subprocess
import sys
import traceback
from importlib import metadata
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest

from causcell.cli.main import main
from causcell.errors import DataError
from causcell.generator import Generator
from causcell_training import fitting

CONSOLE_SCRIPT = Path(sys.executable).parent / "causcell"

COMMANDS = (
    "train", "evaluate", "export", "benchmark", "demo", "inspect", "embed", "generate", "verify", "materialize",
    "trial", "bench", "serve",
)  # fmt: skip

SMALL = [
    *("--set", "model.embedding=4", "--set", "model.width=16", "--set", "model.encoder_width=16"),
    *("--set", "model.blocks=1", "--set", "optimisation.epochs=2", "--set", "optimisation.validate_every=1"),
]
"""Settings of a model that is trained in a second."""


def run(*words: object) -> int:
    """Exit status of the command line for these words."""
    with pytest.raises(SystemExit) as exit_:
        main([str(word) for word in words])
    return 0 if exit_.value.code is None else int(exit_.value.code)


@pytest.fixture(scope="module")
def data(cells: anndata.AnnData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "cells.h5ad"
    cells.write_h5ad(path)
    return path


@pytest.fixture(scope="module")
def made(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``run`` and ``models``, made by the commands."""
    folder = tmp_path_factory.mktemp("made")
    concepts = ["--concept", "stim", "--concept", "cell_type", "--concept", "state"]
    edges = ["--edge", "stim:state", "--edge", "cell_type:state"]
    train = ["train", data, "--out", folder / "run", *concepts, *edges, "--genes", "40", "--seed", "3", *SMALL]
    assert run(*train, "--no-progress") == 0
    assert run("export", folder / "run", "--out", folder / "models") == 0
    return folder


# -- train and export --------------------------------------------------------------------------------------------------


def test_train_takes_data_concepts_edges_and_settings(made: Path) -> None:
    fields = json.loads((made / "run" / "run.json").read_text())
    assert [concept["name"] for concept in fields["concepts"]] == ["stim", "cell_type", "state"]
    pairs = [(edge["parent"], edge["child"]) for edge in fields["edges"]]
    assert pairs == [("stim", "state"), ("cell_type", "state")]
    assert len(fields["genes"]) == 40
    assert (fields["config"]["seed"], fields["config"]["model"]["width"], fields["provenance"]["epochs"]) == (3, 16, 2)


def test_train_reads_a_settings_file_before_which_flags_go_and_tells_the_outcome(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "train.toml").write_text(
        'concept = ["stim"]\ngenes = 10\nseed = 5\n[model]\nwidth = 8\nencoder_width = 8\n[optimisation]\nepochs = 9\n'
    )
    (tmp_path / "split.csv").write_text(
        "cell,split\n" + "".join(f"cell_{i:04d},{'train' if i % 4 else 'test'}\n" for i in range(320))
    )
    words = ["--config", tmp_path / "train.toml", "--split", tmp_path / "split.csv", "--out", tmp_path / "run"]
    assert run("train", data, *words, "--genes", "60", *SMALL, "--no-progress") == 0
    out, err = capsys.readouterr()
    fields = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (len(fields["genes"]), fields["config"]["seed"]) == (60, 5)
    assert (fields["config"]["model"]["width"], fields["config"]["optimisation"]["epochs"]) == (16, 2)  # --set
    assert fields["provenance"]["cells"]["report"] == 80
    assert fields["provenance"]["cells"]["train"] == fields["training_cells"]["count"]
    assert f"trained on {fields['training_cells']['count']} cells x 60 genes, 2 epochs" in out
    assert f"MSE {fields['provenance']['held_out']['mse']:.3f}" in out
    assert err == ""


def test_train_resumes_what_ctrl_c_interrupted(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    step = fitting.TrainingPlan.training_step

    def interrupted(self: fitting.TrainingPlan, batch: object) -> object:
        if self.current_epoch == 1:
            raise KeyboardInterrupt
        return step(self, batch)

    words = ["train", data, "--concept", "stim", "--genes", "10", "--out", tmp_path / "run", *SMALL, "--no-progress"]
    with monkeypatch.context() as patch:
        patch.setattr(fitting.TrainingPlan, "training_step", interrupted)
        patch.setattr("signal.signal", lambda *_: None)  # whatever is done to Ctrl-C, these tests keep theirs
        assert run(*words) == 130
    assert "Traceback" not in capsys.readouterr().err
    assert run("export", tmp_path / "run", "--out", tmp_path / "models") == 2
    assert "--resume" in capsys.readouterr().err
    assert run(*words, "--resume") == 0
    assert json.loads((tmp_path / "run" / "run.json").read_text())["provenance"]["epochs"] == 2


def test_export_tells_what_it_verified(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("export", made / "run", "--out", tmp_path / "models", "--torchscript") == 0
    out, err = capsys.readouterr()
    for graph in ("encoder_scm", "scm", "denoiser"):
        assert f"{graph}: largest difference" in out
        assert f"{graph}_torchscript: largest difference" in out
    assert f"exported and verified: {tmp_path / 'models'}" in out
    assert err == ""


# -- inspect -----------------------------------------------------------------------------------------------------------


def test_inspect_tells_a_machine_what_is_inside(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("inspect", made / "models", "--json") == 0
    out, err = capsys.readouterr()
    told = json.loads(out)
    manifest = json.loads((made / "models" / "manifest.json").read_text())
    assert told["verified"] is True
    assert told["digest"] == manifest["digest"]
    assert told["concepts"] == {"stim": ["IFN", "ctrl"], "cell_type": ["B", "NK", "T"], "state": ["active", "rest"]}
    assert told["edges"] == ["stim:state", "cell_type:state"]
    assert told["genes"]["count"] == 40
    assert (told["presets"]["balanced"]["solver"], told["presets"]["balanced"]["steps"]) == ("draw", 10)
    assert told["presets"]["draw"]["pcc"] == manifest["presets"]["draw"]["quality"]["pcc"]
    assert told["expression"] == {"scale": "counts", "target_sum": 10000, "normalisation_genes": 60}
    assert set(told["graphs"]) == {"encoder_scm", "scm", "denoiser", "decoder", "sampler"}
    assert err == ""


def test_inspect_tells_a_reader_the_same(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("inspect", made / "models") == 0
    out = capsys.readouterr().out
    assert "verified: True" in out
    assert "cell_type: B, NK, T" in out
    assert "edges: stim:state, cell_type:state" in out
    lines = out.splitlines()
    at = lines.index(next(line for line in lines if line.startswith("presets, measured on")))
    table = [line.split() for line in lines[at + 1 : at + 7]]
    assert table[0][:2] == ["solver", "steps"]
    assert [row[0] for row in table[1:]] == ["draw", "balanced", "accurate", "mean", "real"]
    assert table[2][1:3] == ["draw", "10"]
    assert len({len(line) for line in lines[at + 1 : at + 7]}) == 1  # columns are in line


# -- bench -------------------------------------------------------------------------------------------------------------


def test_bench_writes_what_it_measured(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "results.json"
    assert run("bench", made / "models", "--out", out, "--batch", 2, "--batch", 5, "--seconds", 0.01) == 0
    told = json.loads(out.read_text())
    assert set(told["presets"]["draw"]["latency"]["1"]) == {"2", "5"}
    assert told["ratio_to_reference"] > 0
    assert "the reference design" in capsys.readouterr().out
    before = out.read_text()
    assert run("bench", made / "models", "--out", out) == 2  # a result is not overwritten
    assert out.read_text() == before


@pytest.mark.parametrize("options", [["--batch", 0], ["--seconds", 0]], ids=str)
def test_bench_of_nothing(
    made: Path, tmp_path: Path, options: list[object], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("bench", made / "models", "--out", tmp_path / "results.json", *options) == 2
    assert "take numbers above 0" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


# -- embed -------------------------------------------------------------------------------------------------------------


def test_embed_writes_embeddings_and_predicted_labels(
    data: Path, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new folder" / "embedded.h5ad"
    assert run("embed", data, "--models", made / "models", "--out", out, "--no-progress") == 0
    stdout, err = capsys.readouterr()
    assert f"320 cells embedded: {out}" in stdout
    assert err == ""
    written = anndata.read_h5ad(out)
    with Generator.open(made / "models") as generator:
        expected = generator.embed(data)
    assert written.obs_names.tolist() == expected.obs_names.tolist()
    assert set(written.obsm) == set(expected.obsm)
    for name in expected.obsm:
        np.testing.assert_array_equal(written.obsm[name], expected.obsm[name])
    for name in ("stim", "cell_type", "state"):
        column = f"{name}_predicted"
        assert written.obs[column].astype(str).tolist() == expected.obs[column].astype(str).tolist()


def test_embed_takes_some_of_the_cells(data: Path, made: Path, tmp_path: Path, cells: anndata.AnnData) -> None:
    words = ["--models", made / "models", "--out", tmp_path / "some.h5ad", "--where", 'donor == "d2"']
    assert run("embed", data, *words, "--batch-size", "16", "--threads", "1", "--no-progress") == 0
    written = anndata.read_h5ad(tmp_path / "some.h5ad")
    assert written.obs_names.tolist() == cells.obs_names[cells.obs["donor"] == "d2"].tolist()


# -- generate ----------------------------------------------------------------------------------------------------------


def generated(data: Path, made: Path, out: Path, *words: str) -> anndata.AnnData:
    assert run("generate", data, "--models", made / "models", "--out", out, "--no-progress", *words) == 0
    return anndata.read_zarr(out)


def test_generate_writes_one_joint_intervention(data: Path, made: Path, tmp_path: Path, cells: anndata.AnnData) -> None:
    """The same cells as from Python."""
    atlas = generated(data, made, tmp_path / "atlas.zarr", "--do", "stim=IFN", "--do", "cell_type=B", "--seed", "7")
    with Generator.open(made / "models", threads=1) as generator:
        expected = generator.counterfactual(cells, do={"stim": "IFN", "cell_type": "B"}, seed=7)
    np.testing.assert_array_equal(atlas.X, expected.X)
    assert atlas.obs_names.tolist() == cells.obs_names.tolist()
    assert set(atlas.obs["intervention"]) == {"stim=IFN;cell_type=B"}
    pd.testing.assert_frame_equal(
        atlas.obs.astype({"draw": int}), expected.obs.astype({"draw": int}), check_categorical=False
    )


def test_generate_without_intervention_reconstructs(
    data: Path, made: Path, tmp_path: Path, cells: anndata.AnnData
) -> None:
    atlas = generated(data, made, tmp_path / "atlas.zarr")
    assert set(atlas.obs["intervention"]) == {"factual"}
    assert (atlas.obs["stim"].astype(str) == cells.obs["stim"].astype(str)).all()


def test_generate_takes_grid_cells_draws_solver_and_dtype_and_tells_a_machine(
    data: Path, made: Path, tmp_path: Path, cells: anndata.AnnData, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "atlas.zarr"
    where = ["--where", "cell_type == 'B' and donor == 'd1'"]
    solver = ["--solver", "ddim", "--steps", "3", "--eta", "0.5", "--spacing", "uniform"]
    options = ["--mode", "isolated", "--draws", "2", "--dtype", "float16", "--batch-size", "32", "--json"]
    atlas = generated(data, made, out, "--do", "state=rest", "--grid", "stim", *where, *solver, *options)
    stdout, err = capsys.readouterr()
    events = [json.loads(line) for line in stdout.splitlines()]
    assert [event["event"] for event in events] == ["plan", "shard", "done"]
    told = events[-1]
    chosen = cells.obs_names[(cells.obs["cell_type"] == "B") & (cells.obs["donor"] == "d1")]
    interventions = ["stim=IFN;state=rest", "stim=ctrl;state=rest"]
    assert told["interventions"] == interventions
    assert (told["cells"], told["draws"], told["rows"]) == (len(chosen), 2, 4 * len(chosen))
    assert (told["atlas"], told["genes"], told["estimate"]) == (str(out), 40, "sample")
    assert err == "" or all(line.startswith("warning:") for line in err.splitlines())
    assert atlas.shape == (4 * len(chosen), 40)
    assert atlas.X.dtype == np.float16
    expected_names = [f"{cell}|{each}|{draw}" for cell in chosen for each in interventions for draw in (0, 1)]
    assert atlas.obs_names.tolist() == expected_names
    assert (atlas.obs["state"] == "rest").all()
    assert atlas.obs["stim"].astype(str).tolist() == ["IFN", "IFN", "ctrl", "ctrl"] * len(chosen)
    said = atlas.uns["causcell"]
    assert (said["mode"], int(said["draws"]), said["solver"]["solver"]) == ("isolated", 2, "ddim")
    assert (int(said["solver"]["steps"]), float(said["solver"]["eta"])) == (3, 0.5)


def test_generate_takes_a_preset(data: Path, made: Path, tmp_path: Path) -> None:
    atlas = generated(data, made, tmp_path / "atlas.zarr", "--preset", "balanced", "--where", "donor == 'd3'")
    assert atlas.uns["causcell"]["solver"]["solver"] == "draw"
    assert int(atlas.uns["causcell"]["solver"]["steps"]) == 10


def test_generate_tells_its_plan_and_writes_nothing(
    data: Path, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "generate",
        data,
        "--models",
        made / "models",
        "--out",
        tmp_path / "atlas.zarr",
        "--grid",
        "stim",
        "--plan",
    ]
    assert run(*words, "--draws", "3") == 0
    out = capsys.readouterr().out
    for fragment in ("1,920 (320 cells, 2 interventions", "3 draws", "rows with combinations", "GB are free", "rows/s"):
        assert fragment in out
    assert run(*words, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["event"], told["rows"], told["shards"], told["genes"]) == ("plan", 640, 1, 40)
    assert told["bytes"] > 0
    assert told["rows_per_second"] > 0
    assert list(tmp_path.iterdir()) == []


def test_generate_refuses_what_cannot_fit(
    data: Path, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it is asked for its plan or to begin."""
    monkeypatch.setattr("causcell.atlas.estimate.free_bytes", lambda _: 100)
    for words in (["--plan"], []):
        assert run("generate", data, "--models", made / "models", "--out", tmp_path / "atlas.zarr", *words) == 2
        assert "error: the atlas needs about" in capsys.readouterr().err
    assert not (tmp_path / "atlas.zarr" / "zarr.json").exists()


def test_generate_says_when_there_is_nothing_to_do(
    data: Path, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    generated(data, made, tmp_path / "atlas.zarr", "--do", "stim=IFN")
    first = capsys.readouterr().out
    assert first.startswith("320 rows (320 cells, 1 interventions, 1 draws; sample) x 40 genes in ")
    generated(data, made, tmp_path / "atlas.zarr", "--do", "stim=IFN")
    assert capsys.readouterr().out.startswith(f"nothing to do: {tmp_path / 'atlas.zarr'} is finished (320 rows")
    words = ["generate", data, "--models", made / "models", "--out", tmp_path / "atlas.zarr", "--do", "stim=ctrl"]
    assert run(*words) == 2
    assert "interventions (1: 'stim=IFN' there, 1: 'stim=ctrl' asked for)" in capsys.readouterr().err


def test_verify_names_damage_by_its_status(
    data: Path, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "atlas.zarr"
    whole = generated(data, made, out)
    assert run("verify", out, "--no-progress") == 0
    assert "is sound: 320 rows in 1 shards" in capsys.readouterr().out
    shard = out / "X" / "c" / "0" / "0"
    shard.write_bytes(shard.read_bytes()[:-9] + b"something")
    assert run("verify", out, "--no-progress") == 1
    assert "shard 0 is damaged: X/c/0/0\nrun the command that made it again" in capsys.readouterr().out
    assert run("verify", out, "--no-progress", "--json") == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["missing"], told["damaged"], told["sound"]) == ([0], {}, False)  # its record was taken back
    np.testing.assert_array_equal(generated(data, made, out).X, whole.X)
    assert run("verify", out, "--no-progress") == 0


def test_materialize_makes_expression_of_embeddings(data: Path, made: Path, tmp_path: Path) -> None:
    stored, out = tmp_path / "stored.zarr", tmp_path / "made.zarr"
    generated(data, made, stored, "--store", "embeddings", "--grid", "stim", "--threads", "2")
    assert run("materialize", stored, "--models", made / "models", "--out", out, "--no-progress") == 0
    direct = generated(data, made, tmp_path / "direct.zarr", "--grid", "stim", "--threads", "2")
    np.testing.assert_array_equal(anndata.read_zarr(out).X, direct.X)


def test_generate_writes_small_results_as_h5ad(
    data: Path, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "summary.h5ad"
    words = ["generate", data, "--models", made / "models", "--out", out, "--store", "summary", "--draws", "4"]
    assert run(*words, "--no-progress") == 0
    read, whole = anndata.read_h5ad(out), generated(data, made, tmp_path / "a.zarr", *words[6:])
    np.testing.assert_array_equal(read.X, whole.X)
    np.testing.assert_array_equal(read.layers["deviation"], whole.layers["deviation"])
    assert read.uns["causcell"]["interventions"].tolist() == ["factual"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zarr", "summary.h5ad"]
    assert run(*words, "--no-progress") == 2  # what is there is not overwritten
    monkeypatch.setattr("causcell.cli.atlas._LARGEST_H5AD", 1000)
    words[words.index(out)] = tmp_path / "large.h5ad"
    assert run(*words, "--no-progress") == 2
    assert "fit into memory: name a .zarr" in capsys.readouterr().err


def test_generate_takes_several_files(
    data: Path, made: Path, tmp_path: Path, cells: anndata.AnnData, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file's key is its name or what is given before ``=``; its cells are named by it."""
    cells[:30].write_h5ad(tmp_path / "one.h5ad")
    cells[30:50].write_h5ad(tmp_path / "two.h5ad")
    words = [f"b={tmp_path / 'two.h5ad'}", "--models", made / "models", "--no-progress"]
    assert run("generate", tmp_path / "one.h5ad", *words, "--out", tmp_path / "atlas.zarr", "--workers", "2") == 0
    read = anndata.read_zarr(tmp_path / "atlas.zarr")
    expected = [f"one:{name}" for name in cells.obs_names[:30]] + [f"b:{name}" for name in cells.obs_names[30:50]]
    assert read.obs_names.tolist() == expected
    capsys.readouterr()
    twice = [f"b={tmp_path / 'one.h5ad'}", *words]
    assert run("generate", *twice, "--out", tmp_path / "twice.zarr") == 2
    assert "several files have the key 'b'" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--workers", "0"], ["--workers", "2", "--dask", "tcp://127.0.0.1:1"]], ids=str)
def test_workers_that_can_not_be(
    data: Path, made: Path, tmp_path: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("generate", data, "--models", made / "models", "--out", tmp_path / "atlas.zarr", *words) == 2
    assert "take at least 1, and leave it out with --dask" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_warnings_are_lines_and_no_obstacle(
    data: Path, made: Path, tmp_path: Path, cells: anndata.AnnData, capsys: pytest.CaptureFixture[str]
) -> None:
    panel = json.loads((made / "models" / "manifest.json").read_text())["genes"]["names"]
    fewer = cells[:, [name for name in cells.var_names if name != panel[3]]].copy()
    fewer.write_h5ad(tmp_path / "fewer.h5ad")
    words = ["--allow-missing-genes", "0.05", "--no-progress", "--out", tmp_path / "atlas.zarr"]
    assert run("generate", tmp_path / "fewer.h5ad", "--models", made / "models", *words) == 0
    err = capsys.readouterr().err.splitlines()
    assert len(err) == 1
    assert err[0].startswith("warning: 1 of 40 panel genes are missing")
    assert repr(panel[3]) in err[0]


# -- the command line itself -------------------------------------------------------------------------------------------


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help") == 0
    out = capsys.readouterr().out
    for command in COMMANDS:
        assert f" {command} " in out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(command, "--help") == 0
    assert f" {command} [OPTIONS]" in capsys.readouterr().out


def test_version_is_the_distributions(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--version") == 0
    assert capsys.readouterr().out == f"causcell {metadata.version('causcell')}\n"


@pytest.mark.parametrize(
    "words",
    [["inspect", "--colour"], ["paint"], ["embed"], ["generate", "x.h5ad", "--draws", "many"]],
    ids=["unknown option", "unknown command", "missing argument", "not a number"],
)
def test_words_that_are_no_command_are_a_usage_error(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "Usage:" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("place", [0, 1, 3], ids=["first", "after the command", "last"])
def test_debug_shows_where_an_error_arose(tmp_path: Path, made: Path, place: int) -> None:
    words = ["embed", "absent.h5ad", "--models", str(made / "models"), "--out", str(tmp_path / "x.h5ad")]
    words.insert(place if place < 3 else len(words), "--debug")
    with pytest.raises(DataError, match=r"absent\.h5ad") as error:
        main(words)
    assert "open_source" in "".join(traceback.format_exception(error.value))


def test_the_installed_program_runs_and_needs_no_torch_to_inspect(made: Path) -> None:
    """In a process of its own, as a shell starts it."""
    done = subprocess.run([CONSOLE_SCRIPT, "inspect", made / "models", "--json"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["verified"] is True
    # the entry points of training and export are loaded, what they need is not
    code = f"import sys; sys.argv = ['causcell', 'inspect', {str(made / 'models')!r}]\n"
    code += "import atexit; atexit.register(lambda: print('torch' in sys.modules, file=sys.stderr))\n"
    code += "from causcell.cli.main import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stderr.strip() == "False"


def test_the_installed_program_reports_an_error_by_its_status(tmp_path: Path) -> None:
    done = subprocess.run([CONSOLE_SCRIPT, "inspect", tmp_path], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1
    debugged = subprocess.run([CONSOLE_SCRIPT, "inspect", tmp_path, "--debug"], capture_output=True, text=True)
    assert debugged.returncode != 0
    assert "Traceback" in debugged.stderr
    assert "CorruptFileError" in debugged.stderr


# -- evaluate and trial ------------------------------------------------------------------------------------------------


def test_evaluate_leaves_out_what_was_trained_on_and_says_so(
    made: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["evaluate", data, "--models", made / "models", "--finer", "donor", "--threads", "1"]
    monkeypatch.setattr(sys, "argv", ["causcell", *map(str, words)])  # as the shell leaves it
    assert run(*words, "--out", tmp_path / "report", "--no-progress") == 0
    out, err = capsys.readouterr()
    content = json.loads((tmp_path / "report" / "report.json").read_text())
    trained = json.loads((made / "models" / "manifest.json").read_text())["training_cells"]["count"]
    assert f"{320 - trained} of 320 cells judged, {trained} left out that the model was trained on" in out
    assert content["command"] == " ".join(["causcell", *map(str, words)])
    assert content["versions"]["causcell"] == metadata.version("causcell")
    assert (tmp_path / "report" / "report.html").stat().st_size > 10_000
    assert err == ""
    assert run(*words, "--out", tmp_path / "report") == 2
    assert "exists already" in capsys.readouterr().err


def test_trial_writes_average_effects_and_effects_on_cells(
    made: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["trial", data, "--models", made / "models", "--draws", "2", "--no-progress"]
    assert run(*words, "--concept", "stim", "--replicate", "donor", "--out", tmp_path / "average.h5ad") == 0
    out, _ = capsys.readouterr()
    assert "320 cells, 3 independent units (donor)" in out
    assert "ctrl against IFN: " in out
    average = anndata.read_h5ad(tmp_path / "average.h5ad")
    assert list(average.obs_names) == ["IFN", "ctrl"]
    where = ["--where", 'stim == "ctrl"']
    assert run(*words, "--do", "stim=IFN", *where, "--out", tmp_path / "cells.h5ad") == 0
    effects = anndata.read_h5ad(tmp_path / "cells.h5ad")
    assert (effects.obs["stim"] == "ctrl").all()
    assert effects.layers["deviation"].shape == effects.shape


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give either --concept"),
        (["--concept", "stim", "--do", "stim=IFN"], "give either --concept"),
        (["--do", "stim=IFN", "--baseline", "ctrl"], "--baseline and --replicate belong to --concept"),
        (["--concept", "dose"], "there is no concept 'dose'"),
    ],
)
def test_trial_names_what_it_can_not_do(
    made: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert run("trial", data, "--models", made / "models", "--out", tmp_path / "out.h5ad", *words) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out.h5ad").exists()
