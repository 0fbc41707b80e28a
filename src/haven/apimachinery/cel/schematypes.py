"""Types for expressions, and views of trees, from the schemas of resources.

`declared` reads a structural or OpenAPI v3 schema (plain JSON) into a `Declared`: its type for the checker, the
largest size it can have in one request for the cost estimate, and `value`, which shows a tree through the schema.
Views convert only what an expression looks at. A schema's properties are named escaped (escaping.py).

Source: https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#field-types,
#cost-estimation
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from haven.apimachinery.cel import types, values
from haven.apimachinery.cel.conversions import parse_duration, parse_timestamp, zone_offset
from haven.apimachinery.cel.errors import CelError
from haven.apimachinery.cel.escaping import RESERVED, escape, unescape
from haven.apimachinery.cel.types import Type

__all__ = ["MAX_REQUEST_BYTES", "Declared", "ObjectTypes", "declared", "with_metadata"]

MAX_REQUEST_BYTES: Final = 3 * 1024 * 1024
_MAX_TIME: Final = 32
_DATE: Final = 12
_UNBOUNDED: Final = (1 << 63) - 1
Tree = dict[str, Any]


class Declared:
    """A schema as expressions see it.

    `max_elements` is the most elements, properties or characters, `min_size` the fewest bytes it has in JSON. `value`
    shows a tree through it.
    """

    __slots__ = ("element", "fields", "key", "max_elements", "min_size", "required", "type", "value")

    def __init__(
        self,
        type_: Type,
        *,
        min_size: int,
        max_elements: int = 0,
        fields: dict[str, Declared] | None = None,
        key: Declared | None = None,
        element: Declared | None = None,
        required: frozenset[str] = frozenset(),
        value: Callable[[Any], Any] = lambda tree: tree,
    ) -> None:
        self.type = type_
        self.min_size = min_size
        self.max_elements = max_elements
        self.fields = fields
        self.key = key
        self.element = element
        self.required = required
        self.value = value

    @property
    def max_cardinality(self) -> int:
        """How often at most such a value can be in one request, separators included."""
        return MAX_REQUEST_BYTES // (self.min_size + 1)

    def size(self, path: Sequence[str]) -> int | None:
        """Return the largest size of what is at a path below (path[0] is the variable this type belongs to)."""
        node: Declared | None = self
        for name in path[1:]:
            assert node is not None
            if name in ("@items", "@values"):
                node = node.element
            elif name == "@keys":
                node = node.key
            else:
                node = (node.fields or {}).get(name)
            if node is None:
                return None
        assert node is not None
        return node.max_elements


class ObjectTypes:
    """Finds the objects within declared types by name; the checker's provider."""

    def __init__(self, roots: Iterable[Declared] = (), *, keywords_as_fields: bool = False) -> None:
        self._objects: dict[str, Declared] = {}
        self._keywords_as_fields = keywords_as_fields
        for root in roots:
            self.add(root)

    def add(self, root: Declared) -> None:
        if root.fields is not None:
            known = self._objects.get(root.type.name)
            if known is root:
                return
            self._objects[root.type.name] = root
            for field in root.fields.values():
                self.add(field)
        elif root.element is not None:
            self.add(root.element)

    def object_type(self, name: str) -> Type | None:
        found = self._objects.get(name)
        return found.type if found is not None else None

    def can_make(self, name: str) -> bool:
        """Tell whether expressions may create such objects: schemas describe objects that are there already."""
        return False

    def field_type(self, name: str, field: str) -> Type | None:
        fields = self._objects[name].fields or {}
        found = fields.get(field)
        if found is None and self._keywords_as_fields and field in RESERVED:
            found = fields.get(f"__{field}__")
        return found.type if found is not None else None


def declared(schema: Tree, name: str, *, is_root: bool = False) -> Declared | None:
    """Return the type a schema declares, its objects called `name`, `name.field`, …; None for what expressions can
    not see.

    `is_root` is for a whole resource: apiVersion, kind and metadata's name and generateName are there without being
    declared.
    """
    if schema.get("x-kubernetes-int-or-string") or schema.get("format") == "int-or-string":
        length = schema.get("maxLength")
        size = _characters(length) if length is not None else MAX_REQUEST_BYTES - 2
        return Declared(types.DYN, min_size=1, max_elements=size, value=_nullable(schema, _int_or_string))
    if is_root:
        schema = with_metadata(schema)
    kind = schema.get("type", "")
    if kind == "array":
        return _list(schema, name)
    if kind == "object":
        return _object(schema, name)
    if kind == "string":
        return _string(schema)
    plain = _PLAIN.get(kind)
    if plain is not None:
        type_, min_size, value = plain
        return Declared(type_, min_size=min_size, value=_nullable(schema, value))
    return None


def _characters(max_length: int) -> int:
    # A character may take four bytes.
    return max(int(max_length), 0) * 4


def with_metadata(schema: Tree) -> Tree:
    """Return the schema of a whole resource as expressions see it."""
    properties = schema.get("properties") or {}
    metadata = (properties.get("metadata") or {}).get("properties") or {}
    known = all((properties.get(field) or {}).get("type") == "string" for field in ("kind", "apiVersion"))
    if known and all((metadata.get(field) or {}).get("type") == "string" for field in ("name", "generateName")):
        return schema
    text = {"type": "string"}
    described = {"type": "object", "properties": {"name": text, "generateName": text}}
    return {**schema, "properties": {**properties, "kind": text, "apiVersion": text, "metadata": described}}


def _list(schema: Tree, name: str) -> Declared | None:
    items = schema.get("items")
    if not isinstance(items, dict):
        return None
    element = declared(items, f"{name}.@idx", is_root=bool(items.get("x-kubernetes-embedded-resource")))
    if element is None:
        return None
    most = schema.get("maxItems")
    size = max(int(most), 0) if most is not None else (MAX_REQUEST_BYTES - 2) // (element.min_size + 1)
    list_kind = schema.get("x-kubernetes-list-type") or "atomic"
    keys = tuple(escape(key) or key for key in schema.get("x-kubernetes-list-map-keys") or ())

    def value(tree: Any) -> Any:
        if not isinstance(tree, list):
            raise CelError("invalid data, expected an array for the provided schema with type=array")
        if list_kind == "map":
            return _KeyedList(tree, element, keys)
        if list_kind == "set":
            return _SetList(tree, element)
        return _List(tree, element)

    type_ = types.list_type(element.type)
    return Declared(type_, min_size=2, max_elements=size, element=element, value=_nullable(schema, value))


def _object(schema: Tree, name: str) -> Declared | None:
    additional = schema.get("additionalProperties")
    if isinstance(additional, dict):
        element = declared(additional, f"{name}.@elem", is_root=bool(additional.get("x-kubernetes-embedded-resource")))
        if element is None:
            return None
        most = schema.get("maxProperties")
        size = max(int(most), 0) if most is not None else (MAX_REQUEST_BYTES - 2) // (element.min_size + 6)
        type_ = types.map_type(types.STRING, element.type)
        return Declared(
            type_, min_size=2, max_elements=size, key=_KEY, element=element,
            value=_nullable(schema, lambda tree: _Map(_mapping(tree), element)),
        )  # fmt: skip
    required = frozenset(schema.get("required") or ())
    fields: dict[str, Declared] = {}
    by_property: dict[str, Declared] = {}
    min_size = 2
    for prop, sub in (schema.get("properties") or {}).items():
        escaped = escape(prop)
        field = declared(sub, f"{name}.{escaped or prop}", is_root=bool(sub.get("x-kubernetes-embedded-resource")))
        if field is None:
            if sub.get("x-kubernetes-preserve-unknown-fields"):
                by_property[prop] = _PRESERVED
            continue
        by_property[prop] = field
        if escaped is not None:
            fields[escaped] = field
        if prop in required and sub.get("default") is None:
            min_size += len(prop) + field.min_size + 4
    return Declared(
        types.object_type(name), min_size=min_size, fields=fields, required=required,
        value=_nullable(schema, lambda tree: _Object(_mapping(tree), by_property)),
    )  # fmt: skip


def _mapping(tree: Any) -> Tree:
    if not isinstance(tree, dict):
        raise CelError("invalid data, expected a map for the provided schema with type=object")
    return tree


def _string(schema: Tree) -> Declared:
    format_ = schema.get("format") or ""
    length = schema.get("maxLength")
    if format_ == "byte":
        size = max(int(length), 0) if length is not None else MAX_REQUEST_BYTES - 2
        return Declared(types.BYTES, min_size=2, max_elements=size, value=_nullable(schema, _bytes))
    if format_ == "duration":
        return Declared(types.DURATION, min_size=3, max_elements=_MAX_TIME, value=_nullable(schema, _duration))
    if format_ == "date":
        return Declared(types.TIMESTAMP, min_size=_DATE, max_elements=_DATE, value=_nullable(schema, _date))
    if format_ == "date-time":
        return Declared(types.TIMESTAMP, min_size=21, max_elements=_MAX_TIME, value=_nullable(schema, _date_time))
    if length is not None:
        size = _characters(length)
    elif schema.get("enum"):
        size = max((len(item.encode()) for item in schema["enum"] if isinstance(item, str)), default=0)
    else:
        size = MAX_REQUEST_BYTES - 2
    return Declared(types.STRING, min_size=2, max_elements=size, value=_nullable(schema, _text))


# --- values


def _nullable(schema: Tree, value: Callable[[Any], Any]) -> Callable[[Any], Any]:
    nullable = bool(schema.get("nullable"))

    def through(tree: Any) -> Any:
        if tree is None:
            if nullable:
                return None
            raise CelError("invalid data, got null for schema with nullable=false")
        return value(tree)

    return through


_GO_TYPES: Final[dict[type, str]] = {
    str: "string", bool: "bool", int: "int64", float: "float64", dict: "map[string]interface {}",
    list: "[]interface {}",
}  # fmt: skip


def _unexpected(expected: str, tree: Any) -> CelError:
    return CelError(f"invalid data, expected {expected}, got {_GO_TYPES.get(type(tree), type(tree).__name__)}")


def _int_or_string(tree: Any) -> Any:
    if type(tree) in (str, int):
        return tree
    raise CelError("invalid data, expected XIntOrString value to be either a string or integer")


def _text(tree: Any) -> Any:
    if isinstance(tree, str):
        return tree
    raise _unexpected("string", tree)


def _integer(tree: Any) -> Any:
    if type(tree) is int:
        return tree
    raise _unexpected("int", tree)


def _number(tree: Any) -> Any:
    if type(tree) in (int, float):
        return float(tree)
    raise _unexpected("float", tree)


def _boolean(tree: Any) -> Any:
    if isinstance(tree, bool):
        return tree
    raise _unexpected("bool", tree)


def _bytes(tree: Any) -> Any:
    text = _text(tree)
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise CelError(f"Invalid byte formatted string {text}: illegal base64 data") from None


_SIMPLE_DURATION: Final = re.compile(r"\s*(\d+)\s*([A-Za-zµμ]+)\s*", re.ASCII)
_LONG_UNITS: Final = {
    "nanosecond": 1, "microsecond": 1000, "millisecond": 1_000_000, "second": values.SECOND, "sec": values.SECOND,
    "minute": 60 * values.SECOND, "min": 60 * values.SECOND, "hour": 3600 * values.SECOND, "hr": 3600 * values.SECOND,
    "day": 86400 * values.SECOND, "d": 86400 * values.SECOND, "week": 604800 * values.SECOND,
    "w": 604800 * values.SECOND,
    "wk": 604800 * values.SECOND,
}  # fmt: skip


def _duration(tree: Any) -> Any:
    text = _text(tree)
    nanoseconds = parse_duration(text)
    if nanoseconds is None:
        match = _SIMPLE_DURATION.fullmatch(text)
        unit = match.group(2).lower() if match is not None else ""
        factor = _LONG_UNITS.get(unit) or _LONG_UNITS.get(unit.removesuffix("s"))
        if match is None or factor is None:
            raise CelError(f"Invalid duration {text}: time: invalid duration {values.show(text)!r}")
        nanoseconds = int(match.group(1)) * factor
    return values.Duration(nanoseconds)


def _date(tree: Any) -> Any:
    text = _text(tree)
    nanoseconds = parse_timestamp(f"{text}T00:00:00Z")
    if nanoseconds is None:
        raise CelError(
            f'Invalid date formatted string {text}: parsing time "{text}" as "2006-01-02": '
            f'cannot parse "{text}" as "2006"'
        )
    return values.Timestamp(nanoseconds)


def _date_time(tree: Any) -> Any:
    text = _text(tree)
    written = text.replace("t", "T").replace("z", "Z").replace(" ", "T")
    nanoseconds = parse_timestamp(written)
    if nanoseconds is None:
        raise CelError(
            f'Invalid date-time formatted string {text}: parsing time "{text}" as "2006-01-02T15:04:05Z07:00"'
        )
    return values.Timestamp(nanoseconds, zone_offset(written))


_PLAIN: Final[dict[str, tuple[Type, int, Callable[[Any], Any]]]] = {
    "boolean": (types.BOOL, 4, _boolean),
    "number": (types.DOUBLE, 1, _number),
    "integer": (types.INT, 1, _integer),
}
_KEY: Final = Declared(types.STRING, min_size=2)
_PRESERVED: Final = Declared(types.DYN, min_size=1)


class _List(values.ListView):
    __slots__ = ("_element", "_items")

    def __init__(self, items: list[Any], element: Declared) -> None:
        self._items = items
        self._element = element

    def __len__(self) -> int:
        return len(self._items)

    def at(self, index: int) -> Any:
        return self._element.value(self._items[index])

    def __iter__(self) -> Iterator[Any]:
        return map(self._element.value, self._items)

    def native(self) -> list[Any]:
        return self._items

    def differs(self, other: Any) -> bool:
        raise values.no_overload(other)

    def _joined(self, items: list[Any]) -> values.ListView:
        return _List(items, self._element)

    def plus(self, other: Any) -> Any:
        return self._joined([*self._items, *_natives(other)])


def _natives(items: Any) -> list[Any]:
    return [_native(item) for item in (items.native() if isinstance(items, values.ListView) else items)]


def _native(value: Any) -> Any:
    return value.native() if isinstance(value, values.ListView | values.MapView) else value


class _SetList(_List):
    """A list whose order says nothing."""

    __slots__ = ()

    def equals(self, other: Any) -> bool:
        if len(self) != len(other):
            return False
        # As upstream has it: what is written is looked up by what rules see, so that times are in no set, and numbers
        # only if they are written with a fraction.
        mine = {(type(item), item) for item in self._items if isinstance(item, str | int | float)}
        return all(isinstance(item, str | int | float) and (type(item), item) in mine for item in other)

    def _joined(self, items: list[Any]) -> values.ListView:
        return _SetList(items, self._element)

    def plus(self, other: Any) -> Any:
        added = [item for item in _natives(other) if item not in self._items]
        return self._joined([*self._items, *added])


class _KeyedList(_List):
    """A list of objects told apart by keys; order says nothing."""

    __slots__ = ("_keys",)

    def __init__(self, items: list[Any], element: Declared, keys: tuple[str, ...]) -> None:
        super().__init__(items, element)
        self._keys = keys

    def _key_of(self, item: Any) -> str:
        if not isinstance(item, dict):
            raise CelError("unexpected data format for element of array with x-kubernetes-list-type=map")
        # As text with its kind: Python takes True for 1.
        return repr([item.get(key) for key in self._keys])

    def equals(self, other: Any) -> bool:
        if len(self) != len(other):
            return False
        mine = {self._key_of(item): item for item in self._items}
        for item in other:
            found = mine.get(self._key_of(_native(item)), _MISSING)
            if found is _MISSING or not values.equal(self._element.value(found), item):
                return False
        return True

    def plus(self, other: Any) -> Any:
        items = list(self._items)
        places = {self._key_of(item): index for index, item in enumerate(items)}
        for item in _natives(other):
            place = places.get(self._key_of(item))
            if place is None:
                items.append(item)
            else:
                items[place] = item
        return _KeyedList(items, self._element, self._keys)


_MISSING: Final = object()


class _Map(values.MapView):
    __slots__ = ("_element", "_tree")

    def __init__(self, tree: Tree, element: Declared) -> None:
        self._tree = tree
        self._element = element

    def differs(self, other: Any) -> bool:
        raise values.no_overload(other)

    def __len__(self) -> int:
        return len(self._tree)

    def find(self, key: Any) -> tuple[bool, Any]:
        if not isinstance(key, str):
            raise values.no_overload(key)
        value = self._tree.get(key, _MISSING)
        return (False, None) if value is _MISSING else (True, self._element.value(value))

    def keys(self) -> Iterator[Any]:
        return iter(self._tree)

    def native(self) -> Tree:
        return self._tree


class _Object(values.MapView):
    """An object with declared properties; others are kept, but not to be seen."""

    __slots__ = ("_properties", "_tree")

    def __init__(self, tree: Tree, properties: Mapping[str, Declared]) -> None:
        self._tree = tree
        self._properties = properties

    def differs(self, other: Any) -> bool:
        raise values.no_overload(other)

    def __len__(self) -> int:
        return len(self._tree)

    def find(self, key: Any) -> tuple[bool, Any]:
        if not isinstance(key, str):
            raise values.no_overload(key)
        name = unescape(key) if "__" in key else key
        if name is None:
            return False, None
        value = self._tree.get(name)
        if value is None:
            return False, None
        declared_ = self._properties.get(name)
        return (False, None) if declared_ is None else (True, declared_.value(value))

    def keys(self) -> Iterator[Any]:
        return (escape(name) or name for name in self._tree if name in self._properties)

    def native(self) -> Tree:
        return self._tree

    def equals(self, other: Any) -> bool:
        if len(self) != len(other):
            return False
        for name, value in self._tree.items():
            if name in self._properties:
                found, mine = self.find(escape(name) or name)
                other_found, theirs = values.find(other, escape(name) or name)
                if found != other_found or (found and not values.equal(mine, theirs)):
                    return False
            elif isinstance(other, _Object) and name in other._tree and other._tree[name] != value:
                return False
        return True
