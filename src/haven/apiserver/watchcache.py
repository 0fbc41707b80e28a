"""The newest objects of one resource as encoded bytes, and its latest changes for those who watch. No I/O.

An entry holds the JSON of one object at one revision, with the resourceVersion spliced in, beside the little that
selection needs. GET, LIST and WATCH hand out these bytes; typed objects and other encodings are made on demand and
kept with the entry, so that everybody shares them.

Invariants: revisions of recorded changes never decrease; the sorted names agree with the entries; every change
after `dropped` is in the history.
"""

from __future__ import annotations

import sys
from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec

from haven.api.strategy import FieldSelectors
from haven.apimachinery import serialization
from haven.apimachinery.names import UID, Revision
from haven.apimachinery.selectors import FieldSelector, LabelSelector
from haven.apiserver.audience import Audience
from haven.apiserver.damage import Damage
from haven.apiserver.watcher import Watcher, Waves

__all__ = [
    "ADDED",
    "DELETED",
    "MODIFIED",
    "Draft",
    "Entry",
    "Kind",
    "Selection",
    "Statistics",
    "WatchCache",
    "Watched",
    "Watcher",
    "decoder",
    "splice_revision",
    "strip_revision",
]

ADDED, MODIFIED, DELETED = "ADDED", "MODIFIED", "DELETED"

_UID_MARK = b'"uid":"'
_UID_LENGTH = 36


class _Meta(msgspec.Struct, rename="camel"):
    name: str = ""
    namespace: str = ""
    uid: str = ""
    labels: dict[str, str] = {}


class _Parsed(msgspec.Struct):
    metadata: _Meta


_parse = msgspec.json.Decoder(_Parsed).decode


class Kind:
    """How entries of one stored kind become typed objects and selectable fields."""

    __slots__ = ("decode", "fields", "places")

    def __init__(self, decode: Callable[[bytes], Any], fields: FieldSelectors) -> None:
        self.decode = decode
        self.fields = fields
        self.places = {path: place for place, path in enumerate(fields)}


class Draft(NamedTuple):
    """A new object as JSON, and what is known of it; `fields` None if its selectable fields are to be read off it."""

    value: bytes
    uid: str
    labels: Mapping[str, str]
    fields: tuple[str, ...] | None


class Entry:
    """One object at one revision: `data` is its JSON in the storage version. Never changed once it is made."""

    __slots__ = (
        "_fields",
        "_object",
        "created",
        "data",
        "encodings",
        "kind",
        "labels",
        "name",
        "namespace",
        "revision",
        "uid",
        "views",
    )

    def __init__(
        self,
        kind: Kind,
        data: bytes,
        *,
        namespace: str,
        name: str,
        uid: str,
        labels: Mapping[str, str],
        revision: Revision,
        created: Revision,
        obj: Any = None,
    ) -> None:
        self.kind = kind
        self.data = data
        self.namespace = sys.intern(namespace)
        self.name = name
        self.uid = UID(uid)
        self.labels = _shared_labels(labels)
        self.revision = revision
        self.created = created
        self.encodings: dict[Any, bytes] | None = None
        self.views: dict[Any, Entry | None] | None = None
        """The same object as versions of a custom resource show it, by their views; None if just as it is."""
        self._object = obj
        self._fields: tuple[str, ...] | None = None

    @classmethod
    def parsed(cls, kind: Kind, value: bytes, revision: Revision, created: Revision) -> Entry:
        """Return the entry of a stored value (without resourceVersion)."""
        metadata = _parse(value).metadata
        return cls(
            kind,
            splice_revision(value, revision),
            namespace=metadata.namespace,
            name=metadata.name,
            uid=metadata.uid,
            labels=metadata.labels,
            revision=revision,
            created=created,
        )

    @classmethod
    def drafted(cls, kind: Kind, draft: Draft, namespace: str, name: str, revision: Revision) -> Entry:
        """Return the entry of an object that was just made."""
        entry = cls(
            kind,
            splice_revision(draft.value, revision),
            namespace=namespace,
            name=name,
            uid=draft.uid,
            labels=draft.labels,
            revision=revision,
            created=revision,
        )
        entry._fields = draft.fields
        return entry

    @property
    def object(self) -> Any:
        """The typed object for readers in this process: shared, never change it.

        It comes without managedFields, which would take more memory than the rest of it.
        """
        found = self._object
        if found is None:
            found = self._object = self.kind.decode(self.data)
            _forget_managed_fields(found)
        return found

    @property
    def glimpse(self) -> Any:
        """The typed object for a quick look: the shared one if there is one, else one that is not kept."""
        return self._object if self._object is not None else self.kind.decode(self.data)

    def decoded(self) -> Any:
        """Return the whole typed object, the caller's own."""
        return self.kind.decode(self.data)

    def keep(self, obj: Any) -> None:
        """Take over the object that this entry was made of; nobody may use it otherwise any more."""
        _forget_managed_fields(obj)
        self._object = obj

    def release(self) -> None:
        """Forget the typed object: the entry is superseded, and whoever still needs the object has it."""
        self._object = None

    @property
    def fields(self) -> Mapping[str, str]:
        """The values of all fields that a selector may name."""
        values = self._fields
        if values is None:
            self.read_fields(self.glimpse if self.kind.fields else None)
            values = self._fields
            assert values is not None
        return {
            "metadata.name": self.name,
            "metadata.namespace": self.namespace,
            **dict(zip(self.kind.fields, values, strict=True)),
        }

    def field(self, path: str) -> str:
        """Return the value of one such field, "" if there is none."""
        if self._fields is None:
            self.read_fields(self.glimpse if self.kind.fields else None)
            assert self._fields is not None
        place = self.kind.places.get(path)
        if place is not None:
            return self._fields[place]
        return self.name if path == "metadata.name" else self.namespace if path == "metadata.namespace" else ""

    def read_fields(self, obj: Any) -> None:
        """Read the selectable fields off the object, for a writer that has it at hand."""
        # Most of them are alike from one object to the next: a node's name, a phase.
        self._fields = tuple([sys.intern(read(obj)) for read in self.kind.fields.values()])

    def holds(self, value: bytes) -> bool:
        """Tell whether this is the entry of a stored value, its revision aside."""
        return len(value) < len(self.data) and serialization.is_same(strip_revision(self.data), value)

    def encoded(self, key: Any, encode: Callable[[Entry], bytes]) -> bytes:
        """Return another encoding, made at most once."""
        if self.encodings is None:
            self.encodings = {}
        result = self.encodings.get(key)
        if result is None:
            result = self.encodings[key] = encode(self)
        return result

    def at(self, revision: Revision) -> Entry:
        """Return the same object as a deletion shows it: with the revision at which it went."""
        return Entry(
            self.kind,
            splice_revision(strip_revision(self.data), revision),
            namespace=self.namespace,
            name=self.name,
            uid=self.uid,
            labels=self.labels,
            revision=revision,
            created=self.created,
        )


_LABELS_MAX = 4096
_labels: dict[tuple[tuple[str, str], ...], Mapping[str, str]] = {}


def _shared_labels(labels: Mapping[str, str]) -> Mapping[str, str]:
    """Return equal labels as one object: thousands of Pods have those of their template."""
    key = tuple(labels.items())
    found = _labels.get(key)
    if found is None:
        if len(_labels) >= _LABELS_MAX:
            _labels.clear()
        found = _labels[key] = dict(labels)
    return found


def _forget_managed_fields(obj: Any) -> None:
    if not isinstance(obj, dict):
        obj.metadata.managed_fields = []


def splice_revision(value: bytes, revision: Revision) -> bytes:
    """Return a stored object's JSON with metadata.resourceVersion put behind metadata.uid.

    The first "uid" is metadata's own: what stands before it (kind, name, namespace) holds no unescaped quote.
    """
    place = value.index(_UID_MARK) + len(_UID_MARK) + _UID_LENGTH + 1
    return b'%b,"resourceVersion":"%d"%b' % (value[:place], revision, value[place:])


def strip_revision(data: bytes) -> bytes:
    """Return an object's JSON without the resourceVersion that `splice_revision` put in."""
    place = data.index(_UID_MARK) + len(_UID_MARK) + _UID_LENGTH + 1
    end = data.index(b'"', place + len(b',"resourceVersion":"')) + 1
    return data[:place] + data[end:]


@dataclass(frozen=True, slots=True)
class Selection:
    """Which objects somebody wants."""

    namespace: str = ""
    labels: LabelSelector | None = None
    fields: FieldSelector | None = None

    @property
    def is_everything(self) -> bool:
        """Whether no selector narrows it (the namespace may)."""
        return self.labels is None and self.fields is None

    def matches(self, entry: Entry) -> bool:
        """Tell whether an object is wanted."""
        if self.namespace and entry.namespace != self.namespace:
            return False
        if self.labels is not None and not self.labels.matches(entry.labels):
            return False
        return self.fields is None or all(
            (entry.field(item.field) == item.value) == (item.operator == "=") for item in self.fields.requirements
        )


class Watched:
    """One change. `entry` is the object after it (for DELETED: its last state, at the deletion's revision)."""

    __slots__ = ("_lost", "entry", "frames", "previous", "revision", "type", "views")

    def __init__(self, type_: str, entry: Entry, previous: Entry | None, revision: Revision) -> None:
        self.type = type_
        self.entry = entry
        self.previous = previous
        self.revision = revision
        self.frames: dict[Any, bytes] = {}
        self.views: dict[Any, Watched] = {}
        """The same change as versions of a custom resource show it, by the version's view."""
        self._lost: Watched | None = None

    def seen_by(self, selection: Selection) -> Watched | None:
        """Return the change as a watcher with this selection sees it; None if it does not."""
        before = self.previous is not None and selection.matches(self.previous)
        if self.type == DELETED:
            return self if before else None
        after = selection.matches(self.entry)
        if after:
            return self if before == (self.previous is not None) else self._as_added()
        return self._as_lost() if before else None

    def _as_added(self) -> Watched:
        return Watched(ADDED, self.entry, None, self.revision)

    def _as_lost(self) -> Watched:
        """The object no longer matches: to this watcher it is deleted, as it was before."""
        if self._lost is None:
            assert self.previous is not None
            self._lost = Watched(DELETED, self.previous.at(self.revision), self.previous, self.revision)
        return self._lost


@dataclass(frozen=True, slots=True)
class Statistics:
    """Figures of one cache."""

    objects: int
    bytes: int
    history: int
    watchers: int


class WatchCache:
    """All objects of one resource, in key order, and their latest changes. One owner, one event loop: no lock."""

    def __init__(self, *, start: Revision, history_max: int, queue_max: int) -> None:
        self._entries: dict[str, dict[str, Entry]] = {}
        self._names: dict[str, list[str]] = {}
        self._namespaces: list[str] = []
        self._history: deque[Watched] = deque()
        self._history_max = history_max
        self._queue_max = queue_max
        self.dropped = start
        self.newest = start
        self._listeners: dict[str, dict[Watcher | Audience, None]] = {}
        self._by_field: dict[str, dict[str, dict[Watcher | Audience, None]]] = {}
        self._audiences: dict[tuple[Selection, object], Audience] = {}
        self.bytes = 0
        self.received = self.overruns = 0
        """How many changes came, and how many watchers were cut off because they lagged."""
        self._count = 0
        self.waves = Waves()
        self.damaged: dict[tuple[str, str], Damage] = {}
        """What is stored but cannot be read, by namespace and name: it is in no list, so lists have to be refused."""

    def __len__(self) -> int:
        return self._count

    # ---- reading

    def get(self, namespace: str, name: str) -> Entry | None:
        """Return the newest state of an object."""
        names = self._entries.get(namespace)
        return names.get(name) if names is not None else None

    def entries(self, namespace: str = "", *, after: tuple[str, str] | None = None) -> Iterator[Entry]:
        """Yield objects in key order: those of one namespace, or all; only those behind `after` if it is given."""
        if namespace or "" in self._entries:
            spaces = [namespace] if namespace in self._entries else []
        elif after is not None:
            spaces = self._namespaces[bisect_left(self._namespaces, after[0] + "/") :]
            spaces = [space[:-1] for space in spaces]
        else:
            spaces = [space[:-1] for space in self._namespaces]
        for space in spaces:
            found = self._entries[space]
            names = self._names[space]
            if after is not None and after[0] == space:
                names = names[bisect_right(names, after[1]) :]
            for name in names:
                yield found[name]

    def count(self, namespace: str = "") -> int:
        """Return how many objects there are."""
        if namespace:
            return len(self._entries.get(namespace, ()))
        return self._count

    # ---- changing

    def load(self, entry: Entry) -> None:
        """Add an object that was there before this cache."""
        self._put(entry)

    def record(self, event: Watched) -> None:
        """Take in a change and show it to the watchers."""
        assert event.revision >= self.newest, (event.revision, self.newest)
        if event.type == DELETED:
            self.remove(event.entry.namespace, event.entry.name)
        else:
            self._put(event.entry)
        self.newest = event.revision
        self.received += 1
        self._history.append(event)
        if len(self._history) > self._history_max:
            self.dropped = self._history.popleft().revision
        if self._listeners or self._by_field:
            self._show(event)

    def _put(self, entry: Entry) -> None:
        names = self._entries.get(entry.namespace)
        if names is None:
            names = self._entries[entry.namespace] = {}
            self._names[entry.namespace] = []
            insort(self._namespaces, entry.namespace + "/")
        old = names.get(entry.name)
        if old is None:
            self._count += 1
            order = self._names[entry.namespace]
            if order and order[-1] > entry.name:
                insort(order, entry.name)
            else:
                order.append(entry.name)
        else:
            self.bytes -= len(old.data)
        names[entry.name] = entry
        self.bytes += len(entry.data)

    def remove(self, namespace: str, name: str) -> None:
        """Take an object out, unseen by watchers."""
        names = self._entries[namespace]
        old = names.pop(name)
        self.bytes -= len(old.data)
        self._count -= 1
        order = self._names[namespace]
        del order[bisect_left(order, name)]
        if not names:
            del self._entries[namespace], self._names[namespace]
            del self._namespaces[bisect_left(self._namespaces, namespace + "/")]

    # ---- watching

    def watch(self, selection: Selection) -> Watcher:
        """Start to collect the changes from now on that concern a selection."""
        watcher = Watcher(self, selection, self._queue_max)
        self._add(watcher)
        return watcher

    def forget(self, watcher: Watcher) -> None:
        """Stop showing changes to a watcher."""
        self._discard(watcher)

    def seat(self, watcher: Watcher, form: object) -> Audience:
        """Let a watcher hear of changes with all others who want the same; `rise` ends that."""
        key = (watcher.selection, form)
        audience = self._audiences.get(key)
        if audience is None:
            audience = self._audiences[key] = Audience(self, watcher.selection, form)
            self._add(audience)
        self._discard(watcher)
        audience.join(watcher)
        return audience

    def rise(self, watcher: Watcher, audience: Audience) -> list[Watched]:
        """Collect changes for a watcher alone again; return what it was not sent."""
        missed = audience.leave(watcher)
        if not audience.members:
            del self._audiences[audience.selection, audience.form]
            self._discard(audience)
        self._add(watcher)
        return missed

    def _add(self, listener: Watcher | Audience) -> None:
        selection = listener.selection
        for field, value in self._triggers(selection):
            self._by_field.setdefault(field, {}).setdefault(value, {})[listener] = None
            return
        self._listeners.setdefault(selection.namespace, {})[listener] = None

    def _discard(self, listener: Watcher | Audience) -> None:
        selection = listener.selection
        for field, value in self._triggers(selection):
            values = self._by_field.get(field, {})
            found = values.get(value)
            if found is not None:
                found.pop(listener, None)
                if not found:
                    del values[value]
                    if not values:
                        del self._by_field[field]
            return
        listeners = self._listeners.get(selection.namespace)
        if listeners is not None:
            listeners.pop(listener, None)
            if not listeners:
                del self._listeners[selection.namespace]

    @staticmethod
    def _triggers(selection: Selection) -> list[tuple[str, str]]:
        """Return the one field whose value finds this watcher, so that a change need not ask all of them."""
        if selection.fields is not None:
            for field in ("metadata.name", "spec.nodeName"):
                value = selection.fields.exact(field)
                if value is not None:
                    return [(field, value)]
        return []

    def _show(self, event: Watched) -> None:
        namespace = event.entry.namespace
        for space in ("", namespace) if namespace else ("",):
            listeners = self._listeners.get(space)
            if listeners is not None:
                for listener in tuple(listeners):
                    listener.offer(event)
        for field, by_value in tuple(self._by_field.items()):
            values = {event.entry.field(field)}
            if event.previous is not None:
                values.add(event.previous.field(field))
            for value in sorted(values):
                for listener in tuple(by_value.get(value, ())):
                    listener.offer(event)
        self.waves.wake()

    def holds_after(self, revision: Revision) -> bool:
        """Tell whether every change after a revision is still in memory."""
        return revision >= self.dropped

    def replay(self, selection: Selection, *, after: Revision) -> list[Watched]:
        """Return the changes after a revision as a selection sees them; call `holds_after` first."""
        assert self.holds_after(after), (after, self.dropped)
        result: list[Watched] = []
        for event in reversed(self._history):
            if event.revision <= after:
                break
            if selection.namespace and event.entry.namespace != selection.namespace:
                continue
            seen = event if selection.is_everything else event.seen_by(selection)
            if seen is not None:
                result.append(seen)
        result.reverse()
        return result

    def watchers(self) -> list[Watcher]:
        """Return all who watch."""
        found = [one for listeners in self._listeners.values() for one in listeners]
        found += [one for values in self._by_field.values() for listeners in values.values() for one in listeners]
        alone = [one for one in found if isinstance(one, Watcher)]
        return alone + [one for audience in self._audiences.values() for one in audience.members]

    def stop_watchers(self, error: Exception | None = None) -> None:
        """End every watch (the server stops, or the resource goes away); `error` is told to their clients."""
        for watcher in self.watchers():
            watcher.error = error
            watcher.stop()

    def forget_history(self, revision: Revision) -> None:
        """Hold no change up to a revision any more: whoever wants one must list."""
        self._history.clear()
        self.dropped = self.newest = revision

    def statistics(self) -> Statistics:
        """Return this cache's figures."""
        return Statistics(self._count, self.bytes, len(self._history), len(self.watchers()))

    def check(self) -> None:
        """Verify the invariants."""
        assert self._count == sum(map(len, self._entries.values()))
        assert self._namespaces == sorted(space + "/" for space in self._entries)
        for space, names in self._entries.items():
            assert self._names[space] == sorted(names), space
        revisions = [event.revision for event in self._history]
        assert revisions == sorted(revisions)
        assert not revisions or revisions[0] > self.dropped


def decoder(kind: type[Any]) -> Callable[[bytes], Any]:
    """Return a function that decodes entries of a typed kind."""
    return lambda data: serialization.decode(data, kind)
