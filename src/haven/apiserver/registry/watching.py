"""WATCH: changes as a stream of events.

Initial events, bookmarks, selectors and expired versions as upstream's watch cache treats them:
https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes
Changes too old for the cache are read from the store, so a watch only expires when the store has compacted them.
"""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any

from haven.apimachinery import apierrors, serialization
from haven.apimachinery.codecs import protobuf
from haven.apimachinery.codecs.negotiate import JSON, PROTOBUF, STREAM_SUFFIX, YAML, Answer, negotiate_stream
from haven.apimachinery.names import Revision
from haven.apiserver.audience import Sink
from haven.apiserver.damage import Unreadable
from haven.apiserver.registry.endpoint import Endpoint, View
from haven.apiserver.registry.options import ListParameters, list_parameters
from haven.apiserver.registry.output import answer_form, entry_bytes, partial_bytes
from haven.apiserver.registry.reading import check_not_newer, checked_revision, selection_of
from haven.apiserver.registry.tables import table_of_entries, table_of_objects
from haven.apiserver.request import LiveStream, Request, Response
from haven.apiserver.watchcache import ADDED, DELETED, MODIFIED, Entry, Selection, WatchCache, Watched, Watcher
from haven.clock import Clock
from haven.metrics.families import Histogram, Registry, Value
from haven.store.interface import Compacted, Store

__all__ = ["BOOKMARK", "ERROR", "INITIAL_EVENTS_END", "Bookmark", "Failure", "Signal", "Watching"]

BOOKMARK, ERROR = "BOOKMARK", "ERROR"
INITIAL_EVENTS_END = "k8s.io/initial-events-end"
_BOOKMARK_BEFORE_END_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Bookmark:
    """Everything up to a revision has been sent; `ends_initial_events` marks the one after the initial objects."""

    revision: int
    ends_initial_events: bool = False


@dataclass(frozen=True, slots=True)
class Failure:
    """The watch cannot go on."""

    error: apierrors.ApiError


Signal = Watched | Bookmark | Failure


class Watching:
    """Watches of stored resources."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        chance: random.Random,
        *,
        timeout_seconds_min: int,
        bookmark_interval_seconds: float,
        registry: Registry | None = None,
    ) -> None:
        self._registry = registry
        self._store = store
        self._clock = clock
        self._chance = chance
        self._timeout_seconds_min = timeout_seconds_min
        self._bookmark_interval_seconds = bookmark_interval_seconds

    async def watch(self, request: Request, endpoint: Endpoint, *, force: bool = False) -> Response:
        """Answer with a stream of events."""
        info = request.info
        form = replace(answer_form(request, endpoint, streams=True), pretty=False)
        parameters = list_parameters(request.query, force_watch=force)
        selection = selection_of(endpoint, parameters, info.namespace, info.name)
        revision = checked_revision(parameters.resource_version)
        if endpoint.storage.cache.damaged:
            raise endpoint.storage.not_watched()
        form = self._stream_form(request, endpoint, form)
        frames = _Frames(request, endpoint, form, self._sent(endpoint))
        stream = _Stream(frames)
        if form.kind == "PartialObjectMetadataList":
            stream.signals = _until_told(self.signals(endpoint, parameters, selection, revision))
        else:
            stream.signals = self.signals(endpoint, parameters, selection, revision, stream)
        media_type = form.media_type if form.media_type == JSON else form.media_type + STREAM_SUFFIX
        return Response(200, {"Content-Type": media_type}, stream=stream)

    def _sent(self, endpoint: Endpoint) -> tuple[Value, Histogram] | None:
        """Return where a watch counts its events and their sizes."""
        if self._registry is None:
            return None
        kind = endpoint.resource
        labels = (kind.group, kind.plural, kind.version)
        counter = self._registry["apiserver_watch_events_total"].child(*labels)
        return counter, self._registry["apiserver_watch_events_sizes"].histogram(*labels)

    def _count_initial(self, endpoint: Endpoint, signals: Sequence[Signal]) -> None:
        """Count what a watch begins with."""
        number = len(signals) - bool(signals and isinstance(signals[-1], Bookmark))
        if self._registry is not None and number:
            kind = endpoint.resource
            self._registry["apiserver_init_events_total"].child(kind.group, kind.plural).value += number

    def _count_list(self, endpoint: Endpoint, selection: Selection, seconds: float) -> None:
        """Count a watch that has sent all objects."""
        if self._registry is None:
            return
        kind = endpoint.resource
        one = selection.fields is not None and selection.fields.exact("metadata.name") is not None
        scope = "resource" if one else "namespace" if selection.namespace else "cluster"
        found = self._registry["apiserver_watch_list_duration_seconds"]
        found.histogram(kind.group, kind.plural, scope, kind.version).add(seconds)

    @staticmethod
    def _stream_form(request: Request, endpoint: Endpoint, form: Answer) -> Answer:
        accept = request.headers.get("accept", "")
        if accept and form.media_type == YAML:
            return negotiate_stream(accept, endpoint.offer)
        return form

    def timeout_seconds(self, parameters: ListParameters) -> float:
        """Return how long a watch lasts."""
        if parameters.timeout_seconds:
            return float(parameters.timeout_seconds)
        return self._timeout_seconds_min * (1 + self._chance.random())

    async def signals(
        self,
        endpoint: Endpoint,
        parameters: ListParameters,
        selection: Selection,
        revision: int,
        sink: Sink | None = None,
    ) -> AsyncGenerator[list[Signal], None]:
        """Yield what happens, in batches, until the time is over; while waiting, offer it to the sink first."""
        if endpoint.view is not None:
            async for batch in self._viewed(endpoint, endpoint.view, parameters, selection, revision):
                yield batch
            return
        async for batch in self._raw_signals(endpoint, parameters, selection, revision, sink):
            yield batch

    async def _viewed(
        self, endpoint: Endpoint, view: View, parameters: ListParameters, selection: Selection, revision: int
    ) -> AsyncIterator[list[Signal]]:
        """Yield changes as a version of a custom resource shows them; only then can be told which are wanted."""
        everything = Selection(selection.namespace)
        async for batch in self._raw_signals(endpoint, parameters, everything, revision):
            try:
                shown = await _shown(view, batch)
            except apierrors.ApiError as error:
                yield [Failure(error)]
                return
            if not selection.is_everything:
                shown = [one for signal in shown for one in _selected(signal, selection)]
            if shown:
                yield shown

    async def _raw_signals(
        self,
        endpoint: Endpoint,
        parameters: ListParameters,
        selection: Selection,
        revision: int,
        sink: Sink | None = None,
    ) -> AsyncIterator[list[Signal]]:
        cache = endpoint.storage.cache
        if cache.damaged:
            yield [Failure(endpoint.storage.not_watched())]
            return
        deadline = self._clock.monotonic_seconds() + self.timeout_seconds(parameters)
        future = revision if revision > self._store.revision else 0
        if future and parameters.send_initial_events:
            try:
                await check_not_newer(revision, self._store, self._clock)
            except apierrors.Timeout as error:
                yield [Failure(error)]
                return
        watcher = cache.watch(selection)
        try:
            start = self._store.revision
            began = perf_counter()
            if parameters.send_initial_events or (parameters.send_initial_events is None and revision == 0):
                initial = self._initial(cache, selection, parameters, start)
                self._count_initial(endpoint, initial)
                yield initial
                if parameters.send_initial_events:
                    self._count_list(endpoint, selection, perf_counter() - began)
            elif parameters.send_initial_events is False and revision == 0:
                pass
            elif cache.holds_after(Revision(revision)):
                events = cache.replay(selection, after=Revision(revision))
                if events:
                    self._count_initial(endpoint, events)
                    yield list(events)
            elif cache.newest > revision:
                try:
                    async for batch in self._from_store(endpoint, selection, revision, cache.newest):
                        yield batch
                except Compacted as error:
                    message = f"too old resource version: {revision} ({error.oldest})"
                    yield [Failure(apierrors.Expired(message))]
                    return
                except Unreadable as error:
                    yield [Failure(error.of_read(gated=endpoint.storage.is_gated))]
                    return
            watcher.sink = None if future else sink
            async for batch in self._live(watcher, parameters, deadline):
                if future:  # Nothing is told of what comes before the version that was asked for.
                    batch = [one for one in batch if not isinstance(one, Watched) or one.revision > future]
                if batch:
                    yield batch
        finally:
            watcher.stop()

    @staticmethod
    def _initial(
        cache: WatchCache, selection: Selection, parameters: ListParameters, revision: Revision
    ) -> list[Signal]:
        found: list[Signal] = [
            Watched(ADDED, entry, None, entry.revision)
            for entry in cache.entries(selection.namespace)
            if selection.is_everything or selection.matches(entry)
        ]
        if parameters.allow_watch_bookmarks and not parameters.legacy_initial_events:
            found.append(Bookmark(revision, ends_initial_events=True))
        return found

    async def _from_store(
        self, endpoint: Endpoint, selection: Selection, after: int, until: Revision
    ) -> AsyncIterator[list[Signal]]:
        """Yield changes that the cache no longer holds; later ones already wait in the watcher."""
        storage = endpoint.storage
        async for changes in self._store.watch(storage.prefix, after=Revision(after)):
            batch: list[Signal] = []
            for change in changes:
                if change.revision > until:
                    break
                before = change.previous
                previous = storage.entry(before.key, before.value, before.modified, before.created) if before else None
                if change.value is None:
                    if previous is None:
                        continue
                    event = Watched(DELETED, previous.at(change.revision), previous, change.revision)
                else:
                    entry = storage.entry(change.key, change.value, change.revision, change.created)
                    event = Watched(MODIFIED if previous else ADDED, entry, previous, change.revision)
                seen = event.seen_by(selection)
                if seen is not None:
                    batch.append(seen)
            if batch:
                yield batch
            if changes and changes[-1].revision >= until:
                return

    async def _live(self, watcher: Watcher, parameters: ListParameters, deadline: float) -> AsyncIterator[list[Signal]]:
        clock = self._clock
        bookmarks = parameters.allow_watch_bookmarks
        next_bookmark = min(
            clock.monotonic_seconds() + self._bookmark_interval_seconds, deadline - _BOOKMARK_BEFORE_END_SECONDS
        )
        while True:
            now = clock.monotonic_seconds()
            wake = min(deadline, next_bookmark) if bookmarks else deadline
            if await watcher.wait_change(max(0.0, wake - now)):
                events = watcher.take()
                if events:
                    yield list(events)
                elif watcher.stopped:
                    if isinstance(watcher.error, apierrors.ApiError):
                        yield [Failure(watcher.error)]
                    return
                continue
            now = clock.monotonic_seconds()
            if now >= deadline:
                return
            if bookmarks and now >= next_bookmark:
                yield [Bookmark(self._store.revision)]
                next_bookmark = now + self._bookmark_interval_seconds
                if next_bookmark > deadline - _BOOKMARK_BEFORE_END_SECONDS > now:
                    next_bookmark = deadline - _BOOKMARK_BEFORE_END_SECONDS


async def _until_told(signals: AsyncGenerator[list[Signal], None]) -> AsyncGenerator[list[Signal], None]:
    """Yield failures alone: changes are no lists, so that a watch which asks for lists of metadata ends with the first.

    Upstream cannot write the change either, and can say so no more.
    """
    async for batch in signals:
        if not isinstance(batch[0], Failure):
            break
        yield batch
    await signals.aclose()


async def _shown(view: View, batch: list[Signal]) -> list[Signal]:
    """Return changes as a version shows them; each is worked out once for all who watch."""
    missing = [signal for signal in batch if isinstance(signal, Watched) and view not in signal.views]
    wanted = [entry for signal in missing for entry in (signal.entry, signal.previous) if entry is not None]
    shown = iter(await view.show(wanted) if wanted else [])
    for signal in missing:
        entry = next(shown)
        previous = next(shown) if signal.previous is not None else None
        is_same = entry is signal.entry and previous is signal.previous
        signal.views[view] = signal if is_same else Watched(signal.type, entry, previous, signal.revision)
    return [signal.views[view] if isinstance(signal, Watched) else signal for signal in batch]


def _selected(signal: Signal, selection: Selection) -> list[Signal]:
    if not isinstance(signal, Watched):
        return [signal]
    seen = signal.seen_by(selection)
    return [seen] if seen is not None else []


class _Stream(LiveStream):
    """The bytes of one watch; also the sink of its watcher."""

    signals: AsyncGenerator[list[Signal], None]

    def __init__(self, frames: _Frames) -> None:
        super().__init__()
        self._frames = frames
        self.form = frames.shared_form

    async def __anext__(self) -> bytes:
        return self._frames.batch(await anext(self.signals))

    def encode(self, events: Sequence[Watched]) -> bytes:
        """Return the bytes of changes."""
        return self._frames.joined(events)

    def send(self, chunk: bytes) -> bool:
        """Send a chunk at once; return False if that cannot be."""
        return self.push is not None and self.push(chunk)

    def count(self, events: int, size_bytes: int, receivers: int) -> None:
        """Write down that some changes were sent to so many."""
        self._frames.count(events, size_bytes, receivers)

    async def aclose(self) -> None:
        """End the watch."""
        await self.signals.aclose()


_frame_keys: dict[Any, int] = {}


def _key_of(form: Any) -> int:
    """Return a number for a form of frames: it is looked up for each watcher of each change."""
    return _frame_keys.setdefault(form, len(_frame_keys))


class _Frames:
    """Turns signals into the bytes of one watch; the bytes of a change are shared by all watches of the same form."""

    def __init__(
        self, request: Request, endpoint: Endpoint, form: Answer, sent: tuple[Value, Histogram] | None
    ) -> None:
        self._sent = sent
        self._request = request
        self._endpoint = endpoint
        self._form = form
        self._key = _key_of((endpoint.gvk, form))
        self._headers_sent = False

    @property
    def shared_form(self) -> int | None:
        """What watches have in common for which a change has the same bytes; tables begin with their columns."""
        return None if self._form.kind == "Table" else self._key

    def batch(self, signals: Sequence[Signal]) -> bytes:
        """Return the frames of a batch, and count them as sent."""
        data = self.joined(signals)
        self.count(len(signals), len(data), 1)
        return data

    def joined(self, signals: Sequence[Signal]) -> bytes:
        """Return the frames of a batch."""
        return b"".join(map(self._frame, signals))

    def count(self, signals: int, size_bytes: int, receivers: int) -> None:
        """Count a batch as sent to so many watches."""
        if self._sent is None or not signals:
            return
        counter, sizes = self._sent
        counter.value += signals * receivers
        sizes.add_some(size_bytes / signals, signals * receivers)  # Together they are measured once.

    def _frame(self, signal: Signal) -> bytes:
        if isinstance(signal, Watched):
            if self._form.kind == "Table":
                return self._framed(signal.type, self._table(signal.entry))
            frame = signal.frames.get(self._key)
            if frame is None:
                frame = signal.frames[self._key] = self._framed(signal.type, self._object(signal.entry))
            return frame
        if isinstance(signal, Bookmark):
            return self._framed(BOOKMARK, self._bookmark(signal))
        data = serialization.encode(signal.error.status())
        return self._framed(ERROR, self._protobuf(data) if self._form.media_type == PROTOBUF else data)

    def _object(self, entry: Entry) -> bytes:
        return entry_bytes(entry, self._endpoint, self._form)

    def _table(self, entry: Entry) -> bytes:
        data = table_of_entries(
            self._request, self._endpoint, self._form, [entry], None, without_headers=self._headers_sent
        )
        self._headers_sent = True
        return data

    def _bookmark(self, bookmark: Bookmark) -> bytes:
        obj = self._endpoint.resource.type()
        obj.kind, obj.api_version = self._endpoint.resource.kind, self._endpoint.resource.api_version
        obj.metadata.resource_version = str(bookmark.revision)
        if bookmark.ends_initial_events:
            obj.metadata.annotations = {INITIAL_EVENTS_END: "true"}
        data = serialization.encode(obj)
        if self._form.kind == "Table":
            return table_of_objects(
                self._request, self._endpoint, self._form, [data], without_headers=self._headers_sent
            )
        if self._form.kind:
            data = partial_bytes(data, self._form.group_version)
        return self._protobuf(data) if self._form.media_type == PROTOBUF else data

    @staticmethod
    def _protobuf(data: bytes) -> bytes:
        return protobuf.from_json(data)

    def _framed(self, kind: str, data: bytes) -> bytes:
        if self._form.media_type == PROTOBUF:
            return protobuf.watch_frame(kind, data)
        return b'{"type":"%b","object":%b}\n' % (kind.encode(), data)
