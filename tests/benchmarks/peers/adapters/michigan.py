"""MichiGAN: a generator conditioned on the code of a disentangled autoencoder; it needs TensorFlow 1.

No environment that the driver runs in has it: ``requirements/michigan.txt`` says what was tried.
"""

from __future__ import annotations

from typing import Any


class Adapter:
    """Say that it can't be had."""

    name, version, licence = "MichiGAN", "none", "none given"
    notes = ("unsupervised: no label has a code of its own",)

    def __init__(self, job: Any) -> None:
        raise SystemExit("MichiGAN needs TensorFlow 1, of which there is no build for Python 3.11")
