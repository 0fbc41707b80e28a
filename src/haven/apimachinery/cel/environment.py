"""Compile expressions, and run what was compiled.

An `Environment` has variables with their types, the objects these types mention, and functions. `compile` returns a
`Program` or raises CompileError; a program is evaluated as often as wanted, each time within a cost limit.

Source: https://kubernetes.io/docs/reference/using-api/cel/.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any, Final, NamedTuple

from haven.apimachinery.cel import ast, astchecks
from haven.apimachinery.cel.checker import Checked, check
from haven.apimachinery.cel.declarations import Library, standard_library
from haven.apimachinery.cel.errors import CelError, CompileError, CostLimitError, issues_text
from haven.apimachinery.cel.evaluator import Frame, plan
from haven.apimachinery.cel.library import kubernetes_library
from haven.apimachinery.cel.parser import parse
from haven.apimachinery.cel.schematypes import Declared, ObjectTypes
from haven.apimachinery.cel.staticcosts import Range, SizeEstimator, estimate
from haven.apimachinery.cel.types import Type

__all__ = ["PER_CALL_LIMIT", "Environment", "Outcome", "Program", "base_library"]

PER_CALL_LIMIT: Final = 1_000_000
"""What one evaluation may cost unless the caller says otherwise."""

_PROGRAMS_MAX: Final = 256


class Outcome(NamedTuple):
    """What an evaluation came to: a value, or why there is none; and what it cost either way."""

    value: Any
    failure: str | None
    cost: int
    is_over_limit: bool = False


class Program:
    """A compiled expression."""

    __slots__ = ("_checked", "_run", "expression", "output_type", "references")

    def __init__(self, checked: Checked, library: Library, objects: ObjectTypes) -> None:
        self.expression = checked.source
        self.output_type: Type = checked.output_type
        self.references = frozenset(checked.references.values())
        """The names of variables and types that the expression uses."""
        self._checked = checked
        self._run = plan(checked, library, objects.can_make)

    def selected(self, variable: str) -> frozenset[str]:
        """Return the fields of a variable that the expression asks for by name: variable.field, variable.?field."""
        return frozenset(_selected(self._checked.expr, variable))

    def estimate(self, sizes: SizeEstimator | None = None) -> Range:
        """Return the least and the most an evaluation can cost, given the sizes that schemas allow."""
        return estimate(self._checked, sizes)

    def evaluate(self, variables: Mapping[str, Any], limit: int = PER_CALL_LIMIT) -> Outcome:
        """Return what the expression comes to with these variables."""
        frame = Frame(dict(variables), limit)
        try:
            return Outcome(self._run(frame), None, frame.cost)
        except CelError as error:
            return Outcome(None, error.message, frame.cost)
        except CostLimitError as error:
            return Outcome(None, str(error), frame.cost, is_over_limit=True)
        except RecursionError:
            return Outcome(None, "expression nests too deeply", frame.cost)


def _selected(expr: ast.Expr, variable: str) -> Iterator[str]:
    if isinstance(expr, ast.Select) and isinstance(expr.operand, ast.Ident) and expr.operand.name == variable:
        yield expr.field
    if isinstance(expr, ast.Call) and expr.function == "_?._":
        operand, field = expr.args
        if isinstance(operand, ast.Ident) and operand.name == variable and isinstance(field, ast.Literal):
            yield str(field.value)
    for child in ast.children(expr):
        yield from _selected(child, variable)


class Environment:
    """Variables, objects and functions that expressions may use."""

    def __init__(
        self,
        variables: Mapping[str, Type],
        objects: Iterable[Declared] | ObjectTypes = (),
        *,
        library: Library | None = None,
    ) -> None:
        self.variables = dict(variables)
        self._objects = objects if isinstance(objects, ObjectTypes) else ObjectTypes(objects)
        self._library = library or base_library()
        self._programs: dict[str, Program] = {}

    def with_variables(self, variables: Mapping[str, Type]) -> Environment:
        """Return an environment that has these variables too."""
        return Environment({**self.variables, **variables}, self._objects, library=self._library)

    def compile(self, expression: str) -> Program:
        """Return the program; raise CompileError (ProgramError for one that is well typed, but can only fail)."""
        known = self._programs.get(expression)
        if known is not None:
            return known
        program = Program(self._checked(expression), self._library, self._objects)
        if len(self._programs) >= _PROGRAMS_MAX:
            self._programs.pop(next(iter(self._programs)))
        self._programs[expression] = program
        return program

    def _checked(self, expression: str) -> Checked:
        parsed = parse(expression)
        if parsed.issues:
            raise CompileError(issues_text(expression, parsed.issues))
        try:
            checked = check(parsed, self._library, self.variables, self._objects)
            if not checked.issues:
                astchecks.run(checked, self._library)
        except RecursionError:
            raise CompileError("ERROR: <input>:-1:0: expression recursion limit exceeded: 250") from None
        if checked.issues:
            raise CompileError(issues_text(expression, checked.issues))
        return checked


@lru_cache(maxsize=1)
def base_library() -> Library:
    """Return everything that expressions may use anywhere in v1.36."""
    return standard_library().add(*kubernetes_library())
