"""A million updates leave a small file, and a full disk refuses writes without harm.

The million are real, each key's update is a row of its own, but a hundred share a transaction and twenty transactions
a sync, so that it takes under a minute.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from haven.store.interface import Delete, Put, StoreFull
from haven.store.retention import RetentionLimits
from haven.store.sqlite import SqliteSettings, SqliteStore

UPDATES = 1_000_000
KEYS_PER_TRANSACTION = 100
TRANSACTIONS_AT_ONCE = 20
KEYS = 10_000


@pytest.mark.e2e
async def test_a_million_updates_leave_a_small_file(tmp_path: Path) -> None:
    settings = SqliteSettings(retention=RetentionLimits(bytes=8 << 20))
    store = await SqliteStore.open(tmp_path / "store.db", settings)
    sizes: list[int] = []
    value = b"x" * 300
    rounds = UPDATES // (KEYS_PER_TRANSACTION * TRANSACTIONS_AT_ONCE)

    async def update(start: int) -> None:
        keys = range(start, start + KEYS_PER_TRANSACTION)
        await store.commit([Put(b"/registry/pods/%d" % (number % KEYS), value) for number in keys])

    for number in range(rounds):
        first = number * KEYS_PER_TRANSACTION * TRANSACTIONS_AT_ONCE
        await asyncio.gather(*(update(first + each * KEYS_PER_TRANSACTION) for each in range(TRANSACTIONS_AT_ONCE)))
        if number % 25 == 24:
            statistics = store.statistics()
            sizes.append(statistics.file_bytes + statistics.log_bytes)

    print(f"MB over time: {[size >> 20 for size in sizes]}")
    assert (await store.range(b"/", limit=1)).remaining == KEYS - 1
    assert max(sizes) < 100 << 20, "keys 3 MB, history 8 MB, spare pages 32 MB, log"
    assert max(sizes[len(sizes) // 2 :]) <= max(sizes[: len(sizes) // 2]) * 1.1, "it still grows"
    await store.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "haven-test-store", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.e2e
async def test_a_full_disk_refuses_writes_and_loses_nothing(small_disk: Path) -> None:
    store = await SqliteStore.open(small_disk / "store.db")
    ballast = small_disk / "ballast"
    acknowledged: list[int] = []
    refused = 0
    with ballast.open("wb") as file:
        file.write(b"x" * (1 << 20))
    for number in range(600):
        try:
            await store.commit([Put(b"/%d" % number, b"x" * 3000)])
            acknowledged.append(number)
        except StoreFull:
            refused += 1
    assert refused > 0

    ballast.unlink()
    await store.commit([Put(b"/after", b""), Delete(b"/0")])
    await store.close()
    store = await SqliteStore.open(small_disk / "store.db")

    keys = {record.key for record in (await store.range(b"/")).records}
    assert keys == {b"/after", *(b"/%d" % number for number in acknowledged if number)}
    await store.close()
