"""The latest objects of a resource by name, with indexes: the pure half of an informer.

Objects are kept as they came and never changed. Invariants: every object is in every index under each of the values
that its index function gives; a namespace without objects is not held.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar, cast

from haven.apimachinery import meta
from haven.apimachinery.names import NamespacedName

__all__ = [
    "IndexFunction",
    "ObjectCache",
    "by_controller_uid",
    "by_label",
    "by_node_name",
    "by_owner_uid",
    "key_of",
    "metadata_of",
    "version_of",
]

T = TypeVar("T")

IndexFunction = Callable[[T], Iterable[str]]
"""The values under which an index holds an object; none leaves it out."""


def metadata_of(obj: object) -> meta.ObjectMeta:
    """Return the metadata that every API object has."""
    return cast("meta.ObjectMeta", cast("Any", obj).metadata)


def key_of(obj: object) -> NamespacedName:
    """Return an object's place."""
    metadata = metadata_of(obj)
    return NamespacedName(metadata.namespace, metadata.name)


def version_of(resource_version: str) -> int:
    """Return a resource version as a number: since v1.35 upstream promises that they can be compared; "" is 0."""
    return int(resource_version) if resource_version.isdecimal() else 0


def by_owner_uid(obj: object) -> Iterable[str]:
    """Index by each owner."""
    return [reference.uid for reference in metadata_of(obj).owner_references]


def by_controller_uid(obj: object) -> Iterable[str]:
    """Index by the owner that controls the object."""
    return [reference.uid for reference in metadata_of(obj).owner_references if reference.controller]


def by_label(name: str) -> IndexFunction[object]:
    """Return an index by the value of a label."""

    def index(obj: object) -> Iterable[str]:
        labels = metadata_of(obj).labels
        return (labels[name],) if name in labels else ()

    return index


def by_node_name(pod: object) -> Iterable[str]:
    """Index pods by the node that they are bound to; "" holds those that are bound to none."""
    return (cast("Any", pod).spec.node_name,)


class ObjectCache(Generic[T]):
    """Objects by namespace and name. Not synchronised: one owner changes it, on one event loop."""

    def __init__(self, indexes: Mapping[str, IndexFunction[T]] | None = None) -> None:
        self._by_namespace: dict[str, dict[str, T]] = {}
        self._functions: dict[str, IndexFunction[T]] = dict(indexes or {})
        self._indexes: dict[str, dict[str, dict[NamespacedName, T]]] = {name: {} for name in self._functions}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[T]:
        for objects in self._by_namespace.values():
            yield from objects.values()

    def get(self, key: NamespacedName) -> T | None:
        """Return the object at a place, None if there is none."""
        objects = self._by_namespace.get(key.namespace)
        return None if objects is None else objects.get(key.name)

    def list(self, namespace: str = "") -> Sequence[T]:
        """Return the objects of a namespace, or all when it is ""; in the order in which they came."""
        if namespace:
            return list(self._by_namespace.get(namespace, {}).values())
        return list(self)

    def places(self) -> Sequence[NamespacedName]:
        """Return every object's place."""
        return [NamespacedName(ns, name) for ns, objects in self._by_namespace.items() for name in objects]

    def indexed(self, index: str, value: str) -> Collection[T]:
        """Return the objects that an index holds under a value, in the order in which they came there."""
        found = self._indexes[index].get(value)
        return tuple(found.values()) if found else ()

    def index_values(self, index: str) -> Sequence[str]:
        """Return the values under which an index holds anything."""
        return list(self._indexes[index])

    def has_index(self, index: str) -> bool:
        """Tell whether there is an index of this name."""
        return index in self._indexes

    def add_index(self, index: str, function: IndexFunction[T]) -> None:
        """Add an index over what is there and what will come. The same name again must mean the same."""
        if index in self._functions:
            return
        self._functions[index] = function
        self._indexes[index] = {}
        for obj in self:
            self._enter(index, key_of(obj), obj)

    def put(self, obj: T) -> T | None:
        """Hold an object in place of what was there; return that."""
        key = key_of(obj)
        objects = self._by_namespace.setdefault(key.namespace, {})
        old = objects.get(key.name)
        objects[key.name] = obj
        if old is None:
            self._count += 1
        for index, function in self._functions.items():
            before = tuple(function(old)) if old is not None else ()
            after = tuple(function(obj))
            for value in before:
                if value not in after:
                    self._leave(index, value, key)
            for value in after:
                self._indexes[index].setdefault(value, {})[key] = obj
        return old

    def remove(self, key: NamespacedName) -> T | None:
        """Drop the object at a place; return it."""
        objects = self._by_namespace.get(key.namespace)
        old = objects.pop(key.name, None) if objects is not None else None
        if objects is None or old is None:
            return None
        if not objects:
            del self._by_namespace[key.namespace]
        self._count -= 1
        for index, function in self._functions.items():
            for value in function(old):
                self._leave(index, value, key)
        return old

    def check(self) -> None:
        """Assert every invariant; for tests and simulations."""
        assert self._count == sum(1 for _ in self), "count"
        for index, function in self._functions.items():
            expected: dict[str, dict[NamespacedName, T]] = {}
            for obj in self:
                for value in function(obj):
                    expected.setdefault(value, {})[key_of(obj)] = obj
            assert expected == self._indexes[index], index

    def _enter(self, index: str, key: NamespacedName, obj: T) -> None:
        for value in self._functions[index](obj):
            self._indexes[index].setdefault(value, {})[key] = obj

    def _leave(self, index: str, value: str, key: NamespacedName) -> None:
        entries = self._indexes[index].get(value)
        if entries is not None:
            entries.pop(key, None)
            if not entries:
                del self._indexes[index][value]
