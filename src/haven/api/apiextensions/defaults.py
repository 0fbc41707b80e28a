"""Whether the defaults that a schema declares are what the schema itself asks for.

Source: apiextensions-apiserver's validation of defaults. A default may not have fields that would be pruned; within
the metadata of an object it has to make valid metadata.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from haven.apimachinery.fielderrors import ErrorList, Path, aggregate, invalid
from haven.apimachinery.schema.coercion import MalformedField, coerce_embedded, pruned_value
from haven.apimachinery.schema.embedded import validate_embedded
from haven.apimachinery.schema.values import validate_values

__all__ = ["has_unpruned_defaults", "validate_defaults"]

OpenAPI = Mapping[str, Any]
_EMBEDDED = "x-kubernetes-embedded-resource"
_ENVELOPE = ("metadata", "apiVersion", "kind")


def validate_defaults(schema: OpenAPI, path: Path, *, require_pruned: bool = True) -> ErrorList:
    """Return every complaint about the defaults in a schema at the root of an object."""
    return _validate(schema, path, _Place(schema, is_root=True), require_pruned=require_pruned)


def has_unpruned_defaults(schema: OpenAPI) -> bool:
    """Tell whether some default has fields that would be pruned: older definitions may."""
    default = schema.get("default")
    if isinstance(default, dict | list) and pruned_value(default, schema) != default:
        return True
    inner = [*(schema.get("properties") or {}).values()]
    inner += [schema[name] for name in ("items", "additionalProperties") if isinstance(schema.get(name), dict)]
    return any(has_unpruned_defaults(one) for one in inner)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a schema is: `steps` lead there from `root`, the schema of the object around it."""

    root: OpenAPI
    steps: tuple[str | int, ...] = ()
    in_metadata: bool = False
    is_root: bool = False

    def step(self, step: str | int) -> _Place:
        inside = self.in_metadata or (self.is_root and step in _ENVELOPE)
        return _Place(self.root, (*self.steps, step), inside)


def _validate(schema: OpenAPI, path: Path, place: _Place, *, require_pruned: bool) -> ErrorList:
    """Check a schema and what is in it."""
    if schema.get(_EMBEDDED):
        place = _Place(schema, is_root=True)
    errors: ErrorList = []
    default = schema.get("default")
    if default is not None:
        spot = path.child("default")
        if place.in_metadata:
            found = _within_metadata(default, place, spot)
        else:
            if require_pruned and isinstance(default, dict | list):
                if pruned_value(default, schema, is_resource=place.is_root) != default:
                    errors.append(invalid(spot, default, "must not have unknown fields"))
            found = _as_object(default, schema, spot, is_resource=place.is_root)
        errors += (
            found
            or validate_values(default, schema, prefix=spot, is_default=True)
            or _ruled(default, schema, spot, is_root=place.is_root)
        )
    items = schema.get("items")
    if isinstance(items, dict):
        errors += _validate(items, path.child("items"), place.step(0), require_pruned=require_pruned)
    for name, sub in sorted((schema.get("properties") or {}).items()):
        errors += _validate(sub, path.child("properties").key(name), place.step(name), require_pruned=require_pruned)
    return errors


def _ruled(default: Any, schema: OpenAPI, path: Path, *, is_root: bool) -> ErrorList:
    """Check a default against the rules of its schema: as one that stays, and as one that is new."""
    if "x-kubernetes-validations" not in str(schema):
        return []
    from haven.api.apiextensions.rules import compile_rules

    rules = compile_rules(schema, is_root=is_root)
    if rules is None:
        return []
    return rules.evaluate(default, default, path=path)[0] or rules.evaluate(default, None, path=path)[0]


def _as_object(default: Any, schema: OpenAPI, path: Path, *, is_resource: bool) -> ErrorList:
    """Check the objects in a default, which are brought into shape in place."""
    try:
        coerce_embedded(default, schema, is_resource=is_resource)
    except MalformedField as error:
        return [invalid(path.child(error.place), error.value, error.detail)]
    return validate_embedded(default, {**schema, _EMBEDDED: is_resource}, path, is_root=False)


def _within_metadata(default: Any, place: _Place, path: Path) -> ErrorList:
    """Check a default of a field of metadata by the object that it makes."""
    value: Any = copy.deepcopy(default)
    for step in reversed(place.steps):
        value = [value] if step == 0 else {step: value}
    obj = {"kind": "Validation", "apiVersion": "validation/v1", **value}
    try:
        coerce_embedded(obj, place.root, is_resource=True)
    except MalformedField as error:
        return [invalid(path, default, f"must result in valid metadata: {error}")]
    errors = validate_embedded(obj, {**place.root, _EMBEDDED: True}, is_root=False)
    return [invalid(path, default, f"must result in valid metadata: {aggregate(errors)}")] if errors else []
