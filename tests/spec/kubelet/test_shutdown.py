"""When the machine shuts down its pods end first, the least important ones before the others."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

import pytest
from tests.spec.kubelet.pods import a_pod

from haven.api.core.v1 import ObjectReference, Pod, PodStatus
from haven.apimachinery.names import UID
from haven.clock import FakeClock
from haven.kubelet.logind import LogindUnavailable
from haven.kubelet.nodeshutdown import NodeShutdown
from haven.kubelet.nodestate import NodeState
from haven.kubelet.podstatus import Verdict
from haven.kubelet.podworker import WorkerState
from haven.kubelet.shutdownplan import PriorityGrace, ShutdownSettings, grace_of, graces, group


def with_priority(priority: int | None, *, grace: int | None = 30) -> Pod:
    pod = a_pod(priority=priority, termination_grace_period_seconds=grace)
    pod.metadata.name, pod.metadata.uid = f"p{priority}", UID(f"uid-{priority}")
    return pod


def test_critical_pods_keep_a_part_of_the_whole_time_for_themselves() -> None:
    steps = graces(ShutdownSettings(grace_seconds=30, grace_critical_seconds=10))

    assert steps == [PriorityGrace(0, 20), PriorityGrace(2_000_000_000, 10)]
    assert graces(ShutdownSettings()) == []
    assert graces(ShutdownSettings(by_priority=(PriorityGrace(5, 1), PriorityGrace(-5, 2)))) == [
        PriorityGrace(-5, 2),
        PriorityGrace(5, 1),
    ]


def test_a_pod_belongs_to_the_highest_group_that_it_reaches_or_to_the_lowest() -> None:
    steps = [PriorityGrace(10, 1), PriorityGrace(20, 2), PriorityGrace(30, 3)]
    pods = [with_priority(priority) for priority in (None, 9, 10, 15, 20, 29, 30, 99)]

    found = [[pod.metadata.name for pod in members] for _, members in group(steps, pods)]

    assert found == [["pNone", "p9", "p10", "p15"], ["p20", "p29"], ["p30", "p99"]]


def test_a_pod_gets_its_own_time_if_that_is_shorter() -> None:
    assert grace_of(with_priority(0, grace=5), PriorityGrace(0, 20)) == 5
    assert grace_of(with_priority(0, grace=50), PriorityGrace(0, 20)) == 20
    assert grace_of(with_priority(0, grace=None), PriorityGrace(0, 20)) == 20


@pytest.mark.parametrize(
    "settings",
    [
        ShutdownSettings(grace_seconds=5, grace_critical_seconds=6),
        ShutdownSettings(by_priority=(PriorityGrace(0, -1),)),
        ShutdownSettings(by_priority=(PriorityGrace(0, 1), PriorityGrace(0, 2))),
    ],
)
def test_settings_that_make_no_sense_are_complained_of(settings: ShutdownSettings) -> None:
    assert len(settings.complaints()) == 1
    assert ShutdownSettings(grace_seconds=5, grace_critical_seconds=5).complaints() == []


class Worker:
    def __init__(self, pod: Pod, log: list[str], *, is_quick: bool = True) -> None:
        self.pod = pod
        self.state = WorkerState.SYNCING
        self.status = PodStatus(phase="Running")
        self.verdict: Verdict | None = None
        self._log = log
        self._is_quick = is_quick
        self._finished = asyncio.Event()

    @property
    def uid(self) -> str:
        return self.pod.metadata.uid

    def terminate(self, *, grace_seconds: int | None = None, verdict: Verdict | None = None) -> None:
        self._log.append(f"{self.pod.metadata.name} gets {grace_seconds}")
        self.verdict = verdict
        if self._is_quick:
            self._finished.set()

    async def wait_finished(self) -> None:
        await self._finished.wait()


class Recorder:
    def __init__(self) -> None:
        self.said: list[str] = []

    def normal(self, reference: ObjectReference, reason: str, message: str) -> None:
        self.said.append(f"{reason}: {message}")


class Logind:
    """Allows what it is asked for, unless it is stubborn; `tell` is the signal."""

    def __init__(self, *, allows_seconds: float = 60.0, is_stubborn: bool = False) -> None:
        self._allows_seconds = allows_seconds
        self._is_stubborn = is_stubborn
        self._ends = os.pipe()
        self.locks: list[tuple[int, int]] = []
        self.tell: Callable[[bool], None] = lambda _: None

    def connect(self, on_shutdown: Callable[[bool], None]) -> Logind:
        self.tell = on_shutdown
        return self

    def fileno(self) -> int:
        return self._ends[0]

    def process(self) -> None:
        pass

    def delay_seconds(self) -> float:
        return self._allows_seconds

    def ask_for_delay(self, seconds: float) -> None:
        if not self._is_stubborn:
            self._allows_seconds = seconds

    def lock(self) -> int:
        reading, writing = os.pipe()
        os.set_blocking(reading, False)
        self.locks.append((reading, writing))
        return writing

    def close(self) -> None:
        pass

    @property
    def is_delayed(self) -> bool:
        """Whether the last lock is held: its other end then has nothing to read, and no end either."""
        if not self.locks:
            return False
        try:
            return os.read(self.locks[-1][0], 1) != b""
        except BlockingIOError:
            return True


class Bench:
    def __init__(self, logind: Logind, settings: ShutdownSettings, *workers: Worker) -> None:
        self.logind = logind
        self.clock = FakeClock()
        self.recorder = Recorder()
        self.state = NodeState()
        self.changes = 0
        self.shutdown = NodeShutdown(
            "n", settings, logind.connect, self.clock, self.recorder,  # type: ignore[arg-type]
            self.state, {worker.uid: worker for worker in workers}, self._changed,
        )  # fmt: skip

    def _changed(self) -> None:
        self.changes += 1

    async def settle(self, until: Callable[[], bool]) -> None:
        """Let tasks run, also the thread that connects, until something is so."""
        async with asyncio.timeout(60):
            while not until():
                await asyncio.to_thread(lambda: None)

    async def pass_time(self, until: Callable[[], bool]) -> None:
        """Let time pass in steps until something is so."""
        async with asyncio.timeout(60):
            while not until():
                await asyncio.to_thread(lambda: None)
                await self.clock.advance(1)


SETTINGS = ShutdownSettings(grace_seconds=30, grace_critical_seconds=10)


async def test_pods_end_group_by_group_and_the_machine_waits_for_them() -> None:
    log: list[str] = []
    plain, vital = Worker(with_priority(0, grace=60), log), Worker(with_priority(2_000_000_000), log, is_quick=False)
    bench = Bench(Logind(), SETTINGS, vital, plain)

    watching = asyncio.create_task(bench.shutdown.run())
    await bench.settle(lambda: bench.logind.is_delayed)
    bench.logind.tell(True)
    await bench.settle(lambda: len(log) == 2)

    assert log == ["p0 gets 20", "p2000000000 gets 10"]
    assert bench.state.is_shutting_down
    assert bench.logind.is_delayed
    assert bench.recorder.said == ["NodeShutdown: Shutdown manager detected shutdown event"]
    assert plain.verdict is not None
    assert (plain.verdict.phase, plain.verdict.reason) == ("Failed", "Terminated")
    assert plain.verdict.message == "Pod was terminated in response to imminent node shutdown."
    assert [each.reason for each in plain.verdict.conditions] == ["TerminationByKubelet"]
    await bench.pass_time(lambda: not bench.logind.is_delayed)  # The stubborn one's time is over.
    assert bench.shutdown.ended_seconds >= bench.shutdown.started_seconds + 10
    watching.cancel()


async def test_a_shutdown_that_is_called_off_is_delayed_again_the_next_time() -> None:
    bench = Bench(Logind(), SETTINGS)
    watching = asyncio.create_task(bench.shutdown.run())
    await bench.settle(lambda: bench.logind.is_delayed)
    bench.logind.tell(True)
    await bench.settle(lambda: not bench.logind.is_delayed)

    bench.logind.tell(False)
    await bench.settle(lambda: bench.logind.is_delayed)

    assert not bench.state.is_shutting_down
    assert bench.changes == 2
    watching.cancel()


async def test_logind_is_asked_for_the_time_that_pods_need() -> None:
    bench = Bench(Logind(allows_seconds=5), SETTINGS)
    watching = asyncio.create_task(bench.shutdown.run())
    await bench.pass_time(lambda: bench.logind.is_delayed)

    assert bench.logind.delay_seconds() == 30
    watching.cancel()


async def test_without_a_grace_period_nobody_is_asked() -> None:
    def refuse(_: Callable[[bool], None]) -> Logind:
        raise LogindUnavailable("nobody should ask")

    logind = Logind()
    logind.connect = refuse  # type: ignore[method-assign]

    await Bench(logind, ShutdownSettings()).shutdown.run()
