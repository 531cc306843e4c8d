"""Registries: what two packages may not do, and what is read when."""

import sys
from pathlib import Path

import pytest
from plugins import install_plugin

from causcell._internal.registry import Registry
from causcell.errors import ConfigurationError


@pytest.fixture
def numbers() -> Registry[float]:
    return Registry("number", "causcell.numbers", lambda name, found: float(found), {"pi": "math:pi", "two": 2})


def test_two_packages_with_one_name_are_refused_and_both_named(numbers, tmp_path, monkeypatch):
    for package, place in (("first", "math:e"), ("second", "math:tau")):
        install_plugin(tmp_path / package, monkeypatch, "causcell.numbers", f"ours = {place}", package=package)
    with pytest.raises(ConfigurationError, match=r"two packages bring a number named 'ours'.*uninstall one") as error:
        numbers["ours"]
    assert all(package in str(error.value) for package in ("first", "second"))


def test_a_plugin_is_imported_when_its_name_is_asked_for(numbers, tmp_path, monkeypatch):
    (tmp_path / "lazy_number.py").write_text("FOUR = 4\n")
    install_plugin(tmp_path, monkeypatch, "causcell.numbers", "four = lazy_number:FOUR", "broken = lazy_number:FIVE")
    assert numbers.names() == ("pi", "two", "broken", "four")
    assert numbers.check_name("four") == "four"
    assert "lazy_number" not in sys.modules
    assert numbers["four"] == 4
    with pytest.raises(
        ConfigurationError, match=r"'broken' \(lazy_number:FIVE of outside\) can't be imported: Attribute"
    ):
        numbers["broken"]


def test_a_registered_name_is_not_looked_for_among_packages(numbers, monkeypatch):
    """Reading which packages there are takes longer than most of what is asked for by name."""
    monkeypatch.setattr("causcell._internal.registry.entry_points", lambda **_: pytest.fail("read"))
    assert (numbers["pi"], numbers["two"]) == (pytest.approx(3.14159, abs=1e-5), 2.0)


def test_which_packages_there_are_is_read_once(numbers, monkeypatch):
    read = []
    monkeypatch.setattr("causcell._internal.registry.entry_points", lambda **given: read.append(given) or ())
    for _ in range(3):
        assert numbers.names() == ("pi", "two")
        assert "three" not in numbers
    assert read == [{"group": "causcell.numbers"}]


def test_what_replaces_a_plugin_says_so(numbers, tmp_path: Path, monkeypatch):
    install_plugin(tmp_path, monkeypatch, "causcell.numbers", "ours = math:e")
    with pytest.raises(ConfigurationError, match="number 'ours' exists already"):
        numbers.register("ours", 5)
    numbers.register("ours", 5, replace=True)
    assert numbers["ours"] == 5
    assert numbers.names() == ("pi", "two", "ours")
