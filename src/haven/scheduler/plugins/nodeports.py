"""NodePorts: two Pods cannot take the same host port of a node."""

from __future__ import annotations

from collections.abc import Collection

from haven.apimachinery.names import UID
from haven.scheduler.podinfo import HostPort, PodInfo
from haven.scheduler.snapshot import Mask, NodeRow, Snapshot

__all__ = ["NodePorts", "conflicts"]


class NodePorts:
    name = "NodePorts"
    preemption_helps = True

    def mask(self, info: PodInfo, snapshot: Snapshot) -> Mask | None:
        if not info.host_ports:
            return None
        mask = snapshot.alive.copy()
        for row in snapshot.live_rows():
            if row.ports and any(conflicts(wanted, taken) for wanted in info.host_ports for taken in row.ports):
                mask[row.index] = False
        return mask

    def reasons(self, info: PodInfo, row: NodeRow, snapshot: Snapshot) -> list[str]:
        return ["node(s) didn't have free ports for the requested pod ports"]

    def fits_without(self, info: PodInfo, row: NodeRow, snapshot: Snapshot, gone: Collection[UID]) -> bool:
        taken = [port for uid, other in row.pods.items() if uid not in gone for port in other.host_ports]
        return not any(conflicts(wanted, port) for wanted in info.host_ports for port in taken)


def conflicts(wanted: HostPort, taken: HostPort) -> bool:
    """Tell whether two host ports exclude each other: 0.0.0.0 covers every address."""
    if (wanted.protocol, wanted.port) != (taken.protocol, taken.port):
        return False
    return wanted.address == taken.address or "0.0.0.0" in (wanted.address, taken.address)
