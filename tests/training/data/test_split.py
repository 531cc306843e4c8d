"""The split: at random or as given, and no label goes untrained."""

import csv
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
from short_runs import short_config, small_config

from causcell.errors import DataError, UnknownLabelError
from causcell_training import Run
from causcell_training.data.cells import prepare
from causcell_training.data.split import read_split

ALL_GENES = small_config(genes="all")


@pytest.mark.parametrize("share", [0.1, 0.25])
def test_the_share_asked_for_is_held_out_half_to_choose_by(cells: anndata.AnnData, share: float) -> None:
    data = prepare(cells, small_config(genes="all", optimisation__held_out=share))
    held_out = round(share * cells.n_obs)
    counts = {part: len(data.rows(part)) for part in ("train", "choose", "report")}
    expected = {"train": cells.n_obs - held_out, "choose": held_out // 2, "report": held_out - held_out // 2}
    assert counts == expected


def test_who_is_held_out_hangs_on_the_seed(cells: anndata.AnnData) -> None:
    parts = [prepare(cells, small_config(genes="all", seed=seed)).part for seed in (3, 3, 4)]
    np.testing.assert_array_equal(parts[0], parts[1])
    assert (parts[0] != parts[2]).any()


@pytest.mark.parametrize("seed", range(8))
def test_every_label_keeps_a_training_cell_at_random(cells: anndata.AnnData, seed: int) -> None:
    """Half of all cells are held out, and three labels have one cell each: each is in danger four times in eight."""
    rare = cells.copy()
    rare.obs["rare"] = pd.Categorical(["one", "two", "three", *["many"] * (cells.n_obs - 3)])
    concepts = ("stim", "donor", "cell_type", "state", "rare")
    data = prepare(rare, small_config(genes="all", concept=concepts, seed=seed, optimisation__held_out=0.5))
    for i, concept in enumerate(data.schema.concepts):
        trained = data.labels[data.rows("train"), i]
        assert set(trained.tolist()) == set(range(len(concept.labels)))


def test_a_split_by_mapping_and_by_file_are_followed(cells: anndata.AnnData, tmp_path: Path) -> None:
    words = np.array(["train", "train", "train", "validation", "test"])
    split = {name: str(words[i % 5]) for i, name in enumerate(cells.obs_names)}
    path = tmp_path / "split.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["split", "cell"])  # columns are found by name
        writer.writerows((word, name) for name, word in reversed(split.items()))  # and cells, too
    for given in (split, path):
        data = prepare(cells, ALL_GENES, given)
        expected = np.array(["train", "train", "train", "choose", "report"])[np.arange(cells.n_obs) % 5]
        np.testing.assert_array_equal(data.part, expected)


TABLES = {
    "byte order mark": lambda parts, path: parts.to_csv(path, index_label="cell", encoding="utf-8-sig"),
    "UTF-16 with tabs": lambda parts, path: parts.to_csv(path, index_label="cell", encoding="utf-16", sep="\t"),
    "semicolon": lambda parts, path: parts.to_csv(path, index_label="cell", sep=";"),
    "tab": lambda parts, path: parts.to_csv(path, index_label="cell", sep="\t"),
    "unnamed first column": lambda parts, path: parts.to_csv(path),
    "quoted": lambda parts, path: parts.to_csv(path, index_label="cell", quoting=csv.QUOTE_ALL),
    "more columns": lambda parts, path: pd.DataFrame(
        {"n": 1, "Cell": parts.index, "note": "a; b", "Split": parts.str.upper()}
    ).to_csv(path, index=False),
    "R's write.table": lambda parts, path: path.write_text(
        '"split"\n' + "".join(f'"{name}"\t"{part}"\n' for name, part in parts.items())
    ),
    "a spreadsheet's own note": lambda parts, path: path.write_text(
        "sep=;\r\n# by hand\r\n\r\ncell;split\r\n" + "".join(f"{name}; {part}\r\n" for name, part in parts.items())
    ),
}


@pytest.mark.parametrize("write", TABLES.values(), ids=TABLES)
def test_split_tables_are_read_as_programs_write_them(write: Any, tmp_path: Path) -> None:
    names = ["cell 1", "AAAC-1", "zürich,3"]
    parts = pd.Series(["train", "test", "validation"], index=names, name="split")
    write(parts, tmp_path / "split.csv")
    read = read_split(tmp_path / "split.csv")
    assert {name: part.casefold() for name, part in read.items()} == dict(zip(names, parts, strict=True))


def test_a_series_and_a_frame_are_splits(cells: anndata.AnnData) -> None:
    words = pd.Series(np.where(np.arange(cells.n_obs) % 5, "train", "test"), index=cells.obs_names)
    by_mapping = prepare(cells, ALL_GENES, words.to_dict()).part
    frames = [words.to_frame("split"), words.rename_axis("cell").rename("split").reset_index()]
    for given in (words, words.astype("category"), *frames):
        np.testing.assert_array_equal(prepare(cells, ALL_GENES, given).part, by_mapping)


def test_words_of_a_split_may_be_written_in_capitals(cells: anndata.AnnData) -> None:
    words = np.where(np.arange(cells.n_obs) % 5, "Train", "TEST")
    data = prepare(cells, ALL_GENES, dict(zip(cells.obs_names, words, strict=True)))
    np.testing.assert_array_equal(data.part == "report", words == "TEST")


@pytest.mark.parametrize("second", ["test", "train"])
def test_a_cell_that_a_split_names_twice_is_told_with_both_parts(tmp_path: Path, second: str) -> None:
    (tmp_path / "split.csv").write_text(f"cell,split\na,train\nb,train\na,{second}\n")
    frame = pd.DataFrame({"cell": ["a", "b", "a"], "split": ["train", "train", second]})
    for given in (tmp_path / "split.csv", frame, frame.set_index("cell")["split"]):
        with pytest.raises(DataError, match=f"names cell 'a' twice, as 'train' and as '{second}'"):
            read_split(given)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("cell,part\na,train\n", "begins with 'cell,part'.*columns cell and split"),
        ("barcode,split\na,train\n", "its columns are 'barcode', 'split'.*it is a CSV file"),
        ("cell;split,split\na;b,train\n", "columns cell and split"),
        ("cell,split\na,train,b\n", "the row 'a,train,b' has 3 cells, the header has 2"),
        ('cell,split\n"a,train\n', "can't be read"),
        ("cell,split\na\0,train\n", "zero bytes"),
        ("cell,split,split\na,train,test\n", "columns cell and split"),
    ],
)
def test_a_split_table_that_is_not_clear_is_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "split.csv").write_text(content)
    with pytest.raises(DataError, match=message):
        read_split(tmp_path / "split.csv")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["train"], "split= is a list; give a mapping or Series"),
        (3, "split= is a int"),
        (pd.DataFrame({"cell": ["a"], "part": ["train"]}), "the split has columns 'cell', 'part'"),
    ],
)
def test_what_is_no_split_is_refused(given: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_split(given)


def test_choose_and_report_are_words_of_a_split_too(cells: anndata.AnnData) -> None:
    words = np.array(["train", "choose", "report"])[np.arange(cells.n_obs) % 3]
    data = prepare(cells, ALL_GENES, dict(zip(cells.obs_names, words, strict=True)))
    np.testing.assert_array_equal(data.part, words)


def test_without_validation_cells_some_training_cells_are_chosen_by(cells: anndata.AnnData) -> None:
    words = np.where(np.arange(cells.n_obs) % 2, "train", "test")
    data = prepare(cells, ALL_GENES, dict(zip(cells.obs_names, words, strict=True)))
    np.testing.assert_array_equal(data.part == "report", words == "test")  # what is held out stays held out
    # half the held-out share of the training cells: 5 % of 160
    assert len(data.rows("choose")) == 8


@pytest.mark.parametrize("seed", range(8))
def test_cells_to_choose_by_never_take_a_labels_only_training_cell(cells: anndata.AnnData, seed: int) -> None:
    """The split as given trains every label; two fifths of its training cells are chosen by, at random."""
    rare = cells.copy()
    rare.obs["rare"] = pd.Categorical(["one", *["many"] * (cells.n_obs - 1)])
    split = dict.fromkeys(cells.obs_names, "train")
    config = small_config(genes="all", concept=("rare",), edge=(), seed=seed, optimisation__held_out=0.8)
    data = prepare(rare, config, split)
    assert len(data.rows("choose")) == 128
    assert data.part[0] == "train"


def test_a_cell_that_the_split_leaves_out_is_named(cells: anndata.AnnData) -> None:
    split = dict.fromkeys(cells.obs_names[:-2], "train")
    with pytest.raises(DataError, match=r"2 cells: 'cell_0318', 'cell_0319'"):
        prepare(cells, ALL_GENES, split)


def test_an_unknown_word_of_the_split_is_named_with_those_allowed(cells: anndata.AnnData) -> None:
    split = dict.fromkeys(cells.obs_names, "train") | {"cell_0003": "dev"}
    with pytest.raises(DataError, match=r"'dev'.*'train'.*'validation'.*'test'"):
        prepare(cells, ALL_GENES, split)


@pytest.mark.parametrize(
    "content",
    [b"name,part\ncell_0000,train\n", b"", b"\x89HDF\r\n\xff\xfe\x00", None],
    ids=["columns", "empty", "not text", "none"],
)
def test_an_unreadable_split_file_is_refused(cells: anndata.AnnData, tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "split.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match="split"):
        prepare(cells, ALL_GENES, path)


def test_a_label_that_no_training_cell_carries_is_named(cells: anndata.AnnData) -> None:
    words = np.where(cells.obs["donor"] == "d2", "test", "train")
    with pytest.raises(UnknownLabelError, match=r"'donor'.*'d2'.*NaN"):
        prepare(cells, ALL_GENES, dict(zip(cells.obs_names, words, strict=True)))


def test_too_few_cells_to_hold_any_out_are_refused(cells: anndata.AnnData) -> None:
    with pytest.raises(DataError, match=r"10 cells are too few.*held_out"):
        prepare(cells[:10].copy(), small_config(concept=("stim",), edge=(), genes="all"))


def test_cells_of_which_each_is_the_only_one_of_its_label_are_too_few(cells: anndata.AnnData) -> None:
    """All of them are needed to train on, and none is left to choose by."""
    single = cells[:20].copy()
    single.obs["well"] = [f"w{i}" for i in range(20)]
    with pytest.raises(DataError, match="too few"):
        prepare(single, small_config(concept=("well",), edge=(), genes="all"))


def test_the_split_that_a_run_wrote_can_be_given_to_another(cells: anndata.AnnData, finished: Run) -> None:
    data = prepare(cells, finished.config)
    again = prepare(cells, short_config(seed=9), finished.path / "split.csv")
    np.testing.assert_array_equal(again.part, data.part)
