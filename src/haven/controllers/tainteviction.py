"""Delete Pods from nodes whose NoExecute taints they do not bear, at once or when their patience ends.

Source: https://kubernetes.io/docs/concepts/scheduling-eviction/taint-and-toleration/
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from haven.api.core import v1 as core
from haven.api.core.taints import NO_EXECUTE, tolerates
from haven.api.scheme import resource_of
from haven.apimachinery import apierrors
from haven.apimachinery.names import UID, NamespacedName
from haven.client.interface import Patch, PatchType
from haven.controllers import pods
from haven.controllers.actions import Change, Delete, Emit, Requeue, Steps, Wiring, key_from
from haven.controllers.counts import Counts
from haven.controllers.nodelifecycle import ON_NODE, index_by_node

__all__ = ["FOREVER", "TaintEvictionController", "patience_seconds"]

FOREVER = float("inf")
REASON = "TaintManagerEviction"

_PODS = resource_of(core.Pod)


def patience_seconds(taints: Iterable[core.Taint], tolerations: Sequence[core.Toleration]) -> float:
    """Return how long a Pod may stay on a node with these NoExecute taints; 0 for not at all, FOREVER for always.

    For each taint the first toleration that bears it counts, and of those the shortest.
    """
    patience = FOREVER
    for taint in taints:
        bearing = next((each for each in tolerations if tolerates(each, taint)), None)
        if bearing is None:
            return 0.0
        if bearing.toleration_seconds is not None:
            patience = min(patience, max(0.0, float(bearing.toleration_seconds)))
    return patience


@dataclass(frozen=True, slots=True)
class _Sentence:
    """A Pod that is to go, and when; `is_done` once it was told to."""

    uid: UID
    at_seconds: float
    is_done: bool = False


class TaintEvictionController:
    """Keys are places of Pods. Once set, the hour does not move until the taints or the Pod are gone."""

    workers = 8

    def __init__(self, wiring: Wiring) -> None:
        self._wiring = wiring
        self.counts = Counts()
        self._nodes = wiring.reader(core.Node)
        self._pods = wiring.reader(core.Pod)
        self._pods.add_index(ON_NODE, index_by_node)
        self._sentences: dict[NamespacedName, _Sentence] = {}
        self._nodes.add_handler(self._node_changed)
        self._pods.add_handler(self._pod_changed)

    def _node_changed(self, old: core.Node | None, new: core.Node | None) -> None:
        if new is None or (old is not None and _driving(old) == _driving(new)):
            return
        if old is None and not _driving(new):
            return
        for pod in self._pods.indexed(ON_NODE, new.metadata.name):
            self._wiring.enqueue(key_from(pod))

    def _pod_changed(self, old: core.Pod | None, new: core.Pod | None) -> None:
        if old is not None and new is not None:
            is_same = old.spec.node_name == new.spec.node_name and old.spec.tolerations == new.spec.tolerations
            if is_same and old.metadata.uid == new.metadata.uid:
                return
        pod = old if new is None else new
        if pod is not None and pod.spec.node_name:
            self._wiring.enqueue(key_from(pod))

    def sync(self, key: NamespacedName) -> Steps[None]:
        pod = self._pods.get(key.namespace, key.name)
        sentence = self._sentences.get(key)
        if sentence is not None and (pod is None or sentence.uid != pod.metadata.uid):
            yield from self._pardon(key, sentence)
            sentence = None
        node = self._nodes.get("", pod.spec.node_name) if pod is not None and pod.spec.node_name else None
        if pod is None or node is None:
            return
        patience = patience_seconds(_driving(node), pod.spec.tolerations)
        if patience == FOREVER:
            if sentence is not None:
                yield from self._pardon(key, sentence)
            return
        now = self._wiring.now_seconds()
        if sentence is None:
            sentence = self._sentences[key] = _Sentence(pod.metadata.uid, now + patience)
        if sentence.is_done:
            return
        if patience > 0 and now < sentence.at_seconds:
            yield Requeue(sentence.at_seconds - now)
            return
        yield from self._evict(key, pod, sentence.at_seconds)
        self._sentences[key] = _Sentence(pod.metadata.uid, now, is_done=True)

    def _pardon(self, key: NamespacedName, sentence: _Sentence) -> Steps[None]:
        del self._sentences[key]
        if not sentence.is_done:
            yield Emit(_reference(key), "Normal", REASON, f"Cancelling deletion of Pod {key.namespace}/{key.name}")

    def _evict(self, key: NamespacedName, pod: core.Pod, at: float) -> Steps[None]:
        yield Emit(_reference(key), "Normal", REASON, f"Marking for deletion Pod {key.namespace}/{key.name}")
        condition = pods.condition_tree(
            pod,
            "DisruptionTarget",
            "DeletionByTaintManager",
            "Taint manager: deleting due to NoExecute taint",
            self._wiring.now_seconds(),
        )
        body = {"metadata": {"uid": pod.metadata.uid}, "status": {"conditions": [condition]}}
        try:
            yield Change(_PODS, key.namespace, key.name, Patch(PatchType.STRATEGIC, body), "status")
        except (apierrors.NotFound, apierrors.Conflict):
            return  # It is gone, perhaps with another of its name in its place.
        yield Delete(_PODS, key.namespace, key.name, uid=pod.metadata.uid)
        self.counts.add("taint_eviction_controller_pod_deletions_total")
        late = max(0.0, self._wiring.now_seconds() - at)
        self.counts.observe("taint_eviction_controller_pod_deletion_duration_seconds", value=late)


def _driving(node: core.Node) -> list[core.Taint]:
    return [each for each in node.spec.taints if each.effect == NO_EXECUTE]


def _reference(key: NamespacedName) -> core.ObjectReference:
    # Without a UID, as upstream: the Pod may be gone already.
    return core.ObjectReference(api_version="v1", kind="Pod", namespace=key.namespace, name=key.name)
