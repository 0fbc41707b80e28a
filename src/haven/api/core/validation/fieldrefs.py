"""What is wrong with a reference to a field of a Pod, or to a resource of a container.

Source: https://kubernetes.io/docs/concepts/workloads/pods/downward-api/ and the behaviour of
pkg/apis/core/validation.
"""

from __future__ import annotations

from collections.abc import Set

from haven.api.core import v1
from haven.apimachinery.fielderrors import ErrorList, Path, invalid, not_supported, required
from haven.apimachinery.validation.names import qualified_name_errors

__all__ = ["split_subscript", "validate_field_ref", "validate_resource_field_ref"]

_KNOWN_FIELDS = frozenset(
    (
        "metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid",
        "spec.nodeName", "spec.restartPolicy", "spec.serviceAccountName", "spec.schedulerName", "status.phase",
        "status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs",
    )
)  # fmt: skip
_RESOURCES = (
    "limits.cpu", "limits.ephemeral-storage", "limits.memory",
    "requests.cpu", "requests.ephemeral-storage", "requests.memory",
)  # fmt: skip
_HUGE_PAGES = ("limits.hugepages-", "requests.hugepages-")
_BYTE_DIVISORS = frozenset(
    ("1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei")
)  # fmt: skip
_BYTE_WORDS = "only divisor's values 1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei are supported with the"


def split_subscript(field_path: str) -> tuple[str, str] | None:
    """Part metadata.labels['key'] into path and key; None for a path without a key."""
    if not field_path.endswith("']"):
        return None
    path, bracket, key = field_path.removesuffix("']").partition("['")
    return (path, key) if bracket and path else None


def validate_field_ref(reference: v1.ObjectFieldSelector, allowed: Set[str], path: Path) -> ErrorList:
    """Check a reference to one of the allowed fields of the Pod."""
    if not reference.api_version:
        return [required(path.child("apiVersion"), "")]
    if not reference.field_path:
        return [required(path.child("fieldPath"), "")]
    field_path = reference.field_path
    subscripted = split_subscript(field_path)
    complaint = ""
    if reference.api_version != "v1":
        complaint = f"unsupported pod version: {reference.api_version}"
    elif subscripted is not None:
        if subscripted[0] not in ("metadata.annotations", "metadata.labels"):
            complaint = f"field label does not support subscript: {field_path}"
    elif field_path == "spec.host":
        field_path = "spec.nodeName"
    elif field_path not in _KNOWN_FIELDS:
        complaint = f"field label not supported: {field_path}"
    if complaint:
        return [invalid(path.child("fieldPath"), reference.field_path, f"error converting fieldPath: {complaint}")]
    if subscripted is not None:
        key = subscripted[1].lower() if subscripted[0] == "metadata.annotations" else subscripted[1]
        return [invalid(path, key, text) for text in qualified_name_errors(key)]
    if field_path not in allowed:
        return [not_supported(path.child("fieldPath"), field_path, sorted(allowed))]
    return []


def validate_resource_field_ref(reference: v1.ResourceFieldSelector, path: Path, *, needs_container: bool) -> ErrorList:
    """Check a reference to a request or a limit of a container."""
    errors: ErrorList = []
    name = reference.resource
    if needs_container and not reference.container_name:
        errors.append(required(path.child("containerName"), ""))
    elif not name:
        errors.append(required(path.child("resource"), ""))
    elif name not in _RESOURCES and not name.startswith(_HUGE_PAGES):
        errors.append(not_supported(path.child("resource"), name, _RESOURCES))
    return errors + _divisor(name, reference, path)


def _divisor(name: str, reference: v1.ResourceFieldSelector, path: Path) -> ErrorList:
    if not reference.divisor:
        return []
    divisor = str(reference.divisor)
    if name in ("limits.cpu", "requests.cpu"):
        if divisor not in ("1m", "1"):
            words = "only divisor's values 1m and 1 are supported with the cpu resource"
            return [invalid(path.child("divisor"), name, words)]
    elif divisor not in _BYTE_DIVISORS:
        subject = ""
        if name in ("limits.memory", "requests.memory"):
            subject = "memory"
        elif name in ("limits.ephemeral-storage", "requests.ephemeral-storage"):
            subject = "local ephemeral storage"
        elif name.startswith(_HUGE_PAGES):
            subject = "hugepages"
        if subject:
            return [invalid(path.child("divisor"), name, f"{_BYTE_WORDS} {subject} resource")]
    return []
