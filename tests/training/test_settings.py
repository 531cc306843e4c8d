"""The list of settings: every field of the classes, with a default that is taken and an explanation."""

import pytest

from causcell.cli.main import main
from causcell_training.config import TrainConfig, load_config, parse_overrides
from causcell_training.settings import SECTIONS, Setting, describe_settings

SETTINGS = {setting.name: setting for setting in describe_settings()}


def test_every_setting_is_listed_in_the_order_of_the_file() -> None:
    fields = [name for name in TrainConfig.model_fields if name not in SECTIONS]
    assert [setting.name for setting in SETTINGS.values() if not setting.section] == fields
    assert {setting.section for setting in SETTINGS.values()} == set(SECTIONS)


def test_every_setting_is_explained() -> None:
    assert [name for name, setting in SETTINGS.items() if not setting.explanation.endswith(".")] == []


def test_a_default_is_what_a_run_takes() -> None:
    """As it is spelt, ``--set`` takes it and nothing changes."""
    given = [f"{name}={setting.default}" for name, setting in SETTINGS.items() if _can_be_given(setting)]
    assert load_config(overrides=parse_overrides(given)) == load_config()
    assert len(given) > 35


def _can_be_given(setting: Setting) -> bool:
    return setting.default != "none" and setting.section != "descent"


def test_choices_and_ranges_are_told() -> None:
    assert SETTINGS["model.graph"].allowed == "given | independent | learned"
    assert SETTINGS["objective.edges"].allowed == "number, from 0"
    assert SETTINGS["descent.freeze"].default == "encoder"
    assert SETTINGS["layer"] == Setting("", "layer", "none", "text", "Layer to read in place of ``X``.")


def test_the_list_fits_a_terminal_and_needs_no_cells(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["train", "--settings"])
    assert not exit_.value.code
    printed = capsys.readouterr().out
    assert "  objective.adversary = 0.1  (number, from 0)\n      Divergence of label frequencies" in printed
    explained = [line for line in printed.splitlines() if line.startswith("      ")]
    assert max(map(len, explained)) <= 80
