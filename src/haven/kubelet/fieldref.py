"""Values of pod fields and container resources, as environment variables and downwardAPI volumes show them.

Source: https://kubernetes.io/docs/concepts/workloads/pods/downward-api/
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from haven.api.core.v1 import Container, Pod, ResourceFieldSelector
from haven.apimachinery.goformat import quote
from haven.apimachinery.quantity import Quantity
from haven.apimachinery.validation.names import qualified_name_errors
from haven.kubelet.podspec import find_container

__all__ = ["FieldError", "FieldFacts", "field_value", "format_map", "resource_value"]


class FieldError(Exception):
    """The reference names a field that pods do not offer."""


@dataclass(frozen=True, slots=True)
class FieldFacts:
    """What field values depend on beside the pod."""

    pod_ips: Sequence[str] = ()
    host_ips: Sequence[str] = ()
    allocatable: Mapping[str, Quantity] = field(default_factory=dict)


def field_value(path: str, pod: Pod, facts: FieldFacts) -> str:
    """Return a field of the pod as text; raise FieldError."""
    metadata = pod.metadata
    if path.endswith("']") and "['" in path:
        name, _, subscript = path[:-2].partition("['")
        if name not in ("metadata.annotations", "metadata.labels"):
            raise FieldError(f"fieldPath {quote(path)} does not support subscript")
        is_annotation = name == "metadata.annotations"
        complaints = qualified_name_errors(subscript.lower() if is_annotation else subscript)
        if complaints:
            raise FieldError(f"invalid key subscript in {path}: {';'.join(str(item) for item in complaints)}")
        return (metadata.annotations if is_annotation else metadata.labels).get(subscript, "")
    values = {
        "metadata.name": metadata.name,
        "metadata.namespace": metadata.namespace,
        "metadata.uid": metadata.uid,
        "spec.nodeName": pod.spec.node_name,
        "spec.serviceAccountName": pod.spec.service_account_name,
        "status.podIP": facts.pod_ips[0] if facts.pod_ips else "",
        "status.podIPs": ",".join(facts.pod_ips),
        "status.hostIP": facts.host_ips[0] if facts.host_ips else "",
        "status.hostIPs": ",".join(facts.host_ips),
    }
    if path in values:
        return values[path]
    if path == "metadata.labels":
        return format_map(metadata.labels)
    if path == "metadata.annotations":
        return format_map(metadata.annotations)
    raise FieldError(f"unsupported fieldPath: {path}")


def format_map(values: Mapping[str, str]) -> str:
    """Return key="value" lines in the order of keys."""
    return "\n".join(f"{key}={quote(values[key])}" for key in sorted(values))


def resource_value(selector: ResourceFieldSelector, pod: Pod, container: Container | None, facts: FieldFacts) -> str:
    """Return a request or limit in units of the divisor, rounded up; a missing limit is what the node has."""
    if selector.container_name:
        container = find_container(pod, selector.container_name)
    if container is None:
        raise FieldError(f"container {selector.container_name} not found")
    kind, _, name = selector.resource.partition(".")
    is_known = name in ("cpu", "memory", "ephemeral-storage") or name.startswith("hugepages-")
    if kind not in ("limits", "requests") or not is_known:
        raise FieldError(f"unsupported container resource : {selector.resource}")
    amounts = container.resources.limits if kind == "limits" else container.resources.requests
    amount = amounts.get(name)
    if amount is None and kind == "limits" and pod.spec.resources is not None:
        amount = pod.spec.resources.limits.get(name)
    if amount is None and kind == "limits":
        amount = facts.allocatable.get(name)
    if amount is None:
        amount = Quantity.ZERO
    divisor = selector.divisor if selector.divisor else Quantity.of(1)
    if name == "cpu":
        return str(-(-amount.milli_value // divisor.milli_value))
    return str(-(-amount.value // divisor.value))
