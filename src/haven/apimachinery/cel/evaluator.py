"""Turn a checked tree into nested Python functions, which compute its value and count what that costs.

The shape follows cel-go's planner, because costs follow from it: a name with the fields selected from it is one
*attribute* (one unit for the name, one for each field or index), constants and literals made of constants are free, a
membership test in a constant list is free, everything else costs what runtimecosts.py says. `&&` and `||` absorb
errors, nothing absorbs the limit.

Source: https://github.com/google/cel-spec/blob/master/doc/langdef.md#evaluation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from haven.apimachinery.cel import ast, types, values
from haven.apimachinery.cel.attributes import ABSENT, Again, Attribute, Constant, Delayed, Frame, Node, Qualifier, Run
from haven.apimachinery.cel.calls import UNGUARDED, called, dispatched
from haven.apimachinery.cel.checker import Checked
from haven.apimachinery.cel.declarations import Function, Library
from haven.apimachinery.cel.errors import CelError, CostLimitError, ProgramError
from haven.apimachinery.cel.regexes import BadPatternError, translate
from haven.apimachinery.cel.runtimecosts import LIST_COST, MAP_COST, STRUCT_COST, call_cost
from haven.apimachinery.cel.values import Optional

__all__ = ["Frame", "Run", "plan"]

_CONVERSIONS: Final = frozenset(
    ("bool", "bytes", "double", "duration", "dyn", "int", "string", "timestamp", "type", "uint")
)


def plan(checked: Checked, library: Library, can_make: Callable[[str], bool]) -> Run:
    """Return what evaluates the expression; raise ProgramError where a constant part of it can only fail.

    `can_make` knows the objects that expressions may create.
    """
    return _Planner(checked, library, can_make).plan(checked.expr).run


class _Planner:
    def __init__(self, checked: Checked, library: Library, can_make: Callable[[str], bool]) -> None:
        self._checked = checked
        self._library = library
        self._can_make = can_make

    def plan(self, expr: ast.Expr) -> Node:
        match expr:
            case ast.Literal():
                return Constant(expr.value)
            case ast.Ident():
                return self._ident(expr)
            case ast.Select():
                attribute = self._attribute(self.plan(expr.operand))
                attribute.add(Qualifier(expr.field, is_test=expr.test_only))
                if expr.test_only:
                    # The test itself is free: the name is not charged for, the test is.
                    return Node(attribute.resolver(0))
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

    def _ident(self, expr: ast.Ident) -> Node:
        type_ = self._checked.types[expr.id]
        if type_.kind == "type" and self._checked.references.get(expr.id) == expr.name and type_.params:
            return Constant(type_.params[0])
        return Attribute(name=expr.name)

    def _attribute(self, node: Node) -> Attribute:
        return node if isinstance(node, Attribute) else Attribute(base=node.run)

    def _call(self, expr: ast.Call) -> Node:
        args = ([] if expr.target is None else [self.plan(expr.target)]) + [self.plan(arg) for arg in expr.args]
        match expr.function:
            case "_&&_":
                return Node(_logic(args[0].run, args[1].run, decisive=False))
            case "_||_":
                return Node(_logic(args[0].run, args[1].run, decisive=True))
            case "_?_:_":
                return Attribute(branches=(args[0].run, self._branch(args[1]), self._branch(args[2])))
            case "_[_]" | "_[?_]" | "_?._":
                return self._index(expr, args)
            case "or" | "orValue" if expr.target is not None:
                return Node(_fallback(args[0].run, args[1].run, value=expr.function == "orValue"))
        return self._function(expr, args)

    def _branch(self, node: Node) -> Attribute:
        if isinstance(node, Attribute):
            return node
        return Attribute(base=node.run)

    def _index(self, expr: ast.Call, args: list[Node]) -> Node:
        attribute = self._attribute(args[0])
        optional = expr.function != "_[_]"
        index = args[1]
        if isinstance(index, Constant):
            attribute.add(Qualifier(index.value, is_optional=optional))
        elif isinstance(index, Attribute):
            attribute.add(Qualifier(None, index.run, is_optional=optional))
        else:
            run = index.run

            def compute(frame: Frame) -> Any:
                frame.charge(1)
                return run(frame)

            attribute.add(Qualifier(None, compute, is_optional=optional))
        return attribute

    def _function(self, expr: ast.Call, args: list[Node]) -> Node:
        name = expr.function
        ids = self._checked.overloads[expr.id]
        fn = self._library.functions[name]
        overload = ids[0] if len(ids) == 1 else ""
        if name in _CONVERSIONS and len(args) == 1 and isinstance(args[0], Constant):
            implementation = self._implementation(fn, ids)
            try:
                return Constant(implementation(args[0].value))
            except CelError as error:
                raise ProgramError(error.message) from None
        if name == "@in" and overload == "in_list" and isinstance(args[1], Constant):
            member = _membership(args[0].run, args[1].value)
            if member is not None:
                return member
        if name in ("matches", "find", "findAll") and len(args) > 1 and isinstance(args[1], Constant):
            try:
                translate(args[1].value)
            except BadPatternError as error:
                raise ProgramError(str(error)) from None
            searched = _searching(self._implementation(fn, ids))
            return Node(called(name, searched, [arg.run for arg in args], call_cost(name, overload)))
        return Node(called(name, self._implementation(fn, ids), [arg.run for arg in args], call_cost(name, overload)))

    def _implementation(self, fn: Function, ids: list[str]) -> Callable[..., Any]:
        if fn.implementation is not None and fn.name in UNGUARDED:
            return fn.implementation
        chosen = [overload for overload in fn.overloads if overload.id in ids]
        return dispatched(fn, chosen)

    def _list(self, expr: ast.ListExpr) -> Node:
        nodes = [self.plan(element) for element in expr.elements]
        constants = [node for node in nodes if isinstance(node, Constant)]
        if len(constants) == len(nodes) and not expr.optional_indices:
            items = [node.value for node in constants]
            return Constant(items)
        runs = [node.run for node in nodes]
        if not expr.optional_indices:

            def run(frame: Frame) -> Any:
                try:
                    made = [element(frame) for element in runs]
                except CelError:
                    frame.charge(LIST_COST)
                    raise
                frame.charge(LIST_COST)
                return made

            return Node(run)
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

        return Node(run_optional)

    def _map(self, expr: ast.MapExpr) -> Node:
        planned = [(self.plan(_key(entry)), self.plan(entry.value), entry.is_optional) for entry in expr.entries]
        if all(
            isinstance(key, Constant) and isinstance(value, Constant) and not optional
            for key, value, optional in planned
        ):
            return Constant({key.run(_NOTHING): value.run(_NOTHING) for key, value, _ in planned})
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

        return Node(run)

    def _struct(self, expr: ast.Struct) -> Node:
        type_ = self._checked.types[expr.id]
        makeable = self._can_make(type_.name)
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
            if not makeable:
                raise CelError(f"unknown type '{type_.name}'")
            return values.ObjectValue(type_, made)

        return Node(run)

    def _bind(self, expr: ast.Comprehension) -> Node:
        init, result, name = self.plan(expr.accu_init).run, self.plan(expr.result).run, expr.accu_var

        def run(frame: Frame) -> Any:
            variables = frame.variables
            before = variables.get(name, ABSENT)
            variables[name] = Delayed(init)
            try:
                return result(frame)
            finally:
                _restore(variables, name, before)

        return Node(run)

    def _loop(self, expr: ast.Comprehension) -> Node:
        iter_range, init = self.plan(expr.iter_range).run, self.plan(expr.accu_init).run
        condition, step, result = self.plan(expr.condition).run, self.plan(expr.step).run, self.plan(expr.result).run
        accu, first, second = expr.accu_var, expr.iter_var, expr.iter_var2
        free = isinstance(expr.condition, ast.Literal)
        appended = self._appended(expr)
        quantified = self._quantified(expr)
        if quantified is not None:
            return Node(_quantifier(iter_range, (first, second), *quantified))

        def run(frame: Frame) -> Any:
            ranged = iter_range(frame)
            pairs = _pairs(ranged, with_keys=bool(second))
            variables = frame.variables
            saved = [(name, variables.get(name, ABSENT)) for name in (accu, first, second) if name]
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

        return Node(run)

    def _quantified(self, expr: ast.Comprehension) -> tuple[Run, bool] | None:
        """For all and exists: (the predicate, the value of it that decides)."""
        init, step = expr.accu_init, expr.step
        if expr.accu_var != ast.ACCUMULATOR or not isinstance(init, ast.Literal) or not isinstance(step, ast.Call):
            return None
        if step.function not in ("_&&_", "_||_") or init.value is not (step.function == "_&&_"):
            return None
        return self.plan(step.args[1]).run, step.function == "_||_"

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
        return test, element.run, isinstance(element, Constant)


_NOTHING: Final = Frame({}, 1 << 62)


def _key(entry: ast.Entry) -> ast.Expr:
    assert not isinstance(entry.key, str)
    return entry.key


def _restore(variables: dict[str, Any], name: str, old: Any) -> None:
    if old is ABSENT:
        variables.pop(name, None)
    else:
        variables[name] = old


def _caught(run: Run, frame: Frame) -> Any:
    try:
        return run(frame)
    except CelError as error:
        return _raising(error)


def _raising(error: CelError) -> Delayed:
    def run(frame: Frame) -> Any:
        raise error

    return Again(run)


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


_GO_TYPES: Final = {
    "kubernetes.URL": "cel.URL", "kubernetes.Quantity": "cel.Quantity", "net.IP": "cel.IP", "net.CIDR": "cel.CIDR",
    "kubernetes.Semver": "cel.Semver", "kubernetes.NamedFormat": "cel.Format",
}  # fmt: skip


def _searching(implementation: Callable[..., Any]) -> Callable[..., Any]:
    """Return what looks for a fixed pattern: it asks for no overload, and takes a type for its name."""

    def search(text: Any, *rest: Any) -> Any:
        if isinstance(text, types.Type):
            text = text.name
        if not isinstance(text, str):
            raise values.no_overload(text)
        return implementation(text, *rest)

    return search


def _pairs(ranged: Any, *, with_keys: bool) -> Iterable[tuple[Any, Any]]:
    """Return what a loop goes over: with two variables keys and values, else elements or keys alone."""
    if with_keys:
        if not values.is_list(ranged) and not values.is_map(ranged):
            raise CelError(f"unsupported comprehension range type: {_go_type(ranged)}")
        return values.entries(ranged)
    if isinstance(ranged, list | values.ListView):
        return ((item, None) for item in ranged)
    if isinstance(ranged, dict):
        return ((key, None) for key in ranged)
    if isinstance(ranged, values.MapView):
        return ((key, None) for key in ranged.keys())  # noqa: SIM118 - not a dict
    raise CelError(f"got '{_go_type(ranged)}', expected iterable type")


def _go_type(value: Any) -> str:
    """Return the name of a value's type in upstream's program, which messages show."""
    if isinstance(value, Optional):
        return "*types.Optional"
    found = values.type_of(value)
    if isinstance(value, types.Type):
        return "*types.Type"
    if isinstance(value, values.Opaque):
        name = _GO_TYPES.get(found.name)
        return name or f"library.{found.name.rpartition('.')[2][:1].lower()}{found.name.rpartition('.')[2][1:]}Val"
    return f"types.{found.kind.capitalize()}"


def _quantifier(iter_range: Run, names: tuple[str, str], predicate: Run, decisive: bool) -> Run:
    """Return the loop of all (False decides) or exists (True does): charged as the general loop would be.

    Each round looks at what was found so far (2 units, 3 for exists), then adds to it (1 and the predicate's).
    """
    first, second = names
    look = 3 if decisive else 2

    def run(frame: Frame) -> Any:
        ranged = iter_range(frame)
        pairs = _pairs(ranged, with_keys=bool(second))
        variables = frame.variables
        saved = [(name, variables.get(name, ABSENT)) for name in names if name]
        failure: CelError | None = None
        decided = False
        try:
            for key, value in pairs:
                frame.cost += look
                if frame.cost > frame.limit:
                    raise CostLimitError
                if decided:
                    break
                variables[first] = key
                if second:
                    variables[second] = value
                frame.cost += 1
                try:
                    found = predicate(frame)
                except CelError as error:
                    failure = failure or error
                    continue
                if found is decisive:
                    decided = True
                elif found is not (not decisive) and failure is None:
                    failure = values.no_overload(found)
        finally:
            for name, old in saved:
                _restore(variables, name, old)
        frame.charge(1)
        if decided:
            return decisive
        if failure is not None:
            raise failure
        return not decisive

    return run


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


def _membership(item: Run, members: list[Any]) -> Node | None:
    if not members:
        return Constant(False)
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

    return Node(run)
