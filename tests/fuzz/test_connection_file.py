"""Readers of TOML: the file of ``--connection`` and the one of ``train --config``."""

import tempfile
from pathlib import Path
from typing import Any

import pytest
from fuzzing import inputs, tried
from hypothesis import example, given
from hypothesis import strategies as st

from causcell.cli.options import read_connection
from causcell.errors import ConfigurationError
from causcell_training.config import TrainConfig, load_config

CONNECTION = """deadline = 30.5
patience = 10
in_flight = 2
shared_memory = false
[headers]
authorization = "Bearer 0123"
"""
TRAIN = """concept = ["stim", "cell_type"]
edge = ["stim:cell_type"]
genes = 500
expression = "counts"
seed = 3
[model]
width = 64
head = "plain"
[objective]
adversary = 0.5
[optimisation]
epochs = 3
batch_size = 32
"""


@pytest.fixture(scope="module")
def file() -> Any:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / "settings.toml"


KNOWN = (
    "deadline patience in_flight shared_memory headers certificates dead_line concept edge genes seed model objective "
    "optimisation model.width model.head optimisation.epochs objective.likelihood optimization model.widht layer"
)
ODD = (
    'nan inf -inf 1e999 0 -1 1e308 0x1F true 1979-05-27 07:32:00 "" [] {} [[]] \'/etc/passwd\' "\\u0000" 1_000 "1" '
    '[1,2] {a="b"} 1.5 "a:b"'
)
NAMES = st.one_of(st.sampled_from(KNOWN.split()), st.from_regex(r"[A-Za-z0-9_-]{1,12}", fullmatch=True))
VALUES = st.one_of(
    st.sampled_from([*ODD.split(), "9" * 30, "9" * 5000, "[" * 3000 + "]" * 3000]),
    st.integers().map(str),
    st.floats().map(repr),
    st.text(max_size=10).map(repr),
)


def read(file: Path, content: bytes) -> None:
    """Read it as both, and use what was read."""
    file.write_bytes(content)
    with tried("connection file"):
        connection = read_connection(file)
        assert connection is not None
        assert connection.deadline > 0
        assert type(connection.in_flight) is int
        assert type(connection.shared_memory) is bool
    with tried("training settings"):
        config = load_config(file)
        assert TrainConfig.model_validate_json(config.model_dump_json()) == config


@inputs(500)
@given(st.lists(st.tuples(NAMES, VALUES), max_size=4), st.sampled_from(["", CONNECTION, TRAIN]))
@example([("in_flight", "9" * 4000)], "")
@example([("in_flight", "true")], "")
@example([("deadline", '"5"')], "")
@example([("optimisation.epochs", "true")], "")
def test_settings_of_any_value(file: Path, settings: list[tuple[str, str]], rest: str) -> None:
    read(file, ("\n".join(f"{name} = {value}" for name, value in settings) + "\n" + rest).encode(errors="replace"))


@inputs(300)
@given(
    st.sampled_from([CONNECTION, TRAIN]),
    st.lists(st.tuples(st.integers(0, 140), st.integers(0, 20), st.binary(max_size=8)), min_size=1, max_size=3),
)
def test_damaged_bytes(file: Path, text: str, damage: list[tuple[int, int, bytes]]) -> None:
    content = text.encode()
    for place, removed, added in damage:
        content = content[:place] + added + content[place + removed :]
    read(file, content)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("deadline = nan", r"deadline is nan; take a finite number"),
        ("patience = inf", r"patience is inf; take a finite number"),
        ("dead_line = 5", r"dead_line is not known; did you mean 'deadline'\? known are 'deadline', 'patience'"),
        ('deadline = "5"', r"deadline is '5': Input should be a valid number"),
        ("in_flight = true", r"in_flight is True: Input should be a valid integer"),
        ("in_flight = 1.5", r"in_flight is 1.5: "),
        ("in_flight = " + "9" * 30, r"in_flight is a whole number of more than 64 bits"),
        ("in_flight = " + "9" * 9000, r"can't be read: .*4300"),
        ("shared_memory = 1", r"shared_memory is 1: Input should be a valid boolean"),
        ("a = " + "[" * 5000, r"can't be read: "),
        ("x = '" + "a" * 2**21 + "'", r"larger than 1,048,576 bytes"),
    ],
)
def test_what_is_wrong_is_said(file: Path, text: str, message: str) -> None:
    file.write_text(text)
    with tried("connection file"), pytest.raises(ConfigurationError, match=message):
        read_connection(file)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("objective = {adversary = nan}", "adversary is nan; take a finite number"),
        ("optimisation = {epochs = true}", r"setting 'optimisation\.epochs' = True"),
        ('model = {width = "64"}', r"setting 'model\.width' = '64'"),
        ("seed = " + "9" * 30, "seed is a whole number of more than 64 bits"),
    ],
)
def test_what_is_wrong_with_settings_of_training_is_said(file: Path, text: str, message: str) -> None:
    file.write_text(text)
    with tried("training settings"), pytest.raises(ConfigurationError, match=message):
        load_config(file)
