"""Calls of functions: arguments first, then the overload that fits, then what the call cost.

A call that fails, or whose arguments do, costs what one with arguments of size 1 does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from haven.apimachinery.cel import values
from haven.apimachinery.cel.attributes import Frame, Run
from haven.apimachinery.cel.declarations import Function, Overload
from haven.apimachinery.cel.errors import CelError, CostLimitError
from haven.apimachinery.cel.types import Type

__all__ = ["UNGUARDED", "called", "dispatched"]

# What the first operand of an operator must be for it to be asked at all.
_NUMBERS: Final = frozenset(("int", "uint", "double"))
_ORDERED: Final = _NUMBERS | {"bool", "bytes", "duration", "string", "timestamp"}
_OPERANDS: Final = {
    "_+_": _ORDERED - {"bool"} | {"list"}, "_-_": _NUMBERS | {"duration", "timestamp"}, "_*_": _NUMBERS,
    "_/_": _NUMBERS, "_%_": frozenset(("int", "uint")), "-_": frozenset(("bool", "double", "duration", "int")),
    "_<_": _ORDERED, "_<=_": _ORDERED, "_>_": _ORDERED, "_>=_": _ORDERED,
    "size": frozenset(("string", "bytes", "list", "map")),
}  # fmt: skip
UNGUARDED: Final = frozenset(_OPERANDS) | {
    "_?_:_", "_&&_", "_||_", "!_", "@not_strictly_false", "_==_", "_!=_", "_[_]", "@in", "type", "dyn", "matches",
    "contains", "startsWith", "endsWith",
}  # fmt: skip
"""Functions that look at their arguments themselves: no overload is chosen for them."""
_CallCost = int | Callable[[Sequence[Any], Any], int]


def called(name: str, implementation: Callable[..., Any], args: list[Run], cost: _CallCost) -> Run:
    """Return what calls a function. A call that fails, or whose arguments do, costs what one with sizes of 1 does."""

    def failed(frame: Frame, given: Sequence[Any], error: CelError) -> CelError:
        shown = [None if isinstance(one, CelError) else one for one in given]
        frame.charge(cost if isinstance(cost, int) else _cost_of_failure(cost, shown))
        operands = _OPERANDS.get(name)
        if operands is not None and error.message == "no such overload" and error not in given:
            kind = values.type_of(given[0]).kind
            if kind not in operands and kind not in ("string", "timestamp", "duration"):
                return CelError(f"no such overload: {name}")
        return error

    if len(args) == 1:
        only = args[0]

        def run_one(frame: Frame) -> Any:
            value: Any = None
            try:
                value = only(frame)
            except CelError as error:
                raise failed(frame, [error], error) from None
            try:
                result = implementation(value)
            except CelError as error:
                raise failed(frame, [value], error) from None
            frame.cost += cost if type(cost) is int else cost([value], result)  # type: ignore[operator]
            if frame.cost > frame.limit:
                raise CostLimitError
            return result

        return run_one
    if len(args) == 2:
        left, right = args

        def run_two(frame: Frame) -> Any:
            try:
                first = left(frame)
            except CelError as error:
                raise failed(frame, [error, _tried(right, frame)], error) from None
            try:
                second = right(frame)
            except CelError as error:
                raise failed(frame, [first, error], error) from None
            try:
                result = implementation(first, second)
            except CelError as error:
                raise failed(frame, [first, second], error) from None
            frame.cost += cost if type(cost) is int else cost([first, second], result)  # type: ignore[operator]
            if frame.cost > frame.limit:
                raise CostLimitError
            return result

        return run_two

    def run(frame: Frame) -> Any:
        given = [arg(frame) for arg in args]
        try:
            result = implementation(*given)
        except CelError as error:
            raise failed(frame, given, error) from None
        frame.charge(cost if isinstance(cost, int) else cost(given, result))
        return result

    return run


def _tried(run: Run, frame: Frame) -> Any:
    try:
        return run(frame)
    except CelError as error:
        return error


def _cost_of_failure(cost: Callable[[Sequence[Any], Any], int], shown: Sequence[Any]) -> int:
    try:
        return cost(shown, None)
    except (CelError, TypeError):
        return 1


def dispatched(fn: Function, overloads: list[Overload]) -> Callable[..., Any]:
    """Return what calls the overload that fits the arguments at hand."""

    def implementation(*args: Any) -> Any:
        for overload in overloads:
            if len(overload.args) == len(args) and all(
                _fits(arg, type_) for arg, type_ in zip(args, overload.args, strict=True)
            ):
                call = overload.implementation or fn.implementation
                assert call is not None, overload.id
                return call(*args)
        raise CelError(f"no such overload: {fn.name}({', '.join(values.type_of(arg).name for arg in args)})")

    return implementation


def _fits(value: Any, type_: Type) -> bool:
    if type_.kind in ("dyn", "param", "any"):
        return True
    if type_.kind == "list":  # The first element speaks for all.
        if not values.is_list(value):
            return False
        return next((_fits(item, type_.params[0]) for item in values.list_items(value)), True)
    if type_.kind == "map":
        if not values.is_map(value):
            return False
        key, item = next(iter(values.entries(value)), (None, None))
        return key is None or (_fits(key, type_.params[0]) and _fits(item, type_.params[1]))
    actual = values.type_of(value)
    return actual.kind == type_.kind and actual.name == type_.name
