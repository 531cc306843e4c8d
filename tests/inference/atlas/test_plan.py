"""A plan is what decides an atlas's bytes, and tells beforehand what it will be."""

from dataclasses import replace

import numpy as np
import pytest
from atlases import GENES, ROW

from causcell._internal.units import format_duration, format_size, parse_size
from causcell.atlas.estimate import calibrate
from causcell.atlas.plan import Plan, make_plan, unseen_rows
from causcell.atlas.task import Measured
from causcell.atlas.write import run_plan
from causcell.cells.collection import Cells
from causcell.counterfactual.interventions import Intervention, plan_interventions
from causcell.counterfactual.request import Request
from causcell.counterfactual.tables import check_row_names
from causcell.errors import CellNameError, ConfigurationError
from causcell.generator import Generator

pytestmark = pytest.mark.filterwarnings("ignore::causcell.errors.CausCellWarning")


@pytest.fixture(scope="module")
def measured(generator, cells):
    source = Cells(cells[:200].copy())
    return Measured(generator, source, generator.reader(source))


@pytest.fixture(scope="module")
def request_(generator):
    interventions = plan_interventions(generator.schema, {"stim": "IFN"}, ["cell_type"])
    return Request(interventions, generator.solver_settings())


def plan_of(measured, request_, **options):
    return make_plan(measured.generator, measured.cells, measured.reader, request_, **options)


# -- what it is --------------------------------------------------------------------------------------------------------


def test_a_plan_is_a_value(measured, request_):
    """It is the same each time, and after being written and read."""
    plan = plan_of(measured, request_)
    assert plan == plan_of(measured, request_)
    read = Plan.model_validate_json(plan.model_dump_json())
    assert read == plan
    assert read.digest == plan.digest
    assert read.request == request_


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"draws": 2},
        {"mode": "isolated"},
        {"match_parents": True},
        {"store": "embeddings"},
        {"dtype": "float16"},
        {"shard_size": 64 * ROW, "chunk_size": 16 * ROW},
        {"batch_size": 32},
    ],
    ids=str,
)
def test_whatever_changes_bytes_changes_the_digest(measured, request_, change):
    plan = plan_of(measured, request_)
    ours = {name: change[name] for name in change if name in ("shard_size", "chunk_size")}
    asked = {name: value for name, value in change.items() if name not in ours and name != "batch_size"}
    if "batch_size" in change:
        other = Generator(measured.generator.engine, batch_size=change["batch_size"])
        measured = Measured(other, measured.cells, measured.reader)
    changed = plan_of(measured, replace(request_, **asked), **ours)
    assert changed.digest != plan.digest
    assert len(plan.differences(changed)) >= 1
    assert plan.differences(plan) == []


def test_another_number_of_compute_threads_is_another_plan(measured, request_, monkeypatch):
    """Last bits of draws differ between them."""
    plan = plan_of(measured, request_)
    monkeypatch.setattr(measured.generator.engine, "threads", 2)
    assert plan.differences(plan_of(measured, request_)) == ["threads (1 there, 2 asked for)"]


def test_shards_are_whole_cells_that_cover_all_once(measured, request_):
    for shard_size in (ROW, 50 * ROW, 300 * ROW, 10**9):
        plan = plan_of(measured, request_, shard_size=shard_size, chunk_size=ROW)
        covered = np.concatenate([np.arange(200)[plan.cells_of(shard)] for shard in range(plan.shards)])
        np.testing.assert_array_equal(covered, np.arange(200))
        if plan.shards > 1:
            assert plan.shard_rows % plan.chunk_rows == 0
            assert plan.cells_per_shard <= 64 or plan.cells_per_shard % 64 == 0  # whole batches


# -- what it tells -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("store", ["expression", "embeddings", "effects"])
def test_the_size_on_disk_is_told_beforehand(measured, request_, tmp_path, store):
    """Within a tenth, from a few batches; most of what is left is file by file."""
    plan = plan_of(measured, replace(request_, store=store))
    estimate = calibrate(plan, measured)
    written = run_plan(plan, measured, tmp_path / "atlas.zarr")
    assert written.bytes == pytest.approx(estimate.bytes, rel=0.1)
    assert estimate.rows_per_second > 0


@pytest.mark.parametrize("do", [{"stim": "IFN"}, {"state": "rest"}, {"cell_type": "B", "state": "active"}], ids=str)
@pytest.mark.parametrize("mode", ["do", "isolated"])
def test_unseen_combinations_are_counted_beforehand(generator, measured, tmp_path, do, mode):
    """Exactly where nothing follows from what is set; else what is certain, whatever descendants become."""
    seen = generator.engine.reference.combinations
    interventions = plan_interventions(generator.schema, do)
    request_ = Request(interventions, generator.solver_settings(), mode=mode)
    told = unseen_rows(measured.cells.labels(generator.schema), request_, generator.schema, seen)
    written = run_plan(plan_of(measured, request_), measured, tmp_path / "atlas.zarr")
    targets = [generator.schema.index(concept) for concept in do]
    if mode == "isolated" or not generator.schema.descendants(targets) - set(targets):
        assert told == written.unseen
    else:
        assert told <= written.unseen


def test_factual_rows_are_not_counted(generator, measured):
    request_ = Request(plan_interventions(generator.schema), generator.solver_settings())
    none = generator.engine.reference.combinations[:0]
    assert unseen_rows(measured.cells.labels(generator.schema), request_, generator.schema, none) == 0


# -- names -------------------------------------------------------------------------------------------------------------


class Named:
    """Cells of which only names matter."""

    def __init__(self, *names):
        self._names = np.array(names, dtype=object)
        from causcell._internal.digests import name_digests

        self.name_digests = name_digests(names)

    def __len__(self):
        return len(self._names)

    def names_of(self, rows):
        return self._names[rows]


def test_rows_of_one_name_are_refused_beforehand(generator):
    """``a`` under ``x=1|x=2``, and ``a|x=1`` under ``x=2``: labels may hold a bar."""
    request_ = Request(
        (Intervention(((0, 0),), "x=1|x=2"), Intervention(((0, 1),), "x=2")), generator.solver_settings()
    )
    check_row_names(Named("a", "a|x=2", "b|x=1"), request_)
    with pytest.raises(CellNameError, match=r"not unique, such as those of 'a\|x=1'; rename cells"):
        check_row_names(Named("a", "a|x=1"), request_)


# -- sizes -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "size"),
    [("1GB", 10**9), ("64MB", 64 * 10**6), ("1.5 kB", 1500), ("512KiB", 2**19), ("2gib", 2**31), ("7", 7), ("8b", 8)],
)
def test_sizes_as_people_write_them(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GB", "0", "-1MB", "1XB", "1 GB x", "0.1"])
def test_what_is_no_size(text):
    with pytest.raises(ConfigurationError, match="is not one; write it as 64MB"):
        parse_size(text)


def test_sizes_and_times_for_people():
    assert [format_size(size) for size in (12, 999, 1500, 2.5e6, 1e9, 3.21e12, 4e15)] == [
        "12 bytes",
        "999 bytes",
        "1.5 kB",
        "2.5 MB",
        "1 GB",
        "3.21 TB",
        "4e+03 TB",
    ]
    assert [format_duration(seconds) for seconds in (0.26, 59, 61, 3600, 9000)] == [
        "0.3 s",
        "59.0 s",
        "1 min",
        "60 min",
        "2 h 30 min",
    ]


def test_genes_of_the_shared_model(generator):
    assert len(generator.preprocessing.genes) == GENES
