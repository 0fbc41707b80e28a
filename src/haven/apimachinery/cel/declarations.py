"""What functions and variables an expression may use, and the standard ones.

A function has overloads; the checker picks those that fit, the evaluator calls the one implementation that they share
or the overload's own. Ids are cel-go's: costs hang on them.

Source: https://github.com/google/cel-spec/blob/master/doc/langdef.md#list-of-standard-definitions.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from haven.apimachinery.cel import conversions, values
from haven.apimachinery.cel.errors import CelError
from haven.apimachinery.cel.linearregex import find_spans
from haven.apimachinery.cel.regexes import compiled
from haven.apimachinery.cel.types import (
    BOOL,
    BYTES,
    DOUBLE,
    DURATION,
    DYN,
    INT,
    STRING,
    TIMESTAMP,
    TYPE,
    UINT,
    Type,
    list_type,
    map_type,
    optional_type,
    type_of_type,
    type_param,
)

__all__ = ["Function", "Library", "Overload", "function", "standard_library"]

Implementation = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Overload:
    """One signature of a function. `implementation` is None where the function has one for all."""

    id: str
    args: tuple[Type, ...]
    result: Type
    is_member: bool = False
    implementation: Implementation | None = None
    params: frozenset[Type] = frozenset()


@dataclass(slots=True)
class Function:
    """A name with its overloads; `implementation` serves all of them when they have none of their own."""

    name: str
    overloads: list[Overload] = field(default_factory=list)
    implementation: Implementation | None = None


@dataclass(slots=True)
class Library:
    """Functions, and types that expressions can name."""

    functions: dict[str, Function] = field(default_factory=dict)
    types: dict[str, Type] = field(default_factory=dict)

    def add(self, *others: Library) -> Library:
        """Return a library with the others' overloads behind the own ones."""
        merged = Library(
            {name: Function(name, [*fn.overloads], fn.implementation) for name, fn in self.functions.items()},
            dict(self.types),
        )
        for other in others:
            for name, fn in other.functions.items():
                mine = merged.functions.get(name)
                if mine is None:
                    merged.functions[name] = Function(name, [*fn.overloads], fn.implementation)
                else:
                    mine.overloads.extend(fn.overloads)
                    mine.implementation = mine.implementation or fn.implementation
            merged.types.update(other.types)
        return merged

    def declare(
        self,
        name: str,
        *overloads: tuple[str, Iterable[Type], Type] | tuple[str, Iterable[Type], Type, Implementation],
        member: bool = False,
        implementation: Implementation | None = None,
    ) -> None:
        """Add overloads (id, argument types, result, and perhaps what does it) of a function."""
        fn = self.functions.setdefault(name, Function(name))
        fn.implementation = implementation or fn.implementation
        for overload in overloads:
            args = tuple(overload[1])
            params = frozenset(_params((*args, overload[2])))
            own = overload[3] if len(overload) == 4 else None
            fn.overloads.append(Overload(overload[0], args, overload[2], member, own, params))


def function(name: str, library: Library) -> Function | None:
    return library.functions.get(name)


def _params(types: Iterable[Type]) -> Iterable[Type]:
    for type_ in types:
        if type_.kind == "param":
            yield type_
        yield from _params(type_.params)


A: Final = type_param("A")
B: Final = type_param("B")
K: Final = type_param("K")
V: Final = type_param("V")
LIST_A: Final = list_type(A)
MAP_AB: Final = map_type(A, B)

# Comparisons across number types come between the plain ones, as cel-go declares them.
_COMPARED: Final = (
    ("bool", BOOL, BOOL), ("int64", INT, INT), ("int64_double", INT, DOUBLE), ("int64_uint64", INT, UINT),
    ("uint64", UINT, UINT), ("uint64_double", UINT, DOUBLE), ("uint64_int64", UINT, INT), ("double", DOUBLE, DOUBLE),
    ("double_int64", DOUBLE, INT), ("double_uint64", DOUBLE, UINT), ("string", STRING, STRING), ("bytes", BYTES, BYTES),
    ("timestamp", TIMESTAMP, TIMESTAMP), ("duration", DURATION, DURATION),
)  # fmt: skip


def _not_strictly_false(value: Any) -> Any:
    return value if isinstance(value, bool) else True


def _logical_not(value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    raise values.no_overload(value)


def _contains(needle: Any, container: Any) -> bool:
    if values.is_list(container):
        return any(values.equal(item, needle) for item in container)
    if values.is_map(container):
        return values.find(container, needle)[0]
    raise values.no_overload(container)


def matches(text: Any, pattern: Any) -> bool:
    if not isinstance(text, str) or not isinstance(pattern, str):
        raise values.no_overload(text)
    return next(find_spans(compiled(pattern, ""), text), None) is not None


def _strings(test: Callable[[str, str], bool]) -> Implementation:
    def implementation(text: Any, part: Any) -> bool:
        if not isinstance(text, str) or not isinstance(part, str):
            raise values.no_overload(text, part)
        return test(text, part)

    return implementation


def _insert(target: Any, *rest: Any) -> Any:
    """Return the map with one more entry, or with all entries of another map."""
    added = dict(values.entries(rest[0])) if len(rest) == 1 else {rest[0]: rest[1]}
    out = dict(values.entries(target))
    for key, value in added.items():
        if values.find(out, key)[0]:
            raise CelError(f"insert failed: key {values.show(key)} already exists")
        out[key] = value
    return out


def _part(of: Callable[[datetime.datetime], int], of_duration: int = 0) -> Implementation:
    """A part of a time (in a zone), or with `of_duration` how many such units a length of time has."""

    def implementation(value: Any, zone: Any = "UTC") -> int:
        if isinstance(value, values.Timestamp) and isinstance(zone, str):
            return of(conversions.local_time(value, zone))
        if isinstance(value, values.Duration) and of_duration:
            whole = abs(value.nanoseconds) // of_duration
            return whole if value.nanoseconds >= 0 else -whole
        raise values.no_overload(value)

    return implementation


def _milliseconds(value: Any, zone: Any = "UTC") -> int:
    if isinstance(value, values.Duration):
        whole = abs(value.nanoseconds) // 1_000_000
        return whole if value.nanoseconds >= 0 else -whole
    if isinstance(value, values.Timestamp):
        return value.nanoseconds % values.SECOND // 1_000_000
    raise values.no_overload(value)


def _operators(library: Library) -> None:
    declare = library.declare
    declare("_?_:_", ("conditional", (BOOL, A, A), A))
    declare("_&&_", ("logical_and", (BOOL, BOOL), BOOL))
    declare("_||_", ("logical_or", (BOOL, BOOL), BOOL))
    declare("!_", ("logical_not", (BOOL,), BOOL), implementation=_logical_not)
    declare("@not_strictly_false", ("not_strictly_false", (BOOL,), BOOL), implementation=_not_strictly_false)
    declare("_==_", ("equals", (A, A), BOOL), implementation=values.equal)
    declare("_!=_", ("not_equals", (A, A), BOOL), implementation=lambda first, second: not values.equal(first, second))
    declare(
        "_+_",
        ("add_bytes", (BYTES, BYTES), BYTES), ("add_double", (DOUBLE, DOUBLE), DOUBLE),
        ("add_duration_duration", (DURATION, DURATION), DURATION),
        ("add_duration_timestamp", (DURATION, TIMESTAMP), TIMESTAMP),
        ("add_timestamp_duration", (TIMESTAMP, DURATION), TIMESTAMP), ("add_int64", (INT, INT), INT),
        ("add_list", (LIST_A, LIST_A), LIST_A), ("add_string", (STRING, STRING), STRING), ("add_uint64", (UINT, UINT),
        UINT),
        implementation=values.add,
    )  # fmt: skip
    declare(
        "_/_", ("divide_double", (DOUBLE, DOUBLE), DOUBLE), ("divide_int64", (INT, INT), INT),
        ("divide_uint64", (UINT, UINT), UINT), implementation=values.divide,
    )  # fmt: skip
    declare(
        "_%_", ("modulo_int64", (INT, INT), INT), ("modulo_uint64", (UINT, UINT), UINT), implementation=values.modulo
    )
    declare(
        "_*_", ("multiply_double", (DOUBLE, DOUBLE), DOUBLE), ("multiply_int64", (INT, INT), INT),
        ("multiply_uint64", (UINT, UINT), UINT), implementation=values.multiply,
    )  # fmt: skip
    declare("-_", ("negate_double", (DOUBLE,), DOUBLE), ("negate_int64", (INT,), INT), implementation=values.negate)
    declare(
        "_-_",
        ("subtract_double", (DOUBLE, DOUBLE), DOUBLE), ("subtract_duration_duration", (DURATION, DURATION), DURATION),
        ("subtract_int64", (INT, INT), INT), ("subtract_timestamp_duration", (TIMESTAMP, DURATION), TIMESTAMP),
        ("subtract_timestamp_timestamp", (TIMESTAMP, TIMESTAMP), DURATION), ("subtract_uint64", (UINT, UINT), UINT),
        implementation=values.subtract,
    )  # fmt: skip
    tests: tuple[tuple[str, str, Implementation], ...] = (
        ("_<_", "less", lambda first, second: values.compare(first, second) < 0),
        ("_<=_", "less_equals", lambda first, second: values.compare(first, second) <= 0),
        ("_>_", "greater", lambda first, second: values.compare(first, second) > 0),
        ("_>=_", "greater_equals", lambda first, second: values.compare(first, second) >= 0),
    )
    for name, prefix, test in tests:
        declare(
            name, *((f"{prefix}_{suffix}", (one, other), BOOL) for suffix, one, other in _COMPARED), implementation=test
        )
    declare("_[_]", ("index_list", (LIST_A, INT), A), ("index_map", (MAP_AB, A), B), implementation=values.get)
    declare("@in", ("in_list", (A, LIST_A), BOOL), ("in_map", (A, MAP_AB), BOOL), implementation=_contains)


def _conversions(library: Library) -> None:
    declare = library.declare
    declare("type", ("type", (A,), type_of_type(A)), implementation=values.type_of)
    declare("dyn", ("to_dyn", (A,), DYN), implementation=lambda value: value)
    named: tuple[tuple[str, Type, Implementation, tuple[tuple[str, Type], ...]], ...] = (
        ("bool", BOOL, conversions.to_bool, (("bool_to_bool", BOOL), ("string_to_bool", STRING))),
        ("bytes", BYTES, conversions.to_bytes, (("bytes_to_bytes", BYTES), ("string_to_bytes", STRING))),
        ("double", DOUBLE, conversions.to_double, (
            ("double_to_double", DOUBLE), ("int64_to_double", INT), ("string_to_double", STRING), ("uint64_to_double",
            UINT),
        )),
        ("duration", DURATION, conversions.to_duration, (
            ("duration_to_duration", DURATION), ("int64_to_duration", INT), ("string_to_duration", STRING),
        )),
        ("int", INT, conversions.to_int, (
            ("int64_to_int64", INT), ("double_to_int64", DOUBLE), ("duration_to_int64", DURATION), ("string_to_int64",
            STRING),
            ("timestamp_to_int64", TIMESTAMP), ("uint64_to_int64", UINT),
        )),
        ("string", STRING, conversions.to_string, (
            ("string_to_string", STRING), ("bool_to_string", BOOL), ("bytes_to_string", BYTES), ("double_to_string",
            DOUBLE),
            ("duration_to_string", DURATION), ("int64_to_string", INT), ("timestamp_to_string", TIMESTAMP),
            ("uint64_to_string", UINT),
        )),
        ("timestamp", TIMESTAMP, conversions.to_timestamp, (
            ("timestamp_to_timestamp", TIMESTAMP), ("int64_to_timestamp", INT), ("string_to_timestamp", STRING),
        )),
        ("uint", UINT, conversions.to_uint, (
            ("uint64_to_uint64", UINT), ("double_to_uint64", DOUBLE), ("int64_to_uint64", INT), ("string_to_uint64",
            STRING),
        )),
    )  # fmt: skip
    for name, result, implementation, overloads in named:
        declare(name, *((id_, (arg,), result) for id_, arg in overloads), implementation=implementation)


def _texts_and_times(library: Library) -> None:
    declare = library.declare
    sized = (("bytes", BYTES), ("list", LIST_A), ("map", MAP_AB), ("string", STRING))
    for name, type_ in sized:
        declare("size", (f"size_{name}", (type_,), INT), implementation=values.size)
        declare("size", (f"{name}_size", (type_,), INT), member=True)
    declare(
        "contains",
        ("contains_string", (STRING, STRING), BOOL),
        member=True,
        implementation=_strings(lambda text, part: part in text),
    )
    declare(
        "endsWith", ("ends_with_string", (STRING, STRING), BOOL), member=True, implementation=_strings(str.endswith)
    )
    declare(
        "startsWith",
        ("starts_with_string", (STRING, STRING), BOOL),
        member=True,
        implementation=_strings(str.startswith),
    )
    declare("matches", ("matches", (STRING, STRING), BOOL), implementation=matches)
    declare("matches", ("matches_string", (STRING, STRING), BOOL), member=True)
    parts: tuple[tuple[str, str, Implementation, bool], ...] = (
        ("getFullYear", "year", _part(lambda moment: moment.year), False),
        ("getMonth", "month", _part(lambda moment: moment.month - 1), False),
        ("getDayOfYear", "day_of_year", _part(lambda moment: moment.timetuple().tm_yday - 1), False),
        ("getDayOfMonth", "day_of_month", _part(lambda moment: moment.day - 1), False),
        ("getDate", "day_of_month_1_based", _part(lambda moment: moment.day), False),
        ("getDayOfWeek", "day_of_week", _part(lambda moment: moment.isoweekday() % 7), False),
        ("getHours", "hours", _part(lambda moment: moment.hour, 3600 * values.SECOND), True),
        ("getMinutes", "minutes", _part(lambda moment: moment.minute, 60 * values.SECOND), True),
        ("getSeconds", "seconds", _part(lambda moment: moment.second, values.SECOND), True),
        ("getMilliseconds", "milliseconds", _milliseconds, True),
    )
    for name, suffix, implementation, of_duration in parts:
        with_zone = "timestamp_to_seconds_tz" if suffix == "seconds" else f"timestamp_to_{suffix}_with_tz"
        declare(
            name, (f"timestamp_to_{suffix}", (TIMESTAMP,), INT), (with_zone, (TIMESTAMP, STRING), INT),
            member=True, implementation=implementation,
        )  # fmt: skip
        if of_duration:
            declare(name, (f"duration_to_{suffix}", (DURATION,), INT), member=True)


def _is_zero(value: Any) -> bool:
    if value is None or isinstance(value, bool):
        return not value
    if isinstance(value, int | float | str | bytes | list | dict | values.ListView | values.MapView):
        return not value
    if isinstance(value, values.Duration):
        return value.nanoseconds == 0
    if isinstance(value, values.Optional):
        return not value.has_value
    return isinstance(value, values.ObjectValue) and not value.fields


def _optional(value: Any) -> values.Optional:
    if not isinstance(value, values.Optional):
        raise values.no_overload(value)
    return value


def _unwrapped(items: Any) -> list[Any]:
    return [item.value for item in map(_optional, values.list_items(items)) if item.has_value]


def _optionals(library: Library) -> None:
    optional_v, list_v, map_kv = optional_type(V), list_type(V), map_type(K, V)
    declare = library.declare
    none = values.Optional()
    declare("optional.of", ("optional_of", (V,), optional_v), implementation=values.Optional)
    declare(
        "optional.ofNonZeroValue", ("optional_ofNonZeroValue", (V,), optional_v),
        implementation=lambda value: none if _is_zero(value) else values.Optional(value),
    )  # fmt: skip
    declare("optional.none", ("optional_none", (), optional_v), implementation=lambda: none)
    declare(
        "value", ("optional_value", (optional_v,), V), member=True, implementation=lambda value: _optional(value).value
    )
    declare(
        "hasValue",
        ("optional_hasValue", (optional_v,), BOOL),
        member=True,
        implementation=lambda value: _optional(value).has_value,
    )
    declare("or", ("optional_or_optional", (optional_v, optional_v), optional_v), member=True)
    declare("orValue", ("optional_orValue_value", (optional_v, V), V), member=True)
    declare("_?._", ("select_optional_field", (DYN, STRING), optional_v))
    declare(
        "_[?_]",
        ("list_optindex_optional_int", (list_v, INT), optional_v),
        ("optional_list_optindex_optional_int", (optional_type(list_v), INT), optional_v),
        ("map_optindex_optional_value", (map_kv, K), optional_v),
        ("optional_map_optindex_optional_value", (optional_type(map_kv), K), optional_v),
    )
    declare(
        "_[_]",
        ("optional_list_index_int", (optional_type(list_v), INT), optional_v),
        ("optional_map_index_value", (optional_type(map_kv), K), optional_v),
    )

    def end(index: int) -> Implementation:
        def implementation(items: Any) -> values.Optional:
            length = len(values.list_items(items))
            return values.Optional(values.get(items, 0 if index == 0 else length - 1)) if length else none

        return implementation

    declare("last", ("list_last", (list_v,), optional_v), member=True, implementation=end(-1))
    declare("first", ("list_first", (list_v,), optional_v), member=True, implementation=end(0))
    list_optional = list_type(optional_v)
    declare("optional.unwrap", ("optional_unwrap", (list_optional,), list_v), implementation=_unwrapped)
    declare("unwrapOpt", ("optional_unwrapOpt", (list_optional,), list_v), member=True, implementation=_unwrapped)


def standard_library() -> Library:
    """Return the language's own functions and types, with optionals and what two-variable macros need."""
    library = Library()
    _operators(library)
    _conversions(library)
    _texts_and_times(library)
    _optionals(library)
    library.declare(
        "cel.@mapInsert",
        ("@mapInsert_map_key_value", (map_type(K, V), K, V), map_type(K, V)),
        ("@mapInsert_map_map", (map_type(K, V), map_type(K, V)), map_type(K, V)),
        implementation=_insert,
    )
    from haven.apimachinery.cel.types import ANY, NULL

    for type_ in (BOOL, BYTES, DOUBLE, DURATION, INT, LIST_A, MAP_AB, NULL, STRING, TIMESTAMP, TYPE, UINT):
        library.types[type_.name] = type_
    library.types["google.protobuf.Any"] = ANY
    library.types["optional_type"] = optional_type(DYN)
    return library
