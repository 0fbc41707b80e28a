"""PATCH: JSON, merge and strategic patches, and server-side apply; each is an update computed from the newest state.

Patches work on the object in the version that the client speaks; the result goes the way of every update.
"""

from __future__ import annotations

from typing import Any

import orjson

from haven.api.retired import from_retired
from haven.api.strategy import Strategy, Unreadable
from haven.apimachinery import apierrors, meta, serialization
from haven.apimachinery.codecs import yaml
from haven.apimachinery.patch.dispatch import PATCH_TYPES, PatchType, json_kind, merged, patched, refused
from haven.apimachinery.patch.written import as_written
from haven.apimachinery.schema.gojson import readable
from haven.apiserver.registry import systemfields
from haven.apiserver.registry.bodies import strict_yaml_error
from haven.apiserver.registry.endpoint import Endpoint
from haven.apiserver.registry.fieldmanagement import keep_reset, manager_of
from haven.apiserver.registry.options import IGNORE, STRICT, WriteParameters, write_parameters
from haven.apiserver.registry.output import answer_form, served_bytes
from haven.apiserver.registry.results import Result
from haven.apiserver.registry.writing import UpdateRequest, Writing
from haven.apiserver.request import Request, Response
from haven.apiserver.watchcache import Entry

__all__ = ["Patching", "applied_tree", "patch_kind"]

APPLY = "application/apply-patch+yaml"
_ALL = (*PATCH_TYPES, APPLY)
_CUSTOM = (PatchType.JSON.value, PatchType.MERGE.value, APPLY)


def patch_kind(request: Request, endpoint: Endpoint) -> str:
    """Return the media type of a patch; raise UnsupportedMediaType. Custom resources have no strategic patches."""
    kind = request.headers.get("content-type", "").partition(";")[0]
    accepted = _ALL if endpoint.view is None else _CUSTOM
    if endpoint.view is None and kind.strip() not in _ALL:  # The route looks first, and less closely.
        raise apierrors.UnsupportedMediaType("415: Unsupported Media Type", meta.StatusDetails())
    if kind not in accepted:
        raise apierrors.UnsupportedMediaType(
            f"the body of the request was in an unknown format - accepted media types include: {', '.join(accepted)}"
        )
    return kind


def applied_tree(body: bytes) -> tuple[dict[str, Any], list[str]]:
    """Return (what an apply sends, complaints about repeated keys); raise BadRequest."""
    try:
        patch, repeated = yaml.parse(body)
    except yaml.InvalidYAML as error:
        raise apierrors.BadRequest(f"error decoding YAML: error converting YAML to JSON: {error}") from None
    if patch is None:
        patch = {}
    if not isinstance(patch, dict):
        raise apierrors.BadRequest(
            "error decoding YAML: error unmarshaling JSON: while decoding JSON: json: cannot unmarshal "
            f"{json_kind(patch)} into Go value of type map[string]interface {{}}"
        )
    return patch, repeated


class Patching:
    """PATCH of stored resources."""

    def __init__(self, writing: Writing) -> None:
        self._writing = writing

    async def patch(self, request: Request, endpoint: Endpoint, subresource: str = "") -> Response:
        """Answer a PATCH of an object, or of a subresource that has the object's own kind."""
        kind = patch_kind(request, endpoint)
        form = answer_form(request, endpoint)
        parameters = write_parameters(request.query, "PatchOptions", is_apply=kind == APPLY)
        result = await self.change(
            request, endpoint, subresource, endpoint.strategy_of(subresource), kind, request.body, parameters
        )
        return self._writing.respond(request, endpoint, form, result, 201 if result.created else 200)

    async def change(
        self,
        request: Request,
        endpoint: Endpoint,
        subresource: str,
        strategy: Strategy[Any],
        kind: str,
        body: bytes,
        parameters: WriteParameters,
    ) -> Result:
        """Apply a patch of any kind."""
        info = request.info
        namespace = info.namespace if endpoint.resource.namespaced else ""
        manager = manager_of(parameters.field_manager, request)
        warned: list[str] = []

        async def compute(_current: Any | None, live: Entry | None) -> Any:
            warned.clear()
            if kind == APPLY:
                new = await self._applied(live, body, endpoint, subresource, parameters, warned)
            else:
                new, update.patched = self._patched(live, kind, body, endpoint, parameters, warned)
                await self._writing.fields.updated(new, live, endpoint, manager, subresource)
            systemfields.ensure_namespace(new.metadata, namespace)
            systemfields.check_name(new.metadata, info.name)
            return new

        update = UpdateRequest(
            request=request,
            endpoint=endpoint,
            subresource=subresource,
            strategy=strategy,
            name=info.name,
            namespace=namespace,
            compute=compute,
            parameters=parameters,
            allow_create=kind == APPLY
            and (not subresource or (subresource == "status" and endpoint.strategy.allow_create_on_update)),
            is_apply=kind == APPLY,
        )
        said_before = len(request.warnings)
        try:
            return await self._writing.modify(update)
        finally:
            request.warnings[said_before:said_before] = warned

    def _patched(
        self,
        live: Entry | None,
        kind: str,
        body: bytes,
        endpoint: Endpoint,
        parameters: WriteParameters,
        warnings: list[str],
    ) -> tuple[Any, dict[str, Any]]:
        """Return the object that a patch makes, also as the plain tree of the version spoken."""
        assert live is not None
        if endpoint.view is not None:
            level = parameters.field_validation
            tree, complaints = merged(PATCH_TYPES[kind], orjson.loads(live.data), readable(body), level)
            return endpoint.view.patched(tree, complaints, level, warnings), tree
        tree, found = patched(
            PATCH_TYPES[kind],
            orjson.loads(served_bytes(live, endpoint)),
            body,
            endpoint.schema,
            parameters.field_validation,
            is_own=True,
            current=lambda tree: from_retired(tree, endpoint.resource.api_version, endpoint.resource.kind),
        )
        warnings.extend(found)
        try:
            return self._stored(tree, endpoint), tree
        except Unreadable as error:
            if kind == PatchType.STRATEGIC.value:
                raise apierrors.ApiError(error.because) from None
            before = orjson.loads(served_bytes(live, endpoint))
            change = orjson.loads(readable(body))
            is_json_patch = kind == PatchType.JSON.value
            written = as_written(tree, before, change, endpoint.schema, is_json_patch=is_json_patch)
            raise refused(written, error.because) from None

    async def _applied(
        self,
        live: Entry | None,
        body: bytes,
        endpoint: Endpoint,
        subresource: str,
        parameters: WriteParameters,
        warnings: list[str],
    ) -> Any:
        patch, repeated = applied_tree(body)
        tree = await self._writing.fields.applied(
            live, patch, endpoint, parameters.field_manager, subresource, force=bool(parameters.force)
        )
        if repeated and parameters.field_validation != IGNORE:
            if parameters.field_validation == STRICT:
                text = f"error converting YAML to JSON: {strict_yaml_error(repeated)}"
                raise apierrors.BadRequest(f"error strict decoding YAML: {text}")
            warnings.extend(repeated)
        try:
            return self._stored(tree, endpoint)
        except Unreadable as error:
            metadata, resource = patch.get("metadata") or {}, endpoint.resource
            who = f"{metadata.get('namespace', '')}/{metadata.get('name', '')}"
            what = f"{who}; {resource.api_version}, Kind={resource.kind}"
            raise apierrors.ApiError(f"failed to convert to unversioned ({what}): {error.because}") from None

    @staticmethod
    def _stored(tree: dict[str, Any], endpoint: Endpoint) -> Any:
        if endpoint.view is not None:
            return endpoint.view.applied(tree)
        served = serialization.convert(tree, endpoint.resource.type)
        keep_reset(tree, served)
        obj = endpoint.conversion.to_stored(served)
        endpoint.strategy.default(obj)
        return obj
