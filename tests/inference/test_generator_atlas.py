"""Atlases from Python: the same bytes as those of the command, planned, told of, and refused alike."""

import inspect
import json
from xml.etree import ElementTree

import anndata
import numpy as np
import pytest
import typer
from atlases import SMALL, tree
from commands import run_command

from causcell.atlas.events import RowsWritten, ShardCommitted
from causcell.atlas.executors import InProcess, Processes
from causcell.atlas.options import DEFAULTS, AtlasOptions
from causcell.cli.main import build_app
from causcell.errors import ConfigurationError, OutputExistsError, RuntimeUnavailableError
from causcell.generator import Generator

pytestmark = pytest.mark.filterwarnings("ignore::causcell.errors.CausCellWarning")

DO = {"stim": "IFN"}
OPTIONS = {
    "grid": ["state"],
    "where": "donor != 'd3'",
    "mode": "isolated",
    "draws": 2,
    "seed": 3,
    "dtype": "float16",
    "solver": "ddim",
    "steps": 3,
    "eta": 0.5,
    **SMALL,
}
WORDS = [
    *("--do", "stim=IFN", "--grid", "state", "--where", "donor != 'd3'", "--mode", "isolated", "--draws", "2"),
    *("--seed", "3", "--dtype", "float16", "--solver", "ddim", "--steps", "3", "--eta", "0.5"),
    *("--chunk-size", SMALL["chunk_size"], "--shard-size", SMALL["shard_size"]),
]
"""The same, as the command line has it."""


@pytest.fixture(scope="module")
def path(cells, tmp_path_factory):
    """A file with the cells."""
    path = tmp_path_factory.mktemp("data") / "cells.h5ad"
    cells.write_h5ad(path)
    return path


@pytest.fixture(scope="module")
def by_command(path, repository, tmp_path_factory):
    """The atlas that ``causcell generate`` writes."""
    out = tmp_path_factory.mktemp("command") / "atlas.zarr"
    words = ["generate", path, "--models", repository, "--out", out, "--batch-size", "64", "--no-progress"]
    assert run_command(*words, *WORDS) == 0
    return out


# -- the same as the command -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["path", "memory"])
@pytest.mark.parametrize("executor", [None, InProcess()], ids=repr)
def test_python_writes_what_the_command_writes(generator, cells, path, by_command, tmp_path, form, executor):
    """Every file of it, byte for byte."""
    source = path if form == "path" else cells
    summary = generator.write_atlas(source, tmp_path / "atlas.zarr", DO, executor=executor, **OPTIONS)
    assert tree(tmp_path / "atlas.zarr") == tree(by_command)
    assert summary.rows == summary.made == anndata.read_zarr(by_command).n_obs


def test_workers_write_what_the_command_writes(generator, path, by_command, tmp_path):
    generator.write_atlas(path, tmp_path / "atlas.zarr", DO, executor=Processes(2), **OPTIONS)
    assert tree(tmp_path / "atlas.zarr") == tree(by_command)


def test_python_goes_on_with_what_the_command_began(generator, path, repository, tmp_path):
    """A plan is the same by both doors, so that a finished atlas is nothing to do."""
    words = ["generate", path, "--models", repository, "--batch-size", "64", "--no-progress"]
    out = tmp_path / "atlas.zarr"
    assert run_command(*words, "--out", out, "--do", "stim=IFN") == 0
    before = tree(out)
    assert generator.write_atlas(path, out, DO).made == 0
    assert tree(out) == before
    with pytest.raises(OutputExistsError, match="interventions"):
        generator.write_atlas(path, out, {"stim": "ctrl"})


def test_the_plan_is_the_commands(generator, path, repository, tmp_path, capsys):
    plan = generator.plan_atlas(path, DO, **OPTIONS)
    words = ["generate", path, "--models", repository, "--batch-size", "64", "--out", tmp_path / "atlas.zarr"]
    assert run_command(*words, *WORDS, "--plan", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["digest"] == plan.digest
    assert (told["rows"], told["shards"], told["shard_rows"]) == (plan.rows, plan.shards, plan.shard_rows)
    assert list(tmp_path.iterdir()) == []


def test_a_small_atlas_is_one_file(generator, cells, tmp_path):
    generator.write_atlas(cells, tmp_path / "atlas.h5ad", DO, where="donor == 'd1'")
    generator.write_atlas(cells, tmp_path / "atlas.zarr", DO, where="donor == 'd1'")
    one, other = anndata.read_h5ad(tmp_path / "atlas.h5ad"), anndata.read_zarr(tmp_path / "atlas.zarr")
    np.testing.assert_array_equal(one.X.toarray(), other.X.toarray())
    assert one.obs_names.tolist() == other.obs_names.tolist()


# -- what it takes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["plan_atlas", "write_atlas"])
def test_the_signature_lists_every_option_with_its_default(method):
    """So that ``help`` and completion in notebooks know them."""
    parameters = inspect.signature(getattr(Generator, method)).parameters
    assert set(AtlasOptions.__annotations__) == set(DEFAULTS)
    assert {name: parameters[name].default for name in DEFAULTS} == dict(DEFAULTS)
    assert all(parameters[name].kind is inspect.Parameter.KEYWORD_ONLY for name in DEFAULTS)
    assert not [each for each in parameters.values() if each.kind is inspect.Parameter.VAR_KEYWORD]


def test_the_defaults_are_those_of_the_command():
    command = typer.main.get_command(build_app()).commands["generate"]
    theirs = {parameter.name: parameter.default for parameter in command.params}
    assert {name: theirs[name] for name in DEFAULTS} == dict(DEFAULTS)


@pytest.mark.parametrize(
    ("given", "near"), [("chunksize", "chunk_size"), ("draw", "draws"), ("matchparents", "match_parents")]
)
def test_an_unknown_option_is_a_type_error_with_the_near_name(generator, cells, tmp_path, given, near):
    """As with any function of Python; nothing is written."""
    hint = rf"got an unexpected keyword argument '{given}'; did you mean '{near}'\?"
    with pytest.raises(TypeError, match=rf"write_atlas\(\) {hint}"):
        generator.write_atlas(cells, tmp_path / "atlas.zarr", **{given: 1})
    with pytest.raises(TypeError, match=rf"plan_atlas\(\) {hint}"):
        generator.plan_atlas(cells, **{given: 1})
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_option_that_is_near_nothing(generator, cells, tmp_path):
    with pytest.raises(TypeError, match=r"unexpected keyword argument 'xyzzy'$"):
        generator.write_atlas(cells, tmp_path / "atlas.zarr", xyzzy=1)


@pytest.mark.parametrize(
    ("out", "options", "message"),
    [
        ("atlas.csv", {}, r"out='.*atlas\.csv' ends neither in \.zarr nor in \.h5ad"),
        ("atlas.zarr", {"store": "means"}, "store 'means' is not known"),
        ("atlas.zarr", {"chunk_size": "many"}, "size 'many' is not one; write it as 64MB"),
        ("atlas.zarr", {"chunk_size": "2MB", "shard_size": "1MB"}, "chunks of 2000000 bytes are larger than shards"),
        ("atlas.zarr", {"solver": "ddim"}, r"needs a number of steps \(steps=20\)"),
        ("atlas.zarr", {"executor": Processes(2)}, "cells in memory can't be read by other processes; write them"),
    ],
    ids=str,
)
def test_what_can_not_be_written_is_refused(generator, cells, tmp_path, out, options, message):
    with pytest.raises(ConfigurationError, match=message):
        generator.write_atlas(cells, tmp_path / out, DO, **options)
    assert not (tmp_path / out / "zarr.json").exists()


def test_a_number_of_processes_that_can_not_be():
    with pytest.raises(ConfigurationError, match="workers is 0; take at least 1"):
        Processes(0)


def test_a_worker_opens_the_model_where_the_generator_was_asked_to(generator, path, tmp_path, monkeypatch):
    """The provider travels with the task: a worker without a GPU says so, and does not fall back in silence."""
    source = generator.source
    monkeypatch.setattr(generator, "source", type(source)(source.location, provider="cuda"))
    with pytest.raises(RuntimeUnavailableError, match=r"no CUDAExecutionProvider; it has .*causcell\[gpu\]"):
        generator.write_atlas(path, tmp_path / "atlas.zarr", DO, executor=Processes(1))


# -- what it tells -----------------------------------------------------------------------------------------------------


def test_events_tell_of_rows_and_shards(generator, cells, tmp_path):
    """Rows as they are written, and each shard once, when it is committed."""
    events = []
    options = {"where": "donor == 'd1'", "layout": "dense", **SMALL}  # a CSR matrix is made after its shards
    summary = generator.write_atlas(cells, tmp_path / "atlas.zarr", DO, on_event=events.append, **options)
    assert summary.shards > 1
    assert sum(event.rows for event in events if isinstance(event, RowsWritten)) == summary.rows
    committed = [event.record for event in events if isinstance(event, ShardCommitted)]
    assert [record.shard for record in committed] == list(range(summary.shards))
    assert sum(record.rows for record in committed) == summary.rows
    assert sum(file.bytes for record in committed for file in record.files.values()) == summary.bytes


def test_a_plan_tells_its_rows_and_shards(generator, cells):
    plan = generator.plan_atlas(cells, DO, draws=3, **SMALL)
    title, *facts = repr(plan).splitlines()
    assert title == f"Plan {plan.digest[:12]}"
    told = dict(line.strip().split(": ", 1) for line in facts)
    assert told["rows"] == "960 (320 cells, 1 intervention: 'stim=IFN', 3 draws)"
    assert told["holds"].endswith("float32, 50 genes, a CSR matrix")
    assert told["shards"] == f"{plan.shards} of {plan.shard_rows} rows in chunks of {plan.chunk_rows}"
    assert told["size"] == "192 kB as a dense array"
    assert str(plan) == repr(plan)


def test_a_forecast_adds_time_and_bytes_and_changes_no_plan(generator, cells, tmp_path):
    plan, told = generator.plan_atlas(cells, DO), generator.plan_atlas(cells, DO, forecast=True)
    assert plan.forecast is None
    assert "time" not in plan.describe()
    assert told.digest == plan.digest
    assert told.forecast.rows_per_second > 0
    assert told.forecast.bytes > 0
    assert {"time", "unseen"} <= set(told.describe())
    assert "rows/s" in repr(told)


def test_notebooks_show_a_plan_as_a_table(generator, cells):
    plan = generator.plan_atlas(cells, grid=["cell_type"])
    root = ElementTree.fromstring(plan._repr_html_())
    assert root.find("b").text == f"Atlas plan {plan.digest[:12]}"
    assert {row[0].text: row[1].text for row in root.iter("tr")} == plan.describe()
