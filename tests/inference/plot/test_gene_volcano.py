"""A volcano shows every gene of one group, the called ones in colour and the known ones marked."""

import numpy as np
import pandas as pd
import pytest

import causcell
from causcell.errors import ConfigurationError

plt = pytest.importorskip("matplotlib.pyplot")


@pytest.fixture
def table():
    """Two groups of five genes: one raised, one lowered, one with a p-value of zero."""
    rows = {
        "group": ["S"] * 5 + ["G2M"] * 5,
        "names": ["PCNA", "STMN1", "CD3E", "LYZ", "MKI$67"] * 2,
        "effect": [1.0, 0.1, -0.8, 0.0, 2.0] * 2,
        "pvals_adj": [1e-4, 0.5, 1e-3, 1.0, 0.0] * 2,
        "changed": [True, False, True, False, True] * 2,
    }
    return pd.DataFrame(rows)


def test_every_gene_is_drawn_once_and_called_ones_are_counted(table):
    ax = causcell.pl.volcano(table, "S", known=["STMN1", "absent"], names=2)
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == ["not called (2)", "raised (2)", "lowered (1)", "known (1)"]
    drawn = np.concatenate([each.get_offsets() for each in ax.collections[:3]])
    assert len(drawn) == 5
    assert drawn[:, 1].max() == 300  # a p-value of 0 is finite
    assert {text.get_text() for text in ax.texts} == {
        "STMN1",
        r"MKI\$67",
        "CD3E",
    }  # the known one, and one up, one down


def test_a_group_is_to_be_named_where_there_are_several(table):
    with pytest.raises(ConfigurationError, match="no group None; name one of"):
        causcell.pl.volcano(table)
    causcell.pl.volcano(table[:5])  # the only one


def test_another_table_is_refused(table):
    with pytest.raises(ConfigurationError, match="the table has no column 'effect'"):
        causcell.pl.volcano(table.drop(columns="effect"), "S")


def test_a_trial_is_taken_as_it_is(generator, few):
    trial = generator.trial(few, "stim", baseline="ctrl", draws=1)
    ax = causcell.pl.volcano(trial)
    assert sum(len(each.get_offsets()) for each in ax.collections[:3]) == trial.n_vars
