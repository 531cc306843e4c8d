"""How threads of numerical libraries wait and how many they are: they share a machine with other processes."""

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


def compute_on_one_thread() -> None:
    """Let NumPy and scikit-learn, loaded later, compute on one thread each; what the user has set stays.

    Many small products on several threads take three times the CPU time, for the threads spin between them.

    Examples
    --------
    >>> import os
    >>> compute_on_one_thread()
    >>> "OPENBLAS_NUM_THREADS" in os.environ
    True
    """
    for name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
        os.environ.setdefault(name, "1")
