"""Execution providers: the hardware that an engine in this process runs on."""

from __future__ import annotations

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
