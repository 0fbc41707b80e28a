"""A program that writes to a store as fast as it can and prints what was acknowledged, until it is killed.

Each transaction writes the same number to two keys of a writer and overwrites a shared one, so that a torn
transaction shows. Lines: "ready", then "<writer> <number> <revision>" for every commit that returned.
"""

from __future__ import annotations

import asyncio
import os
import sys

from haven.apimachinery.names import Revision
from haven.store.interface import Delete, Expectation, Put
from haven.store.retention import RetentionLimits
from haven.store.sqlite import SqliteSettings, SqliteStore

WRITERS = 8


async def write(store: SqliteStore, writer: int) -> None:
    left, right = b"/left/%d" % writer, b"/right/%d" % writer
    record = await store.get(left)
    number = int(record.value.split()[0]) if record is not None else 0
    revision = record.modified if record is not None else Revision(0)
    while True:
        number += 1
        value = b"%d " % number + b"x" * (number % 3000)
        revision = await store.commit(
            [
                Put(left, value),
                Put(right, value),
                Put(b"/made/%d/%d" % (writer, number), b""),
                Delete(b"/made/%d/%d" % (writer, number - 5)),
            ],
            [Expectation(left, revision)],
        )
        os.write(1, b"%d %d %d\n" % (writer, number, revision))


async def main() -> None:
    # Little history, so that compaction and checkpoints are killed as well.
    store = await SqliteStore.open(sys.argv[1], SqliteSettings(retention=RetentionLimits(revisions=300)))
    os.write(1, b"ready\n")
    async with asyncio.TaskGroup() as writers:
        for writer in range(WRITERS):
            writers.create_task(write(store, writer))


if __name__ == "__main__":
    asyncio.run(main())
