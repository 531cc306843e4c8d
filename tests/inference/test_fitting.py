"""`causcell.fit` without what trains says what to install; with it, tests/export/test_fitted.py."""

from types import SimpleNamespace

import pytest

import causcell
from causcell import fitting
from causcell.errors import RuntimeUnavailableError


def _entry_points(monkeypatch, *entries):
    monkeypatch.setattr(fitting.metadata, "entry_points", lambda group: list(entries) if group == fitting.GROUP else [])


def test_a_missing_package_is_named_with_the_remedy(monkeypatch):
    def load():
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    _entry_points(monkeypatch, SimpleNamespace(name="fit", load=load))
    with pytest.raises(RuntimeUnavailableError, match=r"the package 'torch'; .*pip install 'causcell\[cpu,export\]'"):
        causcell.fit("cells.h5ad", concepts=["stim"])


def test_no_training_at_all_is_told(monkeypatch):
    _entry_points(monkeypatch)
    with pytest.raises(RuntimeUnavailableError, match="training is not installed here; install"):
        causcell.fit("cells.h5ad", concepts=["stim"])


def test_arguments_reach_what_trains(monkeypatch):
    given = {}
    _entry_points(monkeypatch, SimpleNamespace(name="fit", load=lambda: lambda cells, **options: given.update(options)))
    causcell.fit("cells.h5ad", concepts=["stim"], edges=["a:b"], genes=50, progress=False)
    expected = {"concepts": ["stim"], "edges": ["a:b"], "out": None, "progress": False, "threads": None, "genes": 50}
    assert given == expected
