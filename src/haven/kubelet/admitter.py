"""Admits pods to the node: refuses what it cannot take, and makes room for critical pods."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from haven.api.core.podresources import qos_class
from haven.api.core.v1 import Pod, PodCondition
from haven.apimachinery import times
from haven.clock import Clock
from haven.cri.pleg import Pleg
from haven.kubelet.admission import Refused, admit, shortages
from haven.kubelet.criticalpreemption import choose_victims
from haven.kubelet.events import EventRecorder, pod_reference
from haven.kubelet.nodestate import NodeState
from haven.kubelet.podspec import is_critical, is_terminal
from haven.kubelet.podstatus import Verdict
from haven.kubelet.podworker import PodWorker, WorkerState
from haven.kubelet.settings import Settings

__all__ = ["Admitter"]

_PREEMPTED = "Preempted in order to admit critical pod"


class Admitter:
    """Decides over new pods. `workers` is the runner's live mapping by pod UID."""

    def __init__(
        self,
        settings: Settings,
        recorder: EventRecorder,
        clock: Clock,
        state: NodeState,
        pleg: Pleg,
        workers: Mapping[str, PodWorker],
    ) -> None:
        self._settings = settings
        self._recorder = recorder
        self._clock = clock
        self._state = state
        self._pleg = pleg
        self._workers = workers
        self.rejections: Counter[str] = Counter()
        """By reason."""
        self.preemptions: Counter[str] = Counter()
        """By the resource that was missing."""

    def active_beside(self, pod: Pod) -> list[Pod]:
        """Return every other pod that may still run."""
        return [worker.pod for worker in self._active_beside(pod)]

    def admit(self, worker: PodWorker) -> None:
        """Refuse a pod that the node cannot take; one that already runs here stays."""
        worker.is_admitted = True
        pod = worker.pod
        if pod.metadata.uid in self._pleg.pods or is_terminal(pod) or pod.metadata.deletion_timestamp is not None:
            return
        state = self._state
        refused = admit(
            pod,
            self.active_beside(pod),
            state.node,
            state.allocatable,
            state.pressures,
            self._settings.allowed_unsafe_sysctls,
            is_shutting_down=state.is_shutting_down,
        )
        if refused is None or (refused.is_for_room and is_critical(pod) and self._make_room(worker)):
            return
        self.rejections[refused.reason] += 1
        self._recorder.warning(pod_reference(pod), refused.reason, refused.message)
        worker.terminate(verdict=_verdict(refused))

    def _make_room(self, worker: PodWorker) -> bool:
        """End less important pods for a critical one, which waits until they are gone; False if that does not help."""
        missing = shortages(worker.pod, self.active_beside(worker.pod), self._state.allocatable)
        victims = choose_victims(worker.pod, self.active_beside(worker.pod), missing, qos_class)
        if victims is None:
            return False
        for pod in victims:
            victim = self._workers[pod.metadata.uid]
            self.preemptions[next(iter(missing))] += 1
            self._recorder.warning(pod_reference(pod), "Preempting", _PREEMPTED)
            condition = PodCondition(
                type="DisruptionTarget",
                status="True",
                reason="TerminationByKubelet",
                message="Pod was preempted by Kubelet to accommodate a critical pod.",
                last_transition_time=times.format_time(self._clock.now_seconds()),
                observed_generation=pod.metadata.generation,
            )
            victim.terminate(verdict=Verdict("Failed", "Preempting", _PREEMPTED, (condition,)))
            worker.wait_for(victim)
        return True

    def _active_beside(self, pod: Pod) -> list[PodWorker]:
        return [
            other
            for other in self._workers.values()
            if other.uid != pod.metadata.uid and other.state is not WorkerState.FINISHED and other.verdict is None
        ]


def _verdict(refused: Refused) -> Verdict:
    return Verdict("Failed", refused.reason, f"Pod was rejected: {refused.message}")
