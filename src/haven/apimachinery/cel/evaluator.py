"""Turn a checked tree into nested Python functions, which compute its value and count what that costs.

The shape follows cel-go's planner, because costs follow from it: a name with the fields selected from it is one
*attribute* (one unit for the name, one for each field or index), constants and literals made of constants are free, a
membership test in a constant list is free, everything else costs what runtimecosts.py says. `&&` and `||` absorb
errors, nothing absorbs the limit.

Source: https://github.com/google/cel-spec/blob/master/doc/langdef.md#evaluation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from haven.apimachinery.cel import ast, values
from haven.apimachinery.cel.checker import Checked
from haven.apimachinery.cel.declarations import Function, Library, Overload
from haven.apimachinery.cel.errors import CelError, CostLimitError, ProgramError
from haven.apimachinery.cel.regexes import BadPatternError, translate
from haven.apimachinery.cel.runtimecosts import LIST_COST, MAP_COST, STRUCT_COST, call_cost
from haven.apimachinery.cel.types import Type
from haven.apimachinery.cel.values import Optional

__all__ = ["Frame", "Run", "plan"]

_NONE: Final = Optional()
_CONVERSIONS: Final = frozenset(
    ("bool", "bytes", "double", "duration", "dyn", "int", "string", "timestamp", "type", "uint")
)
_ABSENT: Final = object()


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


class _Node:
    """A planned part: a constant, or what computes it."""

    __slots__ = ("_run",)

    def __init__(self, run: Run | None = None) -> None:
        self._run = run

    @property
    def run(self) -> Run:
        """What computes the value and charges for all of it."""
        assert self._run is not None
        return self._run


class _Constant(_Node):
    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        super().__init__(lambda frame: value)
        self.value = value


class _Qualifier:
    """One selection: a constant key, or a computed one (which charges for itself)."""

    __slots__ = ("compute", "is_optional", "is_test", "key")

    def __init__(
        self, key: Any, compute: Run | None = None, *, is_optional: bool = False, is_test: bool = False
    ) -> None:
        self.key = key
        self.compute = compute
        self.is_optional = is_optional
        self.is_test = is_test


class _Attribute(_Node):
    """A name, a computed value or a choice, with what is selected from it."""

    __slots__ = ("base", "base_cost", "branches", "name", "qualifiers")

    def __init__(
        self, *, name: str = "", base: Run | None = None, branches: tuple[Run, _Attribute, _Attribute] | None = None
    ) -> None:
        super().__init__()
        self.name = name
        self.base = base
        self.branches = branches
        self.base_cost = 0 if branches is not None else 1
        self.qualifiers: list[_Qualifier] = []

    def add(self, qualifier: _Qualifier) -> None:
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
    value = frame.variables.get(name, _ABSENT)
    if value is _ABSENT:
        raise CelError(f"no such attribute(s): {name}")
    if type(value) is _Delayed:
        return value.value(frame)
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


def _selections(base: Run, qualifiers: tuple[_Qualifier, ...], base_cost: int) -> Run:
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


def _choice(condition: Run, if_true: _Attribute, if_false: _Attribute) -> Run:
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


class _Delayed:
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


def plan(checked: Checked, library: Library) -> Run:
    """Return what evaluates the expression; raise ProgramError where a constant part of it can only fail."""
    return _Planner(checked, library).plan(checked.expr).run


class _Planner:
    def __init__(self, checked: Checked, library: Library) -> None:
        self._checked = checked
        self._library = library

    def plan(self, expr: ast.Expr) -> _Node:
        match expr:
            case ast.Literal():
                return _Constant(expr.value)
            case ast.Ident():
                return self._ident(expr)
            case ast.Select():
                attribute = self._attribute(self.plan(expr.operand))
                attribute.add(_Qualifier(expr.field, is_test=expr.test_only))
                if expr.test_only:
                    # The test itself is free: the name is not charged for, the test is.
                    return _Node(attribute.resolver(0))
                return attribute
            case ast.Call():
                return self._call(expr)
            case ast.ListExpr():
                return self._list(expr)
            case ast.MapExpr():
                return self._map(expr)
            case ast.Struct():
                return self._struct(expr)
            case ast.Comprehension():
                return self._bind(expr) if expr.is_bind else self._loop(expr)
        raise AssertionError(expr)

    def _ident(self, expr: ast.Ident) -> _Node:
        type_ = self._checked.types[expr.id]
        if type_.kind == "type" and self._checked.references.get(expr.id) == expr.name and type_.params:
            return _Constant(type_.params[0])
        return _Attribute(name=expr.name)

    def _attribute(self, node: _Node) -> _Attribute:
        return node if isinstance(node, _Attribute) else _Attribute(base=node.run)

    def _call(self, expr: ast.Call) -> _Node:
        args = ([] if expr.target is None else [self.plan(expr.target)]) + [self.plan(arg) for arg in expr.args]
        match expr.function:
            case "_&&_":
                return _Node(_logic(args[0].run, args[1].run, decisive=False))
            case "_||_":
                return _Node(_logic(args[0].run, args[1].run, decisive=True))
            case "_?_:_":
                return _Attribute(branches=(args[0].run, self._branch(args[1]), self._branch(args[2])))
            case "_[_]" | "_[?_]" | "_?._":
                return self._index(expr, args)
            case "or" | "orValue" if expr.target is not None:
                return _Node(_fallback(args[0].run, args[1].run, value=expr.function == "orValue"))
        return self._function(expr, args)

    def _branch(self, node: _Node) -> _Attribute:
        if isinstance(node, _Attribute):
            return node
        return _Attribute(base=node.run)

    def _index(self, expr: ast.Call, args: list[_Node]) -> _Node:
        attribute = self._attribute(args[0])
        optional = expr.function != "_[_]"
        index = args[1]
        if isinstance(index, _Constant):
            attribute.add(_Qualifier(index.value, is_optional=optional))
        elif isinstance(index, _Attribute):
            attribute.add(_Qualifier(None, index.run, is_optional=optional))
        else:
            run = index.run

            def compute(frame: Frame) -> Any:
                frame.charge(1)
                return run(frame)

            attribute.add(_Qualifier(None, compute, is_optional=optional))
        return attribute

    def _function(self, expr: ast.Call, args: list[_Node]) -> _Node:
        name = expr.function
        ids = self._checked.overloads[expr.id]
        fn = self._library.functions[name]
        overload = ids[0] if len(ids) == 1 else ""
        if name in _CONVERSIONS and len(args) == 1 and isinstance(args[0], _Constant):
            implementation = self._implementation(fn, ids)
            try:
                return _Constant(implementation(args[0].value))
            except CelError as error:
                raise ProgramError(error.message) from None
        if name == "@in" and overload == "in_list" and isinstance(args[1], _Constant):
            member = _membership(args[0].run, args[1].value)
            if member is not None:
                return member
        if name in ("matches", "find", "findAll") and len(args) > 1 and isinstance(args[1], _Constant):
            try:
                translate(args[1].value)
            except BadPatternError as error:
                raise ProgramError(str(error)) from None
        return _Node(_called(self._implementation(fn, ids), [arg.run for arg in args], call_cost(name, overload)))

    def _implementation(self, fn: Function, ids: list[str]) -> Callable[..., Any]:
        if fn.implementation is not None:
            own = [overload for overload in fn.overloads if overload.id in ids and overload.implementation is not None]
            if not own:
                return fn.implementation
        chosen = [overload for overload in fn.overloads if overload.id in ids]
        return _dispatched(fn, chosen)

    def _list(self, expr: ast.ListExpr) -> _Node:
        nodes = [self.plan(element) for element in expr.elements]
        constants = [node for node in nodes if isinstance(node, _Constant)]
        if len(constants) == len(nodes) and not expr.optional_indices:
            items = [node.value for node in constants]
            return _Constant(items)
        runs = [node.run for node in nodes]
        if not expr.optional_indices:

            def run(frame: Frame) -> Any:
                made = [element(frame) for element in runs]
                frame.charge(LIST_COST)
                return made

            return _Node(run)
        optional = expr.optional_indices

        def run_optional(frame: Frame) -> Any:
            made = []
            for index, element in enumerate(runs):
                value = element(frame)
                if index in optional:
                    if not isinstance(value, Optional):
                        raise CelError(
                            f"cannot initialize optional list element from non-optional value {values.show(value)}"
                        )
                    if not value.has_value:
                        continue
                    value = value.value
                made.append(value)
            frame.charge(LIST_COST)
            return made

        return _Node(run_optional)

    def _map(self, expr: ast.MapExpr) -> _Node:
        planned = [(self.plan(_key(entry)), self.plan(entry.value), entry.is_optional) for entry in expr.entries]
        if all(
            isinstance(key, _Constant) and isinstance(value, _Constant) and not optional
            for key, value, optional in planned
        ):
            return _Constant({key.run(_NOTHING): value.run(_NOTHING) for key, value, _ in planned})
        runs = [(key.run, value.run, optional) for key, value, optional in planned]

        def run(frame: Frame) -> Any:
            made: dict[Any, Any] = {}
            for key_of, value_of, optional in runs:
                key = key_of(frame)
                value = value_of(frame)
                if optional:
                    if not isinstance(value, Optional):
                        raise CelError(
                            f"cannot initialize optional entry '{values.show(key)}' from non-optional value "
                            + values.show(value)
                        )
                    if not value.has_value:
                        continue
                    value = value.value
                if not isinstance(key, str | int):
                    raise CelError(f"unsupported key type: {values.type_of(key)}")
                made[key] = value
            frame.charge(MAP_COST)
            return made

        return _Node(run)

    def _struct(self, expr: ast.Struct) -> _Node:
        type_ = self._checked.types[expr.id]
        runs = [(entry.key, self.plan(entry.value).run, entry.is_optional) for entry in expr.entries]

        def run(frame: Frame) -> Any:
            made: dict[str, Any] = {}
            for name, value_of, optional in runs:
                value = value_of(frame)
                if optional:
                    if not isinstance(value, Optional):
                        raise CelError(
                            f"cannot initialize optional entry '{name}' from non-optional value {values.show(value)}"
                        )
                    if not value.has_value:
                        continue
                    value = value.value
                assert isinstance(name, str)
                made[name] = value
            frame.charge(STRUCT_COST)
            return values.ObjectValue(type_, made)

        return _Node(run)

    def _bind(self, expr: ast.Comprehension) -> _Node:
        init, result, name = self.plan(expr.accu_init).run, self.plan(expr.result).run, expr.accu_var

        def run(frame: Frame) -> Any:
            variables = frame.variables
            before = variables.get(name, _ABSENT)
            variables[name] = _Delayed(init)
            try:
                return result(frame)
            finally:
                _restore(variables, name, before)

        return _Node(run)

    def _loop(self, expr: ast.Comprehension) -> _Node:
        iter_range, init = self.plan(expr.iter_range).run, self.plan(expr.accu_init).run
        condition, step, result = self.plan(expr.condition).run, self.plan(expr.step).run, self.plan(expr.result).run
        accu, first, second = expr.accu_var, expr.iter_var, expr.iter_var2
        free = isinstance(expr.condition, ast.Literal)
        appended = self._appended(expr)

        def run(frame: Frame) -> Any:
            ranged = iter_range(frame)
            if second:
                pairs = values.entries(ranged)
            elif isinstance(ranged, list | values.ListView):
                pairs = ((item, None) for item in ranged)
            elif isinstance(ranged, dict):
                pairs = ((key, None) for key in ranged)
            elif isinstance(ranged, values.MapView):
                pairs = ((key, None) for key in ranged.keys())  # noqa: SIM118 - not a dict
            else:
                raise CelError("got '" + values.type_of(ranged).name + "', expected iterable type")
            variables = frame.variables
            saved = [(name, variables.get(name, _ABSENT)) for name in (accu, first, second) if name]
            try:
                collected = init(frame)
                if appended is not None:
                    variables[accu] = collected = list(collected)
                    return _collect(frame, appended, pairs, (first, second), collected, result)
                variables[accu] = collected
                for key, value in pairs:
                    variables[first] = key
                    if second:
                        variables[second] = value
                    if not free and _test(condition, frame) is False:
                        break
                    variables[accu] = _caught(step, frame)
                for name in (first, second):
                    if name:
                        _restore(variables, name, next(old for saved_name, old in saved if saved_name == name))
                return result(frame)
            finally:
                for name, old in saved:
                    _restore(variables, name, old)

        return _Node(run)

    def _appended(self, expr: ast.Comprehension) -> tuple[Run | None, Run, bool] | None:
        """For loops that only collect a list: (what tests an element, what is appended, whether that is constant)."""
        step = expr.step
        if not isinstance(expr.accu_init, ast.ListExpr) or expr.accu_init.elements:
            return None
        test: Run | None = None
        if isinstance(step, ast.Call) and step.function == "_?_:_":
            test = self.plan(step.args[0]).run
            step = step.args[1]
        if not (isinstance(step, ast.Call) and step.function == "_+_" and isinstance(step.args[1], ast.ListExpr)):
            return None
        if (
            not isinstance(step.args[0], ast.Ident)
            or step.args[0].name != ast.ACCUMULATOR
            or len(step.args[1].elements) != 1
        ):
            return None
        element = self.plan(step.args[1].elements[0])
        return test, element.run, isinstance(element, _Constant)


_NOTHING: Final = Frame({}, 1 << 62)


def _key(entry: ast.Entry) -> ast.Expr:
    assert not isinstance(entry.key, str)
    return entry.key


def _restore(variables: dict[str, Any], name: str, old: Any) -> None:
    if old is _ABSENT:
        variables.pop(name, None)
    else:
        variables[name] = old


def _caught(run: Run, frame: Frame) -> Any:
    try:
        return run(frame)
    except CelError as error:
        return _raising(error)


def _raising(error: CelError) -> _Delayed:
    def run(frame: Frame) -> Any:
        raise error

    return _Again(run)


class _Again(_Delayed):
    """A value that fails whenever it is used."""

    __slots__ = ()

    def value(self, frame: Frame) -> Any:
        assert self._run is not None
        return self._run(frame)


def _test(condition: Run, frame: Frame) -> Any:
    try:
        return condition(frame)
    except CelError:
        return None


def _collect(
    frame: Frame,
    appended: tuple[Run | None, Run, bool],
    pairs: Any,
    names: tuple[str, str],
    collected: list[Any],
    result: Run,
) -> Any:
    """Run a loop that collects a list, in place; charged as if a list were made and added for each element."""
    test, element, constant = appended
    first, second = names
    variables = frame.variables
    # One for the collected list by name, one for the addition, and the list of one element. In a choice the name is
    # free.
    each = (0 if constant else LIST_COST) + 2
    for key, value in pairs:
        variables[first] = key
        if second:
            variables[second] = value
        if test is not None:
            keep = test(frame)
            if keep is False:
                continue
            if keep is not True:
                raise values.no_overload(keep)
        collected.append(element(frame))
        frame.charge(each)
    return result(frame)


def _logic(left: Run, right: Run, *, decisive: bool) -> Run:
    def run(frame: Frame) -> Any:
        failure: CelError | None = None
        try:
            value = left(frame)
            if value is decisive:
                return decisive
            if value is not (not decisive):
                failure = values.no_overload(value)
        except CelError as error:
            failure = error
        try:
            value = right(frame)
            if value is decisive:
                return decisive
            if value is not (not decisive) and failure is None:
                failure = values.no_overload(value)
        except CelError as error:
            failure = failure or error
        if failure is not None:
            raise failure
        return not decisive

    return run


def _fallback(first: Run, second: Run, *, value: bool) -> Run:
    def run(frame: Frame) -> Any:
        one = first(frame)
        if not isinstance(one, Optional):
            raise values.no_overload(one)
        if one.has_value:
            return one.value if value else one
        return second(frame)

    return run


def _membership(item: Run, members: list[Any]) -> _Node | None:
    if not members:
        return _Constant(False)
    if any(not isinstance(member, str | int | float) for member in members):
        return None
    # Python's True equals 1, CEL's does not.
    known = {(type(member) is bool, member) for member in members}

    def run(frame: Frame) -> Any:
        value = item(frame)
        try:
            return (type(value) is bool, value) in known
        except TypeError:
            return False

    return _Node(run)


def _called(
    implementation: Callable[..., Any], args: list[Run], cost: int | Callable[[Sequence[Any], Any], int]
) -> Run:
    if isinstance(cost, int):
        if len(args) == 1:
            only = args[0]

            def run_one(frame: Frame) -> Any:
                value = implementation(only(frame))
                frame.cost += cost
                if frame.cost > frame.limit:
                    raise CostLimitError
                return value

            return run_one
        if len(args) == 2:
            left, right = args

            def run_two(frame: Frame) -> Any:
                value = implementation(left(frame), right(frame))
                frame.cost += cost
                if frame.cost > frame.limit:
                    raise CostLimitError
                return value

            return run_two

        def run_fixed(frame: Frame) -> Any:
            value = implementation(*[arg(frame) for arg in args])
            frame.charge(cost)
            return value

        return run_fixed

    def run(frame: Frame) -> Any:
        given = [arg(frame) for arg in args]
        value = implementation(*given)
        frame.charge(cost(given, value))
        return value

    return run


def _dispatched(fn: Function, overloads: list[Overload]) -> Callable[..., Any]:
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
    if type_.kind == "list":
        return values.is_list(value)
    if type_.kind == "map":
        return values.is_map(value)
    actual = values.type_of(value)
    return actual.kind == type_.kind and actual.name == type_.name
