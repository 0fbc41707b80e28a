"""Nodes and Pods for the scheduler's specs."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, TypeVar

from haven.api.core import v1 as core
from haven.api.storage import v1 as storage
from haven.apimachinery import meta
from haven.apimachinery.names import UID
from haven.apimachinery.quantity import Quantity
from haven.scheduler.podinfo import PodInfo
from haven.scheduler.snapshot import Snapshot
from haven.scheduler.volumes import Claim, Listers, Volume, Volumes

T = TypeVar("T")
_uids = itertools.count(1)


def a_node(
    name: str,
    *,
    cpu: str = "4",
    memory: str = "8Gi",
    pods: int = 110,
    labels: dict[str, str] | None = None,
    taints: list[core.Taint] | None = None,
    unschedulable: bool = False,
) -> core.Node:
    return core.Node(
        metadata=meta.ObjectMeta(name=name, labels={"kubernetes.io/hostname": name, **(labels or {})}),
        spec=core.NodeSpec(taints=taints or [], unschedulable=unschedulable),
        status=core.NodeStatus(
            allocatable={
                "cpu": Quantity.parse(cpu),
                "memory": Quantity.parse(memory),
                "pods": Quantity.of(pods),
            }
        ),
    )


def a_pod(
    name: str = "pod",
    *,
    cpu: str = "0",
    memory: str = "0",
    priority: int = 0,
    labels: dict[str, str] | None = None,
    host_port: int = 0,
    created: str = "2026-01-01T00:00:00Z",
    **spec: Any,
) -> core.Pod:
    ports = [core.ContainerPort(container_port=80, host_port=host_port, protocol="TCP")] if host_port else []
    requests = {"cpu": Quantity.parse(cpu), "memory": Quantity.parse(memory)}
    container = core.Container(
        name="c",
        ports=ports,
        resources=core.ResourceRequirements(requests={name: amount for name, amount in requests.items() if amount}),
    )
    return core.Pod(
        metadata=meta.ObjectMeta(
            name=name,
            namespace="default",
            uid=UID(f"uid-{next(_uids)}"),
            labels=labels or {},
            creation_timestamp=created,
        ),
        spec=core.PodSpec(containers=[container], priority=priority, **spec),
    )


def a_snapshot(*nodes: core.Node) -> Snapshot:
    snapshot = Snapshot()
    for node in nodes:
        snapshot.set_node(node)
    return snapshot


def put(snapshot: Snapshot, pod: core.Pod, node_name: str) -> PodInfo:
    info = PodInfo.of(pod)
    snapshot.add_pod(info, node_name)
    return info


class Objects(Generic[T]):
    """What an informer would show: objects by place, indexed on demand."""

    def __init__(self, *objects: T) -> None:
        self._objects: dict[tuple[str, str], T] = {}
        self._indexes: dict[str, Callable[[T], Iterable[str]]] = {}
        for obj in objects:
            self.put(obj)

    def put(self, obj: T) -> None:
        metadata: meta.ObjectMeta = obj.metadata  # type: ignore[attr-defined]
        self._objects[metadata.namespace, metadata.name] = obj

    def remove(self, namespace: str, name: str) -> None:
        del self._objects[namespace, name]

    def get(self, namespace: str, name: str) -> T | None:
        return self._objects.get((namespace, name))

    def list(self, namespace: str = "") -> Sequence[T]:
        return [obj for (place, _), obj in self._objects.items() if not namespace or place == namespace]

    def indexed(self, index: str, value: str) -> Sequence[T]:
        return [obj for obj in self._objects.values() if value in self._indexes[index](obj)]

    def add_index(self, index: str, function: Callable[[T], Iterable[str]]) -> None:
        self._indexes[index] = function


class Storage:
    """All objects of storage that a scheduler sees."""

    def __init__(self) -> None:
        self.claims: Objects[Claim] = Objects()
        self.volumes: Objects[Volume] = Objects()
        self.classes: Objects[storage.StorageClass] = Objects()
        self.csi_nodes: Objects[storage.CSINode] = Objects()
        self.csi_drivers: Objects[storage.CSIDriver] = Objects()
        self.capacities: Objects[storage.CSIStorageCapacity] = Objects()
        self.attachments: Objects[storage.VolumeAttachment] = Objects()
        self.view = Volumes(
            Listers(
                self.claims,
                self.volumes,
                self.classes,
                self.csi_nodes,
                self.csi_drivers,
                self.capacities,
                self.attachments,
            )
        )


def a_claim(
    name: str = "data",
    *,
    size: str = "1Gi",
    class_name: str = "local",
    volume_name: str = "",
    is_bound: bool = False,
    modes: Sequence[str] = ("ReadWriteOnce",),
    version: int = 1,
    **annotations: str,
) -> Claim:
    marks = {"pv.kubernetes.io/bind-completed": "yes"} if is_bound else {}
    return core.PersistentVolumeClaim(
        metadata=meta.ObjectMeta(
            name=name,
            namespace="default",
            uid=UID(f"claim-{name}"),
            resource_version=str(version),
            annotations={**marks, **annotations},
        ),
        spec=core.PersistentVolumeClaimSpec(
            access_modes=list(modes),
            resources=core.VolumeResourceRequirements(requests={"storage": Quantity.parse(size)}),
            storage_class_name=class_name,
            volume_name=volume_name,
        ),
        status=core.PersistentVolumeClaimStatus(phase="Bound" if is_bound else "Pending"),
    )


def a_volume(
    name: str,
    *,
    size: str = "1Gi",
    class_name: str = "local",
    host: str = "",
    labels: dict[str, str] | None = None,
    driver: str = "",
    version: int = 1,
) -> Volume:
    """Return a free volume, reachable from one host if that is named."""
    required = core.NodeSelector(
        node_selector_terms=[
            core.NodeSelectorTerm(
                match_expressions=[
                    core.NodeSelectorRequirement(key="kubernetes.io/hostname", operator="In", values=[host])
                ]
            )
        ]
    )
    return core.PersistentVolume(
        metadata=meta.ObjectMeta(name=name, labels=labels or {}, resource_version=str(version)),
        spec=core.PersistentVolumeSpec(
            capacity={"storage": Quantity.parse(size)},
            access_modes=["ReadWriteOnce"],
            storage_class_name=class_name,
            node_affinity=core.VolumeNodeAffinity(required=required) if host else None,
            csi=core.CSIPersistentVolumeSource(driver=driver, volume_handle=name) if driver else None,
        ),
        status=core.PersistentVolumeStatus(phase="Available"),
    )


def a_class(
    name: str = "local", *, provisioner: str = "kubernetes.io/no-provisioner", is_delayed: bool = True
) -> storage.StorageClass:
    mode = "WaitForFirstConsumer" if is_delayed else "Immediate"
    return storage.StorageClass(metadata=meta.ObjectMeta(name=name), provisioner=provisioner, volume_binding_mode=mode)


def mounts(*claims: str) -> list[core.Volume]:
    """Return the volumes of a Pod that uses claims."""
    return [
        core.Volume(name=name, persistent_volume_claim=core.PersistentVolumeClaimVolumeSource(claim_name=name))
        for name in claims
    ]
