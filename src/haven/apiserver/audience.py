"""Watchers who want the same changes in the same form: a change is noted, judged and encoded once for all of them.

A watcher belongs to an audience only as long as its owner waits and its client keeps up. When it leaves it takes along
what it has not been sent.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

from haven.apiserver.request import chunked

if TYPE_CHECKING:
    from haven.apiserver.watchcache import Selection, WatchCache, Watched
    from haven.apiserver.watcher import Watcher

__all__ = ["WATCHERS_PER_TURN", "Audience", "Sink"]

WATCHERS_PER_TURN = 20
"""How many are served before the loop does something else. Each takes about 15 µs: a TLS record and a system call."""


class Sink(Protocol):
    """Where changes can be sent to while the watch's owner waits."""

    @property
    def form(self) -> object | None:
        """What all sinks have in common whose bytes for a change are the same; None if this one's are its own."""
        ...

    def encode(self, events: Sequence[Watched]) -> bytes:
        """Return the bytes of changes."""
        ...

    def send(self, chunk: bytes) -> bool:
        """Send a chunk (haven.apiserver.request.chunked) at once; False if the client lags."""
        ...

    def count(self, events: int, size_bytes: int, receivers: int) -> None:
        """Write down that some changes were sent to so many."""
        ...


class Audience:
    """Watchers of one selection and form.

    Invariants: `_log` holds the changes from number `_first` on; those before `_told` were sent, or are being sent, to
    every member whose `place` is not smaller; a member's `place` is the number of the next change that it is owed.
    """

    __slots__ = ("_cache", "_everything", "_first", "_log", "_noted", "_told", "form", "members", "selection")

    def __init__(self, cache: WatchCache, selection: Selection, form: object) -> None:
        self._cache = cache
        self.selection = selection
        self.form = form
        self._everything = selection.is_everything
        self.members: dict[Watcher, None] = {}
        self._log: list[Watched] = []
        self._first = self._told = 0
        self._noted = False

    def join(self, watcher: Watcher) -> None:
        """Add a watcher that knows of everything so far."""
        watcher.place = self._first + len(self._log)
        self.members[watcher] = None

    def leave(self, watcher: Watcher) -> list[Watched]:
        """Return what a watcher has not been sent; it is a member no more."""
        del self.members[watcher]
        return self._log[watcher.place - self._first :]

    def offer(self, event: Watched) -> None:
        """Note a change if it concerns the members."""
        seen: Watched | None = event if self._everything else event.seen_by(self.selection)
        if seen is None:
            return
        self._log.append(seen)
        if not self._noted:
            self._noted = True
            self._cache.waves.add_audience(self)

    def tell(self) -> Iterator[None]:
        """Send the members what was noted; yields between parts of them. To be run to its end before the next one."""
        self._noted = False
        start, self._told = self._told, self._first + len(self._log)
        told = self._told
        members = tuple(self.members)
        sink = members[0].sink if members else None
        data = _encoded(sink, self._log[start - self._first :])
        chunk = chunked(data) if data else b""
        receivers = 0
        for number, member in enumerate(members, 1):
            if member in self.members and member.place < told:
                if chunk and member.place == start and member.sink is not None and member.sink.send(chunk):
                    member.place = told
                    receivers += 1
                else:
                    member.depart()
            if number % WATCHERS_PER_TURN == 0:
                yield
        if sink is not None and receivers:
            sink.count(told - start, len(data), receivers)
        del self._log[: told - self._first]
        self._first = told


def _encoded(sink: Sink | None, events: Sequence[Watched]) -> bytes:
    """Return the bytes of changes; none if that fails.

    Then everybody leaves, and the owner of each watch meets the error where it can be told to the client and the log.
    """
    if sink is None:
        return b""
    try:
        return sink.encode(events)
    except Exception:
        return b""
