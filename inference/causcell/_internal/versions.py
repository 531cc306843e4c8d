"""Versions of installed distributions."""

from __future__ import annotations

from importlib import metadata


def installed_versions(*names: str) -> dict[str, str]:
    """Return the versions of those of the named distributions that are installed, by name.

    Examples
    --------
    >>> list(installed_versions("numpy", "no-such-distribution"))
    ['numpy']
    """
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
