"""A value is one of those that are known, or the message says which these are."""

import pytest

from causcell._internal.choices import check_choice
from causcell.errors import ConfigurationError

MODES = ("do", "exogenous", "isolated")


@pytest.mark.parametrize("mode", MODES)
def test_a_known_value_is_returned(mode):
    assert check_choice(mode, MODES, "mode") == mode
    assert check_choice(mode, iter(MODES), "mode") == mode


def test_the_nearest_is_suggested():
    with pytest.raises(ConfigurationError, match=r"mode 'isolate' is not known; did you mean 'isolated'\?"):
        check_choice("isolate", MODES, "mode")


def test_all_are_listed_and_nothing_is_suggested_where_nothing_is_near():
    with pytest.raises(ConfigurationError) as caught:
        check_choice("see", MODES, "mode")
    assert str(caught.value) == "mode 'see' is not known; known are 'do', 'exogenous', 'isolated'"


@pytest.mark.parametrize("value", [None, 3, "", "DO"])
def test_what_is_no_value_is_refused_as_well(value):
    with pytest.raises(ConfigurationError, match="is not known; "):
        check_choice(value, MODES, "mode")
