"""Which other objects a pod's spec names, or a volume's. Pure.

Source: https://kubernetes.io/docs/reference/access-authn-authz/node/
"""

from __future__ import annotations

from collections.abc import Iterator

from haven.api.core import v1 as core

__all__ = [
    "MIRROR_ANNOTATION",
    "claim_names",
    "config_map_names",
    "containers",
    "ephemeral_claim_name",
    "kubelet_volume_secrets",
    "resource_claim_names",
    "secret_names",
]

MIRROR_ANNOTATION = "kubernetes.io/config.mirror"
"""Marks the API's image of a static pod, which exists whatever the API server thinks of it."""


def containers(spec: core.PodSpec) -> Iterator[core.Container | core.EphemeralContainer]:
    """Yield every container: init, ordinary, ephemeral."""
    yield from spec.init_containers
    yield from spec.containers or ()
    yield from spec.ephemeral_containers


def secret_names(spec: core.PodSpec) -> Iterator[str]:
    """Yield the names of the secrets, in the pod's namespace, that a pod refers to; some more than once."""
    return filter(None, _secret_names(spec))


def _secret_names(spec: core.PodSpec) -> Iterator[str]:
    for reference in spec.image_pull_secrets:
        yield reference.name
    for container in containers(spec):
        for source in container.env_from:
            if source.secret_ref is not None:
                yield source.secret_ref.name
        for variable in container.env:
            if variable.value_from is not None and variable.value_from.secret_key_ref is not None:
                yield variable.value_from.secret_key_ref.name
    for volume in spec.volumes:
        if volume.secret is not None:
            yield volume.secret.secret_name
        elif volume.projected is not None:
            for projection in volume.projected.sources or ():
                if projection.secret is not None:
                    yield projection.secret.name
        elif volume.azure_file is not None:
            yield volume.azure_file.secret_name
        else:
            for referring in (
                volume.cephfs, volume.cinder, volume.flex_volume, volume.rbd, volume.scale_io, volume.iscsi,
                volume.storageos,
            ):  # fmt: skip
                if referring is not None and referring.secret_ref is not None:
                    yield referring.secret_ref.name
            if volume.csi is not None and volume.csi.node_publish_secret_ref is not None:
                yield volume.csi.node_publish_secret_ref.name


def config_map_names(spec: core.PodSpec) -> Iterator[str]:
    """Yield the names of the config maps that a pod refers to; some more than once."""
    return filter(None, _config_map_names(spec))


def _config_map_names(spec: core.PodSpec) -> Iterator[str]:
    for container in containers(spec):
        for source in container.env_from:
            if source.config_map_ref is not None:
                yield source.config_map_ref.name
        for variable in container.env:
            if variable.value_from is not None and variable.value_from.config_map_key_ref is not None:
                yield variable.value_from.config_map_key_ref.name
    for volume in spec.volumes:
        if volume.config_map is not None:
            yield volume.config_map.name
        elif volume.projected is not None:
            for projection in volume.projected.sources or ():
                if projection.config_map is not None:
                    yield projection.config_map.name


def ephemeral_claim_name(pod: core.Pod, volume: core.Volume) -> str:
    """Return the name of the claim that is made for an ephemeral volume."""
    return f"{pod.metadata.name}-{volume.name}"


def claim_names(pod: core.Pod) -> Iterator[str]:
    """Yield the names of the persistent volume claims that a pod mounts, those made for it included."""
    for volume in pod.spec.volumes:
        if volume.persistent_volume_claim is not None:
            yield volume.persistent_volume_claim.claim_name
        elif volume.ephemeral is not None:
            yield ephemeral_claim_name(pod, volume)


def resource_claim_names(pod: core.Pod) -> Iterator[str]:
    """Yield the names of the resource claims of a pod, as far as they are made."""
    made = {status.name: status.resource_claim_name for status in pod.status.resource_claim_statuses}
    for claim in pod.spec.resource_claims:
        name = claim.resource_claim_name or made.get(claim.name)
        if name:
            yield name
    extended = pod.status.extended_resource_claim_status
    if extended is not None and extended.resource_claim_name:
        yield extended.resource_claim_name


def kubelet_volume_secrets(volume: core.PersistentVolume) -> Iterator[tuple[str, str]]:
    """Yield the namespace and name of the secrets that a kubelet needs to mount a volume."""
    spec = volume.spec
    claim_namespace = spec.claim_ref.namespace if spec.claim_ref is not None else ""
    if spec.azure_file is not None:
        yield spec.azure_file.secret_namespace or claim_namespace, spec.azure_file.secret_name
    for referring in (spec.cephfs, spec.flex_volume, spec.rbd, spec.scale_io, spec.iscsi):
        if referring is not None and referring.secret_ref is not None:
            yield referring.secret_ref.namespace or claim_namespace, referring.secret_ref.name
    if spec.cinder is not None and spec.cinder.secret_ref is not None:
        yield spec.cinder.secret_ref.namespace, spec.cinder.secret_ref.name
    if spec.storageos is not None and spec.storageos.secret_ref is not None:
        yield spec.storageos.secret_ref.namespace, spec.storageos.secret_ref.name
    if spec.csi is not None:
        for reference in (
            spec.csi.node_publish_secret_ref,
            spec.csi.node_stage_secret_ref,
            spec.csi.node_expand_secret_ref,
        ):
            if reference is not None:
                yield reference.namespace, reference.name
