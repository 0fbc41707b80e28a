"""Names, what is selected from them, and choices: the parts of an expression that cel-go calls attributes.

A name costs one unit, each selection one more; in the branches of a choice the name itself is free. Once a selection
is optional (`a.?b.c`), those after it are too, and the result is an optional value.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from haven.apimachinery.cel import values
from haven.apimachinery.cel.errors import CelError, CostLimitError
from haven.apimachinery.cel.values import Optional

__all__ = ["ABSENT", "Again", "Attribute", "Constant", "Delayed", "Frame", "Node", "Qualifier", "Run"]

_NONE: Final = Optional()
ABSENT: Final = object()


class Frame:
    """One evaluation: the variables in scope, what was spent, and how much may be."""

    __slots__ = ("cost", "limit", "variables")

    def __init__(self, variables: dict[str, Any], limit: int) -> None:
        self.variables = variables
        self.cost = 0
        self.limit = limit

    def charge(self, cost: int) -> None:
        self.cost += cost
        if self.cost > self.limit:
            raise CostLimitError


Run = Callable[[Frame], Any]


class Node:
    """A planned part: a constant, or what computes it."""

    __slots__ = ("_run",)

    def __init__(self, run: Run | None = None) -> None:
        self._run = run

    @property
    def run(self) -> Run:
        """What computes the value and charges for all of it."""
        assert self._run is not None
        return self._run


class Constant(Node):
    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        super().__init__(lambda frame: value)
        self.value = value


class Qualifier:
    """One selection: a constant key, or a computed one (which charges for itself)."""

    __slots__ = ("compute", "is_optional", "is_test", "key")

    def __init__(
        self, key: Any, compute: Run | None = None, *, is_optional: bool = False, is_test: bool = False
    ) -> None:
        self.key = key
        self.compute = compute
        self.is_optional = is_optional
        self.is_test = is_test


class Attribute(Node):
    """A name, a computed value or a choice, with what is selected from it."""

    __slots__ = ("base", "base_cost", "branches", "name", "qualifiers")

    def __init__(
        self, *, name: str = "", base: Run | None = None, branches: tuple[Run, Attribute, Attribute] | None = None
    ) -> None:
        super().__init__()
        self.name = name
        self.base = base
        self.branches = branches
        self.base_cost = 0 if branches is not None else 1
        self.qualifiers: list[Qualifier] = []

    def add(self, qualifier: Qualifier) -> None:
        if self.branches is not None:
            self.branches[1].add(qualifier)
            self.branches[2].add(qualifier)
        else:
            self.qualifiers.append(qualifier)

    @property
    def run(self) -> Run:
        if self._run is None:
            self._run = self.resolver(self.base_cost)
        return self._run

    def resolver(self, base_cost: int) -> Run:
        """Return what computes the value, charging `base_cost` for what the selections start from."""
        if self.branches is not None:
            return _choice(*self.branches)
        qualifiers = self.qualifiers
        plain = all(one.compute is None and not one.is_optional and not one.is_test for one in qualifiers)
        if self.name and not qualifiers:
            return _variable(self.name, base_cost)
        if self.name and plain:
            return _path(self.name, [one.key for one in qualifiers], base_cost)
        base = self.base if self.base is not None else _variable(self.name, 0)
        return _selections(base, tuple(qualifiers), base_cost)


def _look_up(frame: Frame, name: str) -> Any:
    value = frame.variables.get(name, ABSENT)
    if value is ABSENT:
        raise CelError(f"no such attribute(s): {name}")
    kind = type(value)
    if kind is Delayed or kind is Again:
        delayed: Any = value.value(frame)
        return delayed
    return value


def _variable(name: str, cost: int) -> Run:
    def run(frame: Frame) -> Any:
        frame.cost += cost
        if frame.cost > frame.limit:
            raise CostLimitError
        return _look_up(frame, name)

    return run


def _path(name: str, keys: Sequence[Any], base_cost: int) -> Run:
    cost = base_cost + len(keys)
    get = values.get

    def run(frame: Frame) -> Any:
        frame.cost += cost
        if frame.cost > frame.limit:
            raise CostLimitError
        value = _look_up(frame, name)
        if type(value) is Optional:
            return _optional_path(value, keys)
        for key in keys:
            value = get(value, key)
        return value

    return run


def _optional_path(value: Optional, keys: Sequence[Any]) -> Optional:
    if not value.has_value:
        return value
    inner = value.value
    for key in keys:
        found, inner = _present(inner, key)
        if not found:
            return _NONE
    return Optional(inner)


def _present(container: Any, key: Any) -> tuple[bool, Any]:
    """Like values.find, but nothing is to be found in what can not be looked into."""
    if isinstance(container, dict | list | values.MapView | values.ListView | values.ObjectValue):
        return values.find(container, key)
    return False, None


def _selections(base: Run, qualifiers: tuple[Qualifier, ...], base_cost: int) -> Run:
    def run(frame: Frame) -> Any:
        frame.charge(base_cost)
        value = base(frame)
        optional = type(value) is Optional
        if optional:
            if not value.has_value:
                return value
            value = value.value
        for qualifier in qualifiers:
            key = qualifier.key
            if qualifier.compute is not None:
                key = qualifier.compute(frame)
            optional = optional or qualifier.is_optional
            if qualifier.is_test:
                frame.charge(1)
                if type(value) is Optional:
                    value = value.has_value and _present(value.value, key)[0]
                else:
                    value = _present(value, key)[0]
                # A test ends the path; on an optional it tells whether there is a value.
                return value
            if optional:
                found, value = _present(value, key)
                if not found:
                    return _NONE
                if qualifier.compute is None:
                    frame.charge(1)
            else:
                if qualifier.compute is None:
                    frame.charge(1)
                value = values.get(value, key)
        return Optional(value) if optional else value

    return run


def _choice(condition: Run, if_true: Attribute, if_false: Attribute) -> Run:
    # A name in a branch is not charged for, only what is selected from it.
    run_true = if_true.resolver(0)
    run_false = if_false.resolver(0)

    def run(frame: Frame) -> Any:
        test = condition(frame)
        if test is True:
            return run_true(frame)
        if test is False:
            return run_false(frame)
        raise values.no_overload(test)

    return run


class Delayed:
    """A named value that is computed when, and only if, the name is used."""

    __slots__ = ("_run", "_value")

    def __init__(self, run: Run) -> None:
        self._run: Run | None = run
        self._value: Any = None

    def value(self, frame: Frame) -> Any:
        if self._run is not None:
            run, self._run = self._run, None
            self._value = run(frame)
        return self._value


class Again(Delayed):
    """A value that fails whenever it is used."""

    __slots__ = ()

    def value(self, frame: Frame) -> Any:
        assert self._run is not None
        return self._run(frame)
