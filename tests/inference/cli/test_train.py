"""``causcell train``: what it takes, how it goes on after Ctrl-C, and what it refuses."""

import json
from pathlib import Path

import pytest
from commands import SMALL_MODEL, check_missing, refused, run_command, says, train_words, without_package

from causcell_training.loop.training_plan import TrainingPlan


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
    assert run_command("train", data, *words, "--genes", "60", *SMALL_MODEL, "--no-progress") == 0
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
    step = TrainingPlan.training_step

    def interrupted(self: TrainingPlan, batch: object) -> object:
        if self.current_epoch == 1:
            raise KeyboardInterrupt
        return step(self, batch)

    words = [
        "train",
        data,
        "--concept",
        "stim",
        "--genes",
        "10",
        "--out",
        tmp_path / "run",
        *SMALL_MODEL,
        "--no-progress",
    ]
    with monkeypatch.context() as patch:
        patch.setattr(TrainingPlan, "training_step", interrupted)
        patch.setattr("signal.signal", lambda *_: None)  # whatever is done to Ctrl-C, these tests keep theirs
        assert run_command(*words) == 130
    assert "Traceback" not in capsys.readouterr().err
    assert run_command("export", tmp_path / "run", "--out", tmp_path / "models") == 2
    assert "--resume" in capsys.readouterr().err
    assert run_command(*words, "--resume") == 0
    assert json.loads((tmp_path / "run" / "run.json").read_text())["provenance"]["epochs"] == 2


# -- what it refuses ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "fragments"),
    [
        (["--concept", "batch"], ["'batch'", "columns are", "'stim', 'donor', 'cell_type', 'state'"]),
        (["--concept", "stim"], ["named twice", "'stim'"]),
        (["--edge", "stim:batch"], ["stim:batch", "'batch'", "no concept", "'stim'"]),
        (["--edge", "stim:"], ["'stim:'", "PARENT:CHILD"]),
        (["--edge", "stim"], ["'stim'", "PARENT:CHILD"]),
        (["--edge", "stim:stim"], ["cycle", "stim -> stim", "leave one"]),
        (
            ["--concept", "state", "--edge", "stim:state", "--edge", "state:stim"],
            ["cycle", "stim", "state", "->", "leave one"],
        ),
        (["--concept", "state", "--edge", "stim:state", "--edge", "stim:state"], ["given twice", "stim:state"]),
        (["--expression", "cpm"], ["--expression cpm", "'counts'", "'log1p'"]),
        (["--layer", "spliced"], ["'spliced'", "there are none"]),
        (["--genes", "0"], ["--genes", "0", "'all'"]),
        (["--genes=-7"], ["--genes", "-7", "'all'"]),
        (["--genes=--7"], ["--7"]),
        (["--genes", "panel.txt"], ["--genes", "'panel.txt'", "'all'", "file of gene names"]),
        (["--seed", "-1"], ["seed", "-1", "greater than or equal to 0"]),
        (["--set", "model.width"], ["--set model.width", "SECTION.KEY=VALUE"]),
        (["--set", "model.breadth=3"], ["'model.breadth'", "3"]),
        (["--set", "optimisation.epochs=0"], ["'optimisation.epochs'", "0", "greater than or equal to 1"]),
        (["--set", "optimisation.held_out=few"], ["'optimisation.held_out'", "'few'", "number"]),
        (["--config", "absent.toml"], ["--config", "absent.toml", "can't be read"]),
        (["--split", "absent.csv"], ["split", "absent.csv", "columns cell and split"]),
        (["--resume"], ["no checkpoint", "without --resume"]),
    ],
    ids=lambda value: " ".join(value) if value and value[0].startswith("--") else "",
)
def test_options_that_training_can_not_use(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], fragments: list[str]
) -> None:
    defaults = train_words(folder / "good.h5ad", tmp_path / "run")
    says(refused(capsys, *defaults, *words), *fragments)
    assert list(tmp_path.iterdir()) == []


def test_training_without_a_concept(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    says(refused(capsys, "train", folder / "good.h5ad", "--out", tmp_path / "run"), "no concept", "at least one")


@pytest.mark.parametrize(
    ("option", "content", "fragments"),
    [
        ("--config", b"[model\n", ["--config", "can't be read"]),
        ("--config", b"[model]\nbreadth = 3\n", ["'model.breadth'", "3"]),
        ("--config", b"\x89HDF\xff\xfe", ["--config", "can't be read"]),
        ("--split", b"name,part\ncell_0000,train\n", ["split", "columns cell and split"]),
        ("--split", b"cell,split\ncell_0000,train\n", ["319 cells", "'cell_0001'", "give each cell a part"]),
        ("--split", b"cell,split\n" + b"".join(b"cell_%04d,dev\n" % i for i in range(320)), ["'dev'", "'train'"]),
        ("--split", b"\x89HDF\xff\xfe", ["split"]),
        ("--genes", b"GENE1\nNOSUCH\n", ["1 of 2", "'NOSUCH'"]),
        ("--genes", b"GENE1\nGENE1\nGENE2\n", ["duplicated", "'GENE1'"]),
        ("--genes", b"", ["--genes", "0 genes"]),
        ("--genes", b"\x89HDF\xff\xfe", ["--genes"]),
    ],
    ids=[
        "bad TOML",
        "unknown setting",
        "binary settings",
        "split without columns",
        "split without cells",
        "split of unknown parts",
        "binary split",
        "unknown gene",
        "gene twice",
        "no gene",
        "binary genes",
    ],
)
def test_files_that_training_can_not_use(
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    option: str,
    content: bytes,
    fragments: list[str],
) -> None:
    (tmp_path / "given").write_bytes(content)
    says(refused(capsys, *train_words(folder / "good.h5ad", tmp_path / "run"), option, tmp_path / "given"), *fragments)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("package", ["torch", "lightning", "safetensors"])
def test_training_without_its_packages_names_the_extra(folder: Path, tmp_path: Path, package: str) -> None:
    done = without_package(package, *train_words(folder / "good.h5ad", tmp_path / "run"))
    check_missing(done, f"{package!r}", "causcell[train]")


# -- the panel ---------------------------------------------------------------------------------------------------------


def test_train_takes_how_genes_are_chosen_and_which_are_there_anyhow(data: Path, tmp_path: Path) -> None:
    words = ["--genes", "12", "--gene-selection", "variance", "--batch-key", "donor", "--include-genes", "GENE41,GENE9"]
    assert run_command(*train_words(data, tmp_path / "run", *words, "--include-genes", "GENE3", *SMALL_MODEL)) == 0
    fields = json.loads((tmp_path / "run" / "run.json").read_text())
    assert len(fields["genes"]) == 12
    assert {"GENE3", "GENE9", "GENE41"} < set(fields["genes"])
    chosen = {name: fields["config"][name] for name in ("gene_selection", "batch_key", "include_genes")}
    expected = {"gene_selection": "variance", "batch_key": "donor", "include_genes": ["GENE41,GENE9", "GENE3"]}
    assert chosen == expected


@pytest.mark.parametrize(
    ("words", "fragments"),
    [
        (["--include-genes", "gene41"], ["--include-genes are neither genes", "did you mean 'GENE41'?"]),
        (["--genes", "12", "--batch-key", "dono"], ["--batch-key dono is no column of obs; did you mean 'donor'?"]),
        (["--genes", "2", "--include-genes", "GENE1,GENE2,GENE3"], ["--include-genes names 3 genes", "--genes 3"]),
        (["--genes", "highly_variable"], ["--genes highly_variable", "var has no column"]),
        (["--gene-selection", "variences"], ["--gene-selection variences", "'variance'"]),
    ],
    ids=["unknown gene", "batch", "too many", "no marks", "selection"],
)
def test_a_panel_that_cant_be_chosen_is_told_and_by_check_too(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], fragments: list[str]
) -> None:
    says(refused(capsys, "train", data, "--out", tmp_path / "run", "--concept", "stim", *words), *fragments)
    assert not (tmp_path / "run").exists()
    if words[0] != "--gene-selection":  # which check does not take
        assert run_command("check", data, "--concept", "stim", *words) == 2
        says(capsys.readouterr().out, "error: ", *(each for each in fragments if not each.startswith("--")))


def test_benchmark_takes_the_same_flags_of_the_panel(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def stop(_: object, config: object, **__: object) -> None:
        asked.append(config)
        raise KeyboardInterrupt

    monkeypatch.setattr("causcell_export.cross_validation.run_benchmark", stop)
    words = ["--genes", "12", "--gene-selection", "variance", "--batch-key", "donor", "--include-genes", "GENE41"]
    assert run_command("benchmark", data, "--out", tmp_path / "report", "--concept", "stim", *words) == 130
    (config,) = asked
    assert (config.genes, config.gene_selection, config.batch_key) == (12, "variance", "donor")
    assert config.include_genes == ("GENE41",)
