"""What simulated containers wrote: lines with their times, bounded, and what a reader asked to see of them.

Source: https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/#get-read-log-of-the-specified-pod
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

__all__ = ["ContainerLog", "LogQuery", "render"]

LINES_MAX = 10_000


@dataclass(frozen=True, slots=True)
class Line:
    """One line, without its end."""

    seconds: float
    text: str
    stream: str = "Stdout"


@dataclass(frozen=True, slots=True)
class LogQuery:
    """Which lines, and how."""

    timestamps: bool = False
    tail_lines: int | None = None
    limit_bytes: int | None = None
    since_seconds: float | None = None
    """Lines from this time on, in seconds since 1970."""
    stream: str = "All"


class ContainerLog:
    """The log of one run of a container. Followers are woken when something is added or the run ends."""

    def __init__(self) -> None:
        self.lines: deque[Line] = deque(maxlen=LINES_MAX)
        self.added = 0
        self.is_closed = False
        self._waiters: list[asyncio.Future[None]] = []

    def write(self, text: str, now: float, stream: str = "Stdout") -> None:
        """Add text; each line of it becomes one."""
        for line in text.splitlines() or ([""] if text else []):
            self.lines.append(Line(now, line, stream))
            self.added += 1
        self._wake()

    def copy(self) -> ContainerLog:
        """Return a log of the same lines that nobody follows."""
        other = ContainerLog()
        other.lines, other.added, other.is_closed = self.lines.copy(), self.added, self.is_closed
        return other

    def close(self) -> None:
        """The run is over: followers end."""
        self.is_closed = True
        self._wake()

    async def wait_more(self, seen: int) -> None:
        """Return once more than `seen` lines were added in all, or the run is over."""
        while self.added <= seen and not self.is_closed:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)


def chosen(log: ContainerLog, query: LogQuery) -> list[Line]:
    """Return the lines that a query asks for."""
    lines = [line for line in log.lines if _wanted(line, query)]
    if query.tail_lines is not None:
        lines = lines[-query.tail_lines :] if query.tail_lines else []
    return lines


def _wanted(line: Line, query: LogQuery) -> bool:
    if query.stream != "All" and line.stream != query.stream:
        return False
    return query.since_seconds is None or line.seconds >= query.since_seconds


def render(lines: list[Line], query: LogQuery) -> bytes:
    """Return lines as they go out."""
    prefix: Callable[[Line], str] = (lambda line: f"{_stamp(line.seconds)} ") if query.timestamps else lambda line: ""
    return "".join(f"{prefix(line)}{line.text}\n" for line in lines).encode()


def newer(log: ContainerLog, seen: int, query: LogQuery) -> list[Line]:
    """Return the wanted ones among the lines added after the first `seen`."""
    fresh = min(log.added - seen, len(log.lines))
    return [line for line in list(log.lines)[len(log.lines) - fresh :] if _wanted(line, query)]


def _stamp(seconds: float) -> str:
    moment = datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{moment}.{int(seconds % 1 * 1e9):09d}Z"
