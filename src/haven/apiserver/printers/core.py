"""Rows of the core group."""

from __future__ import annotations

from typing import Any

from haven.api.core import v1 as core_v1
from haven.apiserver.printers.format import (
    NONE,
    UNKNOWN,
    UNSET,
    age,
    containers,
    first_of,
    labels,
    load_balancer,
)
from haven.apiserver.printers.pods import pod, pod_conditions

__all__ = ["CONDITIONS", "ROWS"]

_ROLE_LABEL_PREFIX, _ROLE_LABEL = "node-role.kubernetes.io/", "kubernetes.io/role"
_BETA_CLASS_ANNOTATION = "volume.beta.kubernetes.io/storage-class"
_ACCESS_MODES = {
    "ReadWriteOnce": "RWO", "ReadOnlyMany": "ROX", "ReadWriteMany": "RWX", "ReadWriteOncePod": "RWOP",
}  # fmt: skip
_ENDPOINTS_MAX = 3


def _pod_template(item: core_v1.PodTemplate, _now: float) -> list[Any]:
    return [item.metadata.name, *containers(item.template.spec.containers), labels(item.template.metadata.labels)]


def _replication_controller(item: core_v1.ReplicationController, now: float) -> list[Any]:
    template = item.spec.template
    return [
        item.metadata.name,
        item.spec.replicas or 0,
        item.status.replicas,
        item.status.ready_replicas,
        age(item.metadata.creation_timestamp, now),
        *containers(template.spec.containers if template else ()),
        labels(item.spec.selector),
    ]


def _service(item: core_v1.Service, now: float) -> list[Any]:
    spec = item.spec
    return [
        item.metadata.name,
        spec.type,
        spec.cluster_ips[0] if spec.cluster_ips else NONE,
        _external_address(item),
        ",".join(_service_port(port) for port in spec.ports) or NONE,
        age(item.metadata.creation_timestamp, now),
        labels(spec.selector),
    ]


def _service_port(port: core_v1.ServicePort) -> str:
    number = f"{port.port}:{port.node_port}" if port.node_port > 0 else f"{port.port}"
    return f"{number}/{port.protocol}"


def _external_address(item: core_v1.Service) -> str:
    addresses = list(item.spec.external_ips)
    match item.spec.type:
        case "ClusterIP" | "NodePort":
            return ",".join(addresses) or NONE
        case "LoadBalancer":
            balancer = load_balancer(item.status.load_balancer.ingress)
            return ",".join([balancer, *addresses] if balancer else addresses) or "<pending>"
        case "ExternalName":
            return item.spec.external_name
    return UNKNOWN


def _endpoints(item: core_v1.Endpoints, now: float) -> list[Any]:
    return [item.metadata.name, _addresses(item), age(item.metadata.creation_timestamp, now)]


def _addresses(item: core_v1.Endpoints) -> str:
    if not item.subsets:
        return NONE
    listed: list[str] = []
    for subset in item.subsets:
        if not subset.ports:
            listed += [address.ip for address in subset.addresses]
        for port in subset.ports:
            listed += [_host_port(address.ip, port.port) for address in subset.addresses]
    text = ",".join(listed[:_ENDPOINTS_MAX])
    return f"{text} + {len(listed) - _ENDPOINTS_MAX} more..." if len(listed) > _ENDPOINTS_MAX else text


def _host_port(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _namespace(item: core_v1.Namespace, now: float) -> list[Any]:
    return [item.metadata.name, item.status.phase, age(item.metadata.creation_timestamp, now)]


def _secret(item: core_v1.Secret, now: float) -> list[Any]:
    return [item.metadata.name, item.type, len(item.data), age(item.metadata.creation_timestamp, now)]


def _service_account(item: core_v1.ServiceAccount, now: float) -> list[Any]:
    return [item.metadata.name, age(item.metadata.creation_timestamp, now)]


def _config_map(item: core_v1.ConfigMap, now: float) -> list[Any]:
    return [item.metadata.name, len(item.data) + len(item.binary_data), age(item.metadata.creation_timestamp, now)]


def _node(item: core_v1.Node, now: float) -> list[Any]:
    info = item.status.node_info
    ready = {condition.type: condition.status for condition in item.status.conditions}.get("Ready")
    status = ["Unknown" if ready is None else "Ready" if ready == "True" else "NotReady"]
    if item.spec.unschedulable:
        status.append("SchedulingDisabled")
    kernel = info.kernel_version or UNKNOWN
    return [
        item.metadata.name,
        ",".join(status),
        ",".join(_roles(item.metadata.labels)) or NONE,
        age(item.metadata.creation_timestamp, now),
        info.kubelet_version,
        _address(item, "InternalIP"),
        _address(item, "ExternalIP"),
        info.os_image or UNKNOWN,
        f"{kernel} ({info.architecture})" if info.architecture else kernel,
        info.container_runtime_version or UNKNOWN,
    ]


def _roles(items: dict[str, str]) -> list[str]:
    roles = {key.removeprefix(_ROLE_LABEL_PREFIX) for key in items if key.startswith(_ROLE_LABEL_PREFIX)}
    roles.add(items.get(_ROLE_LABEL, ""))
    return sorted(roles - {""})


def _address(item: core_v1.Node, kind: str) -> str:
    return next((address.address for address in item.status.addresses if address.type == kind), NONE)


def _persistent_volume(item: core_v1.PersistentVolume, now: float) -> list[Any]:
    spec, claim = item.spec, item.spec.claim_ref
    return [
        item.metadata.name,
        str(spec.capacity.get("storage", "0")),
        _access_modes(spec.access_modes),
        spec.persistent_volume_reclaim_policy,
        "Terminating" if item.metadata.deletion_timestamp else item.status.phase,
        f"{claim.namespace}/{claim.name}" if claim else "",
        item.metadata.annotations.get(_BETA_CLASS_ANNOTATION, spec.storage_class_name),
        UNSET if spec.volume_attributes_class_name is None else spec.volume_attributes_class_name,
        item.status.reason,
        age(item.metadata.creation_timestamp, now),
        UNSET if spec.volume_mode is None else spec.volume_mode,
    ]


def _persistent_volume_claim(item: core_v1.PersistentVolumeClaim, now: float) -> list[Any]:
    spec, status = item.spec, item.status
    return [
        item.metadata.name,
        "Terminating" if item.metadata.deletion_timestamp else status.phase,
        spec.volume_name,
        str(status.capacity.get("storage", "0")) if spec.volume_name else "",
        _access_modes(status.access_modes) if spec.volume_name else "",
        item.metadata.annotations.get(_BETA_CLASS_ANNOTATION, spec.storage_class_name or ""),
        UNSET if spec.volume_attributes_class_name is None else spec.volume_attributes_class_name,
        age(item.metadata.creation_timestamp, now),
        UNSET if spec.volume_mode is None else spec.volume_mode,
    ]


def _access_modes(modes: list[str]) -> str:
    return ",".join(short for mode, short in _ACCESS_MODES.items() if mode in modes)


def _event(item: core_v1.Event, now: float) -> list[Any]:
    first = age(item.first_timestamp or item.event_time, now)
    last = age(item.last_timestamp, now) if item.last_timestamp else first
    count = item.count or 1
    if item.series is not None:
        last, count = age(item.series.last_observed_time, now), item.series.count
    target = item.involved_object.kind.lower()
    if item.involved_object.name:
        target += f"/{item.involved_object.name}"
    component = first_of(item.source.component, item.reporting_component)
    instance = first_of(item.source.host, item.reporting_instance)
    return [
        last,
        item.type,
        item.reason,
        target,
        item.involved_object.field_path,
        f"{component}, {instance}" if instance else component,
        item.message.strip(),
        first,
        count,
        item.metadata.name,
    ]


def _component_status(item: core_v1.ComponentStatus, _now: float) -> list[Any]:
    for condition in item.conditions:
        if condition.type == "Healthy":
            status = "Healthy" if condition.status == "True" else "Unhealthy"
            return [item.metadata.name, status, condition.message, condition.error]
    return [item.metadata.name, "Unknown", "", ""]


def _resource_quota(item: core_v1.ResourceQuota, now: float) -> list[Any]:
    requests: list[str] = []
    limits: list[str] = []
    for name in sorted(item.status.hard):
        used = item.status.used.get(name, "0")
        (limits if name.startswith("limits.") else requests).append(f"{name}: {used}/{item.status.hard[name]}")
    return [
        item.metadata.name,
        ", ".join(requests),
        ", ".join(limits),
        age(item.metadata.creation_timestamp, now),
    ]


ROWS = {
    "ComponentStatus": _component_status,
    "ConfigMap": _config_map,
    "Endpoints": _endpoints,
    "Event": _event,
    "Namespace": _namespace,
    "Node": _node,
    "PersistentVolume": _persistent_volume,
    "PersistentVolumeClaim": _persistent_volume_claim,
    "Pod": pod,
    "PodTemplate": _pod_template,
    "ReplicationController": _replication_controller,
    "ResourceQuota": _resource_quota,
    "Secret": _secret,
    "Service": _service,
    "ServiceAccount": _service_account,
}
CONDITIONS = {"Pod": pod_conditions}
