"""Settings: defaults, TOML file, overrides, and what is said about a bad one."""

from pathlib import Path

import pytest

from causcell.errors import ConfigurationError
from causcell_training.config import TrainConfig, load_config, parse_overrides
from causcell_training.run import Run

TOML = """
concept = ["stim", "donor"]
edge = ["stim:donor"]
genes = 300

[model]
width = 64

[objective]
adversary = 0.25
"""


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    path = tmp_path / "train.toml"
    path.write_text(TOML)
    return path


def test_without_a_file_the_defaults_hold() -> None:
    config = load_config()
    assert config == TrainConfig()
    assert (config.expression, config.genes, config.seed) == ("counts", 2000, 0)


def test_file_sets_what_it_names_and_leaves_the_rest(toml: Path) -> None:
    config = load_config(toml)
    assert config.concept == ("stim", "donor")
    assert config.edge == ("stim:donor",)
    assert (config.genes, config.model.width, config.objective.adversary) == (300, 64, 0.25)
    assert config.model.embedding == TrainConfig().model.embedding
    assert config.optimisation == TrainConfig().optimisation


def test_overrides_go_before_the_file(toml: Path) -> None:
    config = load_config(toml, {"genes": "all", "model.width": 128, "optimisation.epochs": 7})
    assert (config.genes, config.model.width, config.optimisation.epochs) == ("all", 128, 7)
    assert config.objective.adversary == 0.25  # the file's


def test_settings_are_values_of_toml_or_text() -> None:
    overrides = parse_overrides(
        ["model.width=64", "objective.adversary=0.5", "model.schedule=cosine", 'concept=["a", "b"]', "layer=x=y"]
    )
    assert overrides == {
        "model.width": 64,
        "objective.adversary": 0.5,
        "model.schedule": "cosine",
        "concept": ["a", "b"],
        "layer": "x=y",
    }
    assert load_config(overrides=overrides).model.schedule == "cosine"


@pytest.mark.parametrize(
    ("overrides", "fragments"),
    [
        ({"model.breadth": 3}, ["model.breadth", "3"]),
        ({"modle.width": 3}, ["modle", "width"]),
        ({"colour": "red"}, ["colour", "red"]),
        ({"model.width": 4}, ["model.width", "4", "greater than or equal to 8"]),
        ({"model.head": "fancy"}, ["model.head", "fancy", "plain"]),
        ({"model.schedule": "square"}, ["model.schedule", "square", "linear", "cosine"]),
        ({"objective.adversary": -1}, ["objective.adversary", "-1", "greater than or equal to 0"]),
        ({"objective.adversary": float("nan")}, ["objective.adversary", "nan"]),
        ({"objective.reconstruction": -1}, ["objective.reconstruction", "-1", "greater than or equal to 0"]),
        ({"optimisation.epochs": "many"}, ["optimisation.epochs", "many", "integer"]),
        ({"optimisation.held_out": 0.95}, ["optimisation.held_out", "0.95", "less than 0.9"]),
        ({"expression": "cpm"}, ["expression", "cpm", "counts", "log1p"]),
        ({"seed": -1}, ["seed", "-1", "greater than or equal to 0"]),
        ({"concept": {"stim": 1}}, ["concept", "stim", "array"]),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)
def test_a_bad_setting_is_named_with_its_value_and_what_is_allowed(
    overrides: dict[str, object], fragments: list[str]
) -> None:
    with pytest.raises(ConfigurationError) as error:
        load_config(overrides=overrides)
    for fragment in fragments:
        assert fragment in str(error.value)


@pytest.mark.parametrize(
    ("setting", "near"),
    [
        ("objective.adversry", "objective.adversary"),
        ("Model.width", "model"),
        ("seeed", "seed"),
        ("width", "model.width"),
        ("epochs", "optimisation.epochs"),
        ("model.epochs", "optimisation.epochs"),
    ],
)
def test_a_typo_in_a_setting_is_told_the_nearest_name(setting: str, near: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"is not known; did you mean '{near}'\?"):
        load_config(overrides={setting: 1})


def test_one_concept_and_one_edge_may_be_text() -> None:
    config = load_config(overrides={"concept": "stim", "edge": "stim:state"})
    assert (config.concept, config.edge) == (("stim",), ("stim:state",))


def test_a_bad_setting_in_the_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "train.toml"
    path.write_text("[optimisation]\nbatchsize = 3\n")
    with pytest.raises(ConfigurationError, match=r"optimisation\.batchsize.*3"):
        load_config(path)


def test_an_override_into_what_is_no_section_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "train.toml"
    path.write_text("genes = 3\n")
    with pytest.raises(ConfigurationError, match=r"'genes\.number' is no setting: 'genes' is not a section"):
        load_config(path, {"genes.number": 3})


@pytest.mark.parametrize("content", [b"[model\nwidth = 3", b"\x89HDF\r\n\xff\xfe"], ids=["bad TOML", "not text"])
def test_an_unreadable_file_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "train.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"config='.*train\.toml' can't be read"):
        load_config(path)


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"config='.*none\.toml' can't be read"):
        load_config(tmp_path / "none.toml")


@pytest.mark.parametrize("setting", ["model.width", "=3", "", "model.width 3"])
def test_a_setting_that_is_no_pair_is_refused_with_the_form(setting: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        parse_overrides([setting])
    assert repr(setting) in str(error.value)
    assert "SECTION.KEY=VALUE" in str(error.value)


def test_settings_that_a_run_wrote_load_to_the_same_settings(run: Run) -> None:
    assert load_config(run.path / "config.toml") == run.config
