"""The row of a Pod, whose status column sums up all its containers."""

from __future__ import annotations

from typing import Any

from haven.api.core import v1 as core_v1
from haven.apimachinery import meta, times
from haven.apiserver.printers.format import NONE, age, is_true

__all__ = ["pod", "pod_conditions"]

_UNREACHABLE = "NodeLost"
_GATED = "SchedulingGated"
_INITIALIZING = "PodInitializing"

_FINISHED = {
    "Succeeded": "The pod has completed successfully.",
    "Failed": "The pod failed.",
}


def pod_conditions(item: core_v1.Pod) -> list[meta.TableRowCondition]:
    """Return that a Pod will not run again, if so."""
    message = _FINISHED.get(item.status.phase)
    if message is None:
        return []
    return [meta.TableRowCondition(type="Completed", status="True", reason=item.status.phase, message=message)]


def pod(item: core_v1.Pod, now: float) -> list[Any]:
    """Return the cells of a Pod."""
    summary = _Summary(item)
    restarts = str(summary.restarts)
    if summary.restarts and summary.last_restart:
        restarts = f"{summary.restarts} ({age(summary.last_restart, now)} ago)"
    status = item.status
    return [
        item.metadata.name,
        f"{summary.ready}/{summary.total}",
        summary.reason,
        restarts,
        age(item.metadata.creation_timestamp, now),
        (status.pod_ips[0].ip if status.pod_ips else "") or NONE,
        item.spec.node_name or NONE,
        status.nominated_node_name or NONE,
        _readiness_gates(item),
    ]


def _readiness_gates(item: core_v1.Pod) -> str:
    gates = item.spec.readiness_gates
    if not gates:
        return NONE
    met = sum(is_true(item.status.conditions, gate.condition_type) for gate in gates)
    return f"{met}/{len(gates)}"


class _Summary:
    """What the containers' states add up to. `last_restart` is "" if nothing restarted."""

    def __init__(self, item: core_v1.Pod) -> None:
        spec, status = item.spec, item.status
        self._sidecars = {one.name for one in spec.init_containers if one.restart_policy == "Always"}
        self.total = len(spec.containers) + len(self._sidecars)
        self.ready = self.restarts = 0
        self.last_restart = ""
        self.reason = status.reason or status.phase
        if any(one.type == "PodScheduled" and one.reason == _GATED for one in status.conditions):
            self.reason = _GATED
        self._sidecar_restarts, self._last_sidecar_restart = 0, ""
        initializing = self._look_at_init_containers(status.init_container_statuses, len(spec.init_containers))
        if not initializing or is_true(status.conditions, "Initialized"):
            self._look_at_containers(status)
        if item.metadata.deletion_timestamp:
            if status.reason == _UNREACHABLE:
                self.reason = "Unknown"
            elif status.phase not in _FINISHED:
                self.reason = "Terminating"

    def _look_at_init_containers(self, statuses: list[core_v1.ContainerStatus], count: int) -> bool:
        """Tell whether initialization goes on; sum up restarts so far."""
        for index, one in enumerate(statuses):
            is_sidecar = one.name in self._sidecars
            self.restarts += one.restart_count
            self.last_restart = _later(self.last_restart, one)
            if is_sidecar:
                self._sidecar_restarts += one.restart_count
                self._last_sidecar_restart = _later(self._last_sidecar_restart, one)
            terminated, waiting = one.state.terminated, one.state.waiting
            if terminated is not None and terminated.exit_code == 0:
                continue
            if is_sidecar and one.started:
                self.ready += one.ready
                continue
            if terminated is not None:
                self.reason = f"Init:{_exit(terminated)}"
            elif waiting is not None and waiting.reason and waiting.reason != _INITIALIZING:
                self.reason = f"Init:{waiting.reason}"
            else:
                self.reason = f"Init:{index}/{count}"
            return True
        return False

    def _look_at_containers(self, status: core_v1.PodStatus) -> None:
        self.restarts, self.last_restart = self._sidecar_restarts, self._last_sidecar_restart
        running, failure = False, ""
        for one in reversed(status.container_statuses):
            self.restarts += one.restart_count
            self.last_restart = _later(self.last_restart, one)
            terminated, waiting = one.state.terminated, one.state.waiting
            if waiting is not None and waiting.reason:
                self.reason = waiting.reason
            elif terminated is not None:
                self.reason = _exit(terminated)
                if terminated.exit_code:
                    failure = self.reason
            elif one.ready and one.state.running is not None:
                running = True
                self.ready += 1
        if self.reason == "Completed":
            if running and any(item.type == "Ready" and item.status == "True" for item in status.conditions):
                self.reason = "Running"
            elif failure:
                self.reason = failure
            elif running:
                self.reason = "NotReady"


def _exit(state: core_v1.ContainerStateTerminated) -> str:
    if state.reason:
        return state.reason
    return f"Signal:{state.signal}" if state.signal else f"ExitCode:{state.exit_code}"


def _later(moment: str, one: core_v1.ContainerStatus) -> str:
    terminated = one.last_state.terminated
    finished = terminated.finished_at if terminated is not None else None
    if not finished:
        return moment
    return finished if not moment or times.parse(moment) < times.parse(finished) else moment
