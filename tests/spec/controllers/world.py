"""A cluster of dicts in which one controller works: caches are always current, time passes when told.

Patches are applied by the real engine, so a wrong patch fails here as it would at a server.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Collection, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from haven.api.scheme import Resource, resource_of
from haven.apimachinery import apierrors, serialization, times
from haven.apimachinery.names import UID, NamespacedName
from haven.apimachinery.patch import json_patch, merge_patch, strategic
from haven.apimachinery.schema import schema_for
from haven.client.cache import ObjectCache
from haven.client.interface import PatchType
from haven.controllers.actions import (
    Change,
    Controller,
    Create,
    Delete,
    Emit,
    Fetch,
    ListNow,
    Request,
    Requeue,
    Retry,
    Together,
    Update,
    Wiring,
)

PASSES_MAX = 1000
START = times.parse("2026-01-01T00:00:00Z")


class _Reader:
    """The cache of one resource."""

    def __init__(self) -> None:
        self.cache: ObjectCache[Any] = ObjectCache()
        self.handlers: list[Callable[[Any, Any], None]] = []

    def get(self, namespace: str, name: str) -> Any:
        return self.cache.get(NamespacedName(namespace, name))

    def list(self, namespace: str = "") -> Sequence[Any]:
        return self.cache.list(namespace)

    def indexed(self, index: str, value: str) -> Collection[Any]:
        return self.cache.indexed(index, value)

    def index_values(self, index: str) -> Iterable[str]:
        return self.cache.index_values(index)

    def add_index(self, index: str, function: Callable[[Any], Iterable[str]]) -> None:
        self.cache.add_index(index, function)

    def add_handler(self, handler: Callable[[Any, Any], None]) -> Callable[[], None]:
        for obj in self.cache.list():
            handler(None, obj)
        self.handlers.append(handler)
        return lambda: self.handlers.remove(handler)


@dataclass(frozen=True)
class Event:
    kind: str
    name: str
    type: str
    reason: str
    message: str


class World:
    """Is the Wiring of the controller that `start` makes.

    `refuse(action)` may raise what the server would; `review(obj)` answers reviews, `answer(request)` other requests.
    """

    def __init__(self) -> None:
        self.chance = random.Random(1)
        self.now = START
        self.events: list[Event] = []
        self._applied: dict[Any, frozenset[str]] = {}  # The fields that each manager applied last.
        self.deleted: list[Delete] = []
        self.requests: list[Request] = []
        self.answer: Callable[[Request], bytes] = lambda _request: b""
        self.refuse: Callable[[Any], None] = lambda _action: None
        self.review: Callable[[Any], Any] = lambda obj: obj
        self._readers: dict[Resource[Any], _Reader] = {}
        self._versions = itertools.count(1)
        self._queue: dict[Hashable, None] = {}
        self._later: list[tuple[float, int, Hashable]] = []
        self._controller: Controller | None = None

    # Wiring

    def reader(self, kind: Any, *, field_selector: str = "") -> Any:
        # Selectors are the caches' business: a controller that relied on one must still ask what it got.
        resource = kind if isinstance(kind, Resource) else resource_of(kind)
        return self._readers.setdefault(resource, _Reader())

    def metadata_reader(self, resource: Resource[Any]) -> Any:
        return self.reader(resource)

    def forget(self, resource: Resource[Any]) -> None:
        self._readers.pop(resource, None)

    def is_synced(self) -> bool:
        return True

    def enqueue(self, key: Any) -> None:
        self._queue[key] = None

    def enqueue_after(self, key: Any, seconds: float) -> None:
        self._later.append((self.now + seconds, next(self._versions), key))

    def now_seconds(self) -> float:
        return self.now

    # What a test does

    def start(self, make: Callable[[Wiring], Controller]) -> None:
        """Make the controller and let it work until it rests."""
        self._controller = make(self)
        self.settle()

    def put(self, *objects: Any) -> Any:
        """Have objects in the cluster, as somebody else put them there; return the last."""
        stored = None
        for obj in objects:
            stored = serialization.copy(obj)
            metadata = stored.metadata
            if not metadata.uid:
                metadata.uid = UID(f"uid-{metadata.namespace}-{metadata.name}-{next(self._versions)}")
            metadata.creation_timestamp = metadata.creation_timestamp or times.format_time(self.now)
            self._store(stored)
        return stored

    def change(self, kind: type[Any], namespace: str, name: str, change: Callable[[Any], None]) -> None:
        """Change an object, as somebody else would."""
        obj = serialization.copy(self.get(kind, namespace, name))
        change(obj)
        self._store(obj)

    def remove(self, kind: type[Any], namespace: str, name: str) -> None:
        """Have an object vanish."""
        self._remove(resource_of(kind), namespace, name)

    def get(self, kind: type[Any], namespace: str, name: str) -> Any:
        """Return an object, None if there is none."""
        return self.reader(kind).get(namespace, name)

    def all(self, kind: type[Any]) -> list[Any]:
        """Return all objects of a kind."""
        return list(self.reader(kind).list())

    def settle(self) -> None:
        """Let the controller work until nothing is due. A pass that fails is tried again a second later."""
        for _ in range(PASSES_MAX):
            for item in sorted(self._later):
                if item[0] <= self.now:
                    self._later.remove(item)
                    self._queue[item[2]] = None
            if not self._queue:
                return
            key = next(iter(self._queue))
            del self._queue[key]
            try:
                self._drive(key)
            except (apierrors.ApiError, Retry):
                self.enqueue_after(key, 1.0)
        raise AssertionError(f"no rest after {PASSES_MAX} passes; the next key is {next(iter(self._queue), None)}")

    def wait(self, seconds: float) -> None:
        """Let time pass, the controller doing what falls due on the way."""
        end = self.now + seconds
        self.settle()
        while (due := min((item[0] for item in self._later), default=end)) < end:
            self.now = max(self.now, due)
            self.settle()
        self.now = end
        self.settle()

    def reasons(self) -> list[str]:
        """Return the reasons of the Events so far."""
        return [event.reason for event in self.events]

    # How actions are done

    def _drive(self, key: Hashable) -> None:
        assert self._controller is not None
        steps = self._controller.sync(key)
        try:
            action = next(steps)
            while True:
                try:
                    result = self._perform(action, key)
                except apierrors.ApiError as error:
                    action = steps.throw(error)
                else:
                    action = steps.send(result)
        except StopIteration:
            return

    def _perform(self, action: Any, key: Hashable) -> Any:
        self.refuse(action)
        match action:
            case Create():
                return self._create(action)
            case Update():
                return self._update(action)
            case Change():
                return self._change(action)
            case Delete():
                return self._delete(action)
            case Fetch():
                return self.reader(action.resource).get(action.namespace, action.name)
            case ListNow():
                return list(self.reader(action.resource).list(action.namespace))
            case Emit():
                about = action.about
                name = getattr(about, "name", None) or about.metadata.name
                self.events.append(Event(about.kind, name, action.type, action.reason, action.message))
                return None
            case Requeue():
                self.enqueue_after(key if action.key is None else action.key, action.seconds)
                return None
            case Request():
                self.requests.append(action)
                return self.answer(action)
            case Together():
                results: list[Any] = []
                for each in action.actions:
                    try:
                        results.append(self._perform(each, key))
                    except apierrors.ApiError as error:
                        results.append(error)
                return results
            case _:
                raise AssertionError(f"unknown action {action}")

    def _create(self, action: Create) -> Any:
        if action.subresource or action.obj.kind.endswith("Review"):
            return self.review(action.obj)
        obj = serialization.copy(action.obj)
        resource = action.resource or resource_of(type(obj))
        metadata = obj.metadata
        metadata.namespace = metadata.namespace or action.namespace
        if metadata.generate_name and not metadata.name:
            metadata.name = f"{metadata.generate_name}{next(self._versions):05d}"
        if self.reader(resource).get(metadata.namespace, metadata.name) is not None:
            raise apierrors.AlreadyExists.of(resource.group_resource, metadata.name)
        return self.put(obj)

    def _update(self, action: Update) -> Any:
        obj = serialization.copy(action.obj)
        resource = action.resource or resource_of(type(obj))
        current = self._current(resource, obj.metadata.namespace, obj.metadata.name)
        if obj.metadata.resource_version not in ("", current.metadata.resource_version):
            raise apierrors.Conflict.of(resource.group_resource, obj.metadata.name, "it changed")
        if action.subresource == "status":
            status = obj.status
            obj = serialization.copy(current)
            obj.status = status
        elif action.subresource == "approval":
            conditions = obj.status.conditions
            obj = serialization.copy(current)
            obj.status.conditions = conditions
        elif any(each.name == "status" for each in resource.subresources):
            obj.status = serialization.copy(current).status
        return self._store(obj)

    def _change(self, action: Change) -> Any:
        resource = action.resource
        current = self._current(resource, action.namespace, action.name)
        tree, body = serialization.to_tree(current), action.patch.body
        if action.patch.type is PatchType.STRATEGIC:
            schema = schema_for(resource.group, resource.version, resource.kind)
            assert schema is not None
            tree = strategic.apply(tree, body, schema)
        elif action.patch.type is PatchType.MERGE:
            tree = merge_patch.apply(tree, body)
        elif action.patch.type is PatchType.APPLY:
            # One writer alone: applying its fields is merging them; those that it applied before and no more are gone.
            place = (resource, action.namespace, action.name, action.patch.field_manager)
            gone = dict.fromkeys(self._applied.get(place, frozenset()).difference(body))
            self._applied[place] = frozenset(body)
            tree = merge_patch.apply(tree, {**body, **gone})
        elif action.patch.type is PatchType.JSON:
            tree = json_patch.apply(tree, body)
        else:
            raise AssertionError(f"unknown patch {action.patch.type}")
        changed = serialization.convert(tree, type(current))
        before = current.metadata
        if (changed.metadata.uid, changed.metadata.resource_version) != (before.uid, before.resource_version):
            raise apierrors.Conflict.of(resource.group_resource, action.name, "it changed")
        return current if changed == current else self._store(changed)

    def _delete(self, action: Delete) -> None:
        current = self.reader(action.resource).get(action.namespace, action.name)
        if current is None or (action.uid is not None and action.uid != current.metadata.uid):
            return
        self.deleted.append(action)
        if current.metadata.finalizers or action.propagation_policy == "Foreground":
            obj = serialization.copy(current)
            obj.metadata.deletion_timestamp = times.format_time(self.now)
            self._store(obj)
        else:
            self._remove(action.resource, action.namespace, action.name)

    def _current(self, resource: Resource[Any], namespace: str, name: str) -> Any:
        current = self.reader(resource).get(namespace, name)
        if current is None:
            raise apierrors.NotFound.of(resource.group_resource, name)
        return current

    def _store(self, obj: Any) -> Any:
        reader = self.reader(type(obj))
        metadata = obj.metadata
        if metadata.deletion_timestamp and not metadata.finalizers and reader.get(metadata.namespace, metadata.name):
            self._remove(resource_of(type(obj)), metadata.namespace, metadata.name)
            return obj
        metadata.resource_version = str(next(self._versions))
        old = reader.cache.put(obj)
        for handler in reader.handlers:
            handler(old, obj)
        return obj

    def _remove(self, resource: Resource[Any], namespace: str, name: str) -> None:
        reader = self.reader(resource)
        old = reader.cache.remove(NamespacedName(namespace, name))
        assert old is not None, f"{resource.plural} {namespace}/{name}"
        for handler in reader.handlers:
            handler(old, None)
