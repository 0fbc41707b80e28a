"""Nodes and Pods for the scheduler's specs."""

from __future__ import annotations

import itertools
from typing import Any

from haven.api.core import v1 as core
from haven.apimachinery import meta
from haven.apimachinery.names import UID
from haven.apimachinery.quantity import Quantity
from haven.scheduler.podinfo import PodInfo
from haven.scheduler.snapshot import Snapshot

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
