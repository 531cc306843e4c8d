"""What tests of atlases share."""

import os
from pathlib import Path

from causcell.atlas.journal import FOLDER
from causcell.errors import OutputFullError

GENES = 50
ROW = 4 * GENES
"""Bytes of a row of the model that tests share."""

SMALL = {"chunk_size": 16 * ROW, "shard_size": 64 * ROW}
"""Shards of 64 rows in chunks of 16."""


def tree(path: Path) -> dict[str, bytes]:
    """Every file of a store but its journal."""
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in sorted(path.rglob("*"))
        if file.is_file() and FOLDER not in file.parts
    }


def lose(job: object, shard: int) -> None:
    """In place of making a shard: end the process."""
    os._exit(1)


def fill(job: object, shard: int) -> None:
    """In place of making a shard: find the disk full."""
    raise OutputFullError("there is no space left")
