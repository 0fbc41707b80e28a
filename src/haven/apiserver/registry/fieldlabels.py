"""Which fields a field selector may name at each served version, what the stored version calls them, and the refusals.

Source: the field label conversions of upstream's scheme. Kinds without one accept an object's name and namespace only.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from haven.api import scheme
from haven.api.scheme import GroupVersionResource, Resource
from haven.apimachinery.goformat import quote
from haven.apimachinery.selectors import FieldSelector, SelectorError

__all__ = ["convert_field_labels"]

_NAME, _NAMESPACE = "metadata.name", "metadata.namespace"


def _same(*fields: str) -> dict[str, str]:
    return {field: field for field in fields}


_SLICE_FIELDS = _same(_NAME, "spec.nodeName", "spec.driver")
_INVOLVED = ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")

# (group, plural) -> field as clients write it -> field as the stored version has it.
_FIELDS: Mapping[tuple[str, str], Mapping[str, str]] = {
    ("", "pods"): {
        **_same(
            _NAME, _NAMESPACE, "spec.nodeName", "spec.restartPolicy", "spec.schedulerName", "spec.serviceAccountName",
            "spec.hostNetwork", "status.phase", "status.podIP", "status.podIPs", "status.nominatedNodeName",
        ),
        "spec.host": "spec.nodeName",
    },
    ("", "nodes"): _same(_NAME, "spec.unschedulable"),
    ("", "replicationcontrollers"): _same(_NAME, _NAMESPACE, "status.replicas"),
    ("", "events"): _same(
        _NAME, _NAMESPACE, "reason", "reportingComponent", "source", "type",
        *(f"involvedObject.{field}" for field in _INVOLVED),
    ),
    ("", "namespaces"): _same(_NAME, "status.phase"),
    ("", "secrets"): _same(_NAME, _NAMESPACE, "type"),
    ("", "services"): _same(_NAME, _NAMESPACE, "spec.clusterIP", "spec.type"),
    ("batch", "jobs"): _same(_NAME, _NAMESPACE, "status.successful"),
    ("certificates.k8s.io", "certificatesigningrequests"): _same(_NAME, "spec.signerName"),
    ("certificates.k8s.io", "clustertrustbundles"): _same(_NAME, "spec.signerName"),
    ("certificates.k8s.io", "podcertificaterequests"): _same(_NAME, _NAMESPACE, "spec.signerName", "spec.podName",
                                                             "spec.nodeName"),
    ("events.k8s.io", "events"): {
        **_same(_NAME, _NAMESPACE, "reason", "type"),
        "reportingController": "reportingComponent",
        **{f"regarding.{field}": f"involvedObject.{field}" for field in _INVOLVED},
    },
    ("resource.k8s.io", "resourceslices"): _SLICE_FIELDS,
}  # fmt: skip


def convert_field_labels(
    resource: Resource[Any], selector: FieldSelector, custom_fields: Collection[str] = ()
) -> FieldSelector:
    """Return the selector with the stored version's fields; raise SelectorError for one that the kind does not know.

    `custom_fields` are those that a custom resource's definition makes selectable.
    """
    known = _FIELDS.get((resource.group, resource.plural))
    complaint: Callable[[Resource[Any], str], str]
    if known is None:
        known = _same(_NAME, _NAMESPACE)
        is_custom = GroupVersionResource(resource.group, resource.version, resource.plural) not in scheme.table()
        if is_custom:
            known = _same(_NAME, *([_NAMESPACE] if resource.namespaced else []), *custom_fields)
        complaint = _unsupported if is_custom else _not_known
    else:
        complaint = _COMPLAINTS.get((resource.group, resource.plural), _unsupported)

    def convert(field: str, value: str) -> tuple[str, str]:
        if field not in known:
            raise SelectorError(complaint(resource, field))
        return known[field], value

    return selector.transform(convert)


def _not_known(_resource: Resource[Any], field: str) -> str:
    return f'{quote(field)} is not a known field selector: only "{_NAME}", "{_NAMESPACE}"'


def _unsupported(_resource: Resource[Any], field: str) -> str:
    return f"field label not supported: {field}"


def _of_job(_resource: Resource[Any], field: str) -> str:
    return f"field label {quote(field)} not supported for Job"


def _of_slice(resource: Resource[Any], field: str) -> str:
    return f"field label not supported for {resource.api_version}, Kind={resource.kind}: {field}"


_COMPLAINTS = {("batch", "jobs"): _of_job, ("resource.k8s.io", "resourceslices"): _of_slice}
