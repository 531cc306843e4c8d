"""What the peers' adapters compute themselves, without the peers."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

ADAPTERS = Path(__file__).parent / "peers" / "adapters"


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(ADAPTERS)
    before = set(sys.modules)

    def load_file(name: str) -> ModuleType:
        specification = importlib.util.spec_from_file_location(name, ADAPTERS / f"{name}.py")
        module = importlib.util.module_from_spec(specification)
        specification.loader.exec_module(module)
        return module

    yield load_file
    for name in set(sys.modules) - before:
        if str(ADAPTERS) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def test_expected_log1p_of_negative_binomial_counts_is_its_sum(load):
    means, dispersions = np.array([[0.01, 0.7, 6.0, 90.0]]), np.array([[0.3, 1.0, 4.0, 50.0]])
    scale = np.array([[10_000 / 1_500]])
    counts = np.arange(2_000)[:, None]
    chances = stats.nbinom.pmf(counts, dispersions, dispersions / (dispersions + means))
    right = (chances * np.log1p(scale * counts)).sum(axis=0)

    found = load("scdisinfact").expected_log1p(means, dispersions, scale)[0]

    np.testing.assert_allclose(found[:3], right[:3], rtol=1e-4)
    np.testing.assert_allclose(found[3], right[3], rtol=5e-3)  # most of it above the last count: at their mean


def test_concepts_of_two_labels_are_one_column_and_of_more_one_a_label(load):
    labels = pd.DataFrame({"stim": ["ctrl", "stim", "stim"], "type": ["B", "NK", "T"]})
    concepts = load("sccbgm").Concepts(labels)

    np.testing.assert_array_equal(concepts.encode(labels), [[0, 1, 0, 0], [1, 0, 1, 0], [1, 0, 0, 1]])
    values, mask = concepts.intervene(1, {"stim": "stim"})
    np.testing.assert_array_equal(values, [[1, 0, 0, 0]])
    np.testing.assert_array_equal(mask, [[1, 0, 0, 0]])


def test_system_without_its_checkout_says_where_it_is(load):
    with pytest.raises(SystemExit, match=r"on no package index: give a checkout of github\.com/almaan/scCBGM"):
        load("sccbgm").Adapter(SimpleNamespace(checkout=None))


def test_checkout_of_something_else_is_told(load, tmp_path):
    job = SimpleNamespace(checkout=str(tmp_path), interventions=[], concepts=[])
    with pytest.raises(SystemExit, match="has no folder scDisInFact"):
        load("scdisinfact").Adapter(job)
