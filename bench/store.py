"""Durable writes per second of the SQLite store, by how many callers wait at once.

    python bench/store.py [--folder FOLDER] [--value-bytes 3600] [--seconds 3]

Prints, per number of concurrent callers, creates/s, conditional updates/s, latency and how many transactions shared a
sync, and the same for bare SQLite with batches of that size, which is the floor.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import sqlite3
import tempfile
import time
from pathlib import Path

from haven.apimachinery.names import Revision
from haven.store.interface import Expectation, Put
from haven.store.sqlite import SqliteStore

CALLERS = (1, 16, 256)


async def measure(store: SqliteStore, callers: int, seconds: float, value: bytes, *, update: bool) -> str:
    """Return one line of figures."""
    deadline = time.perf_counter() + seconds
    latencies: list[float] = []
    before = store.statistics()

    async def work(caller: int) -> None:
        number = 0
        revision = Revision(0)
        if update:
            record = await store.get(b"/bench/update/%d" % caller)
            revision = record.modified if record is not None else revision
        while (start := time.perf_counter()) < deadline:
            key = b"/bench/update/%d" % caller if update else b"/bench/%d/%d/%d" % (callers, caller, number)
            revision = await store.commit([Put(key, value)], [Expectation(key, revision if update else Revision(0))])
            latencies.append(time.perf_counter() - start)
            number += 1

    start = time.perf_counter()
    await asyncio.gather(*(work(caller) for caller in range(callers)))
    elapsed = time.perf_counter() - start
    after = store.statistics()
    latencies.sort()
    shared = (after.transactions - before.transactions) / max(after.batches - before.batches, 1)
    p50, p99 = (latencies[int(len(latencies) * part)] * 1e3 for part in (0.5, 0.99))
    return f"{len(latencies) / elapsed:8,.0f}/s  p50 {p50:6.2f} ms  p99 {p99:6.2f} ms  {shared:5.1f} per sync"


def bare(folder: Path, batch: int, seconds: float, value: bytes) -> float:
    """Return writes/s of SQLite alone: read the newest row, insert the next, one thread."""
    path = folder / f"bare-{batch}.db"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.executescript(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;"
            "CREATE TABLE rows(id INTEGER PRIMARY KEY, key BLOB, value BLOB); CREATE INDEX by_key ON rows(key)"
        )
        start, number = time.perf_counter(), 0
        while time.perf_counter() - start < seconds:
            connection.execute("BEGIN IMMEDIATE")
            for _ in range(batch):
                number += 1
                key = b"/bench/%d" % (number % 1000)
                connection.execute("SELECT value FROM rows WHERE key = ? ORDER BY id DESC LIMIT 1", (key,)).fetchone()
                connection.execute("INSERT INTO rows VALUES (?, ?, ?)", (number, key, value))
            connection.execute("COMMIT")
        return number / (time.perf_counter() - start)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="where to write (default: a temporary folder)")
    parser.add_argument("--value-bytes", type=int, default=3600)
    parser.add_argument("--seconds", type=float, default=3.0)
    arguments = parser.parse_args()
    value = os.urandom(arguments.value_bytes)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        store = await SqliteStore.open(folder / "store.db")
        for callers in CALLERS:
            for update in (False, True):
                line = await measure(store, callers, arguments.seconds, value, update=update)
                print(f"{callers:4} callers  {'update' if update else 'create'}  {line}", flush=True)
        start = time.perf_counter()
        for number in range(20_000):
            await store.get(b"/bench/16/%d/%d" % (number % 16, number // 16))
        print(f"point reads {20_000 / (time.perf_counter() - start):,.0f}/s")
        print(f"file {store.statistics().file_bytes >> 20} MB, log {store.statistics().log_bytes >> 20} MB")
        await store.close()
        for batch in CALLERS:
            print(
                f"bare SQLite, batches of {batch:3}: {bare(folder, batch, arguments.seconds, value):8,.0f}/s",
                flush=True,
            )


if __name__ == "__main__":
    try:
        import uvloop
    except ImportError:
        asyncio.run(main())
    else:
        uvloop.run(main())
