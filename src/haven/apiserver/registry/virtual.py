"""Resources that are answered and not stored: reviews, token requests, component statuses."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from haven.api.core import v1 as core
from haven.api.scheme import GroupVersionKind
from haven.api.strategy import nothing
from haven.apimachinery import apierrors, meta, serialization
from haven.apimachinery.goformat import quote
from haven.apimachinery.schema import schema_for
from haven.apiserver.admission.chain import AdmissionChain
from haven.apiserver.admission.interface import CREATE, AdmissionRequest
from haven.apiserver.components import Parts
from haven.apiserver.registry import systemfields
from haven.apiserver.registry.endpoint import Endpoint
from haven.apiserver.registry.fieldmanagement import FieldManagement, manager_of
from haven.apiserver.registry.options import list_parameters, write_parameters
from haven.apiserver.registry.output import answer_form, encode_json_as, object_response
from haven.apiserver.registry.requestobjects import body_of, noted
from haven.apiserver.registry.resources import Handler
from haven.apiserver.registry.tables import table_of_objects
from haven.apiserver.request import Request, Response

__all__ = ["component_statuses", "posted"]

Answer = Callable[[Request, Any], Awaitable[Any]]


def posted(
    answer: Answer,
    admission: AdmissionChain,
    fields: FieldManagement,
    gvk: GroupVersionKind | None = None,
    default: Callable[[Any], None] = nothing,
) -> Mapping[str, Handler]:
    """Return the handler of a resource to which an object is posted, and comes back answered."""

    async def create(request: Request, endpoint: Endpoint) -> Response:
        form = answer_form(request, endpoint, tables=False)
        parameters = write_parameters(request.query, "CreateOptions")
        kind = gvk or endpoint.gvk
        obj = body_of(request, kind, parameters)
        default(obj)
        noted(request, obj, kind)
        namespace = request.info.namespace if endpoint.resource.namespaced else ""
        systemfields.ensure_namespace(obj.metadata, namespace)
        if not request.info.subresource:
            systemfields.wipe(obj.metadata)
        schema = schema_for(*kind)
        assert schema is not None
        manager = manager_of(parameters.field_manager, request)
        fields.posted(obj, kind, schema, manager, request.info.subresource)
        asked = AdmissionRequest(
            operation=CREATE,
            resource=endpoint.resource,
            subresource=request.info.subresource,
            namespace=namespace,
            name=request.info.name,
            user=request.user,
            object=obj,
            dry_run=parameters.dry_run,
            options=parameters.tree,
            warnings=request.warnings,
            audit_annotations=request.audit_annotations,
            audit_details=request.audit_details,
            delays=request.waits(),
        )
        await admission.admit(asked)
        await admission.validate(asked)
        result = await answer(request, asked.object)
        result.kind, result.api_version = kind.kind, kind.api_version
        return object_response(request, endpoint, form, result, 201, served=True)

    return {"create": create}


def component_statuses(parts: Parts) -> Mapping[str, Handler]:
    """Return the handlers of componentstatuses; each part is asked when somebody wants to know."""

    async def status_of(name: str) -> core.ComponentStatus:
        found = await parts[name]()
        condition = core.ComponentCondition(
            type="Healthy", status=found.status, message=found.message, error=found.error
        )
        result = core.ComponentStatus(conditions=[condition])
        result.metadata.name = name
        return result

    async def get(request: Request, endpoint: Endpoint) -> Response:
        form = answer_form(request, endpoint)
        if request.info.name not in parts:
            raise apierrors.NotFound.of(apierrors.GroupResource("", "componentstatus"), request.info.name)
        found = await status_of(request.info.name)
        found.kind, found.api_version = endpoint.resource.kind, endpoint.resource.api_version
        return object_response(request, endpoint, form, found, served=True)

    async def list_all(request: Request, endpoint: Endpoint) -> Response:
        form = answer_form(request, endpoint, streams=True)
        parameters = list_parameters(request.query)
        found = await asyncio.gather(*(status_of(name) for name in sorted(parts)))
        if parameters.labels is not None:
            found = [one for one in found if parameters.labels.matches(one.metadata.labels)]
        if parameters.fields is not None:
            found = [one for one in found if parameters.fields.matches({"metadata.name": one.metadata.name})]
        items = [serialization.encode(one) for one in found]
        if form.kind == "Table":
            data = table_of_objects(request, endpoint, form, items, list_metadata=b"{}")
        else:
            data = b'{"kind":"ComponentStatusList","apiVersion":"v1","metadata":{},"items":[%b]}' % b",".join(
                item.replace(b'"kind":"ComponentStatus","apiVersion":"v1",', b"", 1) for item in items
            )
        return Response(200, {"Content-Type": form.media_type}, encode_json_as(data, form))

    async def watch(request: Request, endpoint: Endpoint) -> Response:
        plural = endpoint.resource.plural
        text = f"watch is not supported on resources of kind {quote(plural)}"
        raise apierrors.MethodNotAllowed(text, meta.StatusDetails(kind=plural))

    return {"get": get, "list": list_all, "watch": watch}
