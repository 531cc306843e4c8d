"""The guard around reading: whatever h5py, zarr, anndata or dask raise becomes one `DataError`."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from causcell.errors import CausCellError, DataError

IN_MEMORY = "the AnnData given"
"""What messages call cells that are not given as a file."""

_LONGEST_REASON = 300
_UNREACHED = "if the service does not answer, try again later"


@contextlib.contextmanager
def reading(title: str, element: str | None = None) -> Iterator[None]:
    """Turn what reading raises into a `DataError` that names file, element and reason.

    Parameters
    ----------
    title
        What is read, as messages name it: the quoted path of a file, or "the AnnData given".
    element
        Its part, such as ``obs/stim`` or ``X/indices``.

    Raises
    ------
    DataError
        In place of any exception but CausCell's own, and but a `MemoryError` that a larger machine would not see.
    """
    try:
        yield
    except CausCellError:
        raise
    except MemoryError as error:
        if _wanted_bytes(error) <= _machine_bytes():
            raise
        raise DataError(_message(title, element, error)) from error
    except Exception as error:  # libraries of formats raise whatever damaged bytes make them raise
        raise DataError(_message(title, element, error)) from error


def damaged(title: str, element: str, what: str) -> DataError:
    """Make the error for an element whose content contradicts the rest of its file."""
    return DataError(f"{title} can't be read as AnnData: {element}: {what}; {_remedy(title)}")


def _message(title: str, element: str | None, error: BaseException) -> str:
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    reason = " ".join(text.split())
    if len(reason) > _LONGEST_REASON:
        reason = reason[:_LONGEST_REASON] + " ..."
    where = f"{element}: " if element else ""
    what = f"{type(error).__name__}: {reason or 'without a message'}"
    remedy = _UNREACHED if type(error).__module__.startswith("obstore") else _remedy(title)
    return f"{title} can't be read as AnnData: {where}{what}; {remedy}"


def _remedy(title: str) -> str:
    if title == IN_MEMORY:
        return "its parts were changed, or come from a damaged or closed file: make or read it anew"
    return (
        "the file is damaged, was not written whole or is of another kind: copy it again, or write it again with "
        "anndata"
    )


def _wanted_bytes(error: MemoryError) -> int:
    """Return the bytes of the array for which numpy found no memory; 0 where it is not known."""
    shape, dtype = getattr(error, "shape", None), getattr(error, "dtype", None)
    if not isinstance(shape, tuple) or dtype is None:
        return 0
    total = int(dtype.itemsize)
    for length in shape:
        total *= int(length)
    return total


def _machine_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
