"""An atlas as a state machine against a small model of it: whatever happens to it, in whatever order.

Histories of runs that end, are stopped or are killed between any two changes of the file system, of damage, reruns,
verification, other workers, other plans, an atlas of an older version, and materialisation. What the model says is what
is there: no shard is lost or made twice, verification tells the truth, and the files are those of an undisturbed run.
"""

import json
import os
import shutil
import tempfile
import warnings
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import anndata
import pytest
from atlases import times, tree
from fuzzing import TIMES, tried
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from causcell.atlas import zarr_store
from causcell.atlas.events import ShardCommitted
from causcell.atlas.journal import FOLDER, Journal
from causcell.atlas.materialize import materialize_atlas
from causcell.atlas.open import open_atlas
from causcell.atlas.options import complete_options
from causcell.atlas.task import ShardMaker
from causcell.atlas.verify import verify_atlas
from causcell.atlas.write import write_atlas
from causcell.counterfactual.tables import ResultTable, Unseen
from causcell.errors import AtlasError, OutputBusyError, OutputExistsError
from causcell.generator import Generator

pytestmark = pytest.mark.filterwarnings("ignore::causcell.errors.CausCellWarning")

ARCHIVE = Path(__file__).parents[2] / "archive" / "0.1.0"
HISTORIES = 1050
STEPS = 12

# -- what is written ---------------------------------------------------------------------------------------------------


class RememberedTable(ResultTable):
    """A table that makes the annotations of the same cells once."""

    def obs(self, names: Any, *columns: Any, **named: Any) -> Any:
        key = (names[0], len(names))
        if key not in MEMORY:
            MEMORY[key] = super().obs(names, *columns, **named)
        return MEMORY[key]

    def count_unseen(self, obs: Any) -> Unseen:
        return Unseen()


MEMORY: dict[Any, Any] = {}


@dataclass(frozen=True)
class Replay(ShardMaker):
    """Makes shards of blocks that were generated once: what is tested is how they are written."""

    held: dict[int, list[Any]] = field(default_factory=dict)
    form: Any = None

    def blocks(self, ranges: Any, clock: Any = None) -> Iterator[Any]:
        for within in ranges:
            yield from self.held[within.start]

    @property
    def table(self) -> Any:
        return self.form


@dataclass(frozen=True)
class World:
    """What histories are about: an atlas of embeddings, another plan, and what undisturbed runs write."""

    generator: Generator
    maker: Replay
    other: Replay
    origin: dict[str, Any]
    older: Path
    allowed: dict[str, set[bytes]]
    materialised: dict[str, bytes]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("world")
    facts = json.loads((ARCHIVE / "expected.json").read_text())
    cells = anndata.read_h5ad(ARCHIVE / "cells.h5ad")
    layout = dict(zip(facts["layout"][::2], facts["layout"][1::2], strict=True))
    options = {
        "solver": "draw", "seed": 7, "store": "embeddings",
        "chunk_size": layout["--chunk-size"], "shard_size": layout["--shard-size"],
    }  # fmt: skip
    with Generator.open(ARCHIVE / "models", threads=1, batch_size=int(layout["--batch-size"])) as generator:

        def maker(path: Path, **changes: Any) -> tuple[Replay, dict[str, Any]]:
            chosen = complete_options({**options, **changes}, "open_atlas")
            with open_atlas(generator.model, None, cells, path, {}, ["cell_type"], chosen) as opened:
                made = opened.maker
                ranges = [made.plan.cells_of(shard) for shard in range(made.plan.shards)]
                held = {within.start: list(made.blocks([within])) for within in ranges}
                table = RememberedTable(**vars(made.table))
                kept = {"annotations": made.annotations, "held": held, "form": table}
                return Replay(made.plan, path, made.model, made.source, **kept), opened.origin

        usual, origin = maker(folder / "atlas.zarr")
        other, _ = maker(folder / "other.zarr", seed=8)
        with zipfile.ZipFile(ARCHIVE / "embeddings.zarr.zip") as file:
            file.extractall(folder / "unpacked")
        (older,) = [path.parent for path in (folder / "unpacked").rglob(FOLDER)]
        write_atlas(usual, origin)
        materialize_atlas(generator.model, usual.path, folder / "expression.zarr")
        allowed = {name: {content} for name, content in tree(usual.path).items()}
        for name, content in tree(older).items():
            allowed.setdefault(name, set()).add(content)
        yield World(generator, usual, other, origin, older, allowed, tree(folder / "expression.zarr"))


# -- what stops it -----------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """The process is gone."""


class Disk:
    """Counts changes of the file system; after the last that is allowed, none is made any more, as after SIGKILL."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.left: int | None = None
        for name in ("rename", "replace", "unlink", "remove", "mkdir", "rmdir"):
            patch.setattr(os, name, self._counted(getattr(os, name)))
        patch.setattr(os, "fsync", lambda handle: None)

    def _counted(self, change: Any) -> Any:
        def call(*words: Any, **options: Any) -> Any:
            if self.left is not None:
                if self.left <= 0:
                    raise Killed
                self.left -= 1
            return change(*words, **options)

        return call


class Order:
    """Workers that make the shards in another order, some of them twice, as when one is thought lost and comes back."""

    def __init__(self, order: list[int], twice: bool) -> None:
        self.order, self.twice = order, twice

    def run(self, maker: Any, shards: Any) -> Iterator[Any]:
        for shard in sorted(shards, key=lambda shard: self.order[shard % len(self.order)]):
            for _ in range(self.twice):
                list(maker.make([shard]))
            yield from maker.make([shard])


# -- the machine -------------------------------------------------------------------------------------------------------


class AtlasMachine(RuleBasedStateMachine):
    world: World
    disk: Disk

    @initialize(old=st.booleans())
    def begin(self, old: bool) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="history-"))
        self.path = self.folder / "atlas.zarr"
        self.every = set(range(self.world.maker.plan.shards))
        self.made: set[int] = set()
        self.flipped: set[int] = set()
        self.short: set[int] = set()
        self.metadata, self.begun, self.root, self.changed = "sound", False, False, True
        if old:
            shutil.copytree(self.world.older, self.path)
            self.made, self.begun, self.root = set(self.every), True, True

    def teardown(self) -> None:
        self.disk.left = None
        if hasattr(self, "folder"):
            if self.begun:
                with tried("histories of an atlas"):
                    self._run_to_the_end()
            shutil.rmtree(self.folder)

    @property
    def _maker(self) -> Replay:
        return replace(self.world.maker, path=self.path)

    def _write(self, stop_after: int | None = None, **options: Any) -> list[int]:
        committed: list[int] = []
        self.changed = True

        def watch(event: Any) -> None:
            if isinstance(event, ShardCommitted):
                committed.append(event.record.shard)
                if len(committed) == stop_after:
                    raise KeyboardInterrupt

        write_atlas(self._maker, self.world.origin, on_event=watch, **options)
        return committed

    def _settle(self) -> None:
        """Follow what a run did first: it sees what is short, and writes metadata again that are."""
        self.made -= self.short
        self.flipped -= self.short
        self.short = set()
        if not self.begun or self.metadata == "short":
            self.metadata, self.root = "sound", False
        self.begun = True

    def _run_to_the_end(self, **options: Any) -> None:
        pending = self.every - (self.made - self.short)
        committed = self._write(**options)
        assert sorted(committed) == sorted(pending)
        self._settle()
        self.made, self.root = set(self.every), True

    @rule(order=st.permutations(range(4)), twice=st.booleans())
    def a_run_ends(self, order: list[int], twice: bool) -> None:
        self._run_to_the_end(executor=Order(order, twice))

    @rule(count=st.integers(1, 3), order=st.permutations(range(4)))
    def a_run_is_stopped(self, count: int, order: list[int]) -> None:
        pending = sorted(self.every - (self.made - self.short), key=lambda shard: order[shard % 4])
        if len(pending) < count:
            return
        with pytest.raises(KeyboardInterrupt):
            self._write(count, executor=Order(order, twice=False))
        self._settle()
        self.made |= set(pending[:count])
        self.root = False
        assert not (self.path / FOLDER / "work").exists()

    @rule(moment=st.integers(0, 160), order=st.permutations(range(4)))
    def a_run_is_killed(self, moment: int, order: list[int]) -> None:
        before, flipped = self.made - self.short, set(self.flipped)
        harmed = self.root and self.made != self.every  # a record was; and the run may have done nothing yet
        self.disk.left, self.changed = moment, True
        try:
            self._run_to_the_end(executor=Order(order, twice=False))
        except Killed:
            self.disk.left = None
            records = self._records()
            assert before <= set(records), "what was finished is lost"
            self.made = set(records)
            self.flipped = flipped & before
            self.short = {shard for shard, files in records.items() if not self._has(files)}
            self.begun = (self.path / FOLDER / "plan.json").exists()
            self.root = (self.path / "zarr.json").exists()
            self.metadata = self._look_at_metadata()
            assert not self.root or self.made == self.every or harmed, "it could be taken for a finished one"
        finally:
            self.disk.left = None

    def _records(self) -> dict[int, dict[str, Any]]:
        files = (self.path / FOLDER / "shards").glob("*.json")
        found = [json.loads(file.read_text()) for file in files if file.stat().st_size > 40]
        return {each["shard"]: each["files"] for each in found}

    def _has(self, files: dict[str, Any]) -> bool:
        places = [(self.path / name, each["bytes"]) for name, each in files.items()]
        return all(place.exists() and place.stat().st_size == size for place, size in places)

    def _look_at_metadata(self) -> str:
        record = self.path / FOLDER / "metadata.json"
        if not record.exists():
            return "short"
        files = json.loads(record.read_text())
        places = {self.path / (f"{FOLDER}/{name}" if name == "zarr.json" else name): name for name in files}
        if not all(place.exists() and place.stat().st_size == files[name]["bytes"] for place, name in places.items()):
            return "short"
        right = all(place.read_bytes() in self.world.allowed[name] for place, name in places.items())
        return "sound" if right else "flipped"

    @precondition(lambda self: self.made - self.flipped - self.short)
    @rule(data=st.data(), kind=st.sampled_from(["flip", "shorten", "remove", "record"]))
    def a_shard_is_harmed(self, data: Any, kind: str) -> None:
        shard = data.draw(st.sampled_from(sorted(self.made - self.flipped - self.short)))
        if kind == "record":
            record = self.path / FOLDER / "shards" / f"{shard:06d}.json"
            record.write_bytes(record.read_bytes()[:30])
            self.made.remove(shard)
            return
        names = sorted(self._records()[shard])
        file = self.path / data.draw(st.sampled_from(names))
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        if kind == "remove":
            file.unlink()
        else:
            file.write_bytes(content if kind == "flip" else content[:-1])
        (self.flipped if kind == "flip" else self.short).add(shard)

    @precondition(lambda self: self.begun and self.metadata == "sound")
    @rule(kind=st.sampled_from(["flipped", "short"]), name=st.sampled_from(["obs/zarr.json", "var/_index/zarr.json"]))
    def metadata_are_harmed(self, kind: str, name: str) -> None:
        content = bytearray((self.path / name).read_bytes())
        content[len(content) // 2] ^= 1
        (self.path / name).write_bytes(content if kind == "flipped" else content[:-1])
        self.metadata = kind

    @precondition(lambda self: self.root)
    @rule()
    def the_root_is_lost(self) -> None:
        (self.path / "zarr.json").unlink()
        self.root = False

    @rule()
    def it_is_verified(self) -> None:
        if not self.begun:
            with pytest.raises(AtlasError, match="is no atlas"):
                verify_atlas(self.path)
            return
        found = verify_atlas(self.path)
        harmed = self.flipped | self.short
        assert set(found.damaged) - {None} == harmed
        assert (None in found.damaged) == (self.metadata != "sound")
        assert found.missing == tuple(sorted(self.every - self.made))
        assert found.finished == self.root
        assert (found.invalid, found.unknown) == ({}, ())
        assert found.sound == (self.root and self.made == self.every and not harmed and self.metadata == "sound")
        self.made -= harmed
        self.flipped, self.short = set(), set()
        if self.metadata != "sound":
            self.metadata = "short"  # its record is withdrawn

    @precondition(lambda self: self.begun)
    @rule()
    def another_plan_is_refused(self) -> None:
        shutil.rmtree(
            self.path / FOLDER / "work", ignore_errors=True
        )  # what a killed run left, and the next one sweeps
        before = times(self.path)
        with pytest.raises(OutputExistsError, match="another plan"):
            write_atlas(replace(self.world.other, path=self.path), self.world.origin)
        assert times(self.path) == before

    @precondition(lambda self: self.begun)
    @rule()
    def another_run_is_refused(self) -> None:
        with Journal(self.path).locked(), pytest.raises(OutputBusyError):
            self._write()

    @precondition(lambda self: self.root and not self.flipped and not self.short and self.metadata == "sound")
    @rule(chance=st.integers(0, 3))
    def it_is_materialised(self, chance: int) -> None:
        out = self.folder / "expression.zarr"
        if out.exists() or self.made != self.every or chance:  # it takes as long as ten of the others
            return
        materialize_atlas(self.world.generator.model, self.path, out)
        made = tree(out)
        assert made.keys() == self.world.materialised.keys()
        if all(content == next(iter(self.world.allowed[name])) for name, content in tree(self.path).items()):
            assert made == self.world.materialised

    @invariant()
    def what_is_made_is_what_an_undisturbed_run_makes(self) -> None:
        if not hasattr(self, "path") or not self.changed:
            return
        self.changed = False
        records = self._records()
        assert set(records) == self.made
        for shard in self.made - self.flipped - self.short:
            for name in records[shard]:
                assert (self.path / name).read_bytes() in self.world.allowed[name], name
        assert (self.path / "zarr.json").exists() == self.root


@pytest.mark.slow
def test_whatever_happens_the_atlas_is_what_the_model_says(world: World, tmp_path, monkeypatch, request) -> None:
    memory = Path("/dev/shm")
    folder = tempfile.mkdtemp(dir=memory if os.access(memory, os.W_OK) else None)  # some 20,000 small files a second
    request.addfinalizer(lambda: shutil.rmtree(folder))
    described: dict[str, Path] = {}
    describe = zarr_store._describe

    def remembered(path: Path, plan: Any, *words: Any) -> None:
        if plan.digest not in described:
            described[plan.digest] = Path(folder) / plan.digest
            describe(described[plan.digest], plan, *words)
        shutil.copytree(described[plan.digest], path)

    monkeypatch.setattr(zarr_store, "_describe", remembered)
    monkeypatch.setattr(tempfile, "tempdir", folder)
    write_atlas(replace(world.maker, path=tmp_path / "first.zarr"), world.origin)  # describes it, undisturbed
    AtlasMachine.world, AtlasMachine.disk = world, Disk(monkeypatch)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run_state_machine_as_test(
            AtlasMachine,
            settings=settings(
                max_examples=HISTORIES * TIMES,
                stateful_step_count=STEPS,
                deadline=None,
                derandomize=TIMES == 1,
                database=None,
                phases=[Phase.generate],  # a history that fails is printed; shrinking it would take minutes
                suppress_health_check=list(HealthCheck),
            ),
        )
