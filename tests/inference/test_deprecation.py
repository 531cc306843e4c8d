"""Old public names keep working; each warning names the new path and points at the line that used the old one."""

import importlib
import importlib.machinery
import os
import runpy
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from causcell import _moved, errors
from causcell._deprecation import MovedModules, moved_names, renamed_arguments, warn_deprecated

HERE = Path(__file__).name
OLD = {**_moved.MOVED, **_moved.SPLIT}


def only(caught):
    """Return the one warning there is, which points into this file."""
    assert len(caught) == 1, [str(each.message) for each in caught]
    assert caught[0].category is DeprecationWarning
    assert Path(caught[0].filename).name == HERE
    return str(caught[0].message)


def forget(monkeypatch, name):
    """Have the import system look for a module anew."""
    monkeypatch.delitem(sys.modules, name, raising=False)


def public_names(module):
    """Names that a module defines itself."""
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    ]


# -- modules that moved ------------------------------------------------------------------------------------------------


def test_importing_an_old_module_warns_once_and_names_the_new_one(monkeypatch):
    forget(monkeypatch, "causcell.schema")
    with pytest.warns(DeprecationWarning) as caught:
        import causcell.schema
    assert only(caught) == "causcell.schema is deprecated; use causcell.concepts"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert causcell.schema.Concept is importlib.import_module("causcell.concepts").Concept
    assert not caught


def test_importing_a_name_from_an_old_module_warns_once(monkeypatch):
    forget(monkeypatch, "causcell.schema")
    with pytest.warns(DeprecationWarning) as caught:
        from causcell.schema import Concept
    assert only(caught) == "causcell.schema is deprecated; use causcell.concepts"
    assert Concept is importlib.import_module("causcell.concepts").Concept


def test_an_old_module_of_a_package_that_is_gone(monkeypatch):
    for name in ("causcell.triton", "causcell.triton.server"):
        forget(monkeypatch, name)
    with pytest.warns(DeprecationWarning) as caught:
        from causcell.triton.server import TritonServer
    assert only(caught) == "causcell.triton.server is deprecated; use causcell.serve.server"
    assert TritonServer is importlib.import_module("causcell.serve.server").TritonServer


@pytest.mark.parametrize("name", _moved.KEPT)
def test_public_modules_that_kept_their_name_do_not_warn(monkeypatch, name):
    forget(monkeypatch, name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert importlib.import_module(name).Connection


@pytest.mark.parametrize("old", sorted(OLD))
def test_every_old_module_is_found_with_every_public_name_of_those_that_took_its_place(monkeypatch, old):
    if old in _moved.MOVED:
        forget(monkeypatch, old)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        module = importlib.import_module(old)
        for home in OLD[old]:
            today = importlib.import_module(home)
            names = public_names(today)
            assert all(hasattr(module, name) for name in names), (old, home)


@pytest.mark.parametrize("old", sorted(_moved.RENAMED))
def test_every_renamed_thing_is_found_in_an_old_module_by_its_old_name(old):
    found = 0
    for name in sorted(OLD):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            value = getattr(importlib.import_module(name), old, None)
        if value is not None:
            found += 1
            homes = [importlib.import_module(home) for home in OLD[name]]
            assert any(getattr(home, _moved.RENAMED[old], None) is value for home in homes)
    assert found


def test_a_name_that_an_old_module_never_had(monkeypatch):
    forget(monkeypatch, "causcell.schema")
    with pytest.warns(DeprecationWarning):
        import causcell.schema
    with pytest.raises(AttributeError, match=r"module 'causcell.schema' has no attribute 'Concpt'"):
        _ = causcell.schema.Concpt


def test_a_module_that_never_was():
    with pytest.raises(ModuleNotFoundError, match=r"causcell.shema"):
        importlib.import_module("causcell.shema")


def test_an_old_module_runs_as_a_program(tmp_path, monkeypatch, capsys):
    """``python -m OLD`` warns and runs the module that took its place, with its arguments."""
    (tmp_path / "fresh.py").write_text("if __name__ == '__main__':\n    import sys\n    print('ran', sys.argv[1:])\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, MovedModules({"stale": ("fresh",)})])
    monkeypatch.setattr(sys, "argv", ["stale", "word"])
    with pytest.warns(DeprecationWarning, match="stale is deprecated; use fresh"):
        runpy.run_module("stale", run_name="__main__")
    assert capsys.readouterr().out == "ran ['word']\n"


def test_python_shows_the_warning_of_an_old_program_unasked():
    done = subprocess.run(
        [sys.executable, "-m", "causcell.schedule"], capture_output=True, text=True, check=True, env=unfiltered()
    )
    assert "DeprecationWarning: causcell.schedule is deprecated; use causcell.diffusion.schedule" in done.stderr


def unfiltered():
    return {name: value for name, value in os.environ.items() if name != "PYTHONWARNINGS"}


# -- names that moved --------------------------------------------------------------------------------------------------


def test_a_name_of_a_module_that_is_a_package_now():
    import causcell.repository

    with pytest.warns(DeprecationWarning) as caught:
        found = causcell.repository.open_repository
    assert only(caught) == (
        "causcell.repository.open_repository is deprecated; use causcell.repository.folder.open_repository"
    )
    assert found is importlib.import_module("causcell.repository.folder").open_repository


def test_a_renamed_function_of_the_errors():
    with pytest.warns(DeprecationWarning) as caught:
        found = errors.listed
    assert only(caught) == "causcell.errors.listed is deprecated; use causcell.errors.format_list"
    assert found is errors.format_list
    with pytest.raises(AttributeError, match=r"module 'causcell.errors' has no attribute 'lister'"):
        _ = errors.lister


def test_private_names_do_not_move():
    look_up = moved_names("old", ["json"])
    with pytest.raises(AttributeError, match="'_default_encoder'"):
        look_up("_default_encoder")


# -- arguments ---------------------------------------------------------------------------------------------------------


@renamed_arguments(rate="fdr")
def call_genes(table, *, fdr=0.05):
    """Call genes."""
    return table, fdr


def test_an_old_argument_warns_and_works():
    with pytest.warns(DeprecationWarning) as caught:
        assert call_genes("table", rate=0.1) == ("table", 0.1)
    assert only(caught) == "call_genes(rate=) is deprecated; use fdr="


def test_the_new_argument_does_not_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert call_genes("table", fdr=0.2) == ("table", 0.2)
        assert call_genes("table") == ("table", 0.05)


def test_both_names_of_an_argument():
    with pytest.raises(TypeError, match=r"call_genes\(\) got 'fdr' by that name and by its old one, 'rate'"):
        call_genes("table", fdr=0.1, rate=0.2)


def test_the_decorated_function_keeps_its_name_and_signature():
    assert call_genes.__name__ == "call_genes"
    assert call_genes.__doc__ == "Call genes."


# -- the helper itself -------------------------------------------------------------------------------------------------


def test_stacklevel_points_further_up():
    def public():
        inner()

    def inner():
        warn_deprecated("old", "new", stacklevel=2)

    with pytest.warns(DeprecationWarning) as caught:
        public()
    assert only(caught) == "old is deprecated; use new"


def test_the_finder_comes_after_that_of_files():
    """A module that is there is never shadowed by an old name."""
    kinds = [each if isinstance(each, type) else type(each) for each in sys.meta_path]
    assert kinds.index(importlib.machinery.PathFinder) < kinds.index(MovedModules)
