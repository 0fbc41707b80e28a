"""The macros: has, all, exists, exists_one, map, filter; their forms with two variables; optMap, optFlatMap; sortBy.

A macro replaces its call by a loop (ast.Comprehension) or a presence test. What the loop looks like decides what it
costs, so the shapes follow cel-go's.

Source: https://github.com/google/cel-spec/blob/master/doc/langdef.md#macros and cel-go's ext package.
"""

from collections.abc import Callable
from typing import Final

from haven.apimachinery.cel import ast

__all__ = ["MacroError", "Maker", "find"]

_UNUSED: Final = "#unused"
_SORT_INPUT: Final = "@__sortBy_input__"


class MacroError(Exception):
    """The macro was used wrongly; `offset` is the place of the argument that is wrong."""

    def __init__(self, offset: int, message: str) -> None:
        super().__init__(message)
        self.offset = offset
        self.message = message


class Maker:
    """Makes nodes with fresh ids, at the place of the macro's call (`offset`)."""

    def __init__(self) -> None:
        self.next_id = 1
        self.offset = 0

    def new_id(self) -> int:
        self.next_id += 1
        return self.next_id - 1

    def literal(self, value: object) -> ast.Expr:
        return ast.Literal(self.new_id(), self.offset, value)

    def ident(self, name: str) -> ast.Expr:
        return ast.Ident(self.new_id(), self.offset, name)

    def accumulated(self) -> ast.Expr:
        return self.ident(ast.ACCUMULATOR)

    def call(self, function: str, *args: ast.Expr) -> ast.Expr:
        return ast.Call(self.new_id(), self.offset, function, list(args))

    def member(self, function: str, target: ast.Expr, *args: ast.Expr) -> ast.Expr:
        return ast.Call(self.new_id(), self.offset, function, list(args), target)

    def list_of(self, *elements: ast.Expr) -> ast.Expr:
        return ast.ListExpr(self.new_id(), self.offset, list(elements))

    def loop(
        self,
        iter_range: ast.Expr,
        variables: tuple[str, str],
        *,
        init: ast.Expr,
        condition: ast.Expr,
        step: ast.Expr,
        result: ast.Expr,
        accu_var: str = ast.ACCUMULATOR,
    ) -> ast.Expr:
        return ast.Comprehension(
            self.new_id(),
            self.offset,
            iter_range=iter_range,
            iter_var=variables[0],
            iter_var2=variables[1],
            accu_var=accu_var,
            accu_init=init,
            condition=condition,
            step=step,
            result=result,
        )

    def named(self, name: str, value: ast.Expr, result: ast.Expr) -> ast.Expr:
        """`result`, in which `name` stands for `value`."""
        return self.loop(
            self.list_of(),
            (_UNUSED, ""),
            init=value,
            condition=self.literal(False),
            step=self.ident(name),
            result=result,
            accu_var=name,
        )

    def copy(self, expr: ast.Expr) -> ast.Expr:
        """Return the same expression with fresh ids, its nodes in their places."""
        id_, offset = self.new_id(), expr.offset
        match expr:
            case ast.Literal():
                return ast.Literal(id_, offset, expr.value)
            case ast.Ident():
                return ast.Ident(id_, offset, expr.name)
            case ast.Select():
                return ast.Select(id_, offset, self.copy(expr.operand), expr.field, test_only=expr.test_only)
            case ast.Call():
                target = None if expr.target is None else self.copy(expr.target)
                return ast.Call(id_, offset, expr.function, [self.copy(arg) for arg in expr.args], target)
            case ast.ListExpr():
                return ast.ListExpr(
                    id_, offset, [self.copy(element) for element in expr.elements], expr.optional_indices
                )
            case ast.MapExpr():
                return ast.MapExpr(id_, offset, [self._copied_entry(entry) for entry in expr.entries])
            case ast.Struct():
                return ast.Struct(id_, offset, expr.type_name, [self._copied_entry(entry) for entry in expr.entries])
            case ast.Comprehension():
                return ast.Comprehension(
                    id_,
                    offset,
                    iter_range=self.copy(expr.iter_range),
                    iter_var=expr.iter_var,
                    iter_var2=expr.iter_var2,
                    accu_var=expr.accu_var,
                    accu_init=self.copy(expr.accu_init),
                    condition=self.copy(expr.condition),
                    step=self.copy(expr.step),
                    result=self.copy(expr.result),
                )
        raise AssertionError(expr)

    def _copied_entry(self, entry: ast.Entry) -> ast.Entry:
        key = entry.key if isinstance(entry.key, str) else self.copy(entry.key)
        return ast.Entry(self.new_id(), entry.offset, key, self.copy(entry.value), is_optional=entry.is_optional)


Expander = Callable[[Maker, ast.Expr | None, list[ast.Expr]], ast.Expr]


def find(name: str, args: int, *, is_member: bool) -> Expander | None:
    """Return what expands this call, None if it is an ordinary one."""
    return _MACROS.get((name, args, is_member))


def _has(maker: Maker, _target: ast.Expr | None, args: list[ast.Expr]) -> ast.Expr:
    selected = args[0]
    if not isinstance(selected, ast.Select):
        raise MacroError(selected.offset, "invalid argument to has() macro")
    return ast.Select(maker.new_id(), maker.offset, selected.operand, selected.field, test_only=True)


def _variable(arg: ast.Expr, message: str) -> str:
    if not isinstance(arg, ast.Ident):
        raise MacroError(arg.offset, message)
    if arg.name in (ast.ACCUMULATOR, "__result__"):
        raise MacroError(arg.offset, "iteration variable overwrites accumulator variable")
    return arg.name


def _variables(args: list[ast.Expr]) -> tuple[str, str]:
    names = []
    for arg in args[:2]:
        if not isinstance(arg, ast.Ident):
            raise MacroError(arg.offset, "argument must be a simple name")
        names.append(arg.name)
    if names[0] == names[1]:
        raise MacroError(args[1].offset, f"duplicate variable name: {names[0]}")
    return _variable(args[0], ""), _variable(args[1], "")


def _all(maker: Maker, target: ast.Expr, variables: tuple[str, str], predicate: ast.Expr) -> ast.Expr:
    return maker.loop(
        target,
        variables,
        init=maker.literal(True),
        condition=maker.call("@not_strictly_false", maker.accumulated()),
        step=maker.call("_&&_", maker.accumulated(), predicate),
        result=maker.accumulated(),
    )


def _exists(maker: Maker, target: ast.Expr, variables: tuple[str, str], predicate: ast.Expr) -> ast.Expr:
    return maker.loop(
        target,
        variables,
        init=maker.literal(False),
        condition=maker.call("@not_strictly_false", maker.call("!_", maker.accumulated())),
        step=maker.call("_||_", maker.accumulated(), predicate),
        result=maker.accumulated(),
    )


def _exists_one(maker: Maker, target: ast.Expr, variables: tuple[str, str], predicate: ast.Expr) -> ast.Expr:
    one_more = maker.call("_+_", maker.accumulated(), maker.literal(1))
    return maker.loop(
        target,
        variables,
        init=maker.literal(0),
        condition=maker.literal(True),
        step=maker.call("_?_:_", predicate, one_more, maker.accumulated()),
        result=maker.call("_==_", maker.accumulated(), maker.literal(1)),
    )


def _collect(
    maker: Maker, target: ast.Expr, variables: tuple[str, str], *, to_map: bool, step: ast.Expr, test: ast.Expr | None
) -> ast.Expr:
    if test is not None:
        step = maker.call("_?_:_", test, step, maker.accumulated())
    return maker.loop(
        target,
        variables,
        init=ast.MapExpr(maker.new_id(), maker.offset, []) if to_map else maker.list_of(),
        condition=maker.literal(True),
        step=step,
        result=maker.accumulated(),
    )


def _appended(maker: Maker, element: ast.Expr) -> ast.Expr:
    return maker.call("_+_", maker.accumulated(), maker.list_of(element))


def _one_variable(
    shape: Callable[[Maker, ast.Expr, tuple[str, str], ast.Expr], ast.Expr],
) -> Expander:
    def expand(maker: Maker, target: ast.Expr | None, args: list[ast.Expr]) -> ast.Expr:
        assert target is not None
        return shape(maker, target, (_variable(args[0], "argument must be a simple name"), ""), args[1])

    return expand


def _two_variables(
    shape: Callable[[Maker, ast.Expr, tuple[str, str], ast.Expr], ast.Expr],
) -> Expander:
    def expand(maker: Maker, target: ast.Expr | None, args: list[ast.Expr]) -> ast.Expr:
        assert target is not None
        return shape(maker, target, _variables(args), args[2])

    return expand


def _map(maker: Maker, target: ast.Expr | None, args: list[ast.Expr]) -> ast.Expr:
    assert target is not None
    name = _variable(args[0], "argument is not an identifier")
    test = args[1] if len(args) == 3 else None
    return _collect(maker, target, (name, ""), to_map=False, step=_appended(maker, args[-1]), test=test)


def _filter(maker: Maker, target: ast.Expr | None, args: list[ast.Expr]) -> ast.Expr:
    assert target is not None
    name = _variable(args[0], "argument is not an identifier")
    return _collect(maker, target, (name, ""), to_map=False, step=_appended(maker, args[0]), test=args[1])


def _transform_list(maker: Maker, target: ast.Expr | None, args: list[ast.Expr]) -> ast.Expr:
    assert target is not None
    variables = _variables(args)
    test = args[2] if len(args) == 4 else None
    return _collect(maker, target, variables, to_map=False, step=_appended(maker, args[-1]), test=test)


def _transform_map(maker: Maker, target: ast.Expr | None, args: list[ast.Expr]) -> ast.Expr:
    assert target is not None
    variables = _variables(args)
    test = args[2] if len(args) == 4 else None
    step = maker.call("cel.@mapInsert", maker.accumulated(), maker.ident(variables[0]), args[-1])
    return _collect(maker, target, variables, to_map=True, step=step, test=test)


def _transform_map_entry(maker: Maker, target: ast.Expr | None, args: list[ast.Expr]) -> ast.Expr:
    assert target is not None
    variables = _variables(args)
    test = args[2] if len(args) == 4 else None
    step = maker.call("cel.@mapInsert", maker.accumulated(), args[-1])
    return _collect(maker, target, variables, to_map=True, step=step, test=test)


def _opt_map(maker: Maker, target: ast.Expr | None, args: list[ast.Expr]) -> ast.Expr:
    return _optional(maker, target, args, "optMap", wrap=True)


def _opt_flat_map(maker: Maker, target: ast.Expr | None, args: list[ast.Expr]) -> ast.Expr:
    return _optional(maker, target, args, "optFlatMap", wrap=False)


def _optional(maker: Maker, target: ast.Expr | None, args: list[ast.Expr], macro: str, *, wrap: bool) -> ast.Expr:
    assert target is not None
    if not isinstance(args[0], ast.Ident):
        raise MacroError(args[0].offset, f"{macro}() variable name must be a simple identifier")
    present = maker.member("hasValue", target)
    value = maker.named(args[0].name, maker.member("value", maker.copy(target)), args[1])
    if wrap:
        value = maker.call("optional.of", value)
    return maker.call("_?_:_", present, value, maker.call("optional.none"))


def _sort_by(maker: Maker, target: ast.Expr | None, args: list[ast.Expr]) -> ast.Expr:
    assert target is not None
    if not isinstance(target, ast.ListExpr | ast.Select | ast.Ident | ast.Comprehension | ast.Call):
        message = "sortBy can only be applied to a list, identifier, comprehension, call or select expression"
        raise MacroError(target.offset, message)
    keys = _map(maker, maker.ident(_SORT_INPUT), args)
    call = maker.member("@sortByAssociatedKeys", maker.ident(_SORT_INPUT), keys)
    return maker.named(_SORT_INPUT, target, call)


_MACROS: Final[dict[tuple[str, int, bool], Expander]] = {
    ("has", 1, False): _has,
    ("all", 2, True): _one_variable(_all),
    ("exists", 2, True): _one_variable(_exists),
    ("exists_one", 2, True): _one_variable(_exists_one),
    ("all", 3, True): _two_variables(_all),
    ("exists", 3, True): _two_variables(_exists),
    ("exists_one", 3, True): _two_variables(_exists_one),
    ("existsOne", 3, True): _two_variables(_exists_one),
    ("map", 2, True): _map,
    ("map", 3, True): _map,
    ("filter", 2, True): _filter,
    ("transformList", 3, True): _transform_list,
    ("transformList", 4, True): _transform_list,
    ("transformMap", 3, True): _transform_map,
    ("transformMap", 4, True): _transform_map,
    ("transformMapEntry", 3, True): _transform_map_entry,
    ("transformMapEntry", 4, True): _transform_map_entry,
    ("optMap", 2, True): _opt_map,
    ("optFlatMap", 2, True): _opt_flat_map,
    ("sortBy", 2, True): _sort_by,
}
