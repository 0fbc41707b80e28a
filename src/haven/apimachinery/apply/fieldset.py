"""Sets of fields, in the very form in which managedFields store them.

A set is a tree: {"f:spec": {"f:ports": {'k:{"port":80}': {".": {}, "f:name": {}}}}}. An empty node is a member of the
set; a node with children is one only if it has "."; the keys are path elements: f: a field, k: a list's item by its
keys, v: by its value, i: by its index. Sets are never changed in place, so they share nodes; children are in
upstream's order wherever this module made them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, Final, TypeAlias

from haven.apimachinery.goformat import quote, show

__all__ = [
    "MEMBER",
    "BadFieldSet",
    "FieldSet",
    "canonical",
    "difference",
    "element_of_key",
    "element_of_keys",
    "element_of_value",
    "element_text",
    "intersection",
    "is_member",
    "members",
    "of_paths",
    "ordered",
    "recursive_difference",
    "union",
]

FieldSet: TypeAlias = dict[str, Any]
MEMBER: Final[FieldSet] = {}
"""The node of a member without children. Shared: never write to it."""

_SAFE = re.compile(r"[^\"\\<>&\x00-\x1f\u2028\u2029]*")


class BadFieldSet(ValueError):
    """The text or tree is not a set of fields."""


def is_member(node: FieldSet) -> bool:
    """Tell whether a node's own path is in the set."""
    return not node or "." in node


def union(one: FieldSet, other: FieldSet) -> FieldSet:
    """Return what is in either set."""
    if not one or not other:
        return one or other
    result = dict(one)
    grown = False
    for element, node in other.items():
        mine = result.get(element)
        if mine is None:
            result[element] = node
            grown = True
        elif mine is not node and element != ".":
            result[element] = _union_nodes(mine, node)
    return ordered(result) if grown else result


def _union_nodes(one: FieldSet, other: FieldSet) -> FieldSet:
    if one == other:
        return one
    if not one or not other:
        filled = one or other
        return filled if "." in filled else {".": MEMBER, **filled}
    return union(one, other)


def difference(one: FieldSet, other: FieldSet) -> FieldSet:
    """Return what is in the first set only. A parent's absence or presence says nothing about its children."""
    if not one or not other:
        return one
    return _filter(one, other, recursive=False)


def recursive_difference(one: FieldSet, other: FieldSet) -> FieldSet:
    """Return the first set without the members of the other and everything below them."""
    if not one or not other:
        return one
    return _filter(one, other, recursive=True)


def _filter(one: FieldSet, other: FieldSet, *, recursive: bool) -> FieldSet:
    result: FieldSet = {}
    for element, node in one.items():
        theirs = other.get(element)
        if theirs is None or element == ".":
            if element != "." or "." not in other:
                result[element] = node
            continue
        gone = not theirs or "." in theirs
        if gone and recursive:
            continue
        if not node:
            if not gone:
                result[element] = node
            continue
        left = _filter(node, theirs, recursive=recursive)
        if "." in node and not gone:
            left = {".": MEMBER, **left} if "." not in left else left
        else:
            left.pop(".", None)
            if not left:
                continue
        result[element] = MEMBER if len(left) == 1 and "." in left else left
    return result


def intersection(one: FieldSet, other: FieldSet) -> FieldSet:
    """Return what is in both sets."""
    result: FieldSet = {}
    for element, node in one.items():
        theirs = other.get(element)
        if theirs is None or element == ".":
            continue
        both = is_member(node) and is_member(theirs)
        inner = intersection(node, theirs) if node and theirs else {}
        if inner:
            result[element] = {".": MEMBER, **inner} if both else inner
        elif both:
            result[element] = MEMBER
    return result


def members(fields: FieldSet) -> Iterator[tuple[str, ...]]:
    """Yield the paths of all members: of each level first the members, then what lies below."""
    yield from _members(fields, ())


def _members(fields: FieldSet, trail: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for element, node in fields.items():
        if element != "." and is_member(node):
            yield (*trail, element)
    for element, node in fields.items():
        if node:
            yield from _members(node, (*trail, element))


def has(fields: FieldSet, path: tuple[str, ...]) -> bool:
    """Tell whether a path is in the set."""
    node = fields
    for element in path:
        found = node.get(element)
        if found is None:
            return False
        node = found
    return is_member(node)


def of_paths(*paths: tuple[str, ...]) -> FieldSet:
    """Return the set of some paths, each given as field names: of_paths(("metadata", "name"), ("status",))."""
    result: FieldSet = {}
    for path in paths:
        result = union(result, _chain([f"f:{name}" for name in path]))
    return result


def of_elements(*paths: tuple[str, ...]) -> FieldSet:
    """Return the set of some paths, each given as elements, as `members` yields them."""
    result: FieldSet = {}
    for path in paths:
        result = union(result, _chain(list(path)))
    return result


def _chain(elements: list[str]) -> FieldSet:
    node: FieldSet = MEMBER
    for element in reversed(elements):
        node = {element: node}
    return node


def ordered(fields: FieldSet) -> FieldSet:
    """Return one level of a set with its children in upstream's order."""
    keys = list(fields)
    inorder = sorted(keys) if all(key[0] in "f." for key in keys) else sorted(keys, key=_order)
    return fields if inorder == keys else {key: fields[key] for key in inorder}


def sort_elements(elements: list[str]) -> list[str]:
    """Return path elements in upstream's order."""
    return sorted(elements, key=_order)


@lru_cache(maxsize=8192)
def _order(element: str) -> tuple[Any, ...]:
    kind, text = element[:2], element[2:]
    if kind == "f:":
        return (1, text)
    if kind == "k:":
        pairs = json.loads(text)
        return (2, tuple((name, _rank(pairs[name])) for name in sorted(pairs)))
    if kind == "v:":
        return (3, _rank(json.loads(text)))
    if kind == "i:":
        return (4, int(text))
    return (0,)


def _rank(value: Any) -> tuple[int, Any]:
    if isinstance(value, bool):
        return (2, value)
    if isinstance(value, int | float):
        return (0, value)
    if isinstance(value, str):
        return (1, value)
    return (3, json.dumps(value, sort_keys=True))


def element_of_keys(pairs: list[tuple[str, Any]]) -> str:
    """Return the element of a list's item by its keys; the pairs are sorted by name."""
    return "k:{" + ",".join(f'"{name}":{_json(value)}' for name, value in pairs) + "}"


def element_of_key(name: str, value: Any) -> str:
    """Return the element of a list's item by its only key."""
    return f'k:{{"{name}":{_json(value)}}}'


def element_of_value(value: Any) -> str:
    """Return the element of a list's scalar item."""
    return "v:" + _json(value)


def _json(value: Any) -> str:
    """JSON as Go's encoder writes it: compact, sorted, with <, > and & escaped."""
    if type(value) is str and _SAFE.fullmatch(value):
        return f'"{value}"'
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e21:
        value = int(value)
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    for char in "<>&\u2028\u2029":
        if char in text:
            text = text.replace(char, f"\\u{ord(char):04x}")
    return text


def element_text(element: str) -> str:
    """Return an element as paths in messages show it: .spec, [port=80,protocol="TCP"], [="x"], [0]."""
    kind, text = element[:2], element[2:]
    if kind == "f:":
        return f".{text}"
    if kind == "k:":
        pairs = json.loads(text)
        return "[" + ",".join(f"{name}={_shown(value)}" for name, value in pairs.items()) + "]"
    if kind == "v:":
        return f"[={_shown(json.loads(text))}]"
    return f"[{text}]"


def _shown(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, dict):
        return "".join(f"{name}={_shown(item)}" for name, item in value.items())
    if isinstance(value, list):
        return f"[{','.join(map(_shown, value))}]"
    return quote(value) if isinstance(value, str) else show(value)


def canonical(fields: Any, *, depth: int = 0) -> FieldSet:
    """Return a set from elsewhere in this module's form; raise BadFieldSet.

    Elements of kinds that a later version may know are dropped, and so are members' contents that are no maps.
    """
    if fields is None:
        return {}
    if not isinstance(fields, dict):
        raise BadFieldSet("a set of fields is a map")
    if depth > 1000:
        raise BadFieldSet("the set of fields is nested too deeply")
    result: FieldSet = {}
    for element, node in fields.items():
        if element == ".":
            if depth:
                result["."] = MEMBER
            continue
        name = _canonical_element(element)
        if name is None:
            continue
        inner = canonical(node, depth=depth + 1)
        result[name] = MEMBER if list(inner) == ["."] else inner
    return ordered(result)


_ELEMENT_READERS: dict[str, Callable[[str], str]] = {
    "f": lambda text: f"f:{text}",
    "i": lambda text: f"i:{int(text)}",
    "v": lambda text: element_of_value(json.loads(text)),
    "k": lambda text: element_of_keys(sorted(json.loads(text).items())),
}


def _canonical_element(element: str) -> str | None:
    if len(element) < 2:
        raise BadFieldSet("key must be 2 characters long:")
    if element[1] != ":":
        raise BadFieldSet(f"missing colon: {element}")
    reader = _ELEMENT_READERS.get(element[0])
    if reader is None:
        return None
    try:
        return reader(element[2:])
    except (ValueError, AttributeError) as error:
        raise BadFieldSet(f"parsing key as path element: {error}") from None
