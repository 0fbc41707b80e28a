"""Bodies that are not stored objects: Bindings, Evictions, Scales, reviews, token requests."""

from __future__ import annotations

from typing import Any

from haven.api import scheme
from haven.api.scheme import GroupVersionKind
from haven.apimachinery import serialization
from haven.apimachinery.schema import schema_for
from haven.apiserver.registry.bodies import decode_object
from haven.apiserver.registry.options import WriteParameters
from haven.apiserver.request import Request

__all__ = ["body_of"]


def body_of(request: Request, gvk: GroupVersionKind, parameters: WriteParameters) -> Any:
    """Return the object in a request; raise BadRequest."""
    if request.object is not None:
        return serialization.copy(request.object)
    schema = schema_for(*gvk)
    assert schema is not None, gvk
    tree = decode_object(
        request.body,
        request.headers.get("content-type", ""),
        gvk,
        schema,
        parameters.field_validation,
        request.warnings,
    )
    return serialization.convert(tree, scheme.kind_type(*gvk))
