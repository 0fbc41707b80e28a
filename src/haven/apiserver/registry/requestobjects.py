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

__all__ = ["body_of", "noted"]


def body_of(request: Request, gvk: GroupVersionKind, parameters: WriteParameters) -> Any:
    """Return the object in a request; raise BadRequest."""
    if request.object is not None:
        return noted(request, serialization.copy(request.object), gvk)
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
    return noted(request, serialization.convert(tree, scheme.kind_type(*gvk)), gvk)


def noted(request: Request, obj: Any, gvk: GroupVersionKind) -> Any:
    """Return an object that came in a request, once the audit log knows it."""
    if request.audit is not None:
        request.audit.add_object(obj, gvk.api_version, gvk.kind)
    return obj
