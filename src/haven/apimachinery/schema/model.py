"""The one description of a type that every walk over trees reads, for built-in and custom resources alike.

A Schema is immutable once it is compiled. Built-in ones come from the facts, by definition; those of custom resources
from their OpenAPI v3 schema (schema.structural). Compiling follows references, so a graph is complete when it is seen.
"""

from __future__ import annotations

from enum import IntEnum
from functools import cache
from typing import Any, Final

from haven.apimachinery import facts

__all__ = ["ABSENT", "UNTYPED", "Field", "Schema", "Shape", "schema_for", "schema_named"]

ABSENT: Final = object()
"""What `Field.zero` is where Go leaves the field out."""

_NULL_WHEN_ZERO = {"list", "map", "bytes", "raw", "time", "micro_time", "schema_or_array", "schema_or_strings"}
_ZEROS: dict[str, Any] = {
    "string": "", "bool": False, "float64": 0, "quantity": "0", "int_or_string": 0, "duration": "0s",
    "schema_or_bool": False,
}  # fmt: skip


class Shape(IntEnum):
    """How ownership and merging see a value."""

    LEAF = 0  # Scalars, and lists and maps that change as one.
    FIELDS = 1  # Structs and maps, owned field by field.
    KEYED = 2  # Lists of objects with keys.
    SET = 3  # Lists of scalars, each its own key.
    UNTYPED = 4  # Anything: maps are owned field by field, the rest as one.


class Field:
    """One named field of a struct."""

    __slots__ = ("always", "default", "embedded", "merge_key", "name", "pointer", "required", "schema", "strategies")

    def __init__(
        self,
        name: str,
        schema: Schema,
        *,
        pointer: bool = False,
        always: bool = False,
        required: bool = False,
        strategies: tuple[str, ...] = (),
        merge_key: str = "",
        embedded: str = "",
        default: Any = None,
    ) -> None:
        self.name = name
        self.schema = schema
        self.pointer = pointer
        self.always = always
        self.required = required
        self.strategies = strategies
        self.merge_key = merge_key
        self.embedded = embedded
        self.default = default

    @property
    def zero(self) -> Any:
        """The field's value in an object that was just made, or ABSENT."""
        if not self.always:
            return ABSENT
        return None if self.pointer else self.schema.zero()

    @property
    def key_default(self) -> Any:
        """What the field counts as where it is a key of its list's items and left out; None if it must be given."""
        if self.default is not None or not self.always or self.pointer:
            return self.default
        return self.schema.zero()


class Schema:
    """One type. `kind` is its wire form:

    struct, map, list, string, bool, int32 (and other widths), float64, bytes, time, micro_time, duration, quantity,
    int_or_string, raw (any JSON), and three of JSON schemas themselves (schema_or_bool, schema_or_array,
    schema_or_strings). `any` is a custom resource's value of no declared type.
    """

    __slots__ = (
        "atomic", "definition", "element", "element_pointer", "extra", "fields", "go", "keys", "kind", "list_type",
        "preserve", "shape", "walks",
    )  # fmt: skip

    def __init__(
        self,
        kind: str,
        *,
        go: str = "",
        definition: str = "",
        fields: dict[str, Field] | None = None,
        element: Schema | None = None,
        element_pointer: bool = False,
        list_type: str = "",
        keys: tuple[str, ...] = (),
        atomic: bool = False,
        preserve: bool = False,
        extra: Any = None,
    ) -> None:
        self.kind = kind
        self.go = go
        self.definition = definition
        self.fields = fields if fields is not None else {}
        self.element = element
        self.element_pointer = element_pointer
        self.list_type = list_type
        self.keys = keys
        self.atomic = atomic
        self.preserve = preserve
        self.extra = extra
        self.shape = self._shape()
        self.walks: dict[str, Any] = {}

    def _shape(self) -> Shape:
        if self.kind in ("struct", "map"):
            return Shape.LEAF if self.atomic else Shape.FIELDS
        if self.kind == "list":
            return {"map": Shape.KEYED, "set": Shape.SET}.get(self.list_type, Shape.LEAF)
        if self.kind in ("any", "schema_or_bool", "schema_or_array", "schema_or_strings"):
            return Shape.UNTYPED
        return Shape.LEAF

    def child(self, name: str) -> Schema | None:
        """Return the type of a field or map value; None if it is not declared."""
        field = self.fields.get(name)
        if field is not None:
            return field.schema
        return self.element if self.kind != "list" else None

    def zero(self) -> Any:
        """Return a new zero value as Go writes it; a struct's shows the fields that are always written."""
        if self.kind == "struct":
            return {f.name: (None if f.pointer else f.schema.zero()) for f in self.fields.values() if f.always}
        if self.kind in _NULL_WHEN_ZERO:
            return None
        return _ZEROS.get(self.kind, 0)

    def null_value(self) -> Any:
        """Return what Go makes of null where a value of this type must be (a list's item, a map's value)."""
        if self.kind == "struct":
            return {}
        if self.kind == "bytes":
            return ""
        return None if self.kind in _NULL_WHEN_ZERO else _ZEROS.get(self.kind, 0)

    def with_atomic(self, atomic: bool) -> Schema:
        """Return the same type, merged as one or field by field."""
        if atomic == self.atomic:
            return self
        return Schema(
            self.kind, go=self.go, definition=self.definition, fields=self.fields, element=self.element,
            element_pointer=self.element_pointer, list_type=self.list_type, keys=self.keys, atomic=atomic,
            preserve=self.preserve, extra=self.extra,
        )  # fmt: skip

    def __repr__(self) -> str:
        return f"Schema({self.definition or self.go or self.kind})"


UNTYPED: Final = Schema("any", preserve=True)


def schema_for(group: str, version: str, kind: str) -> Schema | None:
    """Return the schema of a built-in kind; the core group is "". None if there is no such kind."""
    definition = facts.kinds().get(f"{group}/{version}/{kind}")
    return None if definition is None else schema_named(definition)


@cache
def schema_named(definition: str) -> Schema:
    """Return the schema of a definition such as io.k8s.api.core.v1.Pod; raise KeyError."""
    return _struct(definition)


_structs: dict[str, Schema] = {}


def _struct(definition: str) -> Schema:
    found = _structs.get(definition)
    if found is not None:
        return found
    entry = facts.types()[definition]
    # Registered before its fields are read: definitions refer to themselves.
    schema = _structs[definition] = Schema(
        "struct", go=entry.go, definition=definition, atomic=entry.map_type == "atomic"
    )
    for field in entry.fields:
        sub = _compile(field)
        if (own := _GO_NAMES_OF_FIELDS.get((definition, field.name))) is not None:
            sub.go = own
        if field.map_type and sub.kind == "struct":
            sub = sub.with_atomic(field.map_type == "atomic")
        schema.fields[field.name] = Field(
            field.name, sub, pointer=bool(field.pointer), always=bool(field.always), required=bool(field.required),
            strategies=tuple(field.strategy.split(",")) if field.strategy else (), merge_key=field.merge_key,
            embedded=field.embedded, default=field.default,
        )  # fmt: skip
    return schema


_GO_NAMES_OF_FIELDS = {
    ("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps", "enum"): "[]v1.JSON"
}
_GO_NAMES = {
    "time": "v1.Time", "micro_time": "v1.MicroTime", "duration": "v1.Duration", "quantity": "resource.Quantity",
    "int_or_string": "intstr.IntOrString", "raw": "runtime.RawExtension", "bytes": "[]uint8",
}  # fmt: skip


def _compile(entry: facts.Element) -> Schema:
    kind = entry.kind
    if kind.startswith("#"):
        return _struct(kind[1:])
    if kind in ("list", "map"):
        assert entry.element is not None, entry
        element = _compile(entry.element)
        pointer = bool(entry.element.pointer)
        prefix = "[]" if kind == "list" else f"map[{entry.key}]"
        go = entry.go or f"{prefix}{'*' if pointer else ''}{element.go}"
        return Schema(
            kind, go=go, element=element, element_pointer=pointer, list_type=entry.list_type,
            keys=tuple(entry.map_keys), atomic=entry.map_type == "atomic",
        )  # fmt: skip
    return _scalar(kind, entry.go or _GO_NAMES.get(kind, kind))


@cache
def _scalar(kind: str, go: str) -> Schema:
    return Schema(kind, go=go)
