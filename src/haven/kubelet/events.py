"""Events about pods and the node, in the form that this room records them."""

from __future__ import annotations

from random import Random

from haven.api.core.v1 import ObjectReference, Pod
from haven.apimachinery.names import UID
from haven.client import events
from haven.client.interface import Client
from haven.clock import Clock

__all__ = ["EventRecorder", "container_reference", "node_reference", "pod_reference"]


def pod_reference(pod: Pod) -> ObjectReference:
    """Return a reference to a pod."""
    return events.reference_to(pod)


def container_reference(pod: Pod, name: str) -> ObjectReference:
    """Return a reference to a container of a pod."""
    kind = "containers"
    if any(container.name == name for container in pod.spec.init_containers):
        kind = "initContainers"
    elif any(container.name == name for container in pod.spec.ephemeral_containers):
        kind = "ephemeralContainers"
    return events.reference_to(pod, f"spec.{kind}{{{name}}}")


def node_reference(name: str) -> ObjectReference:
    """Return a reference to the node; its UID is its name, as upstream's kubelet has it."""
    return ObjectReference(kind="Node", name=name, uid=UID(name))


class EventRecorder:
    """The node agent's voice. `run` writes what was said."""

    def __init__(self, client: Client, clock: Clock, chance: Random, *, host: str) -> None:
        self._recorder = events.EventRecorder(client, "kubelet", host=host, clock=clock, chance=chance)

    def normal(self, reference: ObjectReference, reason: str, message: str) -> None:
        """Record something that is as it should be."""
        self._recorder.event(reference, "Normal", reason, message)

    def warning(self, reference: ObjectReference, reason: str, message: str) -> None:
        """Record something that may need attention."""
        self._recorder.event(reference, "Warning", reason, message)

    def statistics(self) -> events.EventStatistics:
        return self._recorder.statistics()

    async def run(self) -> None:
        """Write events until cancelled."""
        await self._recorder.run()
