"""``causcell generate``: from cells, interventions and options to an atlas, and what it tells."""

import json
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from commands import check_missing, generate_words, generated, run_command, without_package

from causcell.generator import Generator


def test_generate_writes_one_joint_intervention(data: Path, made: Path, tmp_path: Path, cells: anndata.AnnData) -> None:
    """The same cells as from Python."""
    atlas = generated(data, made, tmp_path / "atlas.zarr", "--do", "stim=IFN", "--do", "cell_type=B", "--seed", "7")
    with Generator.open(made / "models", threads=1) as generator:
        expected = generator.counterfactual(cells, do={"stim": "IFN", "cell_type": "B"}, seed=7)
    np.testing.assert_array_equal(atlas.X.toarray(), expected.X)
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


def test_generate_keeps_annotations(
    data: Path, made: Path, tmp_path: Path, cells: anndata.AnnData, capsys: pytest.CaptureFixture[str]
) -> None:
    """By default all; those that are named, or none; the plan says which."""
    noted = cells[:30].copy()
    noted.obs["sample"], noted.obs["batch"] = pd.Categorical(["s1", "s2"] * 15), "b"
    noted.obsm["spatial"], noted.obsm["X_umap"] = np.ones((30, 2)), np.ones((30, 3))
    noted.write_h5ad(tmp_path / "noted.h5ad")
    atlas = generated(tmp_path / "noted.h5ad", made, tmp_path / "all.zarr", "--do", "stim=IFN", "--json")
    (plan, *_) = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert plan["keeps"] == {"obs": ["donor", "sample", "batch"], "obsm": ["spatial"], "var": []}
    assert atlas.obs["sample"].tolist() == noted.obs["sample"].tolist()
    chosen = ["--keep-obs", "batch", "--keep-obsm", "X_umap", "--keep-obsm", "spatial"]
    atlas = generated(tmp_path / "noted.h5ad", made, tmp_path / "some.zarr", *chosen)
    assert "sample" not in atlas.obs
    assert set(atlas.obsm) == {"spatial", "X_umap"}
    none = ["--keep-obs", "none", "--keep-obsm", "none"]
    atlas = generated(tmp_path / "noted.h5ad", made, tmp_path / "none.zarr", *none)
    assert not atlas.obsm
    assert "batch" not in atlas.obs
    capsys.readouterr()
    words = generate_words(tmp_path / "noted.h5ad", made / "models", tmp_path / "no.zarr")
    assert run_command(*words, "--keep-obs", "smaple") == 2
    assert "did you mean 'sample'?" in capsys.readouterr().err


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
    assert run_command(*words, "--draws", "3") == 0
    out = capsys.readouterr().out
    for fragment in ("1,920 (320 cells, 2 interventions", "3 draws", "rows with combinations", "GB are free", "rows/s"):
        assert fragment in out
    assert run_command(*words, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["event"], told["rows"], told["shards"], told["genes"]) == ("plan", 640, 1, 40)
    assert told["bytes"] > 0
    assert told["rows_per_second"] > 0
    assert list(tmp_path.iterdir()) == []


def test_generate_refuses_what_cannot_fit(
    data: Path, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command refuses both when it is asked for its plan and when it is asked to begin."""
    monkeypatch.setattr("causcell.atlas.estimate.free_bytes", lambda _: 100)
    for words in (["--plan"], []):
        assert run_command("generate", data, "--models", made / "models", "--out", tmp_path / "atlas.zarr", *words) == 2
        assert "error: the atlas needs about" in capsys.readouterr().err
    assert not (tmp_path / "atlas.zarr" / "zarr.json").exists()


def test_generate_says_when_there_is_nothing_to_do(
    data: Path, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    generated(data, made, tmp_path / "atlas.zarr", "--do", "stim=IFN")
    first = capsys.readouterr().out
    assert first.startswith("320 rows (320 cells, 1 intervention, 1 draw; sample) x 40 genes in ")
    generated(data, made, tmp_path / "atlas.zarr", "--do", "stim=IFN")
    assert capsys.readouterr().out.startswith(f"nothing to do: {tmp_path / 'atlas.zarr'} is finished (320 rows")
    words = ["generate", data, "--models", made / "models", "--out", tmp_path / "atlas.zarr", "--do", "stim=ctrl"]
    assert run_command(*words) == 2
    assert "interventions (1: 'stim=IFN' there, 1: 'stim=ctrl' asked for)" in capsys.readouterr().err


def test_generate_writes_small_results_as_h5ad(
    data: Path, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "summary.h5ad"
    words = ["generate", data, "--models", made / "models", "--out", out, "--store", "summary", "--draws", "4"]
    assert run_command(*words, "--no-progress") == 0
    read, whole = anndata.read_h5ad(out), generated(data, made, tmp_path / "a.zarr", *words[6:])
    np.testing.assert_array_equal(read.X, whole.X)
    np.testing.assert_array_equal(read.layers["deviation"], whole.layers["deviation"])
    assert read.uns["causcell"]["interventions"].tolist() == ["factual"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zarr", "summary.h5ad"]
    assert run_command(*words, "--no-progress") == 2  # what is there is not overwritten
    monkeypatch.setattr("causcell.atlas.write.LARGEST_H5AD", 1000)
    words[words.index(out)] = tmp_path / "large.h5ad"
    assert run_command(*words, "--no-progress") == 2
    assert "fit into memory: name a .zarr" in capsys.readouterr().err


def test_generate_takes_several_files(
    data: Path, made: Path, tmp_path: Path, cells: anndata.AnnData, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file's key is its name or what is given before ``=``; its cells are named by it."""
    cells[:30].write_h5ad(tmp_path / "one.h5ad")
    cells[30:50].write_h5ad(tmp_path / "two.h5ad")
    words = [f"b={tmp_path / 'two.h5ad'}", "--models", made / "models", "--no-progress"]
    assert (
        run_command("generate", tmp_path / "one.h5ad", *words, "--out", tmp_path / "atlas.zarr", "--workers", "2") == 0
    )
    read = anndata.read_zarr(tmp_path / "atlas.zarr")
    expected = [f"one:{name}" for name in cells.obs_names[:30]] + [f"b:{name}" for name in cells.obs_names[30:50]]
    assert read.obs_names.tolist() == expected
    capsys.readouterr()
    twice = [f"b={tmp_path / 'one.h5ad'}", *words]
    assert run_command("generate", *twice, "--out", tmp_path / "twice.zarr") == 2
    assert "several files have the key 'b'" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--workers", "0"], ["--workers", "2", "--dask", "tcp://127.0.0.1:1"]], ids=str)
def test_workers_that_can_not_be(
    data: Path, made: Path, tmp_path: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command("generate", data, "--models", made / "models", "--out", tmp_path / "atlas.zarr", *words) == 2
    assert "take at least 1, and leave it out with --dask" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_warnings_are_lines_and_no_obstacle(
    data: Path, made: Path, tmp_path: Path, cells: anndata.AnnData, capsys: pytest.CaptureFixture[str]
) -> None:
    panel = json.loads((made / "models" / "manifest.json").read_text())["genes"]["names"]
    fewer = cells[:, [name for name in cells.var_names if name != panel[3]]].copy()
    fewer.write_h5ad(tmp_path / "fewer.h5ad")
    words = ["--allow-missing-genes", "0.2", "--no-progress", "--out", tmp_path / "atlas.zarr"]
    assert run_command("generate", tmp_path / "fewer.h5ad", "--models", made / "models", *words) == 0
    err = capsys.readouterr().err.splitlines()
    assert len(err) == 2
    assert err[0].startswith("warning: 1 of 40 panel genes are missing")
    assert err[1].startswith("warning: 1 of 60 genes that a cell's total is taken over are missing")
    assert all(repr(panel[3]) in line for line in err)


def test_generation_without_a_runtime_names_the_extras(folder: Path, repository: Path, tmp_path: Path) -> None:
    done = without_package("onnxruntime", *generate_words(folder / "good.h5ad", repository, tmp_path / "atlas.zarr"))
    check_missing(done, "ONNX Runtime", "causcell[cpu] or causcell[gpu]")


def test_generation_needs_no_torch(folder: Path, repository: Path, tmp_path: Path) -> None:
    words = ["--do", "stim=IFN", "--where", "donor == 'd1'", "--json"]
    done = without_package("torch", *generate_words(folder / "good.h5ad", repository, tmp_path / "atlas.zarr", *words))
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "atlas.zarr").is_dir()
