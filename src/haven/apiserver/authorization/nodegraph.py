"""Which nodes have to do with which objects, through the pods that run there. No I/O.

Invariant: the counts of an object's nodes are the number of known pods of each node that refer to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from enum import Enum, auto
from time import perf_counter
from typing import Any, NamedTuple

from haven.api import scheme
from haven.api.certificates import v1beta1 as certificates
from haven.api.core import v1 as core
from haven.api.resource import v1 as resource_v1
from haven.api.scheme import Resource
from haven.api.storage import v1 as storage
from haven.apiserver import podreferences
from haven.metrics.families import Histogram

__all__ = ["Kind", "NodeGraph"]


class Kind(Enum):
    """Kinds of objects that belong to nodes."""

    POD = auto()
    SECRET = auto()
    CONFIG_MAP = auto()
    SERVICE_ACCOUNT = auto()
    CLAIM = auto()
    RESOURCE_CLAIM = auto()
    VOLUME = auto()
    ATTACHMENT = auto()
    SLICE = auto()
    CERTIFICATE_REQUEST = auto()


_Key = tuple[Kind, str, str]
_SECONDS = tuple(0.0001 * 2**power for power in range(12))
_COUNTED = {
    Kind.ATTACHMENT: "VolumeAttachment",
    Kind.SLICE: "ResourceSlice",
    Kind.CERTIFICATE_REQUEST: "PodCertificateRequest",
}


class _Pod(NamedTuple):
    uid: str
    node: str
    ephemeral_containers: int
    claims: tuple[str, ...]
    keys: frozenset[_Key]


class NodeGraph:
    """An Observer of pods, volumes, attachments, resource slices and pod certificate requests."""

    resources: Sequence[Resource[Any]] = (
        scheme.resource_of(core.Pod),
        scheme.resource_of(core.PersistentVolume),
        scheme.resource_of(storage.VolumeAttachment),
        scheme.resource_of(resource_v1.ResourceSlice),
        scheme.resource_of(certificates.PodCertificateRequest),
    )

    def __init__(self) -> None:
        self._pods: dict[tuple[str, str], _Pod] = {}
        self._nodes: dict[_Key, dict[str, int]] = {}
        self._volume_claims: dict[str, tuple[str, str]] = {}
        self._secret_volumes: dict[tuple[str, str], set[str]] = {}
        self._volume_secrets: dict[str, tuple[tuple[str, str], ...]] = {}
        self._owned: dict[_Key, str] = {}
        self.spent: dict[str, Histogram] = {}
        """How long following changes took, by upstream's names of them."""

    def is_related(self, node: str, kind: Kind, namespace: str, name: str) -> bool:
        """Tell whether an object has to do with a node."""
        if kind in (Kind.ATTACHMENT, Kind.SLICE, Kind.CERTIFICATE_REQUEST):
            return self._owned.get((kind, namespace, name)) == node
        if kind is Kind.VOLUME:
            claim = self._volume_claims.get(name)
            return claim is not None and self.is_related(node, Kind.CLAIM, *claim)
        if node in self._nodes.get((kind, namespace, name), ()):
            return True
        return kind is Kind.SECRET and any(
            self.is_related(node, Kind.VOLUME, "", volume) for volume in self._secret_volumes.get((namespace, name), ())
        )

    def ignores(self, resource: Resource[Any], field: Callable[[str], str]) -> bool:
        """Tell whether a new object with these selectable fields has to do with no node."""
        return resource.plural == "pods" and not field("spec.nodeName")

    def changed(self, resource: Resource[Any], old: Any | None, new: Any | None) -> None:
        match resource.plural:
            case "pods":
                self._pod_changed(old, new)
            case "persistentvolumes":
                began = perf_counter()
                self._volume_changed(old, new)
                self._count("PV", began, new)
            case "volumeattachments":
                self._owner_changed(Kind.ATTACHMENT, old, new)
            case "resourceslices":
                self._owner_changed(Kind.SLICE, old, new)
            case "podcertificaterequests":
                self._owner_changed(Kind.CERTIFICATE_REQUEST, old, new)

    def _count(self, what: str, began: float, new: Any | None) -> None:
        name = f"{'Delete' if new is None else 'Add'}{what}"
        self.spent.setdefault(name, Histogram(_SECONDS)).add(perf_counter() - began)

    def _pod_changed(self, old: core.Pod | None, new: core.Pod | None) -> None:
        began = perf_counter()
        if new is None:
            assert old is not None
            self._forget_pod((old.metadata.namespace, old.metadata.name))
            self._count("Pod", began, new)
            return
        if not new.spec.node_name:
            return
        key = (new.metadata.namespace, new.metadata.name)
        known = self._pods.get(key)
        claims = tuple(podreferences.resource_claim_names(new)) if new.spec.resource_claims else ()
        ephemeral = len(new.spec.ephemeral_containers)
        if (
            known is not None
            and known.uid == new.metadata.uid
            and known.node == new.spec.node_name
            and known.ephemeral_containers == ephemeral
            and known.claims == claims
        ):
            return
        self._forget_pod(key)
        keys = frozenset(_keys(new))
        self._pods[key] = _Pod(new.metadata.uid, new.spec.node_name, ephemeral, claims, keys)
        for item in keys:
            nodes = self._nodes.setdefault(item, {})
            nodes[new.spec.node_name] = nodes.get(new.spec.node_name, 0) + 1
        self._count("Pod", began, new)

    def _forget_pod(self, key: tuple[str, str]) -> None:
        pod = self._pods.pop(key, None)
        if pod is None:
            return
        for item in pod.keys:
            nodes = self._nodes[item]
            nodes[pod.node] -= 1
            if not nodes[pod.node]:
                del nodes[pod.node]
                if not nodes:
                    del self._nodes[item]

    def _volume_changed(self, old: core.PersistentVolume | None, new: core.PersistentVolume | None) -> None:
        volume = old or new
        assert volume is not None
        name = volume.metadata.name
        self._volume_claims.pop(name, None)
        for secret in self._volume_secrets.pop(name, ()):
            users = self._secret_volumes[secret]
            users.discard(name)
            if not users:
                del self._secret_volumes[secret]
        if new is None or new.spec.claim_ref is None:
            return
        self._volume_claims[name] = (new.spec.claim_ref.namespace, new.spec.claim_ref.name)
        secrets = tuple({secret for secret in podreferences.kubelet_volume_secrets(new) if secret[1]})
        self._volume_secrets[name] = secrets
        for secret in secrets:
            self._secret_volumes.setdefault(secret, set()).add(name)

    def _owner_changed(self, kind: Kind, old: Any | None, new: Any | None) -> None:
        began = perf_counter()
        if old is not None:
            self._owned.pop((kind, old.metadata.namespace, old.metadata.name), None)
        if new is not None and new.spec.node_name:
            self._owned[(kind, new.metadata.namespace, new.metadata.name)] = new.spec.node_name
        self._count(_COUNTED[kind], began, new)

    def check(self) -> None:
        """Assert the invariant."""
        counts: dict[_Key, dict[str, int]] = {}
        for pod in self._pods.values():
            for key in pod.keys:
                nodes = counts.setdefault(key, {})
                nodes[pod.node] = nodes.get(pod.node, 0) + 1
        assert counts == self._nodes, (counts, self._nodes)


def _keys(pod: core.Pod) -> Iterator[_Key]:
    namespace, spec = pod.metadata.namespace, pod.spec
    yield Kind.POD, namespace, pod.metadata.name
    # A kubelet creates mirror pods itself: they must not open other objects to it.
    if podreferences.MIRROR_ANNOTATION in pod.metadata.annotations:
        return
    if spec.service_account_name:
        yield Kind.SERVICE_ACCOUNT, namespace, spec.service_account_name
    for name in podreferences.secret_names(spec):
        yield Kind.SECRET, namespace, name
    for name in podreferences.config_map_names(spec):
        yield Kind.CONFIG_MAP, namespace, name
    for name in podreferences.claim_names(pod):
        yield Kind.CLAIM, namespace, name
    for name in podreferences.resource_claim_names(pod):
        yield Kind.RESOURCE_CLAIM, namespace, name
