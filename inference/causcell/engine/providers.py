"""Execution providers: the hardware that an engine in this process runs on."""

from __future__ import annotations

from typing import Any

from causcell.errors import ConfigurationError, format_list

EXECUTION_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
"""ONNX Runtime's names of the providers, by the names that users give."""

PROVIDERS = tuple(EXECUTION_PROVIDERS)
"""Values that ``provider=`` takes."""


def check_provider(provider: str) -> str:
    """Return the name of a provider, or raise `ConfigurationError` if there is no such provider.

    Examples
    --------
    >>> check_provider("cuda")
    'cuda'
    >>> check_provider("gpu")
    Traceback (most recent call last):
        ...
    causcell.errors.ConfigurationError: provider 'gpu' is not known; known are 'cpu', 'cuda'
    """
    if provider not in PROVIDERS:
        raise ConfigurationError(f"provider {provider!r} is not known; known are {format_list(PROVIDERS)}")
    return provider


_SESSION_OPTIONS: dict[str, dict[str, Any]] = {
    # ONNX Runtime's own choice is TF32, which keeps 10 bits of a product's factors: engines would differ by 1e-3
    "cuda": {"use_tf32": 0},
}
"""Options of a provider's sessions, by the name that users give."""


def session_provider(provider: str) -> tuple[str, dict[str, Any]]:
    """Return what ONNX Runtime takes for a provider: its name there, and the options of its sessions.

    Examples
    --------
    >>> session_provider("cpu")
    ('CPUExecutionProvider', {})
    """
    return EXECUTION_PROVIDERS[check_provider(provider)], _SESSION_OPTIONS.get(provider, {}).copy()
