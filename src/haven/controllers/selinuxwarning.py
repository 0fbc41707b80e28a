"""Warn of Pods that want one volume with different SELinux labels: on one node only one of them could have it.

Nothing is changed, only Events and a metric tell of the conflicts. It is for clusters with SELinux, so off by default.
Only volumes that are mounted with a label can conflict: CSI ones whose driver says so, iSCSI and Fibre Channel.
Source: https://kubernetes.io/docs/tasks/configure-pod-container/security-context/#selinux-label-conflicts
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from haven.api.core import v1 as core
from haven.api.storage import v1 as storage
from haven.apimachinery.names import NamespacedName
from haven.controllers.actions import Emit, Retry, Steps, Wiring, key_from
from haven.controllers.pods import is_finished
from haven.controllers.protection import CLAIMS, index_by_claim
from haven.metrics.families import Registry

__all__ = ["Conflict", "SELinuxWarningController", "labels_conflict"]

MOUNT_OPTION, RECURSIVE = "MountOption", "Recursive"
METRIC = "selinux_warning_controller_selinux_volume_conflict"
_LABEL, _POLICY = "SELinuxLabel", "SELinuxChangePolicy"
MIGRATED = {
    "aws_elastic_block_store": "ebs.csi.aws.com",
    "azure_disk": "disk.csi.azure.com",
    "azure_file": "file.csi.azure.com",
    "cinder": "cinder.csi.openstack.org",
    "gce_persistent_disk": "pd.csi.storage.gke.io",
    "portworx_volume": "pxd.portworx.com",
    "vsphere_volume": "csi.vsphere.vmware.com",
}
"""Volumes that drivers of today serve, by the field that asks for them."""


def labels_conflict(one: str, other: str) -> bool:
    """Tell whether labels user:role:type:level differ; nodes have defaults for all parts but the last."""
    *first, level = one.split(":", 3) if one else ("", "", "", "")
    *second, other_level = other.split(":", 3) if other else ("", "", "", "")
    return level != other_level or any(a and b and a != b for a, b in zip(first, second, strict=True))


def _label(options: core.SELinuxOptions) -> str:
    parts = (options.user, options.role, options.type, options.level)
    return ":".join(parts) if any(parts) else ""


@dataclass(frozen=True, slots=True)
class Conflict:
    """What is told to a Pod about another one."""

    property: str
    pod: NamespacedName
    value: str
    other_pod: NamespacedName
    other_value: str

    def message(self) -> str:
        """Return the sentence for the Pod's Event, which names no Pod of another namespace."""
        alone = "If both pods land on the same node, only one of them may access the volume."
        if self.pod.namespace != self.other_pod.namespace:
            shared = f"another pod that uses the same volume as this pod with a different {self.property}"
            return f'{self.property}"{self.value}" conflicts with {shared}. {alone}'
        shared = f"pod {self.other_pod.name} that uses the same volume as this pod with {self.property}"
        return f'{self.property} "{self.value}" conflicts with {shared} "{self.other_value}". {alone}'


@dataclass(frozen=True, slots=True)
class _Use:
    label: str
    policy: str


@dataclass(slots=True)
class _Volume:
    driver: str
    uses: dict[NamespacedName, _Use] = field(default_factory=dict)
    conflicts: list[Conflict] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Source:
    """The thing behind a Pod's volume: its identity in the cluster and the CSI driver that serves it, if one does."""

    identity: tuple[str, ...]
    driver: str


class SELinuxWarningController:
    """Keys are places of Pods."""

    workers = 1

    def __init__(self, wiring: Wiring) -> None:
        self._wiring = wiring
        self._volumes: dict[tuple[str, ...], _Volume] = {}
        self._used: dict[NamespacedName, set[tuple[str, ...]]] = {}
        self._pods = wiring.reader(core.Pod)
        self._claims = wiring.reader(core.PersistentVolumeClaim)
        self._persistent = wiring.reader(core.PersistentVolume)
        self._drivers = wiring.reader(storage.CSIDriver)
        self._pods.add_index(CLAIMS, index_by_claim)
        self._pods.add_handler(self._pod_changed)
        self._claims.add_handler(self._claim_changed)
        self._persistent.add_handler(self._volume_changed)
        self._drivers.add_handler(self._driver_changed)

    def _pod_changed(self, old: core.Pod | None, new: core.Pod | None) -> None:
        # Volumes and labels of a Pod never change: it is of interest when it comes, ends and goes.
        one = new if new is not None else old
        assert one is not None
        if old is None or new is None or (is_finished(new) and new.status.phase != old.status.phase):
            self._wiring.enqueue(key_from(one))

    def _claim_changed(self, old: core.PersistentVolumeClaim | None, new: core.PersistentVolumeClaim | None) -> None:
        if new is None or not new.spec.volume_name:
            return
        if old is None or old.spec.volume_name != new.spec.volume_name:
            self._enqueue_users(new.metadata.namespace, new.metadata.name)

    def _volume_changed(self, old: core.PersistentVolume | None, new: core.PersistentVolume | None) -> None:
        claim = new.spec.claim_ref if new is not None else None
        if claim is None or not claim.uid:
            return
        before = old.spec.claim_ref if old is not None else None
        if before is None or before.uid != claim.uid:
            self._enqueue_users(claim.namespace, claim.name)

    def _enqueue_users(self, namespace: str, claim: str) -> None:
        for pod in self._pods.indexed(CLAIMS, f"{namespace}/{claim}"):
            self._wiring.enqueue(key_from(pod))

    def _driver_changed(self, old: storage.CSIDriver | None, new: storage.CSIDriver | None) -> None:
        one = new if new is not None else old
        assert one is not None
        before, after = (bool(each is not None and each.spec.se_linux_mount) for each in (old, new))
        if before == after and old is not None:
            return
        for volume in self._volumes.values():
            if volume.driver == one.metadata.name:
                for pod in volume.uses:
                    self._wiring.enqueue(pod)

    def sync(self, key: NamespacedName) -> Steps[None]:
        pod = self._pods.get(key.namespace, key.name)
        if pod is None or is_finished(pod):
            self._forget(key)
            return
        problems: list[str] = []
        for name, labels in sorted(_mounts(pod).items()):
            volume = next((each for each in pod.spec.volumes if each.name == name), None)
            if volume is None:
                continue
            try:
                source = self._source(pod, volume)
            except Retry as error:
                problems.append(str(error))
                continue
            if len(labels) > 1:
                message = f'Volume "{name}" is mounted twice with different SELinux labels inside this pod'
                yield Emit(pod, "Warning", "MultipleSELinuxLabels", message)
                problems.append(message)
            elif source is not None:
                for conflict in self._use(source, key, self._wish(pod, source, "".join(labels))):
                    told = self._pods.get(*conflict.pod)
                    if told is not None:
                        yield Emit(told, "Normal", f"{conflict.property}Conflict", conflict.message())
        if problems:
            raise Retry("; ".join(problems))

    def _wish(self, pod: core.Pod, source: _Source, label: str) -> _Use:
        """Return how a Pod's volume will be labelled: with a mount option, or file by file where that cannot be."""
        context = pod.spec.security_context
        policy = (context.se_linux_change_policy if context is not None else None) or MOUNT_OPTION
        driver = self._drivers.get("", source.driver) if source.driver else None
        by_mount = not source.driver or bool(driver is not None and driver.spec.se_linux_mount)
        if not label or not by_mount or policy == RECURSIVE:
            return _Use("", RECURSIVE)
        return _Use(label, policy)

    # Which volumes are the same

    def _source(self, pod: core.Pod, volume: core.Volume) -> _Source | None:
        """Return what is behind a Pod's volume, None if it cannot conflict; raise Retry if it is not there yet."""
        if volume.persistent_volume_claim is not None:
            return self._claimed(pod.metadata.namespace, volume.persistent_volume_claim.claim_name)
        if volume.ephemeral is not None:
            return self._claimed(pod.metadata.namespace, f"{pod.metadata.name}-{volume.name}")
        return _source_of(volume)

    def _claimed(self, namespace: str, name: str) -> _Source | None:
        claim = self._claims.get(namespace, name)
        if claim is None or claim.status.phase != "Bound" or not claim.spec.volume_name:
            raise Retry(f"the claim {namespace}/{name} is not bound")
        volume = self._persistent.get("", claim.spec.volume_name)
        bound = volume.spec.claim_ref if volume is not None else None
        if volume is None or bound is None or bound.uid != claim.metadata.uid:
            raise Retry(f"the volume {claim.spec.volume_name} is not bound to the claim {namespace}/{name}")
        return _source_of(volume.spec)

    # Who uses them

    def _use(self, source: _Source, pod: NamespacedName, wish: _Use) -> list[Conflict]:
        """Note how a Pod uses a volume; return the conflicts that are new with it."""
        volume = self._volumes.setdefault(source.identity, _Volume(source.driver))
        known = volume.uses.get(pod)
        volume.uses[pod] = wish
        self._used.setdefault(pod, set()).add(source.identity)
        if known == wish:
            return []
        new = [
            conflict
            for other, use in sorted(volume.uses.items())
            if other != pod
            for conflict in _conflicts(pod, wish, other, use)
        ]
        volume.conflicts = [each for each in volume.conflicts if pod not in (each.pod, each.other_pod)] + new
        return new

    def _forget(self, pod: NamespacedName) -> None:
        for identity in self._used.pop(pod, ()):
            volume = self._volumes[identity]
            del volume.uses[pod]
            volume.conflicts = [each for each in volume.conflicts if pod not in (each.pod, each.other_pod)]
            if not volume.uses:
                del self._volumes[identity]

    def measure(self, registry: Registry) -> None:
        """Write down the conflicts that there are now."""
        family = registry[METRIC]
        family.clear()
        for volume in self._volumes.values():
            for each in volume.conflicts:
                one = (each.pod.name, each.pod.namespace, each.value)
                other = (each.other_pod.name, each.other_pod.namespace, each.other_value)
                family.set((*one, *other, each.property), 1)


def _conflicts(pod: NamespacedName, wish: _Use, other: NamespacedName, use: _Use) -> Iterator[Conflict]:
    if use.policy != wish.policy:
        yield Conflict(_POLICY, pod, wish.policy, other, use.policy)
        yield Conflict(_POLICY, other, use.policy, pod, wish.policy)
    if labels_conflict(use.label, wish.label):
        yield Conflict(_LABEL, pod, wish.label, other, use.label)
        yield Conflict(_LABEL, other, use.label, pod, wish.label)


def _mounts(pod: core.Pod) -> dict[str, set[str]]:
    """Return the volumes that containers mount, each with the labels of those that have one."""
    context = pod.spec.security_context
    found: dict[str, set[str]] = {}
    containers: Iterable[core.Container | core.EphemeralContainer] = (
        *pod.spec.init_containers,
        *pod.spec.containers,
        *pod.spec.ephemeral_containers,
    )
    for container in containers:
        own = container.security_context.se_linux_options if container.security_context is not None else None
        options = own or (context.se_linux_options if context is not None else None)
        for mount in container.volume_mounts:
            labels = found.setdefault(mount.name, set())
            if options is not None:
                labels.add(_label(options))
    return found


def _source_of(spec: core.Volume | core.PersistentVolumeSpec) -> _Source | None:
    if spec.csi is not None:
        if isinstance(spec.csi, core.CSIVolumeSource):
            return None  # It lives and dies with its Pod.
        return _Source(("csi", spec.csi.driver, spec.csi.volume_handle), spec.csi.driver)
    if spec.iscsi is not None:
        return _Source(("iscsi", spec.iscsi.target_portal, spec.iscsi.iqn, str(spec.iscsi.lun)), "")
    if spec.fc is not None:
        names = (*spec.fc.target_wwns, str(spec.fc.lun)) if spec.fc.target_wwns else tuple(spec.fc.wwids)
        return _Source(("fc", *names), "")
    for name, driver in MIGRATED.items():
        source = getattr(spec, name, None)
        if source is not None:
            return _Source((driver, _disk(source)), driver)
    return None


def _disk(source: object) -> str:
    """Return the name of a provider's disk; these sources have one field for it, under various names."""
    for name in ("volume_id", "pd_name", "disk_uri", "volume_path", "share_name"):
        if isinstance(value := getattr(source, name, None), str):
            return value
    raise AssertionError(source)
