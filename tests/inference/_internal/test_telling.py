"""A warning stands at the line of whoever called CausCell."""

import warnings

import anndata
import pytest

from causcell._internal.telling import warn
from causcell.errors import CausCellWarning
from causcell.generator import Generator


def test_it_stands_at_the_callers_line_however_deep_it_arises(generator: Generator, few: anndata.AnnData) -> None:
    few = few.copy()
    few.obs["draw"] = "mine"  # a column that is the result's own
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", CausCellWarning)
        generator.counterfactual(few, do={"stim": "IFN"})
    assert caught
    assert {each.filename for each in caught if issubclass(each.category, CausCellWarning)} == {__file__}


def test_it_is_a_warning_of_causcell() -> None:
    with pytest.warns(CausCellWarning, match="something to know"):
        warn("something to know")
