"""Bodies that are passed on as they come, however large: what clients send through proxies."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable

__all__ = ["BodyStream"]

_BUFFERED_BYTES_MAX = 256 << 10


class BodyStream:
    """A body under way: pieces wait here until the one reader takes them.

    `is_full` asks the sender to wait; `on_room` is called when it may go on. Invariant: `_waiter` is set only while
    nothing waits to be read.
    """

    def __init__(self, on_room: Callable[[], None]) -> None:
        self.is_whole = False
        self._on_room = on_room
        self._pieces: deque[bytes] = deque()
        self._bytes = 0
        self._broken = self._unwanted = False
        self._waiter: asyncio.Future[None] | None = None

    @property
    def is_full(self) -> bool:
        """Whether more waits than shall be held."""
        return self._bytes > _BUFFERED_BYTES_MAX

    def feed(self, data: bytes) -> None:
        """Take a piece."""
        if not self._unwanted:
            self._pieces.append(data)
            self._bytes += len(data)
            self._wake()

    def end(self) -> None:
        """That was all."""
        self.is_whole = True
        self._wake()

    def break_off(self) -> None:
        """The sender is gone in the middle of it."""
        self._broken = not self.is_whole
        self._wake()

    def discard(self) -> None:
        """Nobody reads the rest."""
        self._unwanted = True
        self._pieces.clear()
        self._bytes = 0
        self._on_room()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the pieces; raise ConnectionResetError if the sender broke off."""
        while True:
            if self._pieces:
                piece = self._pieces.popleft()
                was_full = self.is_full
                self._bytes -= len(piece)
                if was_full and not self.is_full:
                    self._on_room()
                yield piece
            elif self.is_whole:
                return
            elif self._broken:
                raise ConnectionResetError("the client broke off in the middle of the body")
            else:
                self._waiter = asyncio.get_running_loop().create_future()
                try:
                    await self._waiter
                finally:
                    self._waiter = None
