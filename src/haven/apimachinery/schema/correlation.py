"""Which old value stands at the place of a new one, when an object is updated.

Items of lists can only be told apart by their keys; everything else is found by its name. What did not change may go
on breaking rules that came later.
Source: https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#validation-ratcheting
"""

from __future__ import annotations

from collections.abc import Mapping
from time import perf_counter
from typing import Any

__all__ = ["Correlation", "by_keys", "item_key", "same"]

OpenAPI = Mapping[str, Any]


def item_key(item: Any, names: tuple[str, ...]) -> tuple[Any, ...] | None:
    """Return what tells an item of a keyed list from the others; None if a key is missing, or no scalar."""
    if not isinstance(item, dict):
        return None
    values = [item.get(name) for name in names]
    if not all(isinstance(value, str | int | float) for value in values):
        return None
    return tuple((type(value), value) for value in values)


def by_keys(items: list[Any], schema: OpenAPI) -> dict[tuple[Any, ...], Any]:
    """Return the items of a keyed list by their keys; the first one of equal ones counts."""
    names = tuple(schema.get("x-kubernetes-list-map-keys") or ())
    result: dict[tuple[Any, ...], Any] = {}
    for item in items:
        key = item_key(item, names)
        if key is not None:
            result.setdefault(key, item)
    return result


class Spent:
    """How long values were compared that belong to one object."""

    __slots__ = ("is_running", "seconds")

    def __init__(self) -> None:
        self.seconds = 0.0
        self.is_running = False


class Correlation:
    """A new value, the old one at the same place, and the schema of both."""

    __slots__ = ("_children", "_equal", "_old_items", "new", "old", "schema", "spent")

    def __init__(self, new: Any, old: Any, schema: OpenAPI, spent: Spent | None = None) -> None:
        self.spent = spent or Spent()
        self.new = new
        self.old = old
        self.schema = schema
        self._equal: bool | None = None
        self._children: dict[str | int, Correlation | None] = {}
        self._old_items: dict[tuple[Any, ...], Any] | None = None

    @property
    def unchanged(self) -> bool:
        """Whether both values are the same, as far as the schema tells their parts: undeclared fields never are."""
        if self._equal is None:
            spent = self.spent
            if spent.is_running:
                self._equal = self._is_unchanged()
            else:
                began, spent.is_running = perf_counter(), True
                self._equal = self._is_unchanged()
                spent.seconds += perf_counter() - began
                spent.is_running = False
        return self._equal

    def _is_unchanged(self) -> bool:
        new, old = self.new, self.old
        if isinstance(new, dict) and isinstance(old, dict):
            return len(new) == len(old) and all(
                (child := self.key(name)) is not None and child.unchanged for name in new
            )
        if isinstance(new, list) and isinstance(old, list) and self._is_keyed:
            return len(new) == len(old) and all(
                (child := self.index(index)) is not None and child.unchanged for index in range(len(new))
            )
        return same(new, old)

    @property
    def _is_keyed(self) -> bool:
        return self.schema.get("x-kubernetes-list-type") == "map"

    def key(self, name: str) -> Correlation | None:
        """Return the values of a field; None if it was not there before, or is not declared."""
        if name not in self._children:
            self._children[name] = self._key(name)
        return self._children[name]

    def _key(self, name: str) -> Correlation | None:
        if not (isinstance(self.new, dict) and isinstance(self.old, dict)):
            return None
        if name not in self.new or name not in self.old:
            return None
        schema = (self.schema.get("properties") or {}).get(name)
        if schema is None:
            schema = self.schema.get("additionalProperties")
        return Correlation(self.new[name], self.old[name], schema, self.spent) if isinstance(schema, dict) else None

    def index(self, index: int) -> Correlation | None:
        """Return the values of an item of a keyed list; None in other lists, or if the item is new."""
        if index not in self._children:
            self._children[index] = self._index(index)
        return self._children[index]

    def _index(self, index: int) -> Correlation | None:
        if not (isinstance(self.new, list) and isinstance(self.old, list)) or index >= len(self.new):
            return None
        items = self.schema.get("items")
        if not self._is_keyed or not isinstance(items, dict):
            return None
        if self._old_items is None:
            self._old_items = by_keys(self.old, self.schema)
        key = item_key(self.new[index], tuple(self.schema.get("x-kubernetes-list-map-keys") or ()))
        old = self._old_items.get(key) if key is not None else None
        return None if old is None else Correlation(self.new[index], old, items, self.spent)


def same(one: Any, other: Any) -> bool:
    """Tell whether two trees are equal, as Go sees it: true is not 1."""
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list):
        return isinstance(other, list) and len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and bool(one == other)
