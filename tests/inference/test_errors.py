"""The tree of errors that `causcell.errors` documents is the one that it defines."""

import inspect

import pytest

from causcell import errors


def documented_tree():
    """Parent of every class in the docstring's tree, by name; the depth of a line is its indent in steps of four."""
    parents, path = {}, []
    for line in errors.__doc__.splitlines():
        name = line.strip(" │├└─").split(" ")[0]
        if not name.endswith("Error"):
            continue
        depth = (line.index(name) - 4) // 4
        path = [*path[:depth], name]
        parents[name] = path[-2] if depth else "Exception"
    return parents


def defined_errors():
    return [each for _, each in inspect.getmembers(errors, inspect.isclass) if issubclass(each, Exception)]


def test_documented_tree_is_the_defined_one():
    defined = {each.__name__: each.__base__.__name__ for each in defined_errors() if not issubclass(each, Warning)}
    assert documented_tree() == defined


def test_every_error_has_one_base():
    assert all(len(each.__bases__) == 1 for each in defined_errors())


def test_all_is_sorted_and_complete():
    public = {
        name
        for name, each in vars(errors).items()
        if not name.startswith("_") and getattr(each, "__module__", None) == errors.__name__
    }
    assert errors.__all__ == sorted(public)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([], ""),
        (["a", 2], "'a', '2'"),
        (list("abc"), "'a', 'b' and 1 more"),
    ],
)
def test_lists_are_quoted_and_the_rest_is_counted(values, text):
    assert errors.format_list(values, 2) == text
