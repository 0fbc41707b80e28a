"""NodeVolumeLimits: no more volumes of a CSI driver on a node than the driver said (CSINode) the node can attach.

Source: https://kubernetes.io/docs/concepts/storage/storage-limits/
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable

from haven.api.core.volumebinding import class_of_claim
from haven.apimachinery.names import UID
from haven.scheduler.plugins.volumebinding import ephemeral_complaint
from haven.scheduler.podinfo import PodInfo
from haven.scheduler.snapshot import Mask, NodeRow, Snapshot
from haven.scheduler.volumes import Claim, Volumes

__all__ = ["NodeVolumeLimits"]

EXCEEDED = "node(s) exceed max volume count"

_Handle = tuple[str, str]  # Driver, and what the driver calls the volume.


class NodeVolumeLimits:
    name = "NodeVolumeLimits"
    preemption_helps = True

    def __init__(self, volumes: Volumes) -> None:
        self._volumes = volumes

    def mask(self, info: PodInfo, snapshot: Snapshot) -> Mask | None:
        wanted = self._handles(info)
        drivers = {driver for driver, _ in wanted}
        limited = [
            node
            for node in (self._volumes.listers.csi_nodes.list() if wanted else ())
            if any(each.name in drivers and each.allocatable is not None for each in node.spec.drivers or ())
        ]
        if not limited:
            return None
        mask = snapshot.alive.copy()
        for node in limited:
            row = snapshot.by_name.get(node.metadata.name)
            if row is not None and row.node is not None:
                mask[row.index] = self._has_room(wanted, row, row.pods.values())
        return mask

    def reasons(self, info: PodInfo, row: NodeRow, snapshot: Snapshot) -> list[str]:
        return [EXCEEDED]

    def fits_without(self, info: PodInfo, row: NodeRow, snapshot: Snapshot, gone: Collection[UID]) -> bool:
        wanted = self._handles(info)
        return not wanted or self._has_room(wanted, row, [other for uid, other in row.pods.items() if uid not in gone])

    def _has_room(self, wanted: set[_Handle], row: NodeRow, pods: Iterable[PodInfo]) -> bool:
        limits = self._limits(row.name)
        if not limits:
            return True
        used = {handle for other in pods for handle in self._handles(other)}
        new = Counter(driver for driver, _ in wanted - used)
        held = Counter(driver for driver, _ in used | self._attached(row.name))
        return all(held[driver] + count <= limits[driver] for driver, count in new.items() if driver in limits)

    def _limits(self, node_name: str) -> dict[str, int]:
        node = self._volumes.listers.csi_nodes.get("", node_name)
        return {
            driver.name: driver.allocatable.count
            for driver in (node.spec.drivers or () if node is not None else ())
            if driver.allocatable is not None and driver.allocatable.count is not None
        }

    def _attached(self, node_name: str) -> set[_Handle]:
        found = set()
        for attachment in self._volumes.attachments_of(node_name):
            name = attachment.spec.source.persistent_volume_name
            volume = self._volumes.volume(name) if name else None
            if volume is not None and volume.spec.csi is not None and attachment.spec.attacher:
                found.add((attachment.spec.attacher, volume.spec.csi.volume_handle))
        return found

    def _handles(self, info: PodInfo) -> set[_Handle]:
        """Return the volumes of CSI drivers that a Pod uses or will use; those of claims that are gone do not count."""
        found = set()
        for use in info.claims:
            claim = self._volumes.claim(info.namespace, use.name)
            if claim is None or (use.is_ephemeral and ephemeral_complaint(info, claim)):
                continue
            handle = self._handle(claim)
            if handle is not None:
                found.add(handle)
        return found

    def _handle(self, claim: Claim) -> _Handle | None:
        volume = self._volumes.volume(claim.spec.volume_name) if claim.spec.volume_name else None
        if volume is not None:
            source = volume.spec.csi
            return (source.driver, source.volume_handle) if source is not None else None
        name = class_of_claim(claim)
        storage_class = self._volumes.listers.classes.get("", name) if name else None
        if storage_class is None or not storage_class.provisioner:
            return None
        # Not made yet: the slash keeps it apart from whatever the driver will call it.
        return (storage_class.provisioner, f"unbound/{claim.metadata.namespace}/{claim.metadata.name}")
