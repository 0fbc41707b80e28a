"""What the API server fills into objects of the core group other than Pods.

Source: the behaviour of pkg/apis/core/v1 (defaults, conversion).
"""

from __future__ import annotations

from haven.api.core import v1
from haven.api.core.pod_defaults import default_claim_spec
from haven.api.core.resources import round_up_to_milli

__all__ = [
    "default_claim",
    "default_endpoints",
    "default_limit_range",
    "default_namespace",
    "default_node",
    "default_quota",
    "default_secret",
    "default_service",
    "default_volume",
    "default_volume_source",
]

_AFFINITY_SECONDS = 10800


def default_secret(secret: v1.Secret) -> None:
    """Give a Secret a type, and make `stringData` part of `data`."""
    if not secret.type:
        secret.type = "Opaque"
    if secret.string_data:
        secret.data = {**secret.data, **{key: text.encode() for key, text in secret.string_data.items()}}
        secret.string_data = {}


def default_namespace(namespace: v1.Namespace) -> None:
    """Give a Namespace its phase and the label with its name."""
    if not namespace.status.phase:
        namespace.status.phase = "Active"
    if namespace.metadata.name:
        namespace.metadata.labels = {
            **namespace.metadata.labels,
            "kubernetes.io/metadata.name": namespace.metadata.name,
        }


def default_service(service: v1.Service) -> None:
    """Fill in a Service; addresses and node ports are allocated elsewhere."""
    spec = service.spec
    if not spec.session_affinity:
        spec.session_affinity = "None"
    if spec.session_affinity == "None":
        spec.session_affinity_config = None
    elif spec.session_affinity == "ClientIP":
        config = spec.session_affinity_config
        if config is None or config.client_ip is None or config.client_ip.timeout_seconds is None:
            client_ip = v1.ClientIPConfig(timeout_seconds=_AFFINITY_SECONDS)
            spec.session_affinity_config = v1.SessionAffinityConfig(client_ip=client_ip)
    if not spec.type:
        spec.type = "ClusterIP"
    for port in spec.ports:
        if not port.protocol:
            port.protocol = "TCP"
        if port.target_port in (0, ""):
            port.target_port = port.port
    external = spec.type in ("LoadBalancer", "NodePort") or (spec.type == "ClusterIP" and spec.external_ips)
    if external and not spec.external_traffic_policy:
        spec.external_traffic_policy = "Cluster"
    if spec.internal_traffic_policy is None and spec.type in ("NodePort", "LoadBalancer", "ClusterIP"):
        spec.internal_traffic_policy = "Cluster"
    if spec.type == "LoadBalancer":
        if spec.allocate_load_balancer_node_ports is None:
            spec.allocate_load_balancer_node_ports = True
        for ingress in service.status.load_balancer.ingress:
            if ingress.ip and ingress.ip_mode is None:
                ingress.ip_mode = "VIP"


def default_endpoints(endpoints: v1.Endpoints) -> None:
    """Give ports of Endpoints a protocol."""
    for subset in endpoints.subsets:
        for port in subset.ports:
            if not port.protocol:
                port.protocol = "TCP"


def default_node(node: v1.Node) -> None:
    """Fill in a Node: all of it is allocatable unless it says otherwise; the first range is `podCIDR`."""
    status, spec = node.status, node.spec
    if not status.allocatable and status.capacity:
        status.allocatable = dict(status.capacity)
    round_up_to_milli(status.capacity)
    round_up_to_milli(status.allocatable)
    if spec.pod_cidr and (not spec.pod_cidrs or spec.pod_cidrs[0] != spec.pod_cidr):
        spec.pod_cidrs = [spec.pod_cidr]
    elif spec.pod_cidrs:
        spec.pod_cidr = spec.pod_cidrs[0]


def default_limit_range(limits: v1.LimitRange) -> None:
    """Fill in what containers get when they say nothing."""
    for item in limits.spec.limits or ():
        if item.type == "Container":
            for name, amount in item.max.items():
                item.default.setdefault(name, amount)
            for amounts in (item.default, item.min):
                for name, amount in amounts.items():
                    item.default_request.setdefault(name, amount)
        for amounts in (item.max, item.min, item.default, item.default_request, item.max_limit_request_ratio):
            round_up_to_milli(amounts)


def default_quota(quota: v1.ResourceQuota) -> None:
    """Round the amounts of a quota."""
    for amounts in (quota.spec.hard, quota.status.hard, quota.status.used):
        round_up_to_milli(amounts)


def default_volume(volume: v1.PersistentVolume) -> None:
    """Fill in a PersistentVolume."""
    spec = volume.spec
    if not volume.status.phase:
        volume.status.phase = "Pending"
    if not spec.persistent_volume_reclaim_policy:
        spec.persistent_volume_reclaim_policy = "Retain"
    if spec.volume_mode is None:
        spec.volume_mode = "Filesystem"
    default_volume_source(spec)


def default_volume_source(spec: v1.PersistentVolumeSpec) -> None:
    """Fill in where a volume's data is, in a PersistentVolume or in a VolumeAttachment."""
    round_up_to_milli(spec.capacity)
    if spec.host_path is not None and spec.host_path.type is None:
        spec.host_path.type = ""
    if spec.rbd is not None:
        spec.rbd.pool = spec.rbd.pool or "rbd"
        spec.rbd.user = spec.rbd.user or "admin"
        spec.rbd.keyring = spec.rbd.keyring or "/etc/ceph/keyring"
    if spec.iscsi is not None and not spec.iscsi.iscsi_interface:
        spec.iscsi.iscsi_interface = "default"
    disk = spec.azure_disk
    if disk is not None:
        disk.caching_mode = "ReadWrite" if disk.caching_mode is None else disk.caching_mode
        disk.fs_type = "ext4" if disk.fs_type is None else disk.fs_type
        disk.read_only = False if disk.read_only is None else disk.read_only
        disk.kind = "Shared" if disk.kind is None else disk.kind
    if spec.scale_io is not None:
        spec.scale_io.storage_mode = spec.scale_io.storage_mode or "ThinProvisioned"
        spec.scale_io.fs_type = spec.scale_io.fs_type or "xfs"


def default_claim(claim: v1.PersistentVolumeClaim) -> None:
    """Fill in a PersistentVolumeClaim."""
    if not claim.status.phase:
        claim.status.phase = "Pending"
    default_claim_spec(claim.spec)
    round_up_to_milli(claim.status.capacity)
    round_up_to_milli(claim.status.allocated_resources)
