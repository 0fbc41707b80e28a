"""One time limit for many requests: asyncio.timeout sets and cancels a timer for each, which all but never ends one.

As the limit is the same for all, they are due in the order in which they began; one timer looks after the oldest.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from types import TracebackType

from haven.apimachinery import apierrors
from haven.apimachinery.schema.goscalars import BadScalar, parse_duration

__all__ = ["Deadlines", "asked_seconds"]


def asked_seconds(query: Mapping[str, Sequence[str]]) -> float | None:
    """Return how long a client is willing to wait (`?timeout=5s`), None if it does not say; raise BadRequest."""
    text = query.get("timeout", ("",))[0]
    if not text:
        return None
    try:
        return max(parse_duration(text), 0) / 10**9 or None
    except BadScalar as error:
        raise apierrors.BadRequest(f"invalid timeout specified in the request URL - {error}") from None


class _Limited:
    """A block that must end in time: raises TimeoutError where it was cancelled because it did not."""

    __slots__ = ("_cancelling", "_deadlines", "due", "fired", "task")

    def __init__(self, deadlines: Deadlines) -> None:
        self._deadlines = deadlines
        self.task: asyncio.Task[object] | None = None
        self.due = 0.0
        self.fired = False
        self._cancelling = 0

    def __enter__(self) -> None:
        self.task = asyncio.current_task()
        assert self.task is not None
        self._cancelling = self.task.cancelling()
        self._deadlines.begin(self)

    def __exit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        task, self.task = self.task, None
        self._deadlines.forget_ended()
        if self.fired and task is not None and task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError


class Deadlines:
    """The blocks that are under way, oldest first."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._blocks: deque[_Limited] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def limit(self) -> _Limited:
        """Return a context manager that gives its block the time that all have."""
        return _Limited(self)

    def begin(self, block: _Limited) -> None:
        """Count from now."""
        loop = asyncio.get_running_loop()
        block.due = loop.time() + self._seconds
        self._blocks.append(block)
        if self._timer is None:
            self._timer = loop.call_at(block.due, self._end_late)

    def forget_ended(self) -> None:
        """Drop the oldest blocks that are over; those behind one that is not wait for it."""
        blocks = self._blocks
        while blocks and blocks[0].task is None:
            blocks.popleft()

    def _end_late(self) -> None:
        loop = asyncio.get_running_loop()
        blocks = self._blocks
        self._timer = None
        while blocks and (blocks[0].task is None or blocks[0].due <= loop.time()):
            block = blocks.popleft()
            if block.task is not None:
                block.fired = True
                block.task.cancel()
        if blocks:
            self._timer = loop.call_at(blocks[0].due, self._end_late)
