"""The types of the Common Expression Language, and when one may stand for another.

A type is a kind, a name and parameters. Objects (`struct`) and abstract types (`opaque`) are told apart by name
alone; what fields an object has is known by the provider (environment.py). Substitution of type parameters is a
mapping that only grows while one expression is checked.

Source: https://github.com/google/cel-spec/blob/master/doc/langdef.md (gradual type checking).
"""

from collections.abc import Sequence
from typing import Final

__all__ = [
    "ANY",
    "BOOL",
    "BYTES",
    "DOUBLE",
    "DURATION",
    "DYN",
    "ERROR",
    "INT",
    "NULL",
    "STRING",
    "TIMESTAMP",
    "TYPE",
    "UINT",
    "Mapping",
    "Type",
    "is_assignable",
    "is_assignable_list",
    "list_type",
    "map_type",
    "most_general",
    "object_type",
    "opaque_type",
    "optional_type",
    "substitute",
    "type_of_type",
    "type_param",
]

_NULLABLE: Final = frozenset({"opaque", "struct", "any", "duration", "timestamp"})
_SHOWN: Final = {"any": "any", "duration": "duration", "error": "!error!", "null": "null", "timestamp": "timestamp"}


class Type:
    """One type: `kind` says how it behaves, `name` how it is called, `params` what it is made of."""

    __slots__ = ("_hash", "kind", "name", "params")

    def __init__(self, kind: str, name: str, params: "tuple[Type, ...]" = ()) -> None:
        self.kind = kind
        self.name = name
        self.params = params
        self._hash = hash((kind, name, params))

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        return (
            isinstance(other, Type)
            and self._hash == other._hash
            and self.kind == other.kind
            and self.name == other.name
            and self.params == other.params
        )

    def __hash__(self) -> int:
        return self._hash

    def __str__(self) -> str:
        shown = _SHOWN.get(self.kind)
        if shown is not None:
            return shown
        if not self.params or self.kind == "param":
            return self.name
        return f"{self.name}({', '.join(map(str, self.params))})"

    __repr__ = __str__

    @property
    def is_optional(self) -> bool:
        return self.kind == "opaque" and self.name == "optional_type"

    @property
    def is_dyn(self) -> bool:
        """Tell whether what a value is shows at run time only; so it is with messages of any type."""
        return self.kind in ("dyn", "any")

    @property
    def is_dyn_or_error(self) -> bool:
        return self.is_dyn or self.kind == "error"


BOOL: Final = Type("bool", "bool")
INT: Final = Type("int", "int")
UINT: Final = Type("uint", "uint")
DOUBLE: Final = Type("double", "double")
STRING: Final = Type("string", "string")
BYTES: Final = Type("bytes", "bytes")
NULL: Final = Type("null", "null_type")
TIMESTAMP: Final = Type("timestamp", "google.protobuf.Timestamp")
DURATION: Final = Type("duration", "google.protobuf.Duration")
DYN: Final = Type("dyn", "dyn")
ANY: Final = Type("any", "google.protobuf.Any")
ERROR: Final = Type("error", "*error*")
TYPE: Final = Type("type", "type")


def list_type(element: Type) -> Type:
    return Type("list", "list", (element,))


def map_type(key: Type, value: Type) -> Type:
    return Type("map", "map", (key, value))


def object_type(name: str) -> Type:
    return Type("struct", name)


def opaque_type(name: str, *params: Type) -> Type:
    return Type("opaque", name, params)


def optional_type(value: Type) -> Type:
    return Type("opaque", "optional_type", (value,))


def type_param(name: str) -> Type:
    return Type("param", name)


def type_of_type(inner: Type) -> Type:
    return Type("type", "type", (inner,))


class Mapping:
    """What type parameters stand for so far."""

    __slots__ = ("known",)

    def __init__(self, known: dict[Type, Type] | None = None) -> None:
        self.known: dict[Type, Type] = {} if known is None else known

    def copy(self) -> "Mapping":
        return Mapping(dict(self.known))


def substitute(mapping: Mapping, type_: Type, *, params_to_dyn: bool) -> Type:
    """Return the type with everything known about its parameters filled in; unknown ones become dyn if asked."""
    known = mapping.known.get(type_)
    if known is not None:
        return substitute(mapping, known, params_to_dyn=params_to_dyn)
    if type_.kind == "param":
        return DYN if params_to_dyn else type_
    if type_.params and type_.kind in ("opaque", "list", "map", "type"):
        params = tuple(substitute(mapping, param, params_to_dyn=params_to_dyn) for param in type_.params)
        return Type(type_.kind, type_.name, params)
    return type_


def most_general(first: Type, second: Type) -> Type:
    return first if _is_equal_or_less_specific(first, second) else second


def is_assignable(mapping: Mapping, first: Type, second: Type) -> Mapping | None:
    """Return what is known afterwards, None if the second can not stand where the first is expected."""
    attempt = mapping.copy()
    return attempt if _assignable(attempt, first, second) else None


def is_assignable_list(mapping: Mapping, first: Sequence[Type], second: Sequence[Type]) -> Mapping | None:
    attempt = mapping.copy()
    return attempt if _assignable_list(attempt, first, second) else None


def _assignable_list(mapping: Mapping, first: Sequence[Type], second: Sequence[Type]) -> bool:
    return len(first) == len(second) and all(
        _assignable(mapping, one, other) for one, other in zip(first, second, strict=True)
    )


def _assignable(mapping: Mapping, first: Type, second: Type) -> bool:
    if second.kind == "param":
        valid, has_substitution = _valid_substitution(mapping, first, second)
        if valid:
            return True
        if has_substitution:
            return False
    if first.kind == "param":
        return _valid_substitution(mapping, second, first)[0]
    if first.is_dyn_or_error or second.is_dyn_or_error:
        return True
    if first.kind == "null":
        return second.kind in _NULLABLE or second.kind == "null"
    if second.kind == "null":
        return first.kind in _NULLABLE
    if first.kind == "type":
        return second.kind == "type"
    if first.kind in ("opaque", "list", "map"):
        return (
            first.kind == second.kind
            and first.name == second.name
            and _assignable_list(mapping, first.params, second.params)
        )
    return first == second


def _valid_substitution(mapping: Mapping, type_: Type, param: Type) -> tuple[bool, bool]:
    if type_ == param:
        return True, True
    known = mapping.known.get(param)
    if known is not None:
        if type_ == known:
            return True, True
        if _assignable(mapping, type_, known):
            wider = most_general(type_, known)
            if _not_referenced_in(mapping, param, wider):
                mapping.known[param] = wider
            return True, True
        return False, True
    if _not_referenced_in(mapping, param, type_):
        mapping.known[param] = type_
        return True, False
    return False, False


def _not_referenced_in(mapping: Mapping, param: Type, within: Type) -> bool:
    if param == within:
        return False
    if within.kind == "param":
        known = mapping.known.get(within)
        return known is None or _not_referenced_in(mapping, param, known)
    if within.kind in ("opaque", "list", "map", "type"):
        return all(_not_referenced_in(mapping, param, inner) for inner in within.params)
    return True


def _is_equal_or_less_specific(first: Type, second: Type) -> bool:
    if first.is_dyn or first.kind == "param":
        return True
    if second.is_dyn or second.kind == "param":
        return False
    if first.kind != second.kind:
        return False
    if first.kind in ("opaque", "list", "map"):
        return (
            first.name == second.name
            and len(first.params) == len(second.params)
            and all(
                _is_equal_or_less_specific(one, other) for one, other in zip(first.params, second.params, strict=True)
            )
        )
    return first.kind == "type" or first == second
