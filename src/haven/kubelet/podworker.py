"""Drives one pod from admission to its end: looks, decides (podstate, podstatus), acts, reports. One task per pod.

The states of a worker: syncing (the pod should run), terminating (its containers must end), finished (nothing runs,
the API object may still be there). It never goes back. A request to terminate interrupts whatever a sync is doing.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from enum import Enum
from typing import Any

from msgspec.structs import replace

from haven.api.core.v1 import Container, Pod, PodStatus
from haven.apimachinery import times
from haven.cri import errors
from haven.cri.interface import ContainerState
from haven.kubelet.containerstart import Sandbox
from haven.kubelet.containerstatus import StatusContext
from haven.kubelet.env import referenced_objects
from haven.kubelet.events import pod_reference
from haven.kubelet.fieldref import FieldFacts
from haven.kubelet.observation import ObservedPod
from haven.kubelet.observer import Observer
from haven.kubelet.podallocation import PodAllocation
from haven.kubelet.podconfig import PodInputs
from haven.kubelet.podservices import PodServices, SyncError
from haven.kubelet.podspec import (
    all_containers,
    container_type,
    ephemeral_as_container,
    format_pod,
    is_host_network,
    is_static,
    is_terminal,
)
from haven.kubelet.podstarts import RETRY_SECONDS, RETRY_SECONDS_MAX, PodStarts
from haven.kubelet.podstate import PodActions, compute_actions, restarts_all_containers
from haven.kubelet.podstatus import (
    NodeFacts,
    Verdict,
    compute_status,
    fill_transition_times,
    order_ips,
    terminated_status,
)
from haven.kubelet.sandboxstart import ensure_sandbox, pod_inputs, runtime_handler
from haven.kubelet.volumes.content import referenced_names
from haven.kubelet.volumes.manager import MountedVolume, VolumeError
from haven.telemetry import logger

__all__ = ["PodWorker", "WorkerState"]

_log = logger("pod")
_REFRESH_SECONDS = 60.0


class WorkerState(Enum):
    """Where a worker is; only forward."""

    SYNCING = "syncing"
    TERMINATING = "terminating"
    FINISHED = "finished"


class PodWorker:
    """One pod. `update`, `terminate` and `poke` may be called at any time; `run` does the work."""

    def __init__(self, services: PodServices, pod: Pod, *, api_uid: str | None = None) -> None:
        self.pod = pod
        self.state = WorkerState.SYNCING
        self.verdict: Verdict | None = None
        self.status: PodStatus = pod.status
        self._shown = pod.status
        self.observed = ObservedPod()
        self.volumes: dict[str, MountedVolume] = {}
        self.mirror: Pod | None = None
        self.is_admitted = False
        self.is_gone_from_api = False
        self._services = services
        self._grace: int | None = None
        self._held_by: list[PodWorker] = []
        self._starts = PodStarts(services)
        self._allocation = PodAllocation(services, pod.metadata.uid)
        self._ended: set[str] | None = None
        self._wake = asyncio.Event()
        self._terminate = asyncio.Event()
        self._finished = asyncio.Event()
        self._retry_seconds = 0.0
        self._retry_at: float | None = None
        self._refreshed_at = 0.0
        self._handler = ""
        settings = services.settings
        self._observer = Observer(
            services.runtime, services.node.runtime_name, pod.metadata.uid, settings.pod_directory(pod.metadata.uid)
        )

    @property
    def uid(self) -> str:
        return self.pod.metadata.uid

    # What others ask.

    def update(self, pod: Pod) -> None:
        """Take over a newer version of the pod."""
        self._take(pod)
        self._use_objects()
        if pod.metadata.deletion_timestamp is not None:
            self.terminate(grace_seconds=pod.metadata.deletion_grace_period_seconds)
        self.poke()

    def _take(self, pod: Pod) -> None:
        self.pod = self._allocation.take(self.pod, pod, is_running=self.state is WorkerState.SYNCING)

    def terminate(self, *, grace_seconds: int | None = None, verdict: Verdict | None = None) -> None:
        """End the pod. Calling again may shorten the grace period, never prolong it."""
        if verdict is not None and self.verdict is None:
            self.verdict = verdict
        if self.state is WorkerState.FINISHED:
            self.poke()
            return
        is_first = self.state is WorkerState.SYNCING
        shortens = grace_seconds is not None and (self._grace is None or grace_seconds < self._grace)
        if shortens:
            self._grace = grace_seconds
        if is_first or shortens:
            self.state = WorkerState.TERMINATING
            self._terminate.set()
            self._wake.set()

    def wait_for(self, other: PodWorker) -> None:
        """Begin only when nothing of another pod runs any more."""
        self._held_by.append(other)

    def poke(self) -> None:
        """Look again soon."""
        self._wake.set()

    async def wait_finished(self) -> None:
        """Return once nothing of the pod runs."""
        await self._finished.wait()

    # The task.

    async def run(self) -> None:
        """Drive the pod until it is finished, then report until cancelled."""
        self._use_objects()
        for other in self._held_by:
            if self.state is WorkerState.SYNCING:
                await self._interruptible(other.wait_finished())
        while self.state is WorkerState.SYNCING:
            self._wake.clear()
            await self._interruptible(self._sync_once())
            if self.state is WorkerState.SYNCING:
                await self._pause()
        while self.state is WorkerState.TERMINATING:
            self._terminate.clear()
            await self._interruptible(self._terminate_once())
        while True:
            self._wake.clear()
            self._report_finished()
            await self._wake.wait()

    async def _interruptible(self, step: Coroutine[Any, Any, None]) -> None:
        """Run a step, but drop it when termination is (newly) asked for; a repeat of the step must be safe."""
        task = asyncio.ensure_future(step)
        signal = asyncio.ensure_future(self._terminate.wait())
        try:
            await asyncio.wait({task, signal}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
                return
            task.result()
        finally:
            signal.cancel()
            if not task.done():
                task.cancel()

    async def _pause(self) -> None:
        """Wait for a reason to look again: a change, a back-off that is over, a deadline, or just time."""
        now = self._services.clock.monotonic_seconds()
        seconds = self._services.settings.sync_seconds
        if self._retry_at is not None:
            seconds = min(seconds, max(self._retry_at - now, 0.0))
        sleeping = asyncio.ensure_future(self._services.clock.sleep(seconds))
        waking = asyncio.ensure_future(self._wake.wait())
        try:
            await asyncio.wait({sleeping, waking}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            sleeping.cancel()
            waking.cancel()

    def _look_again_in(self, seconds: float) -> None:
        at = self._services.clock.monotonic_seconds() + seconds
        self._retry_at = at if self._retry_at is None else min(self._retry_at, at)

    # Running.

    async def _sync_once(self) -> None:
        self._retry_at = None
        try:
            await self._sync()
            self._retry_seconds = 0.0
        except SyncError as error:
            self._retry_seconds = min(max(self._retry_seconds * 2, RETRY_SECONDS), RETRY_SECONDS_MAX)
            self._look_again_in(self._retry_seconds)
            _log.info("pod is not in sync yet", pod=format_pod(self.pod), reason=str(error))
        except errors.RuntimeFailure as error:
            self._retry_seconds = min(max(self._retry_seconds * 2, RETRY_SECONDS), RETRY_SECONDS_MAX)
            self._look_again_in(self._retry_seconds)
            _log.warning("runtime fails a pod", pod=format_pod(self.pod), reason=error.rpc_text)
        except Exception as error:
            # A bug, or a disk that fails: it must not take the node's other pods with it.
            self._retry_seconds = min(max(self._retry_seconds * 2, RETRY_SECONDS), RETRY_SECONDS_MAX)
            self._look_again_in(self._retry_seconds)
            _log.error("pod cannot be synced", pod=format_pod(self.pod), exc_info=True)
            text = f"error determining status: {error}"
            self._services.recorder.warning(pod_reference(self.pod), "FailedSync", text)

    async def _sync(self) -> None:
        services = self._services
        self.observed = await self._observer.observe()
        if self._allocation.desired is not None:
            self._take(self._allocation.desired)
        pod = self.pod
        if is_terminal(pod):
            self.terminate()
            return
        self._allocation.settle(pod, self.observed)
        status = self._report()
        if status.phase in ("Succeeded", "Failed"):
            self.terminate()
            return
        self._check_deadline(status)
        if self.state is not WorkerState.SYNCING:
            return
        if services.node.network_problem and not is_host_network(pod):
            text = f"network is not ready: {services.node.network_problem}"
            services.recorder.warning(pod_reference(pod), "NetworkNotReady", text)
            raise SyncError(text)
        resize, tier = self._allocation.plan(pod, self.observed), self.status.qos_class
        is_resizing = bool(resize.updates or resize.restarts)
        await self._allocation.ensure_cgroup(pod, self.observed, tier, is_resizing=is_resizing)
        services.probes.ensure(pod)
        restart_all = restarts_all_containers(pod, self.observed, self.status)
        actions = compute_actions(
            pod, self.observed, services.probes.results, restart_all=restart_all, resized=resize.restarts
        )
        await self._setup_volumes(actions)
        if resize.updates:
            await self._allocation.resize(pod, self.observed, tier, resize)
            self.observed = await self._observer.observe()
            self._allocation.settle(pod, self.observed)
            self._report()
        if actions.is_nothing:
            return
        await self._perform(actions)
        self.observed = await self._observer.observe()
        self._allocation.settle(pod, self.observed)
        self._report()
        services.probes.wake(self.uid)
        # What starts may end at once, and what was killed may have to start: look right away, once.
        self._look_again_in(self._starts.next_seconds(self.pod, self.observed))

    def _check_deadline(self, status: PodStatus) -> None:
        seconds = self.pod.spec.active_deadline_seconds
        if seconds is None or status.start_time is None:
            return
        left = times.parse(status.start_time) + seconds - self._services.clock.now_seconds()
        if left > 0:
            self._look_again_in(left)
            return
        text = "Pod was active on the node longer than the specified deadline"
        self._services.recorder.normal(pod_reference(self.pod), "DeadlineExceeded", text)
        self.terminate(verdict=Verdict("Failed", "DeadlineExceeded", text))

    async def _setup_volumes(self, actions: PodActions) -> None:
        """Make volumes ready before anything starts; afterwards keep their content current."""
        services, pod = self._services, self.pod
        now = services.clock.monotonic_seconds()
        starts = bool(actions.start or actions.start_init or actions.start_ephemeral or actions.create_sandbox)
        if not starts and self.volumes:
            await self._refresh_volumes(now)
            return
        facts = FieldFacts(self._ips(), services.node.host_ips, services.node.allocatable)
        try:
            self.volumes = await services.volumes.setup(pod, facts)
        except VolumeError as error:
            services.recorder.warning(pod_reference(pod), "FailedMount", error.message)
            raise SyncError(error.message) from error
        self._refreshed_at = now

    async def _refresh_volumes(self, now: float) -> None:
        services = self._services
        facts = FieldFacts(self._ips(), services.node.host_ips, services.node.allocatable)
        try:
            await services.volumes.refresh(self.pod, facts)
        except VolumeError as error:
            services.recorder.warning(pod_reference(self.pod), "FailedMount", error.message)
        renewal = services.tokens.next_renewal(self.uid)
        if renewal is not None:
            self._look_again_in(max(renewal - services.clock.now_seconds(), 1.0))
        self._refreshed_at = now

    def _ips(self) -> tuple[str, ...]:
        host_ips = self._services.node.host_ips
        if is_host_network(self.pod):
            return host_ips
        return tuple(order_ips(self.observed.ips, host_ips))

    async def _perform(self, actions: PodActions) -> None:
        services, pod = self._services, self.pod
        if actions.kill_pod:
            if actions.sandbox_id and actions.create_sandbox:
                text = "Pod sandbox changed, it will be killed and re-created."
                services.recorder.normal(pod_reference(pod), "SandboxChanged", text)
            await services.terminator.kill_all(pod, self.observed)
            for old in self.observed.sandboxes:
                await services.runtime.stop_sandbox(old.info.id)
            if actions.create_sandbox:
                await self._purge_init_containers()
        for kill in actions.kill:
            found = next((item for item in self.observed.containers if item.status.id == kill.container_id), None)
            if found is not None:
                await services.terminator.kill(
                    pod, found, kill.message, kill.reason, pod_ip=self.observed.ips[0] if self.observed.ips else ""
                )
        for reset in actions.reset:
            await services.runtime.stop_container(reset.container_id, 0)
            await services.runtime.remove_container(reset.container_id)
        if actions.reset:
            self._look_again_in(0)
            return
        if not (actions.create_sandbox or actions.start or actions.start_init or actions.start_ephemeral):
            self._look_again_in(0)
            return
        self._handler = await runtime_handler(services, pod)
        inputs = pod_inputs(services, pod, self.status.qos_class, self._handler)
        sandbox = await ensure_sandbox(services, pod, actions, inputs, self._handler, self._ips())
        if actions.create_sandbox:
            self.observed = await self._observer.observe()
            self._report()
        await self._start_containers(actions, inputs, sandbox)

    async def _purge_init_containers(self) -> None:
        names = {container.name for container in self.pod.spec.init_containers}
        for item in self.observed.containers:
            if item.name in names:
                await self._services.runtime.remove_container(item.status.id)

    async def _start_containers(self, actions: PodActions, inputs: PodInputs, sandbox: Sandbox) -> None:
        pod = self.pod
        for index in actions.start_ephemeral:
            ephemeral = pod.spec.ephemeral_containers[index]
            container = ephemeral_as_container(ephemeral)
            await self._start(container, inputs, sandbox, target=ephemeral.target_container_name)
        for index in actions.start_init:
            container = pod.spec.init_containers[index]
            if not await self._start(container, inputs, sandbox) and container.restart_policy != "Always":
                return
        for index in actions.start:
            await self._start(pod.spec.containers[index], inputs, sandbox)

    async def _start(self, container: Container, inputs: PodInputs, sandbox: Sandbox, *, target: str = "") -> bool:
        container_id = await self._starts.start(
            self.pod, self.observed, self.volumes, container, inputs, sandbox, target=target
        )
        if container_id:
            self._allocation.started(container_id, container.resources)
        return bool(container_id)

    # Reporting.

    def _status_of(self, *, is_terminal_now: bool) -> PodStatus:
        services = self._services
        probes = services.probes.results
        context = StatusContext(
            failures=self._starts.failures,
            recursive_read_only=services.node.features.handler(self._handler).recursive_read_only_mounts,
            restarting_all=restarts_all_containers(self.pod, self.observed, self.status),
        )
        status = compute_status(
            self.pod,
            self.observed,
            self.status,
            context,
            probes,
            NodeFacts(services.node.host_ips),
            is_terminal_now=is_terminal_now,
            verdict=self.verdict,
            resize_conditions=self._allocation.conditions,
        )
        fill_transition_times(status, self.status, times.format_time(services.clock.now_seconds()))
        return status

    def _publish(self, status: PodStatus, *, is_ended: bool = False, is_finished: bool = False) -> None:
        """Write a status. The API hears of a final phase when nothing runs any more (`is_ended`), not before: others
        then give away what the pod had."""
        self.status = status
        if not is_ended and not is_terminal(self.pod) and status.phase in ("Succeeded", "Failed"):
            before = self._shown
            status = replace(status, phase=before.phase, reason=before.reason, message=before.message)
        self._shown = status
        target = self.mirror if self.mirror is not None else self.pod
        if target is self.pod and is_static(self.pod):
            return  # Its mirror does not exist yet: nowhere to write to.
        if not self.is_gone_from_api:
            self._services.statuses.set(target, status, is_finished=is_finished)

    def _count_ended(self) -> None:
        """Count containers that have ended since the last look, but not those of before the first."""
        exited = [item for item in self.observed.containers if item.state is ContainerState.EXITED]
        for item in exited if self._ended is not None else ():
            if item.status.id not in (self._ended or ()):
                self._services.ended_containers[container_type(self.pod, item.name), item.status.exit_code] += 1
        self._ended = {item.status.id for item in exited}

    def _report(self) -> PodStatus:
        self._count_ended()
        status = self._status_of(is_terminal_now=False)
        self._publish(status)
        return status

    # Terminating.

    async def _terminate_once(self) -> None:
        services, pod = self._services, self.pod
        services.probes.stop_liveness(self.uid)
        try:
            self.observed = await self._observer.observe()
            self._report()
            await services.terminator.kill_all(pod, self.observed, grace_override=self._grace)
            self.observed = await self._observer.observe()
            self._report()
            for sandbox in self.observed.sandboxes:
                await services.runtime.stop_sandbox(sandbox.info.id)
            self.observed = await self._observer.observe()
        except errors.RuntimeFailure as error:
            _log.warning("pod does not end yet", pod=format_pod(pod), reason=error.rpc_text)
            await services.clock.sleep(1.0)
            return
        except Exception:
            _log.error("pod cannot be ended", pod=format_pod(pod), exc_info=True)
            await services.clock.sleep(1.0)
            return
        if not self.observed.is_quiet:
            await services.clock.sleep(0.1)
            return
        services.probes.remove(self.uid)
        status = terminated_status(pod, self._status_of(is_terminal_now=True))
        refreshed = self._status_with_final_conditions(status)
        if not await self._clean_up():
            self._publish(refreshed, is_ended=True)
            await services.clock.sleep(1.0)
            return
        self._publish(refreshed, is_ended=True)
        self.state = WorkerState.FINISHED
        self._finished.set()

    def _status_with_final_conditions(self, status: PodStatus) -> PodStatus:
        """Conditions speak of the phase; compute them again now that the phase is final."""
        if status.phase == self.status.phase:
            return status
        self.status = status
        final = terminated_status(self.pod, self._status_of(is_terminal_now=True))
        final.phase = status.phase
        return final

    async def _clean_up(self) -> bool:
        """Free what only a running pod needs: volumes and cgroup; return whether it worked."""
        services = self._services
        try:
            await services.volumes.teardown(self.uid)
        except OSError as error:
            _log.warning("volumes cannot be removed yet", pod=format_pod(self.pod), reason=str(error))
            return False
        path = services.cgroups.pod_path(self.uid, self.status.qos_class)
        # One that is still busy is left to housekeeping, which finds it without an owner.
        await asyncio.to_thread(services.cgroups.remove, path)
        services.tokens.forget(self.uid)
        services.objects.config_maps.set_users(self.uid, self.pod.metadata.namespace, set())
        services.objects.secrets.set_users(self.uid, self.pod.metadata.namespace, set())
        services.objects.trust_bundles.forget(self.uid)
        services.crash_backoff.forget(f"{self.uid}_")
        services.images.forget(self.uid)
        return True

    def _report_finished(self) -> None:
        self._publish(self.status, is_ended=True, is_finished=True)

    def _use_objects(self) -> None:
        """Watch exactly what the pod's present spec names."""
        if self.state is WorkerState.FINISHED:
            return
        config_maps, secrets = referenced_names(self.pod)
        for container in all_containers(self.pod):
            more_config_maps, more_secrets = referenced_objects(container)
            config_maps |= more_config_maps
            secrets |= more_secrets
        secrets |= {item.name for item in self.pod.spec.image_pull_secrets if item.name}
        namespace = self.pod.metadata.namespace
        self._services.objects.config_maps.set_users(self.uid, namespace, config_maps)
        self._services.objects.secrets.set_users(self.uid, namespace, secrets)
