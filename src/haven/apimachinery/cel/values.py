"""What expressions compute with, and the operations that the language itself defines on it.

A plain JSON tree is a value as it is: str, bool, int, float, None, list and dict stand for themselves, so handing a
tree to a program costs nothing. Added are Uint, Timestamp, Duration, Optional, types, and views of a tree through a
schema (`ListView`, `MapView`), which convert what is asked for and nothing else. Failures are CelError.

Source: https://github.com/google/cel-spec/blob/master/doc/langdef.md#equality, #numeric-values.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, Final

from haven.apimachinery.cel import types
from haven.apimachinery.cel.errors import CelError

__all__ = [
    "Duration", "ListView", "MapView", "ObjectValue", "Opaque", "Optional", "Timestamp", "Uint", "add", "compare",
    "divide",
    "entries", "equal", "find", "get", "is_list", "is_map", "list_items", "modulo", "multiply", "negate",
    "no_overload", "show",
    "size", "subtract", "type_of",
]  # fmt: skip

INT_MIN: Final = -(1 << 63)
INT_MAX: Final = (1 << 63) - 1
UINT_MAX: Final = (1 << 64) - 1
SECOND: Final = 1_000_000_000
TIMESTAMP_MIN: Final = -62135596800 * SECOND
TIMESTAMP_MAX: Final = 253402300799 * SECOND + 999_999_999


class Uint(int):
    """An unsigned integer, which never mixes with signed ones in arithmetic."""

    __slots__ = ()


class Timestamp:
    """Nanoseconds since 1970, and the offset from UTC the time was written with."""

    __slots__ = ("nanoseconds", "offset_seconds")

    def __init__(self, nanoseconds: int, offset_seconds: int = 0) -> None:
        self.nanoseconds = nanoseconds
        self.offset_seconds = offset_seconds

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Timestamp) and self.nanoseconds == other.nanoseconds

    def __hash__(self) -> int:
        return hash(self.nanoseconds)


class Duration:
    """A length of time in nanoseconds."""

    __slots__ = ("nanoseconds",)

    def __init__(self, nanoseconds: int) -> None:
        self.nanoseconds = nanoseconds

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Duration) and self.nanoseconds == other.nanoseconds

    def __hash__(self) -> int:
        return hash(self.nanoseconds)


class _Absent:
    __slots__ = ()


_ABSENT: Final = _Absent()


class Optional:
    """A value that may be absent."""

    __slots__ = ("_value",)

    def __init__(self, value: Any = _ABSENT) -> None:
        self._value = value

    @property
    def has_value(self) -> bool:
        return self._value is not _ABSENT

    @property
    def value(self) -> Any:
        if self._value is _ABSENT:
            raise CelError("optional.none() dereference")
        return self._value


class ListView:
    """A list whose elements become values when they are looked at."""

    __slots__ = ()

    def __len__(self) -> int:
        raise NotImplementedError

    def at(self, index: int) -> Any:
        """Return the element; the index is in range."""
        raise NotImplementedError

    def __iter__(self) -> Iterator[Any]:
        return (self.at(index) for index in range(len(self)))

    def equals(self, other: Any) -> bool:
        return _lists_equal(self, other)

    def differs(self, _other: Any) -> bool:
        """Tell whether this equals something that is no list; raise CelError if it cannot be compared with that."""
        return False

    def plus(self, other: Any) -> Any:
        return [*self, *list_items(other)]

    def native(self) -> Any:
        """Return the tree this is a view of."""
        raise NotImplementedError


class MapView:
    """A map or object whose values are made when they are looked at."""

    __slots__ = ()

    def __len__(self) -> int:
        raise NotImplementedError

    def find(self, key: Any) -> tuple[bool, Any]:
        """Return (whether the key is there, its value)."""
        raise NotImplementedError

    def keys(self) -> Iterator[Any]:
        raise NotImplementedError

    def equals(self, other: Any) -> bool:
        return _maps_equal(self, other)

    def differs(self, _other: Any) -> bool:
        """Tell whether this equals something that is no map; raise CelError if it cannot be compared with that."""
        return False

    def native(self) -> Any:
        raise NotImplementedError


class Opaque:
    """A value of a library's type (a URL, a quantity), told apart by `type`."""

    __slots__ = ()
    type: types.Type

    def equals(self, other: Any) -> bool:
        return self is other


class ObjectValue:
    """An object made by `Name{field: value}`; fields that were not named are absent."""

    __slots__ = ("fields", "type")

    def __init__(self, type_: types.Type, fields: dict[str, Any]) -> None:
        self.type = type_
        self.fields = fields


class Host(MapView):
    """Several named values of the host program as one object; each is made when first asked for."""

    __slots__ = ("_made", "_makers")

    def __init__(self, makers: dict[str, Callable[[], Any]]) -> None:
        self._makers = makers
        self._made: dict[str, Any] = {}

    def __len__(self) -> int:
        return len(self._makers)

    def find(self, key: Any) -> tuple[bool, Any]:
        if key in self._made:
            return True, self._made[key]
        maker = self._makers.get(key)
        if maker is None:
            return False, None
        value = self._made[key] = maker()
        return True, value

    def keys(self) -> Iterator[Any]:
        return iter(self._makers)


def no_overload(*_: Any) -> CelError:
    return CelError("no such overload")


def is_list(value: Any) -> bool:
    return isinstance(value, list | ListView)


def is_map(value: Any) -> bool:
    return isinstance(value, dict | MapView)


def list_items(value: Any) -> Any:
    """Return something to iterate over and take the length of; raise CelError for what is no list."""
    if isinstance(value, list | ListView):
        return value
    raise no_overload(value)


_TYPES: Final[dict[type, types.Type]] = {
    str: types.STRING, bool: types.BOOL, int: types.INT, float: types.DOUBLE, Uint: types.UINT, bytes: types.BYTES,
    type(None): types.NULL, Timestamp: types.TIMESTAMP, Duration: types.DURATION, types.Type: types.TYPE,
}  # fmt: skip
_LIST: Final = types.Type("list", "list", (types.DYN,))
_MAP: Final = types.Type("map", "map", (types.DYN, types.DYN))


def type_of(value: Any) -> types.Type:
    """Return the type of a value, as type() gives it."""
    known = _TYPES.get(type(value))
    if known is not None:
        return known
    if is_list(value):
        return _LIST
    if is_map(value):
        return _MAP
    if isinstance(value, Optional):
        return types.Type("opaque", "optional_type", (types.DYN,))
    if isinstance(value, Opaque | ObjectValue):
        return value.type
    raise CelError(f"unsupported conversion to ref.Val: ({type(value).__name__}){value}")


# --- looking things up


def find(container: Any, key: Any) -> tuple[bool, Any]:
    """Return (whether there is such a key or index, its value); raise CelError where nothing could be looked up."""
    if type(container) is dict:
        try:
            value = container.get(key, _ABSENT)
        except TypeError:
            raise no_overload(key) from None
        if value is not _ABSENT and type(key) is not str and not _same_key(container, key):
            value = _ABSENT
        return (False, None) if value is _ABSENT else (True, value)
    if isinstance(container, MapView):
        return container.find(key)
    if isinstance(container, list | ListView):
        index = _index(key)
        if 0 <= index < len(container):
            return True, container[index] if isinstance(container, list) else container.at(index)
        return False, None
    if isinstance(container, ObjectValue):
        return (True, container.fields[key]) if key in container.fields else (False, None)
    raise CelError(f"no such key: {show(key)}")


def get(container: Any, key: Any) -> Any:
    """Return what is at the key, field or index."""
    if type(container) is dict and type(key) is str:
        value = container.get(key, _ABSENT)
        if value is not _ABSENT:
            return value
        raise CelError(f"no such key: {key}")
    found, value = find(container, key)
    if not found:
        if is_list(container):
            raise CelError(f"index out of bounds: {show(key)}")
        raise CelError(f"no such key: {show(key)}")
    return value


def _same_key(container: dict[Any, Any], key: Any) -> bool:
    """Python takes True for 1; CEL does not."""
    if key in (0, 1):
        is_bool = type(key) is bool
        return any(other == key and (type(other) is bool) == is_bool for other in container)
    return True


def _index(key: Any) -> int:
    if type(key) is int or type(key) is Uint:
        return int(key)
    if type(key) is float:
        if key.is_integer():
            return int(key)
        raise CelError(f"unsupported index value {show(key)} in list")
    raise CelError(f"unsupported index type '{type_of(key)}' in list")


def entries(container: Any) -> Iterator[tuple[Any, Any]]:
    """Iterate over a map's keys with their values, or over a list's indices with its elements."""
    if isinstance(container, dict):
        yield from container.items()
    elif isinstance(container, MapView):
        for key in container.keys():  # noqa: SIM118 - not a dict: there is no iteration but this
            yield key, container.find(key)[1]
    else:
        yield from enumerate(list_items(container))


def size(value: Any) -> int:
    if isinstance(value, str | bytes | list | dict | ListView | MapView):
        return len(value)
    raise no_overload(value)


# --- equality and order


def equal(first: Any, second: Any) -> bool:
    """Tell whether two values are the same; values of different kinds are different, numbers compare by value."""
    kind = type(first)
    if kind is type(second) and kind in (str, int, bool, float):
        return bool(first == second)
    if isinstance(first, ListView | MapView) and second is not None:
        of_its_kind = is_list(second) if isinstance(first, ListView) else is_map(second)
        return first.equals(second) if of_its_kind else first.differs(second)
    if isinstance(first, bool) or isinstance(second, bool):
        return first is second
    if isinstance(first, int | float):
        return isinstance(second, int | float) and first == second
    if isinstance(first, str | bytes):
        return type(first) is type(second) and first == second
    if first is None or second is None:
        return first is second
    if isinstance(first, list):
        return is_list(second) and _lists_equal(first, second)
    if isinstance(first, dict):
        return is_map(second) and _maps_equal(first, second)
    if isinstance(first, Optional):
        if not isinstance(second, Optional) or first.has_value != second.has_value:
            return False
        return not first.has_value or equal(first.value, second.value)
    if isinstance(first, ObjectValue):
        return (
            isinstance(second, ObjectValue) and first.type == second.type and _maps_equal(first.fields, second.fields)
        )
    if isinstance(first, Opaque):
        return isinstance(second, Opaque) and first.type == second.type and first.equals(second)
    if isinstance(first, types.Type) and isinstance(second, types.Type):
        return first.name == second.name
    return bool(first == second)


def _lists_equal(first: Any, second: Any) -> bool:
    if len(first) != len(second):
        return False
    return all(equal(one, other) for one, other in zip(first, second, strict=True))


def _maps_equal(first: Any, second: Any) -> bool:
    if len(first) != len(second):
        return False
    for key, value in entries(first):
        found, other = find(second, key)
        if not found or not equal(value, other):
            return False
    return True


def compare(first: Any, second: Any) -> int:
    """Return -1, 0 or 1; raise CelError for what has no order."""
    one, other = type(first), type(second)
    if one is not other or one not in (int, str):
        if isinstance(first, Timestamp | Duration):
            if one is not other:
                raise no_overload(first, second)
            first, second = first.nanoseconds, second.nanoseconds
        elif one in (int, float, Uint):
            if other not in (int, float, Uint):
                raise no_overload(first, second)
            if first != first or second != second:
                raise CelError("NaN values cannot be ordered")
        elif one is not other or one not in (bytes, bool):
            raise no_overload(first, second)
    elif one is str:
        first, second = first.encode("utf-8", "surrogatepass"), second.encode("utf-8", "surrogatepass")
    return int(first > second) - int(first < second)


# --- arithmetic


def _int(value: int) -> int:
    if INT_MIN <= value <= INT_MAX:
        return value
    raise CelError("integer overflow")


def _uint(value: int) -> Uint:
    if 0 <= value <= UINT_MAX:
        return Uint(value)
    raise CelError("unsigned integer overflow")


def _duration(nanoseconds: int) -> Duration:
    if INT_MIN <= nanoseconds <= INT_MAX:
        return Duration(nanoseconds)
    raise CelError("integer overflow")


def _timestamp(nanoseconds: int, offset_seconds: int) -> Timestamp:
    if TIMESTAMP_MIN <= nanoseconds <= TIMESTAMP_MAX:
        return Timestamp(nanoseconds, offset_seconds)
    raise CelError("timestamp overflow")


def add(first: Any, second: Any) -> Any:
    kind = type(first)
    if kind is type(second):
        if kind is int:
            return _int(first + second)
        if kind in (str, float, bytes, list):
            return first + second
        if kind is Uint:
            return _uint(int(first) + int(second))
        if kind is Duration:
            return _duration(first.nanoseconds + second.nanoseconds)
    if isinstance(first, ListView):
        return first.plus(list_items(second))
    if isinstance(first, list):
        return [*first, *list_items(second)]
    if {kind, type(second)} == {Timestamp, Duration}:
        zone: int = (first if kind is Timestamp else second).offset_seconds
        return _timestamp(first.nanoseconds + second.nanoseconds, zone)
    raise no_overload(first, second)


def subtract(first: Any, second: Any) -> Any:
    kind = type(first)
    if kind is type(second):
        if kind is int:
            return _int(first - second)
        if kind is float:
            return first - second
        if kind is Uint:
            return _uint(int(first) - int(second))
        if kind is Duration or kind is Timestamp:
            return _duration(first.nanoseconds - second.nanoseconds)
    if kind is Timestamp and type(second) is Duration:
        return _timestamp(first.nanoseconds - second.nanoseconds, first.offset_seconds)
    raise no_overload(first, second)


def multiply(first: Any, second: Any) -> Any:
    kind = type(first)
    if kind is type(second):
        if kind is int:
            return _int(first * second)
        if kind is float:
            return first * second
        if kind is Uint:
            return _uint(int(first) * int(second))
    raise no_overload(first, second)


def divide(first: Any, second: Any) -> Any:
    kind = type(first)
    if kind is type(second):
        if kind is float:
            if second == 0:
                return (
                    math.nan
                    if first == 0 or first != first
                    else math.copysign(math.inf, first) * math.copysign(1, second)
                )
            return first / second
        if kind is int or kind is Uint:
            if second == 0:
                raise CelError("division by zero")
            quotient = abs(int(first)) // abs(int(second))
            if kind is Uint:
                return Uint(quotient)
            return _int(-quotient if (first < 0) != (second < 0) else quotient)
    raise no_overload(first, second)


def modulo(first: Any, second: Any) -> Any:
    kind = type(first)
    if kind is type(second) and (kind is int or kind is Uint):
        if second == 0:
            raise CelError("modulus by zero")
        if kind is Uint:
            return Uint(int(first) % int(second))
        if first == INT_MIN and second == -1:
            raise CelError("integer overflow")
        remainder = abs(first) % abs(second)
        return -remainder if first < 0 else remainder
    raise no_overload(first, second)


def negate(value: Any) -> Any:
    if type(value) is int:
        return _int(-value)
    if type(value) is float:
        return -value
    if isinstance(value, Duration):
        return _duration(-value.nanoseconds)
    raise no_overload(value)


def show(value: Any) -> str:
    """Return a value as error messages show it."""
    from haven.apimachinery.cel.conversions import double_text, duration_text, timestamp_text

    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return double_text(value)
    if value is None:
        return "0"
    if isinstance(value, Timestamp):
        return timestamp_text(value)
    if isinstance(value, Duration):
        return duration_text(value)
    if is_list(value):
        return "[" + " ".join(show(item) for item in value) + "]"
    if is_map(value):
        return (
            "map["
            + " ".join(f"{show(key)}:{show(item)}" for key, item in sorted(entries(value), key=lambda e: show(e[0])))
            + "]"
        )
    if isinstance(value, Optional):
        return f"optional({show(value.value)})" if value.has_value else "optional.none()"
    return str(value)
