"""How OpenMP's threads wait for work: passively, for they share a machine with other processes."""

from __future__ import annotations

import os

_PASSIVE = {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"}
"""Variables of GNU's and Intel's runtime; they are read once, when torch loads."""


def wait_passively() -> None:
    """Let the threads of an OpenMP runtime that is loaded later sleep while they wait; what the user has set stays.

    By default they spin: beside other busy processes a training then takes ten times its CPU time.

    Examples
    --------
    >>> import os
    >>> wait_passively()
    >>> "OMP_WAIT_POLICY" in os.environ
    True
    """
    for name, value in _PASSIVE.items():
        os.environ.setdefault(name, value)
