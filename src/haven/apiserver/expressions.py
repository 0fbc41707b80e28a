"""Expressions in configuration files: over the claims of a token, over a user, over what is asked of an authorizer.

Source: https://kubernetes.io/docs/reference/using-api/cel/
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from haven.apimachinery.cel.environment import Program
    from haven.apimachinery.cel.schematypes import Declared

__all__ = ["BadExpression", "CelEngine", "Engine", "Expression", "ExpressionFailed"]

_STRING = {"type": "string"}
_STRINGS = {"type": "array", "items": _STRING}
_EXTRA = {"type": "object", "additionalProperties": _STRINGS}
_USER = {
    "type": "object",
    "properties": {"username": _STRING, "uid": _STRING, "groups": _STRINGS, "extra": _EXTRA},
}
_REQUIREMENTS = {
    "type": "array",
    "items": {"type": "object", "properties": {"key": _STRING, "operator": _STRING, "values": _STRINGS}},
}
_SELECTOR = {"type": "object", "properties": {"rawSelector": _STRING, "requirements": _REQUIREMENTS}}
_RESOURCE_FIELDS = ("namespace", "verb", "group", "version", "resource", "subresource", "name")
_REQUEST = {
    "type": "object",
    "properties": {
        "resourceAttributes": {
            "type": "object",
            "properties": {
                **dict.fromkeys(_RESOURCE_FIELDS, _STRING),
                "fieldSelector": _SELECTOR,
                "labelSelector": _SELECTOR,
            },
        },
        "nonResourceAttributes": {"type": "object", "properties": {"path": _STRING, "verb": _STRING}},
        "user": _STRING,
        "groups": _STRINGS,
        "extra": _EXTRA,
        "uid": _STRING,
    },
}


class BadExpression(ValueError):
    """An expression cannot be compiled; the message is the compiler's."""


class ExpressionFailed(Exception):
    """An expression has no value here; the message says why."""


class Expression(Protocol):
    """A compiled expression, and its text."""

    text: str

    @property
    def selected(self) -> frozenset[str]:
        """The fields of its variable that it asks for by name."""
        ...

    @property
    def output(self) -> str:
        """The kind of its type: bool, string, list, dyn, …"""
        ...

    def evaluate(self, variables: Mapping[str, Any]) -> Any:
        """Return its value as a plain tree; raise ExpressionFailed."""
        ...


class Engine(Protocol):
    """Compiles expressions."""

    def compile(self, expression: str, variable: str) -> Expression:
        """Return the expression over one variable: claims, user or request; raise BadExpression."""
        ...


class CelEngine:
    """Kubernetes' engine. It is loaded when the first one is made: most servers have no such expressions."""

    def __init__(self) -> None:
        from haven.apimachinery.cel import types
        from haven.apimachinery.cel.environment import Environment
        from haven.apimachinery.cel.schematypes import ObjectTypes

        self._declared = {
            "user": _declared(_USER, "kubernetes.UserInfo"),
            "request": _declared(_REQUEST, "kubernetes.SubjectAccessReviewSpec"),
        }
        self._environments = {
            name: Environment({name: found.type}, ObjectTypes([found], keywords_as_fields=True))
            for name, found in self._declared.items()
        } | {"claims": Environment({"claims": types.map_type(types.STRING, types.DYN)})}

    def compile(self, expression: str, variable: str) -> Expression:
        from haven.apimachinery.cel.errors import CompileError

        try:
            program = self._environments[variable].compile(expression)
        except CompileError as error:
            raise BadExpression(str(error)) from None
        return _Compiled(expression, variable, program, self._declared)


class _Compiled:
    def __init__(self, text: str, variable: str, program: Program, declarations: Mapping[str, Declared]) -> None:
        self.text = text
        self._variable = variable
        self._program = program
        self._declarations = declarations

    @property
    def output(self) -> str:
        return self._program.output_type.kind

    @property
    def selected(self) -> frozenset[str]:
        return self._program.selected(self._variable)

    def evaluate(self, variables: Mapping[str, Any]) -> Any:
        from haven.apiserver.claimsview import ClaimsView

        values = {
            name: self._declarations[name].value(tree) if name in self._declarations else ClaimsView(tree)
            for name, tree in variables.items()
        }
        outcome = self._program.evaluate(values)
        if outcome.failure is not None:
            raise ExpressionFailed(outcome.failure)
        return _plain(outcome.value)


def _plain(value: Any) -> Any:
    """Return a list or a list-like view as a list of its items, anything else as it is."""
    if isinstance(value, str | bytes | bool | int | float) or value is None:
        return value
    try:
        return [_plain(item) for item in value]
    except TypeError:
        return value


def _declared(schema: dict[str, Any], name: str) -> Declared:
    from haven.apimachinery.cel.schematypes import declared

    found = declared(schema, name)
    assert found is not None
    return found
