"""Whether the defaults that a schema declares are what the schema itself asks for.

Source: apiextensions-apiserver's validation of defaults. A default may not have fields that would be pruned; within
the metadata of an object it has to make valid metadata.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from haven.apimachinery.fielderrors import ErrorList, Path, aggregate, invalid
from haven.apimachinery.schema.coercion import MalformedObject, coerce, pruned_value
from haven.apimachinery.schema.embedded import validate_embedded
from haven.apimachinery.schema.values import validate_values

__all__ = ["has_unpruned_defaults", "validate_defaults"]

OpenAPI = Mapping[str, Any]
_EMBEDDED = "x-kubernetes-embedded-resource"
_ENVELOPE = ("metadata", "apiVersion", "kind")


def validate_defaults(schema: OpenAPI, path: Path, *, require_pruned: bool = True) -> ErrorList:
    """Return every complaint about the defaults in a schema at the root of an object."""
    return _validate(schema, path, schema, (), in_metadata=False, require_pruned=require_pruned, is_root=True)


def has_unpruned_defaults(schema: OpenAPI) -> bool:
    """Tell whether some default has fields that would be pruned: older definitions may."""
    default = schema.get("default")
    if isinstance(default, dict | list) and pruned_value(default, schema) != default:
        return True
    inner = [*(schema.get("properties") or {}).values()]
    inner += [schema[name] for name in ("items", "additionalProperties") if isinstance(schema.get(name), dict)]
    return any(has_unpruned_defaults(one) for one in inner)


def _validate(
    schema: OpenAPI,
    path: Path,
    root: OpenAPI,
    steps: tuple[str | int, ...],
    *,
    in_metadata: bool,
    require_pruned: bool,
    is_root: bool = False,
) -> ErrorList:
    """Check a schema and what is in it; `steps` lead there from `root`, the schema of the object around it."""
    if schema.get(_EMBEDDED):
        in_metadata, root, steps, is_root = False, schema, (), True
    errors: ErrorList = []
    default = schema.get("default")
    if default is not None:
        place = path.child("default")
        if in_metadata:
            errors += _within_metadata(default, root, steps, place)
        else:
            errors += _plain(default, schema, place, require_pruned=require_pruned)
        errors = errors or validate_values(default, schema, prefix=place) or _ruled(default, schema, place, is_root)
    items = schema.get("items")
    if isinstance(items, dict):
        errors += _validate(
            items, path.child("items"), root, (*steps, 0), in_metadata=in_metadata, require_pruned=require_pruned
        )
    for name, sub in sorted((schema.get("properties") or {}).items()):
        inside = in_metadata or (is_root and name in _ENVELOPE)
        place = path.child("properties").key(name)
        errors += _validate(sub, place, root, (*steps, name), in_metadata=inside, require_pruned=require_pruned)
    return errors


def _ruled(default: Any, schema: OpenAPI, path: Path, is_root: bool) -> ErrorList:
    """Check a default against the rules of its schema: as one that stays, and as one that is new."""
    if "x-kubernetes-validations" not in str(schema):
        return []
    from haven.api.apiextensions.rules import compile_rules

    rules = compile_rules(schema, is_root=is_root)
    if rules is None:
        return []
    return rules.evaluate(default, default, path=path)[0] or rules.evaluate(default, None, path=path)[0]


def _plain(default: Any, schema: OpenAPI, path: Path, *, require_pruned: bool) -> ErrorList:
    errors: ErrorList = []
    if require_pruned and isinstance(default, dict | list) and pruned_value(default, schema) != default:
        errors.append(invalid(path, default, "must not have unknown fields"))
    if schema.get(_EMBEDDED) and isinstance(default, dict):
        try:
            coerce(copy.deepcopy(default), schema, preserve_unknown=True)
        except MalformedObject as error:
            errors.append(invalid(path.child("metadata"), default.get("metadata"), str(error)))
    return errors + validate_embedded(default, schema, path, is_root=False)


def _within_metadata(default: Any, root: OpenAPI, steps: tuple[str | int, ...], path: Path) -> ErrorList:
    """Check a default of a field of metadata by the object that it makes."""
    value: Any = copy.deepcopy(default)
    for step in reversed(steps):
        value = [value] if step == 0 else {step: value}
    obj = {"kind": "Validation", "apiVersion": "validation/v1", **value}
    try:
        coerce(obj, root, preserve_unknown=True)
    except MalformedObject as error:
        return [invalid(path, default, f"must result in valid metadata: {error}")]
    errors = validate_embedded(obj, {**root, _EMBEDDED: True}, is_root=False)
    return [invalid(path, default, f"must result in valid metadata: {aggregate(errors)}")] if errors else []
