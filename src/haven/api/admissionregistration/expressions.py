"""The expressions of webhooks' match conditions and of admission policies: what they may mention, what they must come
to.

Used when a configuration is checked and when it is obeyed, so both always agree. The engine is imported when the first
expression shows up.
Source: https://kubernetes.io/docs/reference/access-authn-authz/validating-admission-policy/#validation-expression
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from haven.apimachinery.cel import types
from haven.apimachinery.cel.environment import Environment, Program, base_library
from haven.apimachinery.cel.errors import CompileError, ProgramError
from haven.apimachinery.cel.library.authorization import AUTHORIZER, RESOURCE_CHECK
from haven.apimachinery.cel.library.strings import json_patch_library
from haven.apimachinery.cel.schematypes import Declared, ObjectTypes
from haven.apimachinery.cel.types import Type

__all__ = [
    "APPLY_CONFIGURATION",
    "BOOL",
    "JSON_PATCHES",
    "STRING",
    "STRING_OR_NULL",
    "Expressions",
    "Unusable",
    "Uses",
    "declared_name",
]

BOOL: Final = (types.BOOL,)
STRING: Final = (types.STRING,)
STRING_OR_NULL: Final = (types.STRING, types.NULL)
APPLY_CONFIGURATION: Final = (types.object_type("Object"),)
JSON_PATCHES: Final = (types.list_type(types.object_type("JSONPatch")),)
_JSON_PATCH: Final = {"op": types.STRING, "path": types.STRING, "from": types.STRING, "value": types.DYN}
# Upstream gives other fields a type that nothing fits, so that is what it complains about.
_NO_TYPE: Final = Type("unspecified", "")
_VARIABLES: Final = "kubernetes.variables"


class Unusable(Exception):
    """An expression that can not be used; str() is the reason. `is_internal`: it is not the writer's fault."""

    def __init__(self, detail: str, *, is_internal: bool = False) -> None:
        super().__init__(detail)
        self.is_internal = is_internal


@dataclass(frozen=True, slots=True)
class Uses:
    """What an expression may use beyond the request's objects."""

    params: bool = False
    authorizer: bool = True
    patches: bool = False


def declared_name(type_: Type) -> str:
    """Return a type as it is declared, not as complaints show it: google.protobuf.Timestamp, null_type."""
    if not type_.params:
        return type_.name
    return f"{type_.name}({', '.join(map(declared_name, type_.params))})"


class _Types(ObjectTypes):
    """Objects of the environment, and with patches the types that patches are written with: Object{…}, JSONPatch{…}."""

    def __init__(self, roots: list[Declared], *, patches: bool) -> None:
        super().__init__(roots)
        self._patches = patches

    def object_type(self, name: str) -> Type | None:
        if self.can_make(name):
            return types.object_type(name)
        return super().object_type(name)

    def can_make(self, name: str) -> bool:
        return self._patches and (name in ("JSONPatch", "Object") or name.startswith("Object."))

    def field_type(self, name: str, field: str) -> Type | None:
        if self._patches and (name == "Object" or name.startswith("Object.")):
            return types.DYN
        if self._patches and name == "JSONPatch":
            return _JSON_PATCH.get(field, _NO_TYPE)
        return super().field_type(name, field)


class Expressions:
    """Compiles the expressions of one policy (`composed`: with its variables) or of match conditions.

    `object` and `params` are of these types instead of unknown ones when an object's schema is to be checked against.
    """

    def __init__(self, *, composed: bool, object_: Declared | None = None, params: Declared | None = None) -> None:
        self._variables = Declared(types.object_type(_VARIABLES), min_size=2, fields={}) if composed else None
        self._object = object_
        self._params = params
        self._environments: dict[Uses, Environment] = {}

    def environment(self, uses: Uses) -> Environment:
        known = self._environments.get(uses)
        if known is None:
            known = self._environments[uses] = self._make(uses)
        return known

    def _make(self, uses: Uses) -> Environment:
        request, namespace = _request_type(), _namespace_type()
        roots = [request, namespace]
        object_ = types.DYN if self._object is None else self._object.type
        variables = {
            "object": object_, "oldObject": object_, "namespaceObject": namespace.type, "request": request.type,
        }  # fmt: skip
        if self._object is not None:
            roots.append(self._object)
        if self._variables is not None:
            roots.append(self._variables)
            variables["variables"] = self._variables.type
        if uses.params:
            variables["params"] = types.DYN if self._params is None else self._params.type
            if self._params is not None:
                roots.append(self._params)
        if uses.authorizer:
            variables["authorizer"] = AUTHORIZER
            if self._object is None:
                variables["authorizer.requestResource"] = RESOURCE_CHECK
        library = base_library().add(json_patch_library()) if uses.patches else base_library()
        return Environment(variables, _Types(roots, patches=uses.patches), library=library)

    def compile(self, expression: str, uses: Uses, returns: tuple[Type, ...] | None) -> Program:
        """Return the program; raise Unusable. `returns` are the types it may come to, None for any."""
        try:
            program = self.environment(uses).compile(expression)
        except ProgramError as error:
            raise Unusable(f"program instantiation failed: {error}", is_internal=True) from None
        except CompileError as error:
            raise Unusable(f"compilation failed: {error}") from None
        if returns is not None and program.output_type not in returns:
            wanted = [declared_name(type_) for type_ in returns]
            must = wanted[0] if len(wanted) == 1 else f"one of [{' '.join(wanted)}]"
            raise Unusable(f"must evaluate to {must} but got {declared_name(program.output_type)}")
        return program

    def define(self, name: str, expression: str, uses: Uses) -> Program:
        """Compile a variable and make it known to the expressions after it, as of unknown type if it is unusable."""
        assert self._variables is not None
        assert self._variables.fields is not None
        try:
            program = self.compile(expression, uses, None)
        except Unusable:
            self._variables.fields[name] = Declared(types.DYN, min_size=1)
            raise
        self._variables.fields[name] = Declared(_as_variable(program.output_type), min_size=1)
        return program


def _as_variable(type_: Type) -> Type:
    """Return the type others see a variable as: objects and library types lose theirs."""
    if type_.kind == "list":
        return types.list_type(_as_variable(type_.params[0]))
    if type_.kind == "map":
        return types.map_type(_as_variable(type_.params[0]), _as_variable(type_.params[1]))
    if type_.kind in ("bool", "bytes", "double", "duration", "int", "null", "string", "timestamp", "uint", "any"):
        return type_
    return types.DYN


def _plain(type_: Type) -> Declared:
    return Declared(type_, min_size=1)


def _object(name: str, fields: dict[str, Declared]) -> Declared:
    return Declared(types.object_type(name), min_size=2, fields=fields)


def _list_of(element: Declared) -> Declared:
    return Declared(types.list_type(element.type), min_size=2, element=element)


_TEXT: Final = _plain(types.STRING)
_TEXTS: Final = _list_of(_TEXT)


@lru_cache(maxsize=1)
def _request_type() -> Declared:
    kind = _object("kubernetes.GroupVersionKind", {"group": _TEXT, "version": _TEXT, "kind": _TEXT})
    resource = _object("kubernetes.GroupVersionResource", {"group": _TEXT, "version": _TEXT, "resource": _TEXT})
    extra = Declared(types.map_type(types.STRING, _TEXTS.type), min_size=2, key=_TEXT, element=_TEXTS)
    user = _object("kubernetes.UserInfo", {"username": _TEXT, "uid": _TEXT, "groups": _TEXTS, "extra": extra})
    return _object(
        "kubernetes.AdmissionRequest",
        {
            "kind": kind, "resource": resource, "subResource": _TEXT, "requestKind": kind, "requestResource": resource,
            "requestSubResource": _TEXT, "name": _TEXT, "namespace": _TEXT, "operation": _TEXT, "userInfo": user,
            "dryRun": _plain(types.BOOL), "options": _plain(types.DYN),
        },
    )  # fmt: skip


@lru_cache(maxsize=1)
def _namespace_type() -> Declared:
    time, number = _plain(types.TIMESTAMP), _plain(types.INT)
    labels = Declared(types.map_type(types.STRING, types.STRING), min_size=2, key=_TEXT, element=_TEXT)
    condition = _object(
        "kubernetes.NamespaceCondition",
        {"status": _TEXT, "type": _TEXT, "lastTransitionTime": time, "message": _TEXT, "reason": _TEXT},
    )
    metadata = _object(
        "kubernetes.NamespaceMetadata",
        {
            "name": _TEXT, "generateName": _TEXT, "namespace": _TEXT, "labels": labels, "annotations": labels,
            "UID": _TEXT,
            "creationTimestamp": time, "deletionGracePeriodSeconds": number, "deletionTimestamp": time,
            "generation": number, "resourceVersion": _TEXT, "finalizers": _TEXTS,
        },
    )  # fmt: skip
    status = _object("kubernetes.NamespaceStatus", {"conditions": _list_of(condition), "phase": _TEXT})
    spec = _object("kubernetes.NamespaceSpec", {"finalizers": _TEXTS})
    return _object("kubernetes.Namespace", {"metadata": metadata, "spec": spec, "status": status})
