"""One simulated Pod: its containers start, get ready, end, restart and stop as their behaviours and a test say.

Pure: `step` takes the Pod as the API shows it and the time, and says when to be called again. Rules (order of init
containers, restart policy, back-off of restarts, deadlines, grace) are those of a kubelet.
Source: https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from enum import Enum

from haven.api.core import v1 as core
from haven.api.core.podresources import is_sidecar
from haven.apimachinery import times
from haven.hollow.behaviour import Behaviour

__all__ = ["Container", "End", "Occurrence", "PodState", "State"]

BACKOFF_FIRST_SECONDS = 10.0
BACKOFF_SECONDS_MAX = 300.0
BACKOFF_FORGOTTEN_SECONDS = 600.0
"""A container that ran so long starts at once again, as if it had never failed."""
KILLED = 137

BehaviourOf = Callable[[core.Container], Behaviour]


class State(Enum):
    """Where a container is."""

    WAITING = "waiting"
    RUNNING = "running"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class End:
    """How a container ended."""

    exit_code: int
    reason: str
    message: str
    started_seconds: float
    finished_seconds: float
    container_id: str


@dataclass(frozen=True, slots=True)
class Occurrence:
    """Something that a kubelet would write an Event about."""

    type: str
    reason: str
    message: str


@dataclass(slots=True)
class Container:
    """One container. `due_seconds` is when it starts next while it waits."""

    spec: core.Container
    behaviour: Behaviour
    is_init: bool = False
    state: State = State.WAITING
    due_seconds: float | None = None
    reason: str = ""
    message: str = ""
    restarts: int = -1
    id: str = ""
    started_seconds: float = 0.0
    end: End | None = None
    last_end: End | None = None
    backoff_seconds: float = 0.0
    ready: bool = False
    started: bool = False
    ordered: End | None = None
    """How a test told it to end."""
    told_ready: bool | None = None
    """What a test said of its readiness."""
    probes: dict[str, _ProbeState] = field(default_factory=dict)

    @property
    def is_sidecar(self) -> bool:
        return self.is_init and is_sidecar(self.spec)


@dataclass(slots=True)
class _ProbeState:
    due_seconds: float
    successes: int = 0
    failures: int = 0
    result: bool | None = None


class PodState:
    """One Pod on its node. Made when it is bound, gone with its object.

    Invariants: a main container runs only after all init containers are through; nothing starts once the Pod is over
    or stopping.
    """

    def __init__(self, pod: core.Pod, behaviour_of: BehaviourOf, now: float, *, ip: str) -> None:
        self.pod = pod
        self.ip = ip
        self.bound_seconds = now
        self.started_seconds = _start_of(pod, now)
        self.phase = "Pending"
        self.reason = self.message = ""
        self.stopping_seconds: float | None = None
        self.is_gone = False
        """All containers of a deleted Pod have ended: the object may go."""
        self.told_ready: bool | None = None
        self.occurrences: list[Occurrence] = []
        self._behaviour_of = behaviour_of
        self.init = [Container(c, behaviour_of(c), is_init=True) for c in pod.spec.init_containers]
        self.main = [Container(c, behaviour_of(c)) for c in pod.spec.containers]
        self.ephemeral: list[Container] = []
        self._adopt(pod.status)

    def _adopt(self, status: core.PodStatus) -> None:
        """Go on where a Pod was left that has run already."""
        if status.phase:
            self.phase, self.reason, self.message = status.phase, status.reason, status.message
        known = {item.name: item for item in (*status.init_container_statuses, *status.container_statuses)}
        for item in self.all:
            before = known.get(item.spec.name)
            if before is None or not before.container_id:
                continue
            item.restarts, item.id = before.restart_count, before.container_id
            if before.state.running is not None:
                item.state = State.RUNNING
                item.started_seconds = times.parse(before.state.running.started_at or self.pod.status.start_time or "")
                item.ready, item.started = before.ready, bool(before.started)
            elif before.state.terminated is not None:
                item.state, item.end = State.ENDED, _end_of(before.state.terminated)
            if before.last_state.terminated is not None:
                item.last_end = _end_of(before.last_state.terminated)

    @property
    def all(self) -> list[Container]:
        return [*self.init, *self.main, *self.ephemeral]

    @property
    def is_over(self) -> bool:
        """Whether the Pod has reached its last phase."""
        return self.phase in ("Succeeded", "Failed")

    def container(self, name: str) -> Container:
        """Return a container, the first main one for ""; raise KeyError, which says which there are."""
        if not name:
            return self.main[0]
        for item in self.all:
            if item.spec.name == name:
                return item
        names = ", ".join(item.spec.name for item in self.all)
        raise KeyError(f"Pod {self.pod.metadata.name} has no container {name!r}: {names}")

    # What a test says

    def order_end(
        self, now: float, exit_code: int, *, container: str = "", reason: str = "", message: str = ""
    ) -> None:
        """Let a container, or all main ones, end at the next step."""
        for item in [self.container(container)] if container else self.main:
            item.ordered = End(exit_code, reason or _reason(exit_code), message, item.started_seconds, now, item.id)

    def tell_ready(self, ready: bool | None, container: str = "") -> None:
        """Decide about readiness, or give the decision back (None)."""
        for item in [self.container(container)] if container else self.main:
            item.told_ready = ready

    def fail(self, reason: str, message: str, now: float) -> None:
        """End the Pod as the node itself does: eviction, deadline, lost node."""
        for item in self.all:
            self._end(item, KILLED, "", "", now)
        self.phase, self.reason, self.message = "Failed", reason, message

    # Time passes

    def step(self, pod: core.Pod, now: float) -> float | None:
        """Bring the Pod up to date; return when something happens next by itself, None if never."""
        self.pod = pod
        due = _Earliest(now)
        if pod.metadata.deletion_timestamp is not None:
            self._stop(now, due)
            return due.at
        if self.is_over:
            return None
        self._add_ephemeral(pod)
        deadline = pod.spec.active_deadline_seconds
        if deadline is not None:
            if now >= self.started_seconds + deadline:
                text = "Pod was active on the node longer than the specified deadline"
                self.fail("DeadlineExceeded", text, now)
                return None
            due.add(self.started_seconds + deadline)
        if self._run_init(now, due):
            for item in (*self.main, *self.ephemeral):
                self._run(item, now, due)
        self._judge(now)
        return due.at

    def _add_ephemeral(self, pod: core.Pod) -> None:
        known = {item.spec.name for item in self.ephemeral}
        for one in pod.spec.ephemeral_containers:
            if one.name not in known:
                spec = core.Container(name=one.name, image=one.image, command=one.command, restart_policy="Never")
                self.ephemeral.append(Container(spec, self._behaviour_of(spec)))

    def _run_init(self, now: float, due: _Earliest) -> bool:
        """Run init containers in order; return whether all are through."""
        for item in self.init:
            self._run(item, now, due)
            if item.is_sidecar:
                if not item.started:
                    return False
            elif item.state is not State.ENDED or item.end is None or item.end.exit_code != 0:
                return False
        return True

    def _run(self, item: Container, now: float, due: _Earliest) -> None:
        for _ in range(3):  # Waiting to running to ended to waiting; a container that ends at once goes no further.
            before = item.state
            if item.state is State.WAITING:
                self._wait(item, now, due)
            elif item.state is State.RUNNING:
                self._work(item, now, due)
            elif item.state is State.ENDED:
                self._restart(item, now, due)
            if item.state is before:
                return

    def _wait(self, item: Container, now: float, due: _Earliest) -> None:
        behaviour = item.behaviour
        if item.due_seconds is None:
            item.due_seconds = now + (behaviour.start_seconds or 0.0)
        if now < item.due_seconds:
            due.add(item.due_seconds)
            return
        if behaviour.start_error:
            if item.reason != behaviour.start_error:
                item.reason, item.message = behaviour.start_error, behaviour.message or _start_message(item)
                self._say("Warning", "Failed", f"Error: {behaviour.start_error}")
            return
        item.state = State.RUNNING
        item.restarts += 1
        item.id = _container_id(self.pod, item)
        item.started_seconds, item.due_seconds = now, None
        item.end, item.ordered = None, item.ordered if item.restarts == 0 else None
        item.reason = item.message = ""
        item.ready = item.started = False
        item.probes = {}
        self._say("Normal", "Pulled", f'Container image "{item.spec.image}" already present on machine')
        self._say("Normal", "Created", f"Container created: {item.spec.name}")
        self._say("Normal", "Started", f"Container started: {item.spec.name}")

    def _work(self, item: Container, now: float, due: _Earliest) -> None:
        if item.ordered is not None:
            order, item.ordered = item.ordered, None
            self._end(item, order.exit_code, order.reason, order.message, now)
            return
        behaviour = item.behaviour
        run_seconds = behaviour.run_seconds
        if run_seconds is None and item.is_init and not item.is_sidecar:
            run_seconds = 0.0
        if run_seconds is not None:
            ends = item.started_seconds + run_seconds
            if now >= ends:
                code = behaviour.exit_code or 0
                self._end(item, code, behaviour.reason or "", behaviour.message or "", now)
                return
            due.add(ends)
        self._probe(item, now, due)

    def _probe(self, item: Container, now: float, due: _Earliest) -> None:
        behaviour, spec = item.behaviour, item.spec
        item.started = self._passes(item, "startup", spec.startup_probe, now, due)
        if item.state is not State.RUNNING:
            return
        if item.told_ready is not None:
            item.ready = item.told_ready and item.started
        elif not item.started or behaviour.ready is False:
            item.ready = False
        elif behaviour.probe is not None and spec.readiness_probe is not None:
            item.ready = self._passes(item, "readiness", spec.readiness_probe, now, due)
        else:
            ready_at = item.started_seconds + (behaviour.ready_seconds or 0.0)
            item.ready = now >= ready_at
            if not item.ready:
                due.add(ready_at)
        if item.started and behaviour.probe is not None and spec.liveness_probe is not None:
            self._passes(item, "liveness", spec.liveness_probe, now, due)

    def _passes(self, item: Container, kind: str, probe: core.Probe | None, now: float, due: _Earliest) -> bool:
        """Return a probe's standing result; without a callback, probes succeed at once."""
        ask = item.behaviour.probe
        if probe is None or ask is None:
            return True
        state = item.probes.get(kind)
        if state is None:
            state = item.probes[kind] = _ProbeState(item.started_seconds + float(probe.initial_delay_seconds))
        period = float(probe.period_seconds or 10)
        if now >= state.due_seconds and not (kind == "startup" and state.result):
            state.due_seconds = now + period
            if ask(self.pod, item.spec, kind):
                state.successes, state.failures = state.successes + 1, 0
                if state.successes >= (probe.success_threshold or 1):
                    state.result = True
            else:
                state.successes, state.failures = 0, state.failures + 1
                self._say("Warning", "Unhealthy", f"{kind.capitalize()} probe failed: the test's probe says no")
                if state.failures >= (probe.failure_threshold or 3):
                    state.result = False
                    if kind != "readiness":
                        self._say(
                            "Normal",
                            "Killing",
                            f"Container {item.spec.name} failed {kind} probe, will be restarted",
                        )
                        self._end(item, KILLED, "Error", "", now)
                        return False
        if not (kind == "startup" and state.result):
            due.add(state.due_seconds)
        return bool(state.result)

    def _end(self, item: Container, code: int, reason: str, message: str, now: float) -> None:
        if item.state is not State.RUNNING:
            return
        item.end = End(code, reason or _reason(code), message, item.started_seconds, now, item.id)
        item.state = State.ENDED
        item.ready = False
        item.started = False

    def _restart(self, item: Container, now: float, due: _Earliest) -> None:
        end = item.end
        assert end is not None, "an ended container knows how"
        if not self._should_restart(item, end.exit_code):
            return
        if end.finished_seconds - end.started_seconds >= BACKOFF_FORGOTTEN_SECONDS:
            item.backoff_seconds = 0.0
        starts = end.finished_seconds + item.backoff_seconds
        if item.backoff_seconds and now < starts:
            name = f"{self.pod.metadata.name}_{self.pod.metadata.namespace}({self.pod.metadata.uid})"
            item.reason = "CrashLoopBackOff"
            item.message = (
                f"back-off {_duration(item.backoff_seconds)} restarting failed container={item.spec.name} pod={name}"
            )
            self._say("Warning", "BackOff", f"Back-off restarting failed container {item.spec.name} in pod {name}")
        item.backoff_seconds = min(max(item.backoff_seconds * 2, BACKOFF_FIRST_SECONDS), BACKOFF_SECONDS_MAX)
        item.last_end, item.end = end, None
        item.state = State.WAITING
        item.due_seconds = max(starts, now) + (item.behaviour.start_seconds or 0.0)
        due.add(item.due_seconds)

    def _should_restart(self, item: Container, exit_code: int) -> bool:
        if item.is_sidecar:
            return True
        if item in self.ephemeral:
            return False
        for rule in item.spec.restart_policy_rules:
            codes = rule.exit_codes
            if codes is not None and (exit_code in codes.values) == (codes.operator == "In"):
                return rule.action == "Restart"
        policy = item.spec.restart_policy or self.pod.spec.restart_policy or "Always"
        if item.is_init:
            return exit_code != 0 and policy != "Never"
        return policy == "Always" or (policy == "OnFailure" and exit_code != 0)

    def _stop(self, now: float, due: _Earliest) -> None:
        """A deleted Pod: containers get their grace."""
        if self.stopping_seconds is None:
            self.stopping_seconds = now
            for item in self.all:
                if item.state is State.RUNNING:
                    self._say("Normal", "Killing", f"Stopping container {item.spec.name}")
        grace = self.pod.metadata.deletion_grace_period_seconds
        limit = self.stopping_seconds + (30.0 if grace is None else float(grace))
        for item in self.all:
            if item.state is not State.RUNNING:
                continue
            item.ready = False
            wanted = self.stopping_seconds + (item.behaviour.stop_seconds or 0.0)
            if item.ordered is not None:
                self._end(item, item.ordered.exit_code, item.ordered.reason, item.ordered.message, now)
            elif now >= min(wanted, limit):
                self._end(item, 0 if wanted <= limit else KILLED, "", "", now)
            else:
                due.add(min(wanted, limit))
        if all(item.state is not State.RUNNING for item in self.all):
            self.is_gone = True
            if not self.is_over:
                codes = [item.end.exit_code if item.end else KILLED for item in self.main]
                self.phase = "Succeeded" if not any(codes) else "Failed"

    def _judge(self, now: float) -> None:
        """Find the phase."""
        for item in self.init:
            if item.is_sidecar or item.end is None or item.end.exit_code == 0:
                continue
            if not self._should_restart(item, item.end.exit_code):
                self._finish("Failed", now)
                return
        ends = [item.end for item in self.main]
        if all(end is not None and not self._should_restart(item, end.exit_code) for item, end in self._ends()):
            self._finish("Failed" if any(end is not None and end.exit_code for end in ends) else "Succeeded", now)
        elif any(item.state is State.RUNNING or item.restarts >= 0 for item in self.main):
            self.phase = "Running" if all(item.restarts >= 0 for item in self.main) else "Pending"

    def _ends(self) -> Iterator[tuple[Container, End | None]]:
        return ((item, item.end) for item in self.main)

    def _finish(self, phase: str, now: float) -> None:
        for item in (*self.init, *self.ephemeral):  # Sidecars go when the work is done.
            self._end(item, 0, "", "", now)
        self.phase = phase

    def _say(self, type_: str, reason: str, message: str) -> None:
        self.occurrences.append(Occurrence(type_, reason, message))

    def copy(self) -> PodState:
        """Return a state that goes its own way; Pods and behaviours are shared, as nobody changes them."""
        other = copy.copy(self)
        other.init, other.main, other.ephemeral = ([_copied(item) for item in group] for group in self._groups)
        other.occurrences = list(self.occurrences)
        return other

    @property
    def _groups(self) -> tuple[list[Container], list[Container], list[Container]]:
        return self.init, self.main, self.ephemeral

    def take_occurrences(self) -> list[Occurrence]:
        """Return what happened since the last call."""
        found, self.occurrences = self.occurrences, []
        return found


def _copied(item: Container) -> Container:
    return replace(item, probes={kind: replace(state) for kind, state in item.probes.items()})


class _Earliest:
    """Collects times and keeps the earliest that is still to come."""

    def __init__(self, now: float) -> None:
        self._now = now
        self.at: float | None = None

    def add(self, seconds: float) -> None:
        if self.at is None or seconds < self.at:
            self.at = max(seconds, self._now)


def _start_of(pod: core.Pod, now: float) -> float:
    return times.parse(pod.status.start_time) if pod.status.start_time else now


def _end_of(ended: core.ContainerStateTerminated) -> End:
    finished = times.parse(ended.finished_at) if ended.finished_at else 0.0
    started = times.parse(ended.started_at) if ended.started_at else finished
    return End(ended.exit_code, ended.reason, ended.message, started, finished, ended.container_id)


def _reason(exit_code: int) -> str:
    return "Completed" if exit_code == 0 else "Error"


def _start_message(item: Container) -> str:
    if item.behaviour.start_error == "ImagePullBackOff":
        return f'Back-off pulling image "{item.spec.image}"'
    return f'failed to start container "{item.spec.name}"'


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"


def _container_id(pod: core.Pod, item: Container) -> str:
    text = f"{pod.metadata.uid}/{item.spec.name}/{item.restarts}"
    return f"hollow://{hashlib.sha256(text.encode()).hexdigest()}"
