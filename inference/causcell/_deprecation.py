"""Old public names: each keeps working, with a `DeprecationWarning` that names the new one.

How long they do, CONTRIBUTING.md says. A module that moved leaves no file behind: `MovedModules` finds it by its old
name. A package whose old names are in its modules now has a ``__getattr__`` made by `moved_names`; a renamed argument
is taken by `renamed_arguments`.
"""

from __future__ import annotations

import functools
import importlib
import importlib.machinery
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from types import CodeType, ModuleType
from typing import Any, ParamSpec, TypeVar, cast

P = ParamSpec("P")
R = TypeVar("R")


def warn_deprecated(old: str, new: str, *, stacklevel: int = 1) -> None:
    """Warn that ``old`` is replaced by ``new``; ``stacklevel`` 1 is the caller of the function that calls this one."""
    warnings.warn(_message(old, new), DeprecationWarning, stacklevel=stacklevel + 2)


def _message(old: str, new: str) -> str:
    return f"{old} is deprecated; use {new}"


def moved_names(
    module: str,
    homes: Sequence[str],
    renamed: Mapping[str, str] | None = None,
    replaced: Mapping[str, str] | None = None,
    *,
    warn: bool = True,
) -> Callable[[str], Any]:
    """Make a module's ``__getattr__`` for names that are in other modules now.

    Parameters
    ----------
    module
        Name of the module that they left.
    homes
        Names of the modules that hold them today, searched in this order.
    renamed
        New names by old ones (``name``, or ``module.name`` where it is so in that module alone).
    replaced
        By ``module.name`` what took the place of something that is no longer there in its form.
    warn
        Whether to warn of names that are found.

    Returns
    -------
    A function that raises `AttributeError` for names that are in none of the modules; of what was replaced it names
    the replacement.

    Examples
    --------
    >>> import warnings
    >>> get = moved_names("old", ["json"], {"to_text": "dumps"})
    >>> with warnings.catch_warnings(record=True) as told:
    ...     warnings.simplefilter("always")
    ...     get("to_text")([1])
    '[1]'
    >>> print(told[0].message)
    old.to_text is deprecated; use json.dumps
    """

    def look_up(name: str) -> Any:
        old = f"{module}.{name}"
        if replaced and old in replaced:
            raise AttributeError(f"{old} is no longer there; use {replaced[old]}")
        new = (renamed or {}).get(old, (renamed or {}).get(name, name))
        for home in () if name.startswith("_") else homes:
            found = getattr(importlib.import_module(home), new, None)
            if found is not None:
                if warn:
                    warn_deprecated(old, f"{home}.{new}")
                return found
        raise AttributeError(f"module {module!r} has no attribute {name!r}")

    return look_up


def renamed_arguments(**renamed: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Let a function take keyword arguments by their old names.

    Parameters
    ----------
    renamed
        New names by old ones.

    Raises
    ------
    TypeError
        When the function is called with an argument by both of its names.

    Examples
    --------
    >>> @renamed_arguments(rate="fdr")
    ... def call_genes(*, fdr=0.05):
    ...     return fdr
    >>> import warnings
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("ignore")
    ...     call_genes(rate=0.1)
    0.1
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        name = function.__qualname__

        @functools.wraps(function)
        def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
            for old, new in renamed.items():
                if old in kwargs:
                    if new in kwargs:
                        raise TypeError(f"{name}() got {new!r} by that name and by its old one, {old!r}")
                    warn_deprecated(f"{name}({old}=)", f"{new}=")
                    kwargs[new] = kwargs.pop(old)
            return function(*args, **kwargs)

        return wrapper

    return decorate


class MovedModules:
    """Find and load modules by the names that they had.

    It is a finder and a loader of `importlib`, whose base classes would double the time of ``import causcell``.

    Parameters
    ----------
    homes
        By old module name the modules that hold its names today, the one that took its place first.
    renamed, replaced
        As for `moved_names`.
    kept
        Old modules that stay public under their old names, and do not warn.
    """

    def __init__(
        self,
        homes: Mapping[str, Sequence[str]],
        renamed: Mapping[str, str] | None = None,
        replaced: Mapping[str, str] | None = None,
        kept: Sequence[str] = (),
    ) -> None:
        self._homes, self._renamed, self._replaced, self._kept = homes, renamed, replaced, frozenset(kept)
        self._packages = {module.rpartition(".")[0] for module in homes}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Find a moved module, or a package that held nothing but moved modules."""
        if fullname in self._homes:
            return importlib.machinery.ModuleSpec(fullname, cast(Any, self))
        if fullname in self._packages:
            return importlib.machinery.ModuleSpec(fullname, cast(Any, self), is_package=True)
        return None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        """Leave it to the import system."""
        return None

    def exec_module(self, module: ModuleType) -> None:
        """Let the module look its names up where they are today."""
        name = module.__name__
        if name in self._homes:
            warn = name not in self._kept
            if warn:
                warn_deprecated(name, self._homes[name][0], stacklevel=1)  # frames of the import system do not count
            module.__dict__["__getattr__"] = moved_names(
                name, self._homes[name], self._renamed, self._replaced, warn=False
            )

    def get_code(self, fullname: str) -> CodeType:
        """Return code for ``python -m OLD.NAME``: it warns, and runs the module that took its place."""
        home = self._homes[fullname][0]
        text = (
            "import runpy, warnings\n"
            f"warnings.warn({_message(fullname, home)!r}, DeprecationWarning)\n"
            f"runpy.run_module({home!r}, run_name='__main__', alter_sys=True)\n"
        )
        return compile(text, f"<{fullname}, moved to {home}>", "exec")

    def install(self) -> None:
        """Have the import system ask this finder, after all others."""
        sys.meta_path.append(self)
