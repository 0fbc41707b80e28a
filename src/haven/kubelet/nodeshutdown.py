"""Ends the node's pods in good order when the machine shuts down: holds logind's lock until they have ended.

Where logind is not there, or the settings ask for no delay, the machine goes down without waiting for pods.
Source: https://kubernetes.io/docs/concepts/cluster-administration/node-shutdown/#graceful-node-shutdown
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from haven.api.core.v1 import Pod, PodCondition, PodStatus
from haven.apimachinery import times
from haven.clock import Clock
from haven.kubelet.events import EventRecorder, node_reference
from haven.kubelet.logind import LogindUnavailable
from haven.kubelet.nodestate import NodeState
from haven.kubelet.podspec import is_terminal
from haven.kubelet.podstatus import Verdict
from haven.kubelet.podworker import WorkerState
from haven.kubelet.shutdownplan import PriorityGrace, ShutdownSettings, grace_of, graces, group
from haven.telemetry import logger

__all__ = ["LoginManager", "NodeShutdown"]

_log = logger("shutdown")
RETRY_SECONDS = 30.0
DELAY_TRIES = 5
_MESSAGE = "Pod was terminated in response to imminent node shutdown."


class LoginManager(Protocol):
    """What delays a shutdown; haven.kubelet.logind.Logind is one."""

    def fileno(self) -> int: ...

    def process(self) -> None: ...

    def delay_seconds(self) -> float: ...

    def ask_for_delay(self, seconds: float) -> None: ...

    def lock(self) -> int: ...

    def close(self) -> None: ...


class EndingPod(Protocol):
    """What runs a pod; haven.kubelet.podworker.PodWorker is one."""

    pod: Pod
    state: WorkerState
    status: PodStatus

    @property
    def uid(self) -> str: ...

    def terminate(self, *, grace_seconds: int | None = None, verdict: Verdict | None = None) -> None: ...

    async def wait_finished(self) -> None: ...


class NodeShutdown:
    """`run` watches until cancelled. `workers` is the runner's live mapping by pod UID."""

    def __init__(
        self,
        node_name: str,
        settings: ShutdownSettings,
        connect: Callable[[Callable[[bool], None]], LoginManager],
        clock: Clock,
        recorder: EventRecorder,
        state: NodeState,
        workers: Mapping[str, EndingPod],
        on_change: Callable[[], None],
    ) -> None:
        """`connect(on_shutdown)` opens a connection; `on_change` tells that the node's condition has changed."""
        self._node_name = node_name
        self._steps = graces(settings)
        self._connect = connect
        self._clock = clock
        self._recorder = recorder
        self._state = state
        self._workers = workers
        self._on_change = on_change
        self._signals: asyncio.Queue[bool] = asyncio.Queue()
        self._lock = -1
        self.started_seconds = 0.0
        self.ended_seconds = 0.0

    async def run(self) -> None:
        """Watch for shutdowns until cancelled; returns at once if none is to be delayed."""
        if not self._steps:
            return
        said = ""
        while True:
            try:
                await self._watch()
            except (LogindUnavailable, OSError) as error:
                if str(error) != said:
                    said = str(error)
                    _log.warning("a shutdown of the machine cannot be delayed", reason=said)
            finally:
                self._release()
            await self._clock.sleep(RETRY_SECONDS)

    async def _watch(self) -> None:
        logind = await asyncio.to_thread(self._connect, self._signals.put_nowait)
        loop = asyncio.get_running_loop()
        lost: asyncio.Future[None] = loop.create_future()

        def process() -> None:
            try:
                logind.process()
            except LogindUnavailable as error:
                loop.remove_reader(logind.fileno())
                if not lost.done():
                    lost.set_exception(error)

        try:
            await self._allow_delay(logind)
            self._lock = logind.lock()
            process()  # What arrived during the calls above is queued in the library, not in the socket.
            loop.add_reader(logind.fileno(), process)
            while True:
                signal = asyncio.ensure_future(self._signals.get())
                waiting: set[asyncio.Future[Any]] = {signal, lost}
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                if not signal.done():
                    signal.cancel()
                    lost.result()
                await self._shut_down(signal.result(), logind)
        finally:
            loop.remove_reader(logind.fileno())
            logind.close()

    async def _allow_delay(self, logind: LoginManager) -> None:
        wanted = sum(step.seconds for step in self._steps)
        if logind.delay_seconds() >= wanted:
            return
        logind.ask_for_delay(wanted)
        pause = 0.1
        for _ in range(DELAY_TRIES):
            await self._clock.sleep(pause)
            pause *= 2
            if logind.delay_seconds() >= wanted:
                return
        raise LogindUnavailable(f"logind allows no delay of {wanted} s: set InhibitDelayMaxSec in logind.conf")

    async def _shut_down(self, is_beginning: bool, logind: LoginManager) -> None:
        what = "event" if is_beginning else "cancellation"
        _log.warning("the machine shuts down" if is_beginning else "the shutdown of the machine is called off")
        self._recorder.normal(
            node_reference(self._node_name), "NodeShutdown", f"Shutdown manager detected shutdown {what}"
        )
        self._state.is_shutting_down = is_beginning
        self._on_change()
        if not is_beginning:
            self._release()
            self._lock = logind.lock()
            return
        self.started_seconds, self.ended_seconds = self._clock.now_seconds(), 0.0
        await self.end_pods()
        self.ended_seconds = self._clock.now_seconds()
        self._release()

    async def end_pods(self) -> None:
        """End all pods, group by group; return when the last has ended or its group's time is over."""
        active = {
            worker.uid: worker
            for worker in self._workers.values()
            if worker.state is not WorkerState.FINISHED and not is_terminal(worker.pod)
        }
        for step, pods in group(self._steps, [worker.pod for worker in active.values()]):
            if pods:
                await self._end_group(step, [active[pod.metadata.uid] for pod in pods])

    async def _end_group(self, step: PriorityGrace, workers: list[EndingPod]) -> None:
        for worker in workers:
            condition = PodCondition(
                type="DisruptionTarget",
                status="True",
                reason="TerminationByKubelet",
                message=_MESSAGE,
                last_transition_time=times.format_time(self._clock.now_seconds()),
                observed_generation=worker.pod.metadata.generation,
            )
            phase = "Succeeded" if worker.status.phase == "Succeeded" else "Failed"
            verdict = Verdict(phase, "Terminated", _MESSAGE, (condition,))
            worker.terminate(grace_seconds=grace_of(worker.pod, step), verdict=verdict)
        ended = asyncio.ensure_future(asyncio.gather(*(worker.wait_finished() for worker in workers)))
        timer = asyncio.ensure_future(self._clock.sleep(step.seconds))
        try:
            waiting: set[asyncio.Future[Any]] = {ended, timer}
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ended.cancel()
            timer.cancel()

    def _release(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1
