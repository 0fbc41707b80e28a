"""Trees read with their types: which fields they have, how two differ, what their merge is.

Source: the merge rules of https://kubernetes.io/docs/reference/using-api/server-side-apply/ ; a null counts as an empty
list or map, and two empty ones are compared and merged as one value, which keeps null and empty apart.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from haven.apimachinery.apply.fieldset import (
    MEMBER,
    FieldSet,
    element_of_key,
    element_of_keys,
    element_of_value,
    element_text,
    ordered,
)
from haven.apimachinery.goformat import quote
from haven.apimachinery.schema.model import UNTYPED, Schema, Shape

__all__ = [
    "Comparison",
    "TypeMismatch",
    "alike",
    "compare",
    "field_set",
    "item_element",
    "merge",
    "remove_items",
    "whole",
]


class TypeMismatch(ValueError):
    """A tree does not have the form that its type asks for; the message is upstream's."""

    def __init__(self, message: str, path: str = "") -> None:
        super().__init__(f"{path}: {message}" if path else message)
        self.message = message
        self.path = path

    def under(self, prefix: str) -> TypeMismatch:
        """Return the same complaint, seen from one level higher."""
        return TypeMismatch(self.message, prefix + self.path)


class Comparison(NamedTuple):
    """How the second tree differs; each set is None when it is empty."""

    removed: FieldSet | None
    modified: FieldSet | None
    added: FieldSet | None


SAME = Comparison(None, None, None)
_MODIFIED = Comparison(None, MEMBER, None)


def item_element(item: Any, schema: Schema) -> str:
    """Return the path element of a list's item; raise TypeMismatch."""
    if schema.shape is Shape.SET:
        if type(item) is dict:
            raise TypeMismatch("associative list without keys has an element that's a map type")
        if type(item) is list:
            raise TypeMismatch("not supported: associative list with lists as elements")
        if item is None:
            raise TypeMismatch("associative list without keys has an element that's an explicit null")
        return element_of_value(item)
    if item is None:
        raise TypeMismatch("associative list with keys may not have a null element")
    if type(item) is not dict:
        raise TypeMismatch("associative list with keys may not have non-map elements")
    assert schema.element is not None
    keys = schema.keys
    if len(keys) == 1 and keys[0] in item:  # So it is nearly always.
        return element_of_key(keys[0], item[keys[0]])
    pairs = []
    for key in keys:
        if key in item:
            pairs.append((key, item[key]))
        else:
            field = schema.element.fields.get(key)
            default = None if field is None else field.key_default
            if default is not None:
                pairs.append((key, default))
    if not pairs:
        names = " ".join(quote(key) for key in schema.keys)
        raise TypeMismatch(
            f"associative list with keys has an element that omits all key fields [{names}] "
            "(and doesn't have default values for any key fields)"
        )
    if len(pairs) > 1:
        pairs.sort(key=_first)
    return element_of_keys(pairs)


def _first(pair: tuple[str, Any]) -> str:
    return pair[0]


def elements_of(items: list[Any], schema: Schema) -> list[str]:
    """Return the path elements of a list's items; raise TypeMismatch, which names the item."""
    result = []
    for index, item in enumerate(items):
        try:
            result.append(item_element(item, schema))
        except TypeMismatch as error:
            raise TypeMismatch(f"element {index}: {error.message}") from None
    return result


def child_schema(schema: Schema, name: str) -> Schema:
    """Return the type of a member of a map or struct; anything, if it is not declared."""
    field = schema.fields.get(name)
    if field is not None:
        return field.schema
    return schema.element if schema.element is not None and schema.kind != "list" else UNTYPED


def whole(value: Any, schema: Schema) -> FieldSet:
    """Return the node of a value that appears (or vanishes) as a whole: it and everything in it."""
    shape = schema.shape
    if not value or shape is Shape.LEAF:
        return MEMBER
    if type(value) is dict:
        if shape is Shape.FIELDS or shape is Shape.UNTYPED:
            node: FieldSet = {".": MEMBER}
            for name in sorted(value):
                node[f"f:{name}"] = whole(value[name], child_schema(schema, name))
            return node
        return MEMBER
    if type(value) is list and (shape is Shape.KEYED or shape is Shape.SET):
        assert schema.element is not None
        node = {".": MEMBER}
        for element, item in zip(elements_of(value, schema), value, strict=True):
            node[element] = MEMBER if element in node else whole(item, schema.element)
        return ordered(node) if len(node) > 2 else node
    return MEMBER


def _is_loose(schema: Schema) -> bool:
    """Tell whether values of any kind may be there: in custom resources, and where nothing is declared."""
    return schema.extra is not None or schema.shape is Shape.UNTYPED


def alike(one: Any, other: Any) -> bool:
    """Tell whether two values are the same: numbers by their value, but true is not 1, as it is for Python."""
    return bool(one == other) and (type(one) is str or repr(one) == repr(other) or _kinds_alike(one, other))


def _kinds_alike(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return all(_kinds_alike(one[name], other[name]) for name in one)
    if isinstance(one, list):
        return all(map(_kinds_alike, one, other))
    return (type(one) is bool) == (type(other) is bool)


def compare(old: Any, new: Any, schema: Schema) -> Comparison:
    """Return how the new value differs from the old one; raise TypeMismatch."""
    if old is new or (old == new and (not _is_loose(schema) or alike(old, new))):
        return SAME
    shape = schema.shape
    if shape is Shape.LEAF:
        return _MODIFIED
    if shape is Shape.UNTYPED:
        if type(old) is not dict and type(new) is not dict:
            return _MODIFIED
        differing_kinds = not ((type(old) is dict or old is None) and (type(new) is dict or new is None))
        inner = _compare_maps(old if type(old) is dict else None, new if type(new) is dict else None, schema)
        if differing_kinds:
            modified = inner.modified
            return inner._replace(modified={".": MEMBER, **modified} if modified else MEMBER)
        return inner
    if not old and not new:
        return _MODIFIED
    if shape is Shape.FIELDS:
        return _compare_maps(old, new, schema)
    return _compare_lists(old or [], new or [], schema)


def _compare_maps(old: Any, new: Any, schema: Schema) -> Comparison:
    if not old and not new:
        return SAME if old == new else _MODIFIED
    old, new = old or {}, new or {}
    loose = _is_loose(schema)
    removed: FieldSet = {}
    modified: FieldSet = {}
    added: FieldSet = {}
    for name, value in new.items():
        if name in old:
            before = old[name]
            if before is value or (before == value and (not loose or alike(before, value))):
                continue
            inner = compare(before, value, child_schema(schema, name))
            element = f"f:{name}"
            if inner.removed is not None:
                removed[element] = inner.removed
            if inner.modified is not None:
                modified[element] = inner.modified
            if inner.added is not None:
                added[element] = inner.added
        else:
            added[f"f:{name}"] = whole(value, child_schema(schema, name))
    for name, value in old.items():
        if name not in new:
            removed[f"f:{name}"] = whole(value, child_schema(schema, name))
    return _comparison(removed, modified, added)


def _compare_lists(old: list[Any], new: list[Any], schema: Schema) -> Comparison:
    assert schema.element is not None
    element_schema = schema.element
    before, after = _grouped(old, schema), _grouped(new, schema)
    removed: FieldSet = {}
    modified: FieldSet = {}
    added: FieldSet = {}
    for element, theirs in after.items():
        mine = before.get(element)
        if mine is None:
            added[element] = MEMBER if len(theirs) > 1 else whole(theirs[0], element_schema)
        elif len(mine) > 1 and len(theirs) > 1:
            if not alike(mine, theirs):
                modified[element] = MEMBER
        elif len(mine) > 1:  # Repeated before, single now.
            added[element] = whole(theirs[0], element_schema)
            removed[element] = MEMBER
        elif len(theirs) > 1:  # Repeated now.
            removed[element] = whole(mine[0], element_schema)
            added[element] = MEMBER
        else:
            inner = compare(mine[0], theirs[0], element_schema)
            if inner.removed is not None:
                removed[element] = inner.removed
            if inner.modified is not None:
                modified[element] = inner.modified
            if inner.added is not None:
                added[element] = inner.added
    for element, mine in before.items():
        if element not in after:
            removed[element] = MEMBER if len(mine) > 1 else whole(mine[0], element_schema)
    return _comparison(removed, modified, added)


def _grouped(items: list[Any], schema: Schema) -> dict[str, list[Any]]:
    groups: dict[str, list[Any]] = {}
    for element, item in zip(elements_of(items, schema), items, strict=True):
        groups.setdefault(element, []).append(item)
    return groups


def _comparison(removed: FieldSet, modified: FieldSet, added: FieldSet) -> Comparison:
    if not removed and not modified and not added:
        return SAME
    return Comparison(
        ordered(removed) if removed else None,
        ordered(modified) if modified else None,
        ordered(added) if added else None,
    )


def field_set(tree: Any, schema: Schema) -> FieldSet:
    """Return what a (partial) object mentions: its leaves, its list items, and maps that are empty or undeclared."""
    return _fields(tree, schema) or {}


def _fields(value: Any, schema: Schema) -> FieldSet | None:
    """Return a node, MEMBER for a leaf, None when nothing in the value is a member."""
    shape = schema.shape
    if shape is Shape.LEAF:
        return MEMBER
    if type(value) is dict and shape in (Shape.FIELDS, Shape.UNTYPED):
        node: FieldSet = {}
        for name in sorted(value):
            item = value[name]
            inner = _fields(item, child_schema(schema, name))
            if item is None or item == {} or name not in schema.fields:
                inner = _with_member(inner)
            if inner is not None:
                node[f"f:{name}"] = inner
        return node or None
    if type(value) is list and shape in (Shape.KEYED, Shape.SET):
        assert schema.element is not None
        node = {}
        for element, items in _grouped(value, schema).items():
            node[element] = MEMBER if len(items) > 1 else _with_member(_fields(items[0], schema.element))
        return ordered(node) or None
    if value is None:
        return None
    return MEMBER


def _with_member(node: FieldSet | None) -> FieldSet:
    if not node:
        return MEMBER
    return node if "." in node else {".": MEMBER, **node}


def merge(live: Any, applied: Any, schema: Schema) -> Any:
    """Return the live value with the applied one merged in; lists keep the applied order where it speaks.

    Neither input changes; the result shares what stayed as it was. Raise TypeMismatch.
    """
    shape = schema.shape
    if shape is Shape.LEAF:
        return applied
    if shape is Shape.UNTYPED:
        if type(applied) is dict and type(live) is dict:
            return _merge_maps(live, applied, schema)
        return live if applied is None and type(live) is dict and live else applied
    if not applied:
        return live if live else applied
    if shape is Shape.FIELDS:
        return _merge_maps(live, applied, schema) if live else applied
    return _merge_lists(live or [], applied, schema)


def _merge_maps(live: dict[str, Any], applied: dict[str, Any], schema: Schema) -> dict[str, Any]:
    if not applied:
        return live if live else applied
    result = dict(live)
    for name, value in applied.items():
        result[name] = merge(live[name], value, child_schema(schema, name)) if name in live else value
    return result


def _merge_lists(live: list[Any], applied: list[Any], schema: Schema) -> list[Any]:
    assert schema.element is not None
    applied_elements = elements_of(applied, schema)
    theirs: dict[str, Any] = {}
    for element, item in zip(applied_elements, applied, strict=True):
        if element in theirs:
            raise TypeMismatch(f"duplicate entries for key {element_text(element)}")
        theirs[element] = item
    live_elements = elements_of(live, schema)
    mine: dict[str, Any] = {}
    for element, item in zip(live_elements, live, strict=True):
        mine[element] = None if element in mine else item  # Repeated items do not take part in the merge.
    shared = iter([element for element in applied_elements if element in mine])
    next_shared = next(shared, None)
    merged: set[str] = set()
    result: list[Any] = []

    def take(element: str) -> None:
        merged.add(element)
        before = mine.get(element)
        result.append(theirs[element] if before is None else merge(before, theirs[element], schema.element or UNTYPED))

    left = right = 0
    while left < len(live_elements) or right < len(applied_elements):
        if left < len(live_elements) and right < len(applied_elements):
            element = live_elements[left]
            if element == applied_elements[right]:
                take(element)
                left += 1
                right += 1
                next_shared = next(shared, None)
                continue
            if element in theirs and next_shared is not None and next_shared != element:
                left += 1  # It comes at another place of the applied order.
                continue
        if left < len(live_elements):
            element = live_elements[left]
            if element not in theirs:
                result.append(live[left])
                left += 1
                continue
            if element in merged:
                left += 1
        if right < len(applied_elements):
            element = applied_elements[right]
            take(element)
            right += 1
            if next_shared == element:
                next_shared = next(shared, None)
    return result


_GONE: Any = object()


def remove_items(tree: Any, fields: FieldSet, schema: Schema) -> Any:
    """Return the tree without the fields and items that a set names; containers that this empties stay, empty."""
    result = _remove(tree, fields, schema)
    return tree if result is _GONE else result


def _remove(value: Any, fields: FieldSet, schema: Schema) -> Any:
    """Return the value without some of its parts; _GONE where upstream's walk comes back with nothing."""
    shape = schema.shape
    if shape is Shape.LEAF:
        return _GONE if schema.atomic or schema.kind == "list" else value
    if type(value) is dict and shape in (Shape.FIELDS, Shape.UNTYPED):
        if not value:
            return _GONE
        result: dict[str, Any] = {}
        matched = False
        for name, item in value.items():
            node = fields.get(f"f:{name}")
            if node is None:
                result[name] = item
            elif not node or "." in node:
                continue
            else:
                matched = True
                result[name] = _removed_within(item, node, child_schema(schema, name))
        return result if result or matched else _GONE
    if type(value) is list and shape in (Shape.KEYED, Shape.SET):
        if not value:
            return _GONE
        assert schema.element is not None
        kept: list[Any] = []
        matched = False
        for item in value:
            node = fields.get(item_element(item, schema))
            if node is None:
                kept.append(item)
            elif not node or "." in node:
                continue
            else:
                matched = True
                kept.append(_removed_within(item, node, schema.element))
        return kept if kept or matched else _GONE
    return value if type(value) is not list else _GONE


def _removed_within(item: Any, node: FieldSet, schema: Schema) -> Any:
    result = _remove(item, node, schema)
    if result is _GONE:
        return {} if type(item) is dict else [] if type(item) is list else None
    return result


def ensure_named(fields: FieldSet, schema: Schema | None) -> FieldSet:
    """Return the set with every declared field that has children in it made a member too."""
    result: FieldSet = {}
    for element, node in fields.items():
        if not node:
            result[element] = node
            continue
        inner: Schema | None = None
        named = False
        if schema is not None and schema.kind != "list" and element.startswith("f:"):
            name = element[2:]
            named = name in schema.fields
            if schema.shape is Shape.UNTYPED:
                inner = UNTYPED
            else:
                inner = schema.child(name)
        elif schema is not None and schema.kind == "list" and element.startswith("k:"):
            inner = schema.element
        below = ensure_named(node, inner)
        result[element] = {".": MEMBER, **below} if named and "." not in below else below
    return result


def reconcile(fields: FieldSet, schema: Schema | None) -> FieldSet:
    """Return the set after a change of types: what is atomic now is owned as one."""
    if not fields or schema is None or schema.shape is Shape.UNTYPED:
        return fields
    result: FieldSet = {}
    changed = False
    for element, node in fields.items():
        inner: Schema | None = None
        if element.startswith("f:") and schema.kind != "list":
            inner = schema.child(element[2:])
        elif element.startswith(("k:", "v:")) and schema.kind == "list":
            inner = schema.element
        if node and inner is not None:
            atomic = inner.kind in ("struct", "map", "list") and inner.shape is Shape.LEAF
            after = MEMBER if atomic else reconcile(node, inner)
            changed = changed or after is not node
            node = after
        result[element] = node
    return result if changed else fields
