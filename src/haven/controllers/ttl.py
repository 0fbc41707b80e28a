"""Tell kubelets how long they may reuse Secrets and ConfigMaps: the longer, the larger the cluster.

Source: upstream's annotation node.alpha.kubernetes.io/ttl, which kubelets read.
"""

from __future__ import annotations

from haven.api.core import v1 as core
from haven.api.scheme import resource_of
from haven.apimachinery.names import NamespacedName
from haven.client.interface import Patch, PatchType
from haven.controllers.actions import Change, Steps, Wiring, key_from

__all__ = ["TTLController", "boundary"]

ANNOTATION = "node.alpha.kubernetes.io/ttl"

# Nodes at which a step is left downwards and upwards, and its seconds. The overlap keeps the answer from flapping.
_STEPS = ((0, 100, 0), (90, 500, 15), (450, 1000, 30), (900, 2000, 60), (1800, 2**31 - 1, 300))


def boundary(step: int, nodes: int) -> int:
    """Return the step for so many nodes, coming from another step."""
    while step + 1 < len(_STEPS) and nodes > _STEPS[step][1]:
        step += 1
    while step > 0 and nodes < _STEPS[step][0]:
        step -= 1
    return step


class TTLController:
    """Keys are nodes."""

    workers = 1

    def __init__(self, wiring: Wiring) -> None:
        self._wiring = wiring
        self._nodes = wiring.reader(core.Node)
        self._step = 0
        self._nodes.add_handler(self._changed)

    def _changed(self, old: core.Node | None, new: core.Node | None) -> None:
        if old is None or new is None:
            step = boundary(self._step, len(self._nodes.list()))
            if step != self._step:
                self._step = step
                for node in self._nodes.list():
                    self._wiring.enqueue(key_from(node))
        if new is not None and (old is None or ANNOTATION not in new.metadata.annotations):
            self._wiring.enqueue(key_from(new))

    def sync(self, key: NamespacedName) -> Steps[None]:
        node = self._nodes.get(*key)
        wanted = str(_STEPS[self._step][2])
        if node is None or node.metadata.annotations.get(ANNOTATION) == wanted:
            return
        patch = Patch(PatchType.STRATEGIC, {"metadata": {"annotations": {ANNOTATION: wanted}}})
        yield Change(resource_of(core.Node), "", key.name, patch)
