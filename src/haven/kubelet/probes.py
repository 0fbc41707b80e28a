"""Probes: one task per probe, deciding code apart. A result counts once thresholds are reached.

Liveness starts as success, readiness and startup as failure; while a startup probe has not succeeded the other two
wait. After a failed liveness or a decided startup probe, a probe rests until the container is a new one.
Source: https://kubernetes.io/docs/concepts/workloads/pods/probes/
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from random import Random

from haven.api.core.podresources import is_sidecar
from haven.api.core.v1 import Container, ContainerStatus, Pod, PodStatus, Probe
from haven.apimachinery import times
from haven.clock import Clock
from haven.kubelet.events import EventRecorder, container_reference
from haven.kubelet.handlers import HandlerRunner, Outcome, OutcomeKind
from haven.kubelet.podspec import should_restart
from haven.kubelet.podstate import ProbeResult, ProbeResults
from haven.telemetry import Durations

__all__ = ["ProbeCount", "ProbeKind", "ProbeManager", "ProbeTally"]

_TRIES = 3


class ProbeKind(Enum):
    """Which of a container's probes; the value is the word in events."""

    STARTUP = "Startup"
    LIVENESS = "Liveness"
    READINESS = "Readiness"


_COUNTED = {
    OutcomeKind.SUCCESS: "successful",
    OutcomeKind.WARNING: "successful",
    OutcomeKind.FAILURE: "failed",
    OutcomeKind.ERROR: "unknown",
}


@dataclass(slots=True)
class ProbeTally:
    """Counts equal results in a row, and says when they decide."""

    success_threshold: int
    failure_threshold: int
    last: ProbeResult | None = None
    run: int = 0

    def count(self, result: ProbeResult) -> ProbeResult | None:
        """Return the result once it has come often enough in a row, else None."""
        self.run = self.run + 1 if result is self.last else 1
        self.last = result
        needed = self.failure_threshold if result is ProbeResult.FAILURE else self.success_threshold
        return result if self.run >= max(needed, 1) else None


def probe_of(container: Container, kind: ProbeKind) -> Probe | None:
    """Return a container's probe of a kind."""
    return {
        ProbeKind.STARTUP: container.startup_probe,
        ProbeKind.LIVENESS: container.liveness_probe,
        ProbeKind.READINESS: container.readiness_probe,
    }[kind]


@dataclass(slots=True)
class _Worker:
    task: asyncio.Task[None]
    wake: asyncio.Event
    container_id: str = ""


StatusOf = Callable[[str], "tuple[Pod, PodStatus] | None"]


@dataclass(slots=True)
class ProbeCount:
    """What became of the probes of one kind of a container."""

    namespace: str
    pod: str
    outcomes: Counter[str] = field(default_factory=Counter)
    durations: Durations = field(default_factory=Durations)


class ProbeManager:
    """All probes of the node. `on_change(uid)` is called when a result that matters changed."""

    def __init__(
        self,
        runner: HandlerRunner,
        clock: Clock,
        chance: Random,
        recorder: EventRecorder,
        tasks: asyncio.TaskGroup,
        status_of: StatusOf,
        on_change: Callable[[str], None],
    ) -> None:
        self._runner = runner
        self._clock = clock
        self._chance = chance
        self._recorder = recorder
        self._tasks = tasks
        self._status_of = status_of
        self._on_change = on_change
        self._started = clock.monotonic_seconds()
        self._workers: dict[tuple[str, str, ProbeKind], _Worker] = {}
        self._results: dict[ProbeKind, dict[str, ProbeResult]] = {kind: {} for kind in ProbeKind}
        self.counts: dict[tuple[str, str, ProbeKind], ProbeCount] = {}
        """By pod UID, container and kind; dropped with the probe."""
        self.probes_run = 0

    @property
    def results(self) -> ProbeResults:
        """All results, by container id."""
        return ProbeResults(
            startup=self._results[ProbeKind.STARTUP],
            liveness=self._results[ProbeKind.LIVENESS],
            readiness=self._results[ProbeKind.READINESS],
        )

    def ensure(self, pod: Pod) -> None:
        """Start the probes of a pod that do not run yet."""
        for container in (*(item for item in pod.spec.init_containers if is_sidecar(item)), *pod.spec.containers):
            for kind in ProbeKind:
                key = (pod.metadata.uid, container.name, kind)
                if probe_of(container, kind) is not None and key not in self._workers:
                    wake = asyncio.Event()
                    task = self._tasks.create_task(self._run(key, wake))
                    self._workers[key] = _Worker(task, wake)

    def wake(self, pod_uid: str) -> None:
        """Probe at once what is not ready: its container may just have started."""
        for (uid, _, kind), worker in self._workers.items():
            if uid == pod_uid and self._results[kind].get(worker.container_id) is not ProbeResult.SUCCESS:
                worker.wake.set()

    def stop_liveness(self, pod_uid: str) -> None:
        """Stop what could restart containers of a pod that is being deleted; readiness goes on being reported."""
        for key in list(self._workers):
            if key[0] == pod_uid and key[2] is not ProbeKind.READINESS:
                self._drop(key)

    def remove(self, pod_uid: str) -> None:
        """Stop all probes of a pod."""
        for key in list(self._workers):
            if key[0] == pod_uid:
                self._drop(key)

    def _drop(self, key: tuple[str, str, ProbeKind]) -> None:
        worker = self._workers.pop(key)
        worker.task.cancel()
        self.counts.pop(key, None)
        self._results[key[2]].pop(worker.container_id, None)

    async def _run(self, key: tuple[str, str, ProbeKind], wake: asyncio.Event) -> None:
        uid, name, kind = key
        found = self._status_of(uid)
        if found is None:
            return
        container = next(
            item for item in (*found[0].spec.init_containers, *found[0].spec.containers) if item.name == name
        )
        probe = probe_of(container, kind)
        assert probe is not None, key
        period = max(probe.period_seconds, 1)
        if self._clock.monotonic_seconds() - self._started < period:
            # After a restart of this agent all probes of all pods begin: spread them.
            await self._clock.sleep(self._chance.random() * period)
        tally = ProbeTally(probe.success_threshold, probe.failure_threshold)
        is_resting = False
        while True:
            wake.clear()
            found = self._status_of(uid)
            if found is not None:
                pod, status = found
                current = _status_for(status, name)
                worker = self._workers[key]
                if status.phase in ("Failed", "Succeeded"):
                    return
                if current is not None and current.container_id:
                    container_id = current.container_id.partition("://")[2]
                    if container_id != worker.container_id:
                        self._results[kind].pop(worker.container_id, None)
                        worker.container_id = container_id
                        initial = ProbeResult.SUCCESS if kind is ProbeKind.LIVENESS else ProbeResult.FAILURE
                        if kind is not ProbeKind.STARTUP:
                            self._results[kind][container_id] = initial
                        elif is_sidecar(container) and current.started:
                            self._results[kind][container_id] = ProbeResult.SUCCESS
                        is_resting = False
                        tally = ProbeTally(probe.success_threshold, probe.failure_threshold)
                    if not is_resting:
                        going_on, is_resting = await self._probe(pod, status, container, current, kind, probe, tally)
                        if not going_on:
                            return
            await self._wait(wake, period)

    async def _wait(self, wake: asyncio.Event, seconds: float) -> None:
        waiting = asyncio.ensure_future(wake.wait())
        sleeping = asyncio.ensure_future(self._clock.sleep(seconds))
        try:
            await asyncio.wait({waiting, sleeping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
            sleeping.cancel()

    async def _probe(
        self,
        pod: Pod,
        status: PodStatus,
        container: Container,
        current: ContainerStatus,
        kind: ProbeKind,
        probe: Probe,
        tally: ProbeTally,
    ) -> tuple[bool, bool]:
        """Run the probe once if it is due; return whether to go on, and whether to rest."""
        container_id = current.container_id.partition("://")[2]
        if current.state.running is None:
            self._set(kind, container_id, ProbeResult.FAILURE, pod)
            ended = current.state.terminated
            return ended is None or should_restart(container, pod, ended.exit_code), False
        if pod.metadata.deletion_timestamp is not None and kind is not ProbeKind.READINESS:
            self._set(kind, container_id, ProbeResult.SUCCESS, pod)
            return False, False
        started_at = current.state.running.started_at
        if started_at and self._clock.now_seconds() - times.parse(started_at) < probe.initial_delay_seconds:
            return True, False
        if bool(current.started) == (kind is ProbeKind.STARTUP):
            return True, False
        result = await self._outcome(pod, status, container, container_id, kind, probe)
        if result is None:
            return True, False
        decided = tally.count(result)
        if decided is None:
            return True, False
        self._set(kind, container_id, decided, pod)
        rests = kind is ProbeKind.STARTUP or (kind is ProbeKind.LIVENESS and decided is ProbeResult.FAILURE)
        if rests:
            tally.run = 0
        return True, rests

    async def _outcome(
        self, pod: Pod, status: PodStatus, container: Container, container_id: str, kind: ProbeKind, probe: Probe
    ) -> ProbeResult | None:
        outcome = Outcome(OutcomeKind.ERROR)
        started = self._clock.monotonic_seconds()
        for _ in range(_TRIES):
            self.probes_run += 1
            timeout = max(probe.timeout_seconds, 1)
            try:
                outcome = await self._runner.probe(probe, container, container_id, status.pod_ip, timeout)
            except Exception as error:
                # A probe of one container must not end the agent, whatever an odd answer does to a library.
                outcome = Outcome(OutcomeKind.ERROR, str(error))
            if outcome.kind is not OutcomeKind.ERROR:
                break
        count = self.counts.setdefault(
            (pod.metadata.uid, container.name, kind), ProbeCount(pod.metadata.namespace, pod.metadata.name)
        )
        count.outcomes[_COUNTED[outcome.kind]] += 1
        count.durations.add(self._clock.monotonic_seconds() - started)
        reference = container_reference(pod, container.name)
        if outcome.kind is OutcomeKind.ERROR:
            text = f"{kind.value} probe errored and resulted in unknown state: {outcome.text}"
            self._recorder.warning(reference, "Unhealthy", text)
            return None
        if outcome.kind is OutcomeKind.FAILURE:
            self._recorder.warning(reference, "Unhealthy", f"{kind.value} probe failed: {outcome.text}")
            return ProbeResult.FAILURE
        if outcome.kind is OutcomeKind.WARNING:
            self._recorder.warning(reference, "ProbeWarning", f"{kind.value} probe warning: {outcome.text}")
        return ProbeResult.SUCCESS

    def _set(self, kind: ProbeKind, container_id: str, result: ProbeResult, pod: Pod) -> None:
        if self._results[kind].get(container_id) is not result:
            self._results[kind][container_id] = result
            self._on_change(pod.metadata.uid)


def _status_for(status: PodStatus, name: str) -> ContainerStatus | None:
    for item in (*status.container_statuses, *status.init_container_statuses):
        if item.name == name:
            return item
    return None
