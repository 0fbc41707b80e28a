"""Whether objects inside of custom resources are complete: kind, apiVersion and metadata.

Source: https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#rawextension
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from haven.apimachinery.fielderrors import ErrorList, Path, invalid, required
from haven.apimachinery.schema.coercion import MalformedObject, read_metadata
from haven.apimachinery.validation.names import dns1035_label_errors, path_segment_name
from haven.apimachinery.validation.objectmeta import validate_object_meta

__all__ = ["validate_embedded"]

OpenAPI = Mapping[str, Any]
_STAND_IN = "fakename"


def validate_embedded(value: Any, schema: OpenAPI, path: Path | None = None, *, is_root: bool = True) -> ErrorList:
    """Return every complaint about embedded resources in a tree whose metadata was already brought into shape."""
    errors: ErrorList = []
    if isinstance(value, dict):
        if schema.get("x-kubernetes-embedded-resource") and not is_root:
            errors += _resource(value, path or Path())
        properties, extra = schema.get("properties") or {}, schema.get("additionalProperties")
        for name, item in value.items():
            sub = properties.get(name)
            if sub is not None:
                place = Path(name) if path is None else path.child(name)
                errors += validate_embedded(item, sub, place, is_root=False)
            elif isinstance(extra, dict):
                errors += validate_embedded(item, extra, (path or Path()).key(name), is_root=False)
    elif isinstance(value, list) and isinstance(schema.get("items"), dict):
        for index, item in enumerate(value):
            errors += validate_embedded(item, schema["items"], (path or Path()).index(index), is_root=False)
    return errors


def _resource(value: dict[str, Any], path: Path) -> ErrorList:
    errors: ErrorList = [required(path.child(name)) for name in ("apiVersion", "kind") if name not in value]
    if "apiVersion" in value:
        place, text = path.child("apiVersion"), value["apiVersion"]
        if not isinstance(text, str):
            errors.append(invalid(place, text, "must be a string"))
        elif not text:
            errors.append(invalid(place, text, "must not be empty"))
        elif text.count("/") > 1:
            errors.append(invalid(place, text, f"unexpected GroupVersion string: {text}"))
    if "kind" in value:
        place, text = path.child("kind"), value["kind"]
        if not isinstance(text, str):
            errors.append(invalid(place, text, "must be a string"))
        elif not text:
            errors.append(invalid(place, text, "must not be empty"))
        elif complaints := dns1035_label_errors(text.lower()):
            words = f"may have mixed case, but should otherwise match: {','.join(complaints)}"
            errors.append(invalid(place, text, words))
    if "metadata" in value:
        place = path.child("metadata")
        try:
            metadata = read_metadata(value["metadata"])
        except MalformedObject as error:
            return [*errors, invalid(place, value["metadata"], str(error))]
        metadata.name = metadata.name or _STAND_IN
        errors += validate_object_meta(
            metadata, namespaced=bool(metadata.namespace), name_rule=path_segment_name, path=place
        )
    return errors
