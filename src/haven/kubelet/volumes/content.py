"""What is in a configMap, secret, downwardAPI or projected volume: paths, bytes, modes. Pure.

Source: https://kubernetes.io/docs/concepts/storage/volumes/ and .../projected-volumes/
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from haven.api.certificates.v1beta1 import ClusterTrustBundle
from haven.api.core.v1 import (
    ConfigMap,
    DownwardAPIVolumeFile,
    KeyToPath,
    Pod,
    ProjectedVolumeSource,
    Secret,
    ServiceAccountTokenProjection,
    Volume,
)
from haven.kubelet.fieldref import FieldFacts, field_value, resource_value
from haven.kubelet.security import effective
from haven.kubelet.volumes.atomicwriter import FileProjection
from haven.kubelet.volumes.trustanchors import NoAnchors, trust_anchors

__all__ = [
    "MissingContent",
    "VolumeSources",
    "is_content_volume",
    "payload",
    "referenced_names",
    "shows_trust_bundles",
    "token_projections",
]

_DEFAULT_MODE = 0o644
_TOKEN_MODE = 0o600


class MissingContent(Exception):
    """Something that the volume shows does not exist (yet); the message is upstream's."""


@dataclass(frozen=True, slots=True)
class VolumeSources:
    """The objects that a pod's volumes show. One that does not exist is missing."""

    config_maps: Mapping[str, ConfigMap] = field(default_factory=dict)
    secrets: Mapping[str, Secret] = field(default_factory=dict)
    tokens: Mapping[tuple[str, int, str], str] = field(default_factory=dict)
    """By audience, expiry in seconds, and path."""
    facts: FieldFacts = FieldFacts()
    bundles: Sequence[ClusterTrustBundle] | None = None
    """All trust bundles, where a volume shows some; None if the cluster has no such kind."""


def is_content_volume(volume: Volume) -> bool:
    """Return whether the volume shows API objects and follows their changes."""
    return bool(volume.config_map or volume.secret or volume.downward_api or volume.projected)


def referenced_names(pod: Pod) -> tuple[set[str], set[str]]:
    """Return the names of the config maps and of the secrets in a pod's volumes."""
    config_maps: set[str] = set()
    secrets: set[str] = set()
    for volume in pod.spec.volumes:
        if volume.config_map:
            config_maps.add(volume.config_map.name)
        if volume.secret:
            secrets.add(volume.secret.secret_name)
        for source in (volume.projected.sources or []) if volume.projected else []:
            if source.config_map:
                config_maps.add(source.config_map.name)
            if source.secret:
                secrets.add(source.secret.name)
    return config_maps, secrets


def shows_trust_bundles(pod: Pod) -> bool:
    """Tell whether a pod's volumes show trust bundles."""
    return any(
        source.cluster_trust_bundle is not None
        for volume in pod.spec.volumes
        if volume.projected is not None
        for source in volume.projected.sources or []
    )


def token_projections(volume: Volume) -> list[ServiceAccountTokenProjection]:
    """Return the service account tokens that a volume shows."""
    sources = (volume.projected.sources or []) if volume.projected else []
    return [source.service_account_token for source in sources if source.service_account_token]


def payload(pod: Pod, volume: Volume, sources: VolumeSources) -> dict[str, FileProjection]:
    """Return the files of a volume; raise MissingContent or fieldref.FieldError."""
    if volume.config_map is not None:
        source = volume.config_map
        return _config_map(source.name, source.items, _mode(source.default_mode), bool(source.optional), pod, sources)
    if volume.secret is not None:
        secret = volume.secret
        return _secret(
            secret.secret_name, secret.items, _mode(secret.default_mode), bool(secret.optional), pod, sources
        )
    if volume.downward_api is not None:
        downward = volume.downward_api
        return _downward(downward.items, _mode(downward.default_mode), pod, sources)
    assert volume.projected is not None, volume.name
    return _projected(volume.projected, pod, sources)


def _mode(value: int | None) -> int:
    return _DEFAULT_MODE if value is None else value


def _projected(volume: ProjectedVolumeSource, pod: Pod, sources: VolumeSources) -> dict[str, FileProjection]:
    mode = _mode(volume.default_mode)
    result: dict[str, FileProjection] = {}
    for source in volume.sources or []:
        if (secret := source.secret) is not None:
            result.update(_secret(secret.name, secret.items, mode, bool(secret.optional), pod, sources))
        if (config_map := source.config_map) is not None:
            optional = bool(config_map.optional)
            result.update(_config_map(config_map.name, config_map.items, mode, optional, pod, sources))
        if source.downward_api is not None:
            result.update(_downward(source.downward_api.items, mode, pod, sources))
        if (token := source.service_account_token) is not None:
            result[token.path] = _token(token, mode, pod, sources)
        if (bundle := source.cluster_trust_bundle) is not None:
            if sources.bundles is None:
                raise MissingContent("ClusterTrustBundle projection is not supported in static kubelet mode")
            try:
                anchors = trust_anchors(bundle, sources.bundles)
            except NoAnchors as error:
                raise MissingContent(str(error)) from error
            result[bundle.path] = _of_user(anchors, mode, pod)
    return result


def token_key(token: ServiceAccountTokenProjection) -> tuple[str, int, str]:
    """Return what identifies a projected token within a pod."""
    return token.audience, token.expiration_seconds or 3600, token.path


def _token(token: ServiceAccountTokenProjection, mode: int, pod: Pod, sources: VolumeSources) -> FileProjection:
    text = sources.tokens.get(token_key(token))
    if text is None:
        raise MissingContent("failed to fetch token")
    return _of_user(text.encode(), mode, pod)


def _of_user(data: bytes, mode: int, pod: Pod) -> FileProjection:
    user = common_user(pod)
    context = pod.spec.security_context
    if user is not None or (context is not None and context.fs_group is not None):
        # Nobody but the pod's user (and, once fsGroup is applied, its group) may read it.
        mode = _TOKEN_MODE
    return FileProjection(data, mode, user)


def common_user(pod: Pod) -> int | None:
    """Return the user that all containers of the pod run as, None if they differ or do not say."""
    users = {effective(pod, container).run_as_user for container in (*pod.spec.init_containers, *pod.spec.containers)}
    return users.pop() if len(users) == 1 else None


def _chosen(
    kind: str, name: str, data: Mapping[str, bytes], items: Sequence[KeyToPath], mode: int, *, optional: bool
) -> dict[str, FileProjection]:
    if not items:
        return {key: FileProjection(value, mode) for key, value in data.items()}
    result: dict[str, FileProjection] = {}
    for item in items:
        if item.key not in data:
            if optional:
                continue
            raise MissingContent(f"{kind} references non-existent {kind} key: {item.key}")
        result[item.path] = FileProjection(data[item.key], mode if item.mode is None else item.mode)
    return result


def _config_map(
    name: str, items: Sequence[KeyToPath], mode: int, optional: bool, pod: Pod, sources: VolumeSources
) -> dict[str, FileProjection]:
    found = sources.config_maps.get(name)
    if found is None:
        if optional:
            return {}
        raise MissingContent(f'configmap "{name}" not found')
    data = {**{key: value.encode() for key, value in found.data.items()}, **found.binary_data}
    return _chosen("configmap", name, data, items, mode, optional=optional)


def _secret(
    name: str, items: Sequence[KeyToPath], mode: int, optional: bool, pod: Pod, sources: VolumeSources
) -> dict[str, FileProjection]:
    found = sources.secrets.get(name)
    if found is None:
        if optional:
            return {}
        raise MissingContent(f'secret "{name}" not found')
    return _chosen("secret", name, found.data, items, mode, optional=optional)


def _downward(
    items: Sequence[DownwardAPIVolumeFile], mode: int, pod: Pod, sources: VolumeSources
) -> dict[str, FileProjection]:
    result: dict[str, FileProjection] = {}
    for item in items:
        if item.field_ref is not None:
            text = field_value(item.field_ref.field_path, pod, sources.facts)
        else:
            assert item.resource_field_ref is not None, item.path
            text = resource_value(item.resource_field_ref, pod, None, sources.facts)
        result[item.path.lstrip("/")] = FileProjection(text.encode(), mode if item.mode is None else item.mode)
    return result
