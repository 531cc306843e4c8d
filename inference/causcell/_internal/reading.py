"""Read files whose size nobody vouches for."""

from __future__ import annotations

import os
from pathlib import Path

from causcell.errors import CausCellError, CorruptFileError


def read_bounded(path: Path, limit: int, error: type[CausCellError] = CorruptFileError) -> bytes:
    """Return the bytes of a file, if they are no more than ``limit``.

    Raises
    ------
    CorruptFileError
        The file can't be read, or is larger; or ``error`` in its place.

    Examples
    --------
    >>> len(read_bounded(Path("model_repository/manifest.json"), 2**20)) > 1000
    True
    """
    try:
        with path.open("rb") as file:
            stated = os.fstat(file.fileno()).st_size  # a read of the limit would take that much memory
            content = file.read(min(stated, limit) + 1)
    except (OSError, ValueError) as failure:  # a path with a null byte is a ValueError
        raise error(f"{str(path)!r} can't be read: {failure}") from failure
    if len(content) > limit:
        raise error(f"{str(path)!r} is larger than {limit:,} bytes, the most that is read; is it another file?")
    return content
