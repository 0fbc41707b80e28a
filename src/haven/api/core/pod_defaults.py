"""What the API server fills into Pods and pod templates.

Mutates the object. Also does here what upstream does when it converts between versions: the deprecated
`serviceAccount` mirrors `serviceAccountName`, `podIP` mirrors `podIPs`, old init-container annotations go.
Source: https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/ and the behaviour of
pkg/apis/core/v1 (defaults, conversion).
"""

from __future__ import annotations

from collections.abc import Iterable

from haven.api.core import v1
from haven.api.core.images import image_tag
from haven.api.core.resources import (
    aggregate_container_limits,
    aggregate_container_requests,
    is_huge_page,
    is_overcommit_allowed,
    is_supported_pod_level_resource,
    round_up_to_milli,
)
from haven.apimachinery import meta

__all__ = ["default_claim_spec", "default_pod", "default_pod_spec", "default_pod_template", "default_volume"]

_INIT_CONTAINER_ANNOTATIONS = (
    "pod.beta.kubernetes.io/init-containers",
    "pod.alpha.kubernetes.io/init-containers",
    "pod.beta.kubernetes.io/init-container-statuses",
    "pod.alpha.kubernetes.io/init-container-statuses",
)
_FILE_MODE = 0o644


def default_pod(pod: v1.Pod) -> None:
    """Fill in a Pod."""
    spec = pod.spec
    for container in (*spec.containers, *spec.init_containers) if spec.init_containers else spec.containers or ():
        limits = container.resources.limits
        if limits:
            requests = container.resources.requests
            for name, amount in limits.items():
                requests.setdefault(name, amount)
    if spec.resources is not None:
        _default_pod_resources(spec)
    if spec.enable_service_links is None:
        spec.enable_service_links = True
    if spec.host_network:
        for container in (*(spec.containers or ()), *spec.init_containers):
            for port in container.ports:
                if port.host_port == 0:
                    port.host_port = port.container_port
    default_pod_spec(spec)
    status = pod.status
    for statuses in (status.init_container_statuses, status.container_statuses, status.ephemeral_container_statuses):
        for item in statuses:
            round_up_to_milli(item.allocated_resources)
            if item.resources is not None:
                round_up_to_milli(item.resources.limits)
                round_up_to_milli(item.resources.requests)
    _drop_init_container_annotations(pod.metadata)
    if spec.termination_grace_period_seconds is not None and spec.termination_grace_period_seconds < 0:
        spec.termination_grace_period_seconds = 1
    _mirror_pod_ip(status)


def default_pod_template(template: v1.PodTemplateSpec) -> None:
    """Fill in a pod template."""
    default_pod_spec(template.spec)
    _drop_init_container_annotations(template.metadata)


def default_pod_spec(spec: v1.PodSpec) -> None:
    """Fill in what holds for Pods and templates alike."""
    if not spec.dns_policy:
        spec.dns_policy = "ClusterFirst"
    if not spec.restart_policy:
        spec.restart_policy = "Always"
    if spec.security_context is None:
        spec.security_context = v1.PodSecurityContext()
    if spec.termination_grace_period_seconds is None:
        spec.termination_grace_period_seconds = 30
    if not spec.scheduler_name:
        spec.scheduler_name = "default-scheduler"
    for volume in spec.volumes:
        default_volume(volume)
    for container in spec.init_containers:
        _default_container(container)
    for container in spec.containers or ():
        _default_container(container)
    for ephemeral in spec.ephemeral_containers:
        _default_container(ephemeral)
    round_up_to_milli(spec.overhead)
    if spec.resources is not None:
        round_up_to_milli(spec.resources.limits)
        round_up_to_milli(spec.resources.requests)
    if not spec.service_account_name:
        spec.service_account_name = spec.service_account
    spec.service_account = spec.service_account_name


def _default_container(container: v1.Container | v1.EphemeralContainerCommon) -> None:
    if not container.image_pull_policy:
        container.image_pull_policy = "Always" if image_tag(container.image) == "latest" else "IfNotPresent"
    if not container.termination_message_path:
        container.termination_message_path = "/dev/termination-log"
    if not container.termination_message_policy:
        container.termination_message_policy = "File"
    for port in container.ports:
        if not port.protocol:
            port.protocol = "TCP"
    for variable in container.env:
        source = variable.value_from
        if source is not None:
            if source.field_ref is not None and not source.field_ref.api_version:
                source.field_ref.api_version = "v1"
            if source.file_key_ref is not None and source.file_key_ref.optional is None:
                source.file_key_ref.optional = False
    round_up_to_milli(container.resources.limits)
    round_up_to_milli(container.resources.requests)
    if container.liveness_probe is not None:
        _default_probe(container.liveness_probe)
    if container.readiness_probe is not None:
        _default_probe(container.readiness_probe)
    if container.startup_probe is not None:
        _default_probe(container.startup_probe)
    if container.lifecycle is not None:
        for handler in (container.lifecycle.post_start, container.lifecycle.pre_stop):
            if handler is not None and handler.http_get is not None:
                _default_http_get(handler.http_get)


def _default_probe(probe: v1.Probe) -> None:
    if probe.timeout_seconds == 0:
        probe.timeout_seconds = 1
    if probe.period_seconds == 0:
        probe.period_seconds = 10
    if probe.success_threshold == 0:
        probe.success_threshold = 1
    if probe.failure_threshold == 0:
        probe.failure_threshold = 3
    if probe.http_get is not None:
        _default_http_get(probe.http_get)
    if probe.grpc is not None and probe.grpc.service is None:
        probe.grpc.service = ""


def _default_http_get(action: v1.HTTPGetAction) -> None:
    if not action.path:
        action.path = "/"
    if not action.scheme:
        action.scheme = "HTTP"


def default_volume(volume: v1.Volume) -> None:
    """Fill in a volume; one without any source becomes an emptyDir."""
    if all(getattr(volume, name) is None for name in _VOLUME_SOURCES):
        volume.empty_dir = v1.EmptyDirVolumeSource()
        return
    if volume.image is not None and not volume.image.pull_policy:
        volume.image.pull_policy = "Always" if image_tag(volume.image.reference) == "latest" else "IfNotPresent"
    if volume.host_path is not None and volume.host_path.type is None:
        volume.host_path.type = ""
    for source in (volume.secret, volume.config_map, volume.downward_api, volume.projected):
        if source is not None and source.default_mode is None:
            source.default_mode = _FILE_MODE
    if volume.downward_api is not None:
        _default_field_refs(volume.downward_api.items)
    if volume.projected is not None:
        for projection in volume.projected.sources or ():
            if projection.downward_api is not None:
                _default_field_refs(projection.downward_api.items)
            token = projection.service_account_token
            if token is not None and token.expiration_seconds is None:
                token.expiration_seconds = 3600
    if volume.ephemeral is not None and volume.ephemeral.volume_claim_template is not None:
        default_claim_spec(volume.ephemeral.volume_claim_template.spec)
    _default_old_volume(volume)


_VOLUME_SOURCES = tuple(v1.VolumeSource.__struct_fields__)


def _default_old_volume(volume: v1.VolumeSource) -> None:
    if volume.iscsi is not None and not volume.iscsi.iscsi_interface:
        volume.iscsi.iscsi_interface = "default"
    if volume.rbd is not None:
        volume.rbd.pool = volume.rbd.pool or "rbd"
        volume.rbd.user = volume.rbd.user or "admin"
        volume.rbd.keyring = volume.rbd.keyring or "/etc/ceph/keyring"
    disk = volume.azure_disk
    if disk is not None:
        disk.caching_mode = "ReadWrite" if disk.caching_mode is None else disk.caching_mode
        disk.fs_type = "ext4" if disk.fs_type is None else disk.fs_type
        disk.read_only = False if disk.read_only is None else disk.read_only
        disk.kind = "Shared" if disk.kind is None else disk.kind
    if volume.scale_io is not None:
        volume.scale_io.storage_mode = volume.scale_io.storage_mode or "ThinProvisioned"
        volume.scale_io.fs_type = volume.scale_io.fs_type or "xfs"


def _default_field_refs(files: Iterable[v1.DownwardAPIVolumeFile]) -> None:
    for file in files:
        if file.field_ref is not None and not file.field_ref.api_version:
            file.field_ref.api_version = "v1"


def default_claim_spec(spec: v1.PersistentVolumeClaimSpec) -> None:
    """Fill in the spec of a PersistentVolumeClaim or of a claim template."""
    if spec.volume_mode is None:
        spec.volume_mode = "Filesystem"
    round_up_to_milli(spec.resources.limits)
    round_up_to_milli(spec.resources.requests)


def _default_pod_resources(spec: v1.PodSpec) -> None:
    """Derive a Pod's own limits of huge pages and its own requests, if it has any resources of its own."""
    resources = spec.resources
    assert resources is not None
    if resources.limits or resources.requests:
        for name, amount in aggregate_container_limits(spec).items():
            if is_huge_page(name) and name not in resources.requests:
                resources.limits.setdefault(name, amount)
    if not resources.limits:
        return
    for name, amount in aggregate_container_requests(spec).items():
        if is_supported_pod_level_resource(name) and is_overcommit_allowed(name):
            resources.requests.setdefault(name, amount)
    for name, amount in resources.limits.items():
        if is_supported_pod_level_resource(name):
            resources.requests.setdefault(name, amount)


def _drop_init_container_annotations(metadata: meta.ObjectMeta) -> None:
    if metadata.annotations and any(name in metadata.annotations for name in _INIT_CONTAINER_ANNOTATIONS):
        metadata.annotations = {
            key: value for key, value in metadata.annotations.items() if key not in _INIT_CONTAINER_ANNOTATIONS
        }


def _mirror_pod_ip(status: v1.PodStatus) -> None:
    if status.pod_ip and (not status.pod_ips or status.pod_ips[0].ip != status.pod_ip):
        status.pod_ips = [v1.PodIP(ip=status.pod_ip)]
    elif status.pod_ips and not status.pod_ip:
        status.pod_ip = status.pod_ips[0].ip
