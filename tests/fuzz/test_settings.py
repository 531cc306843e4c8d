"""Settings from files and flags: every text is settings, or is told what is wrong with it."""

import random
import tomllib
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from fuzzing import inputs, tried
from hypothesis import example, given
from hypothesis import strategies as st

from causcell_training.config import TrainConfig, load_config, parse_overrides
from causcell_training.run_folder import format_config

SEEDS = st.integers(0, 2**32 - 1)

JUNK: list[Any] = [
    True, False, 0, -1, 1, 2, 10**12, 10**18, 0.5, -0.5, float("nan"), float("inf"), -float("inf"), 1e308, "", "x",
    "all", "counts", "\u2028", "a" * 3000, [], [[]], {}, {"a": 1}, ["stim"], ["a:b", 1], [["a", "b"]], {"model": {}},
]  # fmt: skip

NAMES = [
    "seed",
    "concept",
    "edge",
    "genes",
    "model",
    "model.width",
    "model.head",
    "objective.likelihood",
    "optimisation",
]


def changed(fields: Any, rng: random.Random) -> Any:
    """Settings with a few of them replaced, removed, or under another name."""
    for _ in range(rng.randint(1, 3)):
        section = rng.choice([fields, *(each for each in fields.values() if isinstance(each, dict))])
        if not section:
            continue
        name = rng.choice(sorted(section))
        how = rng.random()
        if how < 0.7:
            section[name] = rng.choice(JUNK)
        elif how < 0.85:
            section[rng.choice((name[:-1], name.upper(), name + "s", "", "\x00", "a.b"))] = section.pop(name)
        else:
            del section[name]
    return fields


def check(config: TrainConfig, file: Path) -> None:
    """What is taken can be written, and gives the same settings again."""
    file.write_text(format_config(config))
    assert load_config(file) == config


@inputs(700)
@given(SEEDS)
def test_settings_that_are_made_up_are_told(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    rng = random.Random(seed)
    fields = changed(tomllib.loads(format_config(TrainConfig(concept=("stim",)))), rng)
    file = tmp_path_factory.getbasetemp() / "settings.toml"
    file.write_text(tomli_w.dumps(fields))
    with tried("settings"):
        check(load_config(file), file)


@inputs(400)
@given(st.binary(max_size=200), SEEDS)
@example(b"a = 1979-05-27T07:32:00Z", 0)
@example(b"seed = 99999999999999999999999999999", 0)
@example(b"a = " + b"[" * 5000, 0)
@example(b"\xef\xbb\xbfseed = 1", 0)
@example(b"seed = 1e999", 0)
def test_a_file_that_is_no_toml_is_told(tmp_path_factory: pytest.TempPathFactory, junk: bytes, seed: int) -> None:
    rng = random.Random(seed)
    content = format_config(TrainConfig(concept=("stim",))).encode()
    place = rng.randrange(len(content))
    file = tmp_path_factory.getbasetemp() / "settings.toml"
    with tried("settings"):
        file.write_bytes(rng.choice((junk, content[:place] + junk + content[place:], content[:place])))
        check(load_config(file), file)


@inputs(500)
@given(st.lists(st.tuples(st.sampled_from(NAMES) | st.text(max_size=12), st.text(max_size=30)), max_size=3))
@example([("seed", "1"), ("seed.x", "2")])
@example([("model", "1"), ("model.width", "64")])
@example([("model.width", "9" * 5000)])
@example([("model.width", "1\nx=2")])
@example([("model.width", "[" * 5000)])
@example([("..", "1")])
def test_flags_that_are_made_up_are_told(
    tmp_path_factory: pytest.TempPathFactory, settings: list[tuple[str, str]]
) -> None:
    file = tmp_path_factory.getbasetemp() / "settings.toml"
    with tried("settings"):
        check(load_config(overrides=parse_overrides([f"{name}={value}" for name, value in settings])), file)
