"""Records of many complete shards in one file, so that an atlas of many shards is restarted in a moment.

A worker records each shard in a file of its own. The run that holds the atlas moves the records of `BATCH` consecutive
shards into one file when all are complete: it is written before they are removed, and a record that is in both is the
same. ``.causcell/records/000003.json`` holds those of shards 3,072 to 4,095.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pydantic import TypeAdapter, ValidationError

from causcell._internal.collection_pause import pause_collection
from causcell.atlas.records import ShardRecord
from causcell.atlas.storage import FOLDER, Storage

RECORDS = f"{FOLDER}/records"
"""Folder of the files in the store."""

SHARDS = f"{FOLDER}/shards"
"""Folder of the records of single shards."""

BATCH = 1024
"""Shards of a file; 64 MB, what is read of a journal's file at most, hold a hundred times their records."""

_ADAPTER: TypeAdapter[list[ShardRecord]] = TypeAdapter(list[ShardRecord])


def read_batches(storage: Storage) -> Iterator[ShardRecord]:
    """Yield the records of all files; a file that is damaged vouches for nothing."""
    with pause_collection():
        for name in sorted(storage.names(RECORDS)):
            records = _read(storage, name)
            if all(name == _name(number) for number in {record.shard // BATCH for record in records}):
                yield from records


def gather(storage: Storage, shards: int, number: int, records: Mapping[int, ShardRecord], single: set[int]) -> None:
    """Move the records of a file's shards into it, once all of them are complete.

    Parameters
    ----------
    storage, shards
        The store, and the number of its shards.
    number
        Which file.
    records
        Records of complete shards.
    single
        Shards with a file of their own; those whose record was moved are taken out.
    """
    batch = range(number * BATCH, min((number + 1) * BATCH, shards))
    if all(shard in records for shard in batch):
        _write(storage, number, [records[shard] for shard in batch])
        for shard in single.intersection(batch):
            storage.remove(f"{SHARDS}/{shard:06d}.json")
            single.remove(shard)


def _write(storage: Storage, number: int, kept: list[ShardRecord]) -> None:
    if kept:
        storage.write(_name(number), _ADAPTER.dump_json(kept))
    else:
        storage.remove(_name(number))


def withdraw_from_batch(storage: Storage, shard: int) -> None:
    """Take a shard's record out of the file that it is in, if it is in one."""
    number = shard // BATCH
    records = _read(storage, _name(number))
    kept = [record for record in records if record.shard != shard]
    if len(kept) < len(records):
        _write(storage, number, kept)


def _read(storage: Storage, name: str) -> list[ShardRecord]:
    try:
        content = storage.read(name)
        return [] if content is None else _ADAPTER.validate_json(content)
    except (ValidationError, ValueError, RecursionError, OSError):
        return []


def _name(number: int) -> str:
    return f"{RECORDS}/{number:06d}.json"
