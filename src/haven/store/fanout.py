"""Changes to watchers: history first, then live, without a gap and without a repetition.

A watcher that does not keep up is not cut off: its queue is dropped and it reads history again from where it is. So
memory is bounded, and only a reader slower than compaction fails, with Compacted.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from haven.apimachinery.names import Revision
from haven.store.interface import Change, StoreError

__all__ = ["Fanout", "ReadHistory"]

QUEUE_CHANGES_MAX = 4096  # About 10 MB of pods; more is cheaper to read again than to hold for each watcher.
HISTORY_CHANGES_MAX = 1000

ReadHistory = Callable[[bytes, Revision, Revision, int], Awaitable[tuple[list[Change], Revision]]]
"""(prefix, after, upto, limit) -> changes, and the revision up to which they are complete; raises Compacted."""


class _Watcher:
    """One reader. Its queue is contiguous: it begins right after what history was read up to."""

    __slots__ = ("_wake", "behind", "closed", "position", "prefix", "queue")

    def __init__(self, prefix: bytes, position: Revision) -> None:
        self.prefix = prefix
        self.position = position
        self.queue: list[Change] = []
        self.behind = True
        self.closed = False
        self._wake: asyncio.Future[None] | None = None

    def offer(self, changes: Sequence[Change]) -> None:
        if self.behind:
            return
        prefix, position = self.prefix, self.position
        wanted = [change for change in changes if change.revision > position and change.key.startswith(prefix)]
        if not wanted:
            return
        if len(self.queue) + len(wanted) > QUEUE_CHANGES_MAX:
            self.queue.clear()
            self.behind = True
        else:
            self.queue += wanted
        self.wake()

    def wake(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    async def wait_work(self) -> None:
        while not (self.queue or self.behind or self.closed):
            self._wake = asyncio.get_running_loop().create_future()
            try:
                await self._wake
            finally:
                self._wake = None


class Fanout:
    """All watchers of a store. Used on one event loop only."""

    def __init__(self, read_history: ReadHistory, newest: Callable[[], Revision]) -> None:
        self._read_history = read_history
        self._newest = newest
        self._watchers: set[_Watcher] = set()
        self._closed = False

    def __len__(self) -> int:
        return len(self._watchers)

    def publish(self, changes: Sequence[Change]) -> None:
        """Hand on the changes of whole transactions, newer than all before."""
        for watcher in self._watchers:
            watcher.offer(changes)

    def close(self) -> None:
        """End every watch."""
        self._closed = True
        for watcher in self._watchers:
            watcher.closed = True
            watcher.wake()

    async def watch(self, prefix: bytes, after: Revision) -> AsyncIterator[Sequence[Change]]:
        """Yield what Store.watch promises."""
        watcher = _Watcher(prefix, after)
        watcher.closed = self._closed
        self._watchers.add(watcher)
        try:
            while not watcher.closed:
                if watcher.behind:
                    # From here on the queue fills with what is newer than `head`; history gives the rest.
                    watcher.behind, head = False, self._newest()
                    complete = watcher.position
                    first = True
                    while (first or complete < head) and not watcher.closed:
                        first = False
                        changes, complete = await self._read_history(
                            prefix, watcher.position, head, HISTORY_CHANGES_MAX
                        )
                        # The queue's filter looks at `position`; it never holds anything up to `head`.
                        watcher.position = max(watcher.position, complete)
                        if changes:
                            yield changes
                elif watcher.queue:
                    batch, watcher.queue = watcher.queue, []
                    watcher.position = batch[-1].revision
                    yield batch
                else:
                    await watcher.wait_work()
            raise StoreError("the store is closed: open it again and resume the watch")
        finally:
            self._watchers.discard(watcher)
