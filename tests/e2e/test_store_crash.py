"""The store's process dies a hundred times under load: every acknowledged write is there, none is torn.

Takes about a minute. HAVEN_SEED chooses other moments of death.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from haven.store.sqlite import SqliteStore

KILLS = 100
PROGRAM = Path(__file__).with_name("store_load.py")


def run_and_kill(path: Path, writes: int, seconds: float) -> dict[int, tuple[int, int]]:
    """Load the store, kill the process so long after so many writes; return per writer (number, revision)."""
    with subprocess.Popen([sys.executable, str(PROGRAM), str(path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n", "the store did not open"
        output = b"".join(process.stdout.readline() for _ in range(writes))
        time.sleep(seconds)
        process.kill()
        output += process.stdout.read()
    acknowledged: dict[int, tuple[int, int]] = {}
    for line in output.splitlines(keepends=True):
        if line.endswith(b"\n"):
            writer, number, revision = map(int, line.split())
            acknowledged[writer] = (number, revision)
    return acknowledged


async def verify(path: Path, acknowledged: dict[int, tuple[int, int]]) -> dict[int, tuple[int, int]]:
    """Check the file; return what it holds: a write that was begun may be there without an acknowledgement."""
    found: dict[int, tuple[int, int]] = {}
    store = await SqliteStore.open(path)
    try:
        for writer, (number, revision) in acknowledged.items():
            left, right = await store.get(b"/left/%d" % writer), await store.get(b"/right/%d" % writer)
            assert left is not None
            assert right is not None
            assert left.value == right.value, "a transaction is torn"
            assert left.modified == right.modified
            stored = int(left.value.split()[0])
            assert stored >= number, "an acknowledged write is lost"
            assert stored <= number + 1, "a write nobody asked for"
            assert len(left.value) == len(b"%d " % stored) + stored % 3000
            assert store.revision >= revision
            made = await store.range(b"/made/%d/" % writer)
            names = sorted(int(record.key.rsplit(b"/", 1)[1]) for record in made.records)
            assert names == list(range(max(stored - 4, 1), stored + 1)), "a transaction is torn"
            found[writer] = (stored, left.modified)
        return found
    finally:
        await store.close()


@pytest.mark.e2e
async def test_a_hundred_deaths_under_load_lose_and_tear_nothing(tmp_path: Path) -> None:
    chance = random.Random(int(os.environ.get("HAVEN_SEED", "1")))
    path = tmp_path / "store.db"
    known: dict[int, tuple[int, int]] = {}

    for _ in range(KILLS):
        known |= run_and_kill(path, chance.choice((0, 1, 20, 60)), chance.random() * 0.05)
        known |= await verify(path, known)

    writes = sum(number for number, _ in known.values())
    assert writes > 10 * KILLS, "there was no load"
    print(f"{writes} transactions, file {path.stat().st_size >> 10} kB")
