"""What is wrong with the expressions of a configuration: they do not compile, or come to the wrong type.

Source: the behaviour of pkg/apis/admissionregistration/validation.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from haven.api.admissionregistration import v1
from haven.apimachinery.fielderrors import ErrorList, FieldError, Path, internal, invalid

if TYPE_CHECKING:
    from haven.api.admissionregistration.expressions import Expressions

__all__ = ["PolicyExpressions", "condition_errors"]


def condition_errors(expression: str, path: Path, *, params: bool = False) -> ErrorList:
    """Return what is wrong with a match condition's expression."""
    from haven.api.admissionregistration import expressions

    expression = expression.strip()
    known = _conditions()
    try:
        known.compile(expression, expressions.Uses(params=params), expressions.BOOL)
    except expressions.Unusable as error:
        return [_error(path, expression, error, is_internal=error.is_internal)]
    return []


@lru_cache(maxsize=1)
def _conditions() -> Expressions:
    from haven.api.admissionregistration.expressions import Expressions

    return Expressions(composed=False)


def _error(path: Path, expression: str, error: Exception, *, is_internal: bool) -> FieldError:
    return internal(path, error) if is_internal else invalid(path, expression, str(error))


class PolicyExpressions:
    """Checks a policy's expressions one after the other; those of variables come first."""

    def __init__(self, kind: v1.ParamKind | None, *, variables: bool = True) -> None:
        from haven.api.admissionregistration import expressions

        self._module = expressions
        self._expressions = expressions.Expressions(composed=variables)
        self._has_params = kind is not None

    def variable(self, variable: v1.Variable, path: Path) -> ErrorList:
        uses = self._module.Uses(params=self._has_params)
        try:
            self._expressions.define(variable.name, variable.expression, uses)
        except self._module.Unusable as error:
            return [_error(path, variable.expression, error, is_internal=error.is_internal)]
        return []

    def validation(self, expression: str, path: Path) -> ErrorList:
        return self._compile(expression, expression, path, "BOOL")

    def message(self, expression: str, path: Path) -> ErrorList:
        return self._compile(expression, expression, path, "STRING", authorizer=False)

    def audit_value(self, expression: str, path: Path) -> ErrorList:
        return self._compile(expression.strip(), expression, path, "STRING_OR_NULL")

    def apply_configuration(self, expression: str, path: Path) -> ErrorList:
        return self._compile(expression.strip(), expression.strip(), path, "APPLY_CONFIGURATION", patches=True)

    def json_patch(self, expression: str, path: Path) -> ErrorList:
        return self._compile(expression.strip(), expression.strip(), path, "JSON_PATCHES", patches=True)

    def _compile(
        self, expression: str, shown: str, path: Path, returns: str, *, authorizer: bool = True, patches: bool = False
    ) -> ErrorList:
        uses = self._module.Uses(params=self._has_params, authorizer=authorizer, patches=patches)
        try:
            self._expressions.compile(expression, uses, getattr(self._module, returns))
        except self._module.Unusable as error:
            return [_error(path, shown, error, is_internal=error.is_internal)]
        return []
