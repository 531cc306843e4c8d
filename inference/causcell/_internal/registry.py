"""Registry of named things: those of this package, those that a program registers, and those of installed plugins."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Generic, TypeVar

from causcell._internal.choices import check_choice
from causcell._internal.telling import warn
from causcell.errors import ConfigurationError

T = TypeVar("T")


class Registry(Generic[T]):
    """Things of one kind by name; a name is given once.

    A plugin is an entry point of an installed package. Which there are takes tens of milliseconds to read: that is done
    when all names are asked for, or one that is neither built in nor registered, and again when ``sys.path`` changes. A
    plugin is imported when its own name is asked for.

    Parameters
    ----------
    kind
        Word for messages, such as ``solver``.
    group
        Entry-point group of plugins.
    check
        Function of a name and what was found under it: returns it, or raises `ConfigurationError`.
    builtin
        The package's own things by name; a text is a place, ``module:attribute``, that is imported when it is needed.

    Examples
    --------
    >>> numbers = Registry("number", "example.numbers", lambda name, found: float(found), {"pi": "math:pi"})
    >>> numbers.register("two", 2)
    >>> numbers["pi"], numbers["two"]
    (3.141592653589793, 2.0)
    >>> numbers.names()
    ('pi', 'two')
    """

    def __init__(
        self, kind: str, group: str, check: Callable[[str, object], T], builtin: Mapping[str, object] | None = None
    ) -> None:
        self._kind, self._group, self._check = kind, group, check
        self._builtin = dict(builtin or {})
        self._loaded: dict[str, T] = {}
        self._plugins_on: tuple[list[str], dict[str, EntryPoint]] | None = None

    def register(self, name: str, value: object, *, replace: bool = False) -> None:
        """Give a thing its name.

        Parameters
        ----------
        name
            The name, an identifier of Python.
        value
            The thing.
        replace
            Take the place of what was registered by that name, as a notebook does whose cell runs again.

        Raises
        ------
        ConfigurationError
            A name that is taken, or that is no identifier; a value that is not of the kind.
        """
        if not name.isidentifier():
            raise ConfigurationError(
                f"{self._kind} name {name!r} is not an identifier; take letters, digits and underscores"
            )
        checked = self._check(name, value)
        if name in self and not replace and self._loaded.get(name) != checked:
            raise ConfigurationError(f"{self._kind} {name!r} exists already; take another name, or say replace=True")
        self._loaded[name] = checked

    def names(self) -> tuple[str, ...]:
        """Return all names: built-in ones, those of plugins, registered ones."""
        return tuple(dict.fromkeys([*self._builtin, *sorted(self._plugins()), *self._loaded]))

    def __contains__(self, name: str) -> bool:
        return name in self._loaded or name in self._builtin or name in self._plugins()

    def __getitem__(self, name: str) -> T:
        """Return the thing of a name; raises `ConfigurationError`, which lists the names there are."""
        if name not in self._loaded:
            self._loaded[name] = self._check(name, self._find(name))
        return self._loaded[name]

    def check_name(self, name: str) -> str:
        """Return a name that is known, without importing what it names; raises `ConfigurationError`, as above."""
        return name if name in self else check_choice(name, self.names(), self._kind)

    def _find(self, name: str) -> object:
        if name not in self._builtin:
            return self._load(self._plugins()[self.check_name(name)])
        found = self._builtin[name]
        return self._load(EntryPoint(name, found, self._group)) if isinstance(found, str) else found

    def _load(self, entry: EntryPoint) -> object:
        try:
            return entry.load()
        except Exception as error:  # whatever another package's module raises
            raise ConfigurationError(
                f"{self._kind} {entry.name!r} ({entry.value}{_origin(entry)}) can't be imported: "
                f"{type(error).__name__}: {error}; repair or uninstall that package"
            ) from error

    def _plugins(self) -> dict[str, EntryPoint]:
        if self._plugins_on is None or self._plugins_on[0] != sys.path:
            self._plugins_on = (list(sys.path), self._read_plugins())
        return self._plugins_on[1]

    def _read_plugins(self) -> dict[str, EntryPoint]:
        """Read entry points by name; a name of a built-in thing stays that thing's, with a warning."""
        plugins: dict[str, EntryPoint] = {}
        for entry in entry_points(group=self._group):
            if entry.name in self._builtin:
                warn(
                    f"{self._kind} {entry.name!r} ({entry.value}{_origin(entry)}) is left out: CausCell has one of "
                    "that name; rename it in that package"
                )
            elif plugins.setdefault(entry.name, entry).value != entry.value:
                raise ConfigurationError(
                    f"two packages bring a {self._kind} named {entry.name!r}: {plugins[entry.name].value}"
                    f"{_origin(plugins[entry.name])} and {entry.value}{_origin(entry)}; uninstall one of them"
                )
        return plugins


def _origin(entry: EntryPoint) -> str:
    return f" of {entry.dist.name}" if entry.dist is not None else ""
