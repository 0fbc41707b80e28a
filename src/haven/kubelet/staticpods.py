"""Pods from manifests in a directory of this node: read, given an identity, and shown in the API as mirror pods.

Source: https://kubernetes.io/docs/tasks/configure-pod-container/static-pod/
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
import yaml

from haven.api.core.v1 import Node, Pod, Toleration
from haven.api.scheme import resource_of
from haven.apimachinery import apierrors, meta, serialization, times
from haven.apimachinery.names import UID
from haven.client.interface import Client
from haven.clock import Clock
from haven.kubelet.podspec import CONFIG_HASH, CONFIG_MIRROR, CONFIG_SOURCE
from haven.telemetry import logger

__all__ = ["MirrorClient", "StaticPods", "mirror_of", "read_manifest"]

_log = logger("static pods")
_LOOK_SECONDS = 2.0


def read_manifest(content: bytes, source: str, node_name: str) -> Pod:
    """Return the pod of a manifest (YAML or JSON) as it runs on this node; raise ValueError."""
    try:
        tree = yaml.safe_load(content)
        pod = serialization.convert(tree, Pod)
    except (yaml.YAMLError, msgspec.ValidationError) as error:
        raise ValueError(f"{source}: {error}") from error
    if pod.kind != "Pod" or not pod.metadata.name or not pod.spec.containers:
        raise ValueError(f"{source}: not a pod with a name and containers")
    digest = hashlib.sha256(f"{node_name}\n{source}\n".encode() + serialization.encode(pod)).hexdigest()[:32]
    metadata = pod.metadata
    if not metadata.uid:
        metadata.uid = UID(f"{digest[:8]}-{digest[8:12]}-{digest[12:16]}-{digest[16:20]}-{digest[20:]}")
    metadata.name = f"{metadata.name}-{node_name}".lower()
    metadata.namespace = metadata.namespace or "default"
    metadata.annotations = {**metadata.annotations, CONFIG_SOURCE: "file", CONFIG_HASH: metadata.uid}
    spec = pod.spec
    spec.node_name = node_name
    spec.tolerations = [*spec.tolerations, Toleration(operator="Exists", effect="NoExecute")]
    _fill_defaults(pod)
    return pod


def _fill_defaults(pod: Pod) -> None:
    """What the API server would have set and this room relies on."""
    spec = pod.spec
    spec.restart_policy = spec.restart_policy or "Always"
    spec.dns_policy = spec.dns_policy or "ClusterFirst"
    if spec.termination_grace_period_seconds is None:
        spec.termination_grace_period_seconds = 30
    if spec.enable_service_links is None:
        spec.enable_service_links = True
    for container in (*spec.init_containers, *spec.containers):
        container.termination_message_path = container.termination_message_path or "/dev/termination-log"
        container.termination_message_policy = container.termination_message_policy or "File"
        if not container.image_pull_policy:
            has_fixed_tag = ":" in container.image.rsplit("/", 1)[-1] and not container.image.endswith(":latest")
            container.image_pull_policy = "IfNotPresent" if has_fixed_tag else "Always"
        for name, amount in container.resources.limits.items():
            container.resources.requests.setdefault(name, amount)
        for probe in (container.liveness_probe, container.readiness_probe, container.startup_probe):
            if probe is not None:
                probe.timeout_seconds = probe.timeout_seconds or 1
                probe.period_seconds = probe.period_seconds or 10
                probe.success_threshold = probe.success_threshold or 1
                probe.failure_threshold = probe.failure_threshold or 3


class StaticPods:
    """Follows a directory. `on_change(pods)` gets all pods, by UID, whenever the set differs."""

    def __init__(
        self, directory: Path, node_name: str, clock: Clock, on_change: Callable[[Mapping[str, Pod]], None]
    ) -> None:
        self._directory = directory
        self._node_name = node_name
        self._clock = clock
        self._on_change = on_change
        self._seen: dict[str, bytes] | None = None
        self._complaints: dict[str, str] = {}

    async def run(self) -> None:
        """Look every few seconds until cancelled. Directories are small; this costs less than watching them."""
        while True:
            try:
                self.look()
            except OSError as error:
                _log.warning("manifests cannot be read", path=str(self._directory), reason=str(error))
            await self._clock.sleep(_LOOK_SECONDS)

    def look(self) -> None:
        """Read the directory; report if it differs from last time."""
        found: dict[str, bytes] = {}
        if self._directory.is_dir():
            for path in sorted(self._directory.iterdir()):
                if path.is_file() and not path.name.startswith("."):
                    found[str(path)] = path.read_bytes()
        if found == self._seen:
            return
        self._seen = found
        pods: dict[str, Pod] = {}
        for source, content in found.items():
            try:
                pod = read_manifest(content, source, self._node_name)
            except ValueError as error:
                if self._complaints.get(source) != str(error):
                    _log.warning("manifest is ignored", path=source, reason=str(error))
                    self._complaints[source] = str(error)
                continue
            pods[pod.metadata.uid] = pod
        self._on_change(pods)


def mirror_of(pod: Pod, node: Node | None, now: float) -> Pod:
    """Return the API object that shows a static pod."""
    mirror = serialization.copy(pod)
    mirror.metadata.annotations = {
        **mirror.metadata.annotations,
        CONFIG_MIRROR: pod.metadata.annotations[CONFIG_HASH],
        "kubernetes.io/config.seen": times.format_micro_time(now),
    }
    mirror.metadata.uid = UID("")
    if node is not None:
        mirror.metadata.owner_references = [
            meta.OwnerReference(
                api_version="v1", kind="Node", name=node.metadata.name, uid=node.metadata.uid, controller=True
            )
        ]
    return mirror


class MirrorClient:
    """Makes and removes mirror pods."""

    def __init__(self, client: Client, clock: Clock) -> None:
        self._client = client
        self._clock = clock

    async def ensure(self, pod: Pod, mirror: Pod | None, node: Node | None) -> None:
        """Make the mirror if there is none, replace one of an older manifest; raise ApiError."""
        resource = resource_of(Pod)
        if mirror is not None:
            if mirror.metadata.annotations.get(CONFIG_MIRROR) == pod.metadata.annotations[CONFIG_HASH]:
                return
            await self.delete(mirror)
        try:
            await self._client.create(
                resource, mirror_of(pod, node, self._clock.now_seconds()), namespace=pod.metadata.namespace
            )
        except apierrors.AlreadyExists:
            return

    async def delete(self, mirror: Pod) -> None:
        """Remove a mirror; one that is gone is success."""
        metadata = mirror.metadata
        try:
            await self._client.delete(
                resource_of(Pod), metadata.namespace, metadata.name, uid=metadata.uid, grace_period_seconds=0
            )
        except (apierrors.NotFound, apierrors.Conflict):
            return
