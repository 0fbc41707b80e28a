"""Container logs as the runtime writes them: `time stream F|P text`, one line each; P lines go on in the next.

Source: the CRI logging format, https://github.com/kubernetes/design-proposals-archive/blob/main/node/kubelet-cri-logging.md
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from haven.apimachinery import times
from haven.clock import Clock

__all__ = ["LogQuery", "read_log", "tail_offset"]

BLOCK_BYTES = 64 * 1024
FOLLOW_SECONDS = 0.1
ENDED_CHECK_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class LogQuery:
    """What of a log is wanted. `since_seconds` is a point in time (since 1970)."""

    follow: bool = False
    timestamps: bool = False
    tail_lines: int | None = None
    limit_bytes: int | None = None
    since_seconds: float | None = None
    stream: str = "All"


def tail_offset(path: Path, lines: int) -> int:
    """Return where the last `lines` lines of a file begin."""
    with open(path, "rb") as file:
        position = file.seek(0, os.SEEK_END)
        if lines == 0:
            return position
        found = 0
        at_end = True
        while position > 0:
            start = max(0, position - BLOCK_BYTES)
            file.seek(start)
            block = file.read(position - start)
            end = len(block)
            if at_end and block.endswith(b"\n"):
                end -= 1
            at_end = False
            while (newline := block.rfind(b"\n", 0, end)) >= 0:
                found += 1
                if found == lines:
                    return start + newline + 1
                end = newline
            position = start
        return 0


async def read_log(
    path: Path, query: LogQuery, clock: Clock, is_running: Callable[[], Awaitable[bool]]
) -> AsyncIterator[bytes]:
    """Yield the wanted lines in blocks; with `follow`, until the container ends and all was read.

    A rotated log goes on in a new file of the same name.
    """
    left = query.limit_bytes
    file = await asyncio.to_thread(open, path, "rb")
    try:
        if query.tail_lines is not None:
            file.seek(await asyncio.to_thread(tail_offset, path, query.tail_lines))
        rest = b""
        next_check = clock.monotonic_seconds() + ENDED_CHECK_SECONDS
        ended = not query.follow
        while True:
            block = await asyncio.to_thread(file.read, BLOCK_BYTES)
            if block:
                head, newline, rest = (rest + block).rpartition(b"\n")
                out = b"".join(_select(line, query) for line in head.split(b"\n")) if newline else b""
                if left is not None:
                    out = out[:left]
                    left -= len(out)
                if out:
                    yield out
                if left == 0:
                    return
                continue
            if ended:
                if rest:
                    yield _select(rest, query)
                return
            if await asyncio.to_thread(_was_rotated, file.fileno(), path):
                fresh = await asyncio.to_thread(open, path, "rb")
                file.close()
                file, rest = fresh, b""
                continue
            if clock.monotonic_seconds() >= next_check:
                next_check = clock.monotonic_seconds() + ENDED_CHECK_SECONDS
                if not await is_running():
                    ended = True  # One more read: what was written last must not be lost.
                    continue
            await clock.sleep(FOLLOW_SECONDS)
    finally:
        file.close()


def _was_rotated(descriptor: int, path: Path) -> bool:
    try:
        return os.fstat(descriptor).st_ino != path.stat().st_ino
    except FileNotFoundError:
        return False


def _select(line: bytes, query: LogQuery) -> bytes:
    """Return a line's text as kubectl shows it, b"" if it is not wanted."""
    parts = line.split(b" ", 3)
    if len(parts) < 4:
        return b""
    stamp, stream, tag, text = parts
    if query.stream != "All" and stream.decode().title() != query.stream:
        return b""
    if query.since_seconds is not None:
        try:
            if times.parse(stamp.decode()) < query.since_seconds:
                return b""
        except ValueError:
            return b""
    end = b"" if tag.startswith(b"P") else b"\n"
    return (stamp + b" " + text if query.timestamps else text) + end
