"""The scale subresource: replicas of Deployments, ReplicaSets, StatefulSets and ReplicationControllers, alike.

A write to a Scale becomes an update of its parent, so it goes through the parent's checks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import orjson

from haven.api.autoscaling import v1 as autoscaling
from haven.api.scheme import GroupVersionKind
from haven.apimachinery import apierrors, apply, meta, serialization, times
from haven.apimachinery.apply import scale as scale_fields
from haven.apimachinery.fielderrors import Path, invalid
from haven.apimachinery.names import UID
from haven.apimachinery.patch.dispatch import PATCH_TYPES, patched
from haven.apimachinery.schema import schema_for
from haven.apimachinery.selectors import from_label_selector, from_labels
from haven.apiserver.registry import systemfields
from haven.apiserver.registry.endpoint import Endpoint
from haven.apiserver.registry.fieldmanagement import manager_of, typed_entries
from haven.apiserver.registry.options import WriteParameters, write_parameters
from haven.apiserver.registry.output import answer_form, object_response
from haven.apiserver.registry.patching import APPLY, applied_tree, patch_kind
from haven.apiserver.registry.requestobjects import body_of
from haven.apiserver.registry.resources import Handler
from haven.apiserver.registry.writing import UpdateRequest, Writing
from haven.apiserver.request import Request, Response
from haven.apiserver.watchcache import Entry
from haven.clock import Clock

__all__ = ["NEVER_SET", "SCALED", "ScaleFields", "Scales"]

SCALED = (("apps", "deployments"), ("apps", "replicasets"), ("apps", "statefulsets"), ("", "replicationcontrollers"))
_GVK = GroupVersionKind("autoscaling", "v1", "Scale")
_PATHS: Mapping[str, tuple[str, ...] | None] = {"apps/v1": ("spec", "replicas"), "v1": ("spec", "replicas")}


NEVER_SET = -(2**31)
"""Stands for the replicas of a custom resource that has none, while its Scale is changed."""


class ScaleFields(Protocol):
    """Where a kind keeps what its Scale shows."""

    def read(self, endpoint: Endpoint, obj: Any, *, managed: bool = False) -> autoscaling.Scale:
        """Return the Scale of an object; with the owners of replicas if `managed`."""
        ...

    def write(self, endpoint: Endpoint, obj: Any, scale: autoscaling.Scale) -> None:
        """Set an object's replicas; raise BadRequest if there are none to set."""
        ...

    def paths(self, endpoint: Endpoint) -> Mapping[str, tuple[str, ...] | None]:
        """Return where the replicas are, by API version."""
        ...


class TypedFields:
    """Built-in kinds, which are all alike in this."""

    def read(self, _endpoint: Endpoint, obj: Any, *, managed: bool = False) -> autoscaling.Scale:
        return scale_of(obj, managed=managed)

    def write(self, _endpoint: Endpoint, obj: Any, scale: autoscaling.Scale) -> None:
        obj.spec.replicas = scale.spec.replicas

    def paths(self, _endpoint: Endpoint) -> Mapping[str, tuple[str, ...] | None]:
        return _PATHS


class Scales:
    """Handlers of scale."""

    def __init__(self, writing: Writing, clock: Clock, fields: ScaleFields | None = None) -> None:
        self._writing = writing
        self._fields = fields or TypedFields()
        self._clock = clock
        schema = schema_for(*_GVK)
        assert schema is not None
        self._schema = schema

    def handlers(self) -> Mapping[str, Handler]:
        """Return the handlers by verb."""
        return {"get": self.get, "update": self.update, "patch": self.patch}

    async def get(self, request: Request, endpoint: Endpoint) -> Response:
        """Answer with the Scale of an object."""
        form = answer_form(request, endpoint)
        entry = endpoint.storage.get(request.info.namespace, request.info.name)
        if entry is None:
            raise endpoint.not_found(request.info.name)
        scale = self._fields.read(endpoint, (await endpoint.show(entry)).glimpse)
        return object_response(request, endpoint, form, scale, served=True)

    async def update(self, request: Request, endpoint: Endpoint) -> Response:
        """Answer a PUT."""
        form = answer_form(request, endpoint)
        parameters = write_parameters(request.query, "UpdateOptions")
        scale = body_of(request, _GVK, parameters)
        systemfields.ensure_namespace(scale.metadata, request.info.namespace)
        systemfields.check_name(scale.metadata, request.info.name)
        manager = manager_of(parameters.field_manager, request)

        def change(old: autoscaling.Scale) -> autoscaling.Scale:
            new: autoscaling.Scale = serialization.copy(scale)
            self._own(old, new, manager)
            return new

        result = await self._modify(request, endpoint, parameters, change, scale.metadata.uid)
        return object_response(request, endpoint, form, result, served=True)

    async def patch(self, request: Request, endpoint: Endpoint) -> Response:
        """Answer a PATCH."""
        kind = patch_kind(request, endpoint)
        form = answer_form(request, endpoint)
        parameters = write_parameters(request.query, "PatchOptions", is_apply=kind == APPLY)
        manager = manager_of(parameters.field_manager, request)

        def change(old: autoscaling.Scale) -> autoscaling.Scale:
            live = orjson.loads(serialization.encode(old))
            if kind == APPLY:
                tree = self._applied(live, request.body, endpoint, parameters)
            else:
                tree, warnings = patched(
                    PATCH_TYPES[kind],
                    dict(sorted(live.items())),  # As Go writes what a patch has taken apart.
                    request.body,
                    self._schema,
                    parameters.field_validation,
                )
                request.warnings.extend(warnings)
            new = serialization.convert(tree, autoscaling.Scale)
            if kind != APPLY:
                self._own(old, new, manager)
            systemfields.ensure_namespace(new.metadata, request.info.namespace)
            systemfields.check_name(new.metadata, request.info.name)
            return new

        result = await self._modify(request, endpoint, parameters, change, "")
        return object_response(request, endpoint, form, result, served=True)

    def _applied(
        self, live: dict[str, Any], body: bytes, endpoint: Endpoint, parameters: WriteParameters
    ) -> dict[str, Any]:
        tree, _ = applied_tree(body)
        # Upstream takes the Scale for a custom resource and cannot convert it: only what needs no conversion works.
        is_custom = endpoint.view is not None
        if is_custom and not live["metadata"].get("managedFields"):
            raise apierrors.ApiError(f"failed to create manager for existing fields: {_unconvertible('live', '/')}")
        result = apply.apply(
            live,
            tree,
            self._schema,
            parameters.field_manager,
            api_version="autoscaling/v1",
            kind="Scale",
            force=bool(parameters.force),
            now=self._now(),
            subresource="scale",
        )
        if is_custom and result.changed:
            metadata = tree.get("metadata") or {}
            raise apierrors.ApiError(
                _unconvertible("new", f"{metadata.get('namespace', '')}/{metadata.get('name', '')}")
            )
        return result.tree

    def _now(self) -> str:
        return times.format_time(self._clock.now_seconds())

    def _own(self, old: autoscaling.Scale, new: autoscaling.Scale, manager: str) -> None:
        new.kind, new.api_version = "Scale", "autoscaling/v1"
        entries = apply.update(
            orjson.loads(serialization.encode(old)),
            serialization.to_tree(new),
            self._schema,
            manager,
            now=self._now(),
            subresource="scale",
        )
        new.metadata.managed_fields = typed_entries(entries)

    async def _modify(
        self, request: Request, endpoint: Endpoint, parameters: WriteParameters, change: Any, uid: str
    ) -> autoscaling.Scale:
        part = _Replicas(self._fields, endpoint)

        async def compute(current: Any | None, live: Entry | None) -> Any:
            assert live is not None
            assert current is not None
            new: Any = serialization.decode(live.data, type(current))
            before = self._fields.read(endpoint, new, managed=True)
            after = part.asked = change(before)
            if endpoint.view is None and after.metadata.uid and after.metadata.uid != new.metadata.uid:
                wanted = f"UID in precondition: {after.metadata.uid}, UID in object meta: {new.metadata.uid}"
                scales = apierrors.GroupResource(endpoint.resource.group, f"{endpoint.resource.plural}/scale")
                raise apierrors.Conflict.of(scales, request.info.name, f"Precondition failed: {wanted}")
            self._fields.write(endpoint, new, after)
            if after.metadata.resource_version:
                new.metadata.resource_version = after.metadata.resource_version
            entries = scale_fields.to_parent(
                [serialization.to_tree(entry) for entry in new.metadata.managed_fields],
                [serialization.to_tree(entry) for entry in after.metadata.managed_fields],
                endpoint.resource.api_version,
                self._fields.paths(endpoint),
            )
            new.metadata.managed_fields = typed_entries(entries)
            return new

        result = await self._writing.modify(
            UpdateRequest(
                request=request,
                endpoint=endpoint,
                subresource="scale",
                strategy=endpoint.strategy,
                name=request.info.name,
                namespace=request.info.namespace,
                compute=compute,
                parameters=parameters,
                uid=uid,
                part=part,
            )
        )
        return self._fields.read(endpoint, result.final)


def _unconvertible(which: str, who: str) -> str:
    return (
        f"failed to convert {which} object ({who}; autoscaling/v1, Kind=Scale) to proper version: "
        "request to convert CR to an invalid group/version: autoscaling/v1"
    )


class _Replicas:
    """The part of an object that a Scale is."""

    def __init__(self, fields: ScaleFields, endpoint: Endpoint) -> None:
        self._fields = fields
        self._endpoint = endpoint
        self.asked: Any = None

    def show(self, obj: Any) -> Any:
        return self._shown(obj, managed=True)

    def judged(self, obj: Any) -> Any:
        return self._shown(obj, managed=False)

    def _shown(self, obj: Any, *, managed: bool) -> autoscaling.Scale:
        scale = self._fields.read(self._endpoint, obj, managed=managed)
        if scale.spec.replicas == NEVER_SET:
            scale.spec.replicas = 0
        return scale

    def put(self, obj: Any, part: Any) -> None:
        if self._endpoint.view is None:
            _check(part)  # Custom resources have rules of their own for their replicas.
        self._fields.write(self._endpoint, obj, part)


def _check(scale: autoscaling.Scale) -> None:
    replicas = scale.spec.replicas
    if replicas < 0:
        errors = [invalid(Path("spec", "replicas"), replicas, "must be greater than or equal to 0")]
        raise apierrors.Invalid.of(apierrors.GroupKind("autoscaling", "Scale"), scale.metadata.name, errors)


def scale_of(obj: Any, *, managed: bool = False) -> autoscaling.Scale:
    """Return the Scale of an object; with the owners of replicas if `managed`."""
    metadata = obj.metadata
    selector = obj.spec.selector
    text = from_labels(selector) if isinstance(selector, dict) else from_label_selector(selector)
    entries: list[meta.ManagedFieldsEntry] = []
    if managed:
        trees = [serialization.to_tree(entry) for entry in metadata.managed_fields]
        entries = typed_entries(scale_fields.to_scale(trees, _PATHS))
    return autoscaling.Scale(
        kind="Scale",
        api_version="autoscaling/v1",
        metadata=meta.ObjectMeta(
            name=metadata.name,
            namespace=metadata.namespace,
            uid=UID(metadata.uid),
            resource_version=metadata.resource_version,
            creation_timestamp=metadata.creation_timestamp,
            managed_fields=entries,
        ),
        spec=autoscaling.ScaleSpec(replicas=obj.spec.replicas or 0),
        status=autoscaling.ScaleStatus(replicas=obj.status.replicas, selector=str(text)),
    )
