"""Run folders that are damaged or made up: every one is told, whatever reads it, and nothing is taken on trust."""

import contextlib
import json
import random
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pytest
import torch
from fuzzing import inputs, tried
from hypothesis import example, given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from short_runs import interrupt, tiny_config

from causcell_training import Run, fit
from causcell_training.checkpoint_file import read_checkpoint, write_checkpoint

CONFIG = tiny_config(**{"optimisation.epochs": 4})
SEEDS = st.integers(0, 2**32 - 1)

JUNK: list[Any] = [
    None, True, False, 0, -1, 10**12, 10**400, -(10**40), 0.5, float("nan"), float("inf"), 1e308, "", "x", "\x00",
    "a" * 5000, "../../etc/passwd", [], [[]], {}, {"a": 1}, [1, "x", None], [1e30] * 3, {"": {}},
]  # fmt: skip


@pytest.fixture(scope="module")
def folders(cells: anndata.AnnData, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A finished run, and one that has not finished but done all its epochs."""
    root = tmp_path_factory.mktemp("fuzzed")
    fit(cells, root / "finished", config=CONFIG)
    with pytest.MonkeyPatch.context() as patch:
        interrupt(patch, 4, RuntimeError("power cut"))
        with pytest.raises(RuntimeError, match="power cut"):
            fit(cells, root / "unfinished", config=tiny_config())
    return {path.name: path for path in root.iterdir()}


# -- damage ------------------------------------------------------------------------------------------------------------


def places(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place of a tree of dicts and lists; of long lists a few."""
    yield path
    items = tree.items() if isinstance(tree, dict) else enumerate(tree[:3]) if isinstance(tree, list | tuple) else ()
    for key, value in items:
        yield from places(value, (*path, key))


def mutated(tree: Any, rng: random.Random) -> Any:
    """A tree with one or two places replaced, removed, or repeated."""
    for _ in range(rng.choice((1, 1, 1, 2))):
        *above, last = rng.choice([place for place in places(tree) if place] or [(None,)])
        parent = tree
        for key in above:
            parent = parent[key]
        if not isinstance(parent, dict | list):
            continue
        how = rng.random()
        if how < 0.15 and isinstance(parent, dict):
            parent.pop(last, None)
        elif how < 0.25 and isinstance(parent, list):
            parent.append(parent[last])
        elif isinstance(parent[last], torch.Tensor):
            parent[last] = other_tensor(parent[last], rng)
        else:
            parent[last] = rng.choice(JUNK)
    return tree


def other_tensor(tensor: torch.Tensor, rng: random.Random) -> Any:
    """A tensor of another shape, type or content."""
    return rng.choice(
        [
            lambda: tensor[:0] if tensor.ndim else tensor[None],
            lambda: tensor.reshape(-1),
            lambda: tensor[None],
            lambda: tensor.double(),
            lambda: tensor.to(torch.int32),
            lambda: torch.full_like(tensor, 2**31 - 1 if tensor.dtype == torch.int32 else 127),
            lambda: -tensor if tensor.dtype != torch.bool else tensor,
            lambda: torch.full(tensor.shape, float("nan")),
            lambda: torch.full(tensor.shape, 1e38),
            lambda: None,
        ]
    )()


def damaged(content: bytes, rng: random.Random) -> bytes:
    """Bytes cut, flipped, zeroed, doubled or made up."""
    place = rng.randrange(len(content) + 1)
    length = rng.choice((1, 8, 64, 1024))
    return rng.choice(
        [
            lambda: content[:place],
            lambda: content[:place] + bytes([rng.randrange(256)]) + content[place + 1 :],
            lambda: content[:place] + bytes(length) + content[place + length :],
            lambda: content[:place] + rng.randbytes(length) + content[place:],
            lambda: content + content[:length],
            lambda: rng.randbytes(length),
            lambda: b"",
        ]
    )()


def other_header(content: bytes, rng: random.Random) -> bytes:
    """A safetensors file whose header says something else."""
    size = struct.unpack("<Q", content[:8])[0]
    if rng.random() < 0.3:
        return struct.pack("<Q", rng.choice((0, 1, size - 1, size + 1, 2**31, 2**63, 2**64 - 1))) + content[8:]
    header = mutated(json.loads(content[8 : 8 + size]), rng)
    if rng.random() < 0.3:
        for entry in header.values() if isinstance(header, dict) else ():
            if isinstance(entry, dict) and "shape" in entry:
                entry["shape"] = [2**40, 2**20]
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content[8 + size :]


@contextlib.contextmanager
def put(path: Path, content: bytes) -> Iterator[None]:
    """Put other content in the place of a file, for the block."""
    before = path.read_bytes() if path.exists() else None
    path.write_bytes(content)
    try:
        yield
    finally:
        path.unlink() if before is None else path.write_bytes(before)


def look(run: Run) -> None:
    """All that export reads of a run."""
    run.held_out()
    _ = run.reference
    repr(run)


# -- finished runs -----------------------------------------------------------------------------------------------------


@inputs(150)
@given(SEEDS)
def test_a_damaged_file_of_a_finished_run_is_told(folders: dict[str, Path], seed: int) -> None:
    rng, path = random.Random(seed), folders["finished"]
    name = rng.choice(("run.json", "weights.safetensors", "reference.npz", "held_out.h5ad"))
    fields = json.loads((path / "run.json").read_text())
    if rng.random() < 0.7:
        del fields["files"]  # what digests would catch has to be found by the readers
    with put(path / "run.json", json.dumps(fields).encode()):
        content = (path / name).read_bytes()
        change = other_header if name == "weights.safetensors" and rng.random() < 0.6 else damaged
        with put(path / name, change(content, rng)), tried("finished run"):
            look(Run.load(path))


@inputs(150)
@given(SEEDS)
@example(16968117)  # a mean beyond float32
def test_a_description_that_is_made_up_is_told(folders: dict[str, Path], seed: int) -> None:
    rng, path = random.Random(seed), folders["finished"]
    fields = json.loads((path / "run.json").read_text())
    if rng.random() < 0.5:
        del fields["files"]
    with put(path / "run.json", json.dumps(mutated(fields, rng)).encode()), tried("run.json"):
        look(Run.load(path))


@pytest.mark.parametrize("content", [b"[" * 100_000, b'{"config":' * 50_000, b"9" * 100_000, b"NaN", b"[]", b'"run"'])
def test_a_description_of_no_sense_is_told(folders: dict[str, Path], content: bytes) -> None:
    with put(folders["finished"] / "run.json", content), tried("run.json"):
        Run.load(folders["finished"])


@inputs(60)
@given(SEEDS)
def test_weights_of_another_model_are_told(folders: dict[str, Path], tmp_path_factory: Any, seed: int) -> None:
    """The file is sound, the tensors are not those of this model."""
    rng, path = random.Random(seed), folders["finished"]
    fields = json.loads((path / "run.json").read_text())
    del fields["files"]
    tensors = load_file(path / "weights.safetensors")
    name = rng.choice(sorted(tensors))
    other = other_tensor(tensors.pop(name), rng)
    if other is not None:
        tensors[rng.choice((name, "other"))] = other.contiguous()
    file = tmp_path_factory.getbasetemp() / "weights.safetensors"
    save_file(tensors, file)
    with (
        put(path / "run.json", json.dumps(fields).encode()),
        put(path / "weights.safetensors", file.read_bytes()),
        tried("weights"),
    ):
        run = Run.load(path)
        look(run)
        assert all(torch.isfinite(tensor).all() for tensor in run.model.state_dict().values())


# -- unfinished runs ---------------------------------------------------------------------------------------------------

STATES = ("data", "best", "last")


@inputs(120)
@given(SEEDS)
def test_a_damaged_checkpoint_is_told(folders: dict[str, Path], seed: int) -> None:
    rng, path = random.Random(seed), folders["unfinished"]
    file = path / "checkpoints" / f"{rng.choice(STATES)}.safetensors"
    change = rng.choice((other_header, damaged))
    with put(file, change(file.read_bytes(), rng)):
        with tried("checkpoint"):
            read_checkpoint(file)
        with tried("unfinished run"):
            look(Run.load(path, unfinished=True))


@inputs(100)
@given(SEEDS)
@example(12074)  # indices that are no integers
@example(387348)  # weights that estimate the same of all genes
def test_a_checkpoint_that_is_made_up_is_told(folders: dict[str, Path], tmp_path_factory: Any, seed: int) -> None:
    """Its digest is right."""
    rng, path = random.Random(seed), folders["unfinished"]
    file = path / "checkpoints" / f"{rng.choice(('data', 'best'))}.safetensors"
    tree = mutated(read_checkpoint(file), rng)
    made = tmp_path_factory.getbasetemp() / "made.safetensors"
    with tried("checkpoint made up"):
        write_checkpoint(tree, made)
        with put(file, made.read_bytes()):
            run = Run.load(path, unfinished=True)
            look(run)
            assert np.isfinite(run.reference.exogenous).all()


def resumed(cells: anndata.AnnData, path: Path, copy: Path, change: Callable[[Path], None]) -> None:
    """Resume a copy of a run after a change. There is nothing left to train."""
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(path, copy)
    with tried("resume"):
        change(copy)
        assert fit(cells, copy, config=CONFIG, resume=True).provenance["epochs"] < 2**48
        look(Run.load(copy))


@inputs(30)
@given(SEEDS)
def test_a_damaged_run_is_resumed_or_told(
    cells: anndata.AnnData, folders: dict[str, Path], tmp_path_factory: Any, seed: int
) -> None:
    rng = random.Random(seed)
    name = rng.choice(
        (
            *("checkpoints/last.safetensors", "checkpoints/best.safetensors", "checkpoints/data.safetensors"),
            *("config.toml", "split.csv", "metrics.csv", "held_out.h5ad", "run.json"),
        )
    )

    def damage(path: Path) -> None:
        content = (path / name).read_bytes() if (path / name).exists() else b'{"config": {}}'
        (path / name).write_bytes(damaged(content, rng))

    resumed(cells, folders["unfinished"], tmp_path_factory.getbasetemp() / "resumed", damage)


@inputs(40)
@given(SEEDS)
def test_a_state_that_is_made_up_is_told(
    cells: anndata.AnnData, folders: dict[str, Path], tmp_path_factory: Any, seed: int
) -> None:
    rng = random.Random(seed)

    def make_up(path: Path) -> None:
        file = path / "checkpoints" / "last.safetensors"
        write_checkpoint(mutated(read_checkpoint(file), rng), file)

    resumed(cells, folders["unfinished"], tmp_path_factory.getbasetemp() / "resumed", make_up)
