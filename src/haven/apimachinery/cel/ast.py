"""The tree of an expression, as the parser makes it and the checker annotates it.

Every node has an id that is unique in its tree and a place in the source; types, references and costs are kept by id
beside the tree. Nodes that a macro made have the place of the macro's call.

Source: https://github.com/google/cel-spec/blob/master/proto/cel/expr/syntax.proto.
"""

from typing import Final

__all__ = [
    "ACCUMULATOR",
    "Call",
    "Comprehension",
    "Entry",
    "Expr",
    "Ident",
    "ListExpr",
    "Literal",
    "MapExpr",
    "Select",
    "Struct",
]

# The name that macros give to what a loop collects; no expression can spell it.
ACCUMULATOR: Final = "@result"


class Expr:
    """A node. `offset` counts code points from the start of the expression."""

    __slots__ = ("id", "offset")

    def __init__(self, id_: int, offset: int) -> None:
        self.id = id_
        self.offset = offset


class Literal(Expr):
    __slots__ = ("value",)

    def __init__(self, id_: int, offset: int, value: object) -> None:
        super().__init__(id_, offset)
        self.value = value


class Ident(Expr):
    __slots__ = ("name",)

    def __init__(self, id_: int, offset: int, name: str) -> None:
        super().__init__(id_, offset)
        self.name = name


class Select(Expr):
    """`operand.field`, or with `test_only` what has(operand.field) becomes."""

    __slots__ = ("field", "operand", "test_only")

    def __init__(self, id_: int, offset: int, operand: Expr, field: str, *, test_only: bool = False) -> None:
        super().__init__(id_, offset)
        self.operand = operand
        self.field = field
        self.test_only = test_only


class Call(Expr):
    """A function or operator; `target` is there for the member form."""

    __slots__ = ("args", "function", "target")

    def __init__(self, id_: int, offset: int, function: str, args: list[Expr], target: Expr | None = None) -> None:
        super().__init__(id_, offset)
        self.function = function
        self.args = args
        self.target = target


class ListExpr(Expr):
    __slots__ = ("elements", "optional_indices")

    def __init__(
        self, id_: int, offset: int, elements: list[Expr], optional_indices: frozenset[int] = frozenset()
    ) -> None:
        super().__init__(id_, offset)
        self.elements = elements
        self.optional_indices = optional_indices


class Entry(Expr):
    """One entry of a map (`key` is an expression) or of an object (`key` is the field's name)."""

    __slots__ = ("is_optional", "key", "value")

    def __init__(self, id_: int, offset: int, key: Expr | str, value: Expr, *, is_optional: bool) -> None:
        super().__init__(id_, offset)
        self.key = key
        self.value = value
        self.is_optional = is_optional


class MapExpr(Expr):
    __slots__ = ("entries",)

    def __init__(self, id_: int, offset: int, entries: list[Entry]) -> None:
        super().__init__(id_, offset)
        self.entries = entries


class Struct(Expr):
    __slots__ = ("entries", "type_name")

    def __init__(self, id_: int, offset: int, type_name: str, entries: list[Entry]) -> None:
        super().__init__(id_, offset)
        self.type_name = type_name
        self.entries = entries


class Comprehension(Expr):
    """A loop over `iter_range`; `iter_var2` is empty for the forms with one variable."""

    __slots__ = ("accu_init", "accu_var", "condition", "iter_range", "iter_var", "iter_var2", "result", "step")

    def __init__(
        self,
        id_: int,
        offset: int,
        *,
        iter_range: Expr,
        iter_var: str,
        iter_var2: str,
        accu_var: str,
        accu_init: Expr,
        condition: Expr,
        step: Expr,
        result: Expr,
    ) -> None:
        super().__init__(id_, offset)
        self.iter_range = iter_range
        self.iter_var = iter_var
        self.iter_var2 = iter_var2
        self.accu_var = accu_var
        self.accu_init = accu_init
        self.condition = condition
        self.step = step
        self.result = result

    @property
    def is_bind(self) -> bool:
        """Whether the loop only gives a name to a value (optMap, sortBy)."""
        return (
            isinstance(self.iter_range, ListExpr)
            and not self.iter_range.elements
            and isinstance(self.condition, Literal)
            and self.condition.value is False
            and self.accu_var != "__result__"
        )


def children(expr: Expr) -> list[Expr]:
    """Return the nodes directly below, in the order they stand in the source."""
    match expr:
        case Select():
            return [expr.operand]
        case Call():
            return ([expr.target] if expr.target is not None else []) + expr.args
        case ListExpr():
            return list(expr.elements)
        case MapExpr():
            return [node for entry in expr.entries for node in (entry.key, entry.value) if isinstance(node, Expr)]
        case Struct():
            return [entry.value for entry in expr.entries]
        case Comprehension():
            return [expr.iter_range, expr.accu_init, expr.condition, expr.step, expr.result]
    return []
