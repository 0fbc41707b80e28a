"""Have volumes attached to the nodes of the Pods that use them, and detached when none is left there.

The driver of a volume does it; a VolumeAttachment is how it is asked, and how it answers. Only CSI drivers attach, and
only those whose CSIDriver does not say that there is nothing to attach.
Source: https://kubernetes.io/docs/reference/kubernetes-api/config-and-storage-resources/volume-attachment-v1/
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from haven.api.core import v1 as core
from haven.api.scheme import resource_of
from haven.api.storage import v1 as storage
from haven.apimachinery import apierrors, meta
from haven.client.interface import Patch, PatchType
from haven.controllers.actions import Change, Create, Delete, Emit, Requeue, Steps, Wiring
from haven.controllers.nodelifecycle import ON_NODE, index_by_node
from haven.controllers.pods import is_finished
from haven.controllers.protection import CLAIMS, index_by_claim

__all__ = ["AttachDetachController", "attachment_name", "volume_name"]

MANAGED = "volumes.kubernetes.io/controller-managed-attach-detach"
KEEP_ENDED = "volumes.kubernetes.io/keep-terminated-pod-volumes"
UNMOUNT_SECONDS_MAX = 360.0  # A node that is not ready is given so long to let go of a volume.
AGAIN_SECONDS = 5.0
PREFIX = "kubernetes.io/csi/"
_EXCLUSIVE = frozenset({"ReadWriteOnce", "ReadWriteOncePod"})
_BY_NODE, _BY_VOLUME = "node", "volume"
_ATTACHMENTS, _NODES = resource_of(storage.VolumeAttachment), resource_of(core.Node)


def volume_name(source: core.CSIPersistentVolumeSource) -> str:
    """Return what nodes call a volume in their status."""
    return f"{PREFIX}{source.driver}^{source.volume_handle}"


def attachment_name(source: core.CSIPersistentVolumeSource, node: str) -> str:
    """Return what the attachment of a volume to a node is called."""
    digest = hashlib.sha256(f"{source.volume_handle}{source.driver}{node}".encode()).hexdigest()
    return f"csi-{digest}"


@dataclass(slots=True)
class _Wish:
    """A volume that Pods of a node use."""

    volume: core.PersistentVolume
    source: core.CSIPersistentVolumeSource
    pods: list[core.Pod] = field(default_factory=list)


class AttachDetachController:
    """Keys are names of nodes."""

    workers = 1

    def __init__(self, wiring: Wiring) -> None:
        self._wiring = wiring
        self._pods = wiring.reader(core.Pod)
        self._nodes = wiring.reader(core.Node)
        self._claims = wiring.reader(core.PersistentVolumeClaim)
        self._volumes = wiring.reader(core.PersistentVolume)
        self._drivers = wiring.reader(storage.CSIDriver)
        self._attachments = wiring.reader(storage.VolumeAttachment)
        self._complained: set[tuple[str, str]] = set()  # Attachments and Pods that were told of a node that has it.
        self._leaving: dict[str, float] = {}  # Attachments that no Pod needs, and since when.
        self._pods.add_index(ON_NODE, index_by_node)
        self._pods.add_index(CLAIMS, index_by_claim)
        self._attachments.add_index(_BY_NODE, lambda each: (each.spec.node_name,))
        self._attachments.add_index(_BY_VOLUME, lambda each: (each.spec.source.persistent_volume_name or "",))
        self._pods.add_handler(self._pod_changed)
        self._nodes.add_handler(self._node_changed)
        self._claims.add_handler(self._claim_changed)
        self._attachments.add_handler(self._attachment_changed)

    def _pod_changed(self, old: core.Pod | None, new: core.Pod | None) -> None:
        one = new if new is not None else old
        assert one is not None
        if one.spec.node_name and next(iter(index_by_claim(one)), None) is not None:
            self._wiring.enqueue(one.spec.node_name)

    def _node_changed(self, old: core.Node | None, new: core.Node | None) -> None:
        one = new if new is not None else old
        assert one is not None
        if (
            old is None
            or new is None
            or old.status.volumes_in_use != new.status.volumes_in_use
            or old.metadata.annotations.get(MANAGED) != new.metadata.annotations.get(MANAGED)
        ):
            self._wiring.enqueue(one.metadata.name)

    def _claim_changed(self, old: core.PersistentVolumeClaim | None, new: core.PersistentVolumeClaim | None) -> None:
        if new is None or (old is not None and old.status.phase == new.status.phase):
            return
        for pod in self._pods.indexed(CLAIMS, f"{new.metadata.namespace}/{new.metadata.name}"):
            if pod.spec.node_name:
                self._wiring.enqueue(pod.spec.node_name)

    def _attachment_changed(self, old: storage.VolumeAttachment | None, new: storage.VolumeAttachment | None) -> None:
        one = new if new is not None else old
        assert one is not None
        self._wiring.enqueue(one.spec.node_name)
        if new is None:  # Another node may have waited for it.
            self._leaving.pop(one.metadata.name, None)
            for wishing in self._users(one.spec.source.persistent_volume_name or ""):
                self._wiring.enqueue(wishing.spec.node_name)

    def sync(self, key: str) -> Steps[None]:
        node = self._nodes.get("", key)
        managed = node is not None and MANAGED in node.metadata.annotations
        wishes = dict(self._wishes(node)) if node is not None and managed else {}
        attached: list[str] = []
        for name, wish in sorted(wishes.items()):
            self._leaving.pop(name, None)
            if (yield from self._attach(name, wish, key)):
                attached.append(volume_name(wish.source))
        yield from self._detach(key, node, wishes)
        if node is not None:
            yield from self._report(node, attached, wishes)

    # What Pods use

    def _wishes(self, node: core.Node) -> Iterator[tuple[str, _Wish]]:
        found: dict[str, _Wish] = {}
        keeps = node.metadata.annotations.get(KEEP_ENDED) == "true"
        for pod in sorted(self._pods.indexed(ON_NODE, node.metadata.name), key=lambda pod: pod.metadata.name):
            if _has_let_go(pod) and not keeps:
                continue
            for volume, source in self._volumes_of(pod):
                name = attachment_name(source, node.metadata.name)
                found.setdefault(name, _Wish(volume, source)).pods.append(pod)
        yield from found.items()

    def _volumes_of(self, pod: core.Pod) -> Iterator[tuple[core.PersistentVolume, core.CSIPersistentVolumeSource]]:
        for place in index_by_claim(pod):
            claim = self._claims.get(*place.split("/", 1))
            if claim is None or claim.status.phase != "Bound" or not claim.spec.volume_name:
                continue
            volume = self._volumes.get("", claim.spec.volume_name)
            bound = volume.spec.claim_ref if volume is not None else None
            if volume is None or bound is None or bound.uid != claim.metadata.uid or volume.spec.csi is None:
                continue
            driver = self._drivers.get("", volume.spec.csi.driver)
            if driver is None or driver.spec.attach_required is not False:
                yield volume, volume.spec.csi

    def _users(self, volume: str) -> list[core.Pod]:
        """Return the Pods with a node that use a volume."""
        found = self._volumes.get("", volume)
        bound = found.spec.claim_ref if found is not None else None
        if bound is None:
            return []
        pods = self._pods.indexed(CLAIMS, f"{bound.namespace}/{bound.name}")
        return sorted((pod for pod in pods if pod.spec.node_name), key=lambda pod: pod.metadata.name)

    # Attaching

    def _attach(self, name: str, wish: _Wish, node: str) -> Steps[bool]:
        """See that a volume is being attached; tell whether it is."""
        own = self._attachments.get("", name)
        title = wish.volume.metadata.name
        if own is None:
            others = self._elsewhere(wish, node)
            modes = set(wish.volume.spec.access_modes)
            if others and modes and modes <= _EXCLUSIVE:
                yield from self._complain(name, wish, others)
                return False
            self._complained = {each for each in self._complained if each[0] != name}
            source = storage.VolumeAttachmentSource(persistent_volume_name=title)
            spec = storage.VolumeAttachmentSpec(attacher=wish.source.driver, source=source, node_name=node)
            with contextlib.suppress(apierrors.AlreadyExists):  # The cache will show it, and bring this node back.
                yield Create(storage.VolumeAttachment(metadata=meta.ObjectMeta(name=name), spec=spec))
            return False
        if own.metadata.deletion_timestamp is not None:
            return False
        if not own.status.attached:
            if own.status.attach_error is not None:
                for pod in wish.pods:
                    text = f'AttachVolume.Attach failed for volume "{title}" : {own.status.attach_error.message}'
                    yield Emit(pod, "Warning", "FailedAttachVolume", text)
            return False
        return True

    def _elsewhere(self, wish: _Wish, node: str) -> list[str]:
        return sorted(
            each.spec.node_name
            for each in self._attachments.indexed(_BY_VOLUME, wish.volume.metadata.name)
            if each.spec.node_name != node
        )

    def _complain(self, name: str, wish: _Wish, nodes: Sequence[str]) -> Steps[None]:
        """Tell the Pods, once, who has the volume; no Pod learns names of another namespace."""
        users = [
            pod
            for pod in self._users(wish.volume.metadata.name)
            if pod.spec.node_name in nodes and not _has_let_go(pod)
        ]
        for pod in wish.pods:
            mark = (name, str(pod.metadata.uid))
            if mark in self._complained:
                continue
            self._complained.add(mark)
            near = [user.metadata.name for user in users if user.metadata.namespace == pod.metadata.namespace]
            far = len(users) - len(near)
            text = "Volume is already exclusively attached to one node and can't be attached to another"
            if near:
                text = f"Volume is already used by pod(s) {', '.join(near)}"
                text += f" and {far} pod(s) in different namespaces" if far else ""
            elif far:
                text = f"Volume is already used by {far} pod(s) in different namespaces"
            title = wish.volume.metadata.name
            yield Emit(pod, "Warning", "FailedAttachVolume", f'Multi-Attach error for volume "{title}" {text}')

    # Detaching

    def _detach(self, key: str, node: core.Node | None, wishes: dict[str, _Wish]) -> Steps[None]:
        for each in sorted(self._attachments.indexed(_BY_NODE, key), key=lambda each: each.metadata.name):
            name, volume = each.metadata.name, self._volumes.get("", each.spec.source.persistent_volume_name or "")
            if name in wishes or each.metadata.deletion_timestamp is not None:
                continue
            source = volume.spec.csi if volume is not None else None
            if source is None or attachment_name(source, key) != name:
                continue  # Somebody else's.
            if node is not None and volume_name(source) in node.status.volumes_in_use:
                since = self._leaving.setdefault(name, self._wiring.now_seconds())
                if _is_ready(node) or self._wiring.now_seconds() - since < UNMOUNT_SECONDS_MAX:
                    yield Requeue(AGAIN_SECONDS)
                    continue
            if node is not None and any(one.name == volume_name(source) for one in node.status.volumes_attached):
                yield from self._report(node, [], wishes)  # First nobody may mount it any more.
            yield Delete(_ATTACHMENTS, "", name, uid=each.metadata.uid)

    def _report(self, node: core.Node, attached: Sequence[str], wishes: dict[str, _Wish]) -> Steps[None]:
        """Write down in the node's status what is attached to it, and tell the Pods of what came."""
        before = [each.name for each in node.status.volumes_attached]
        foreign = [each for each in node.status.volumes_attached if not each.name.startswith(PREFIX)]
        if not attached and before == [each.name for each in foreign]:
            return
        wanted = [*foreign, *(core.AttachedVolume(name=name) for name in attached)]
        if [each.name for each in wanted] != before:
            body = [{"name": each.name, "devicePath": each.device_path} for each in wanted]
            patch = Patch(PatchType.MERGE, {"status": {"volumesAttached": body}})
            try:
                yield Change(_NODES, "", node.metadata.name, patch, "status")
            except apierrors.NotFound:
                return
        for wish in wishes.values():
            name = volume_name(wish.source)
            if name in attached and name not in before:
                for pod in wish.pods:
                    text = f'AttachVolume.Attach succeeded for volume "{wish.volume.metadata.name}" '
                    yield Emit(pod, "Normal", "SuccessfulAttachVolume", text)


def _has_let_go(pod: core.Pod) -> bool:
    """Tell whether a Pod uses its volumes no longer: it ended, or is being deleted and nothing of it runs."""
    if is_finished(pod):
        return True
    status = pod.status
    return pod.metadata.deletion_timestamp is not None and all(
        each.state.terminated is not None or each.state.waiting is not None
        for each in (*status.init_container_statuses, *status.container_statuses, *status.ephemeral_container_statuses)
    )


def _is_ready(node: core.Node) -> bool:
    return any(each.type == "Ready" and each.status == "True" for each in node.status.conditions)
