"""The Scale of a custom resource: its definition names the fields.

Source: https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#scale-subresource
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from haven.api.apiextensions import v1
from haven.api.autoscaling import v1 as autoscaling
from haven.apimachinery import apierrors, meta, serialization
from haven.apimachinery.apply import scale as scale_fields
from haven.apimachinery.goformat import quote
from haven.apimachinery.names import UID
from haven.apimachinery.unstructured import Unstructured
from haven.apiserver.customresources.strategy import nested
from haven.apiserver.customresources.view import VersionView
from haven.apiserver.registry.endpoint import Endpoint
from haven.apiserver.registry.fieldmanagement import typed_entries
from haven.apiserver.registry.scale import NEVER_SET

__all__ = ["CustomScaleFields"]


class CustomScaleFields:
    """Replicas and selector at the paths that a version declares."""

    def read(self, endpoint: Endpoint, obj: Unstructured, *, managed: bool = False) -> autoscaling.Scale:
        scale = _declared(endpoint)
        tree = {"metadata": {}, **obj.content}
        replicas, wrong = nested(tree, scale.spec_replicas_path, int)
        ready, wrong_status = nested(tree, scale.status_replicas_path, int)
        selector: Any = ""
        wrong_selector = ""
        if scale.label_selector_path:
            selector, wrong_selector = nested(tree, scale.label_selector_path, str)
        if wrong or wrong_status or wrong_selector:
            raise apierrors.InternalError.because(wrong or wrong_status or wrong_selector)
        if replicas is None and not managed:
            place = quote(scale.spec_replicas_path)
            raise apierrors.InternalError.because(f"the spec replicas field {place} does not exist")
        metadata = obj.metadata
        entries: list[meta.ManagedFieldsEntry] = []
        if managed:
            trees = [serialization.to_tree(entry) for entry in metadata.managed_fields]
            entries = typed_entries(scale_fields.to_scale(trees, self.paths(endpoint)))
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
            spec=autoscaling.ScaleSpec(replicas=NEVER_SET if replicas is None else replicas),
            status=autoscaling.ScaleStatus(replicas=ready or 0, selector=selector or ""),
        )

    def write(self, endpoint: Endpoint, obj: Unstructured, scale: autoscaling.Scale) -> None:
        path = _declared(endpoint).spec_replicas_path
        if scale.spec.replicas == NEVER_SET:
            raise apierrors.BadRequest(f"the spec replicas field {quote(path)} cannot be empty")
        *names, last = path.removeprefix(".").split(".")
        place: dict[str, Any] = obj.content
        for name in names:
            place = place.setdefault(name, {})
        place[last] = scale.spec.replicas

    def paths(self, endpoint: Endpoint) -> Mapping[str, tuple[str, ...] | None]:
        return _view(endpoint).replica_paths


def _view(endpoint: Endpoint) -> VersionView:
    assert isinstance(endpoint.view, VersionView), endpoint
    return endpoint.view


def _declared(endpoint: Endpoint) -> v1.CustomResourceSubresourceScale:
    scale = _view(endpoint).scale
    assert scale is not None, endpoint
    return scale
