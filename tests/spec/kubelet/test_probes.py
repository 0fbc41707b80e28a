"""Probes under a clock that is moved by hand."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from random import Random

import pytest
from tests.spec.kubelet.pods import a_container, a_pod

from haven.api.core.v1 import (
    Container,
    ContainerState,
    ContainerStateRunning,
    ContainerStatus,
    ObjectReference,
    Pod,
    PodStatus,
    Probe,
)
from haven.apimachinery import times
from haven.clock import FakeClock
from haven.kubelet.handlers import Outcome, OutcomeKind
from haven.kubelet.podstate import ProbeResult
from haven.kubelet.probes import ProbeManager, ProbeTally


class FakeRunner:
    """Answers probes; `outcome` may be changed at any time."""

    def __init__(self) -> None:
        self.outcome = Outcome(OutcomeKind.SUCCESS)
        self.runs = 0

    async def probe(self, *_: object) -> Outcome:
        self.runs += 1
        return self.outcome


class FakeRecorder:
    def __init__(self) -> None:
        self.texts: list[str] = []

    def warning(self, _reference: ObjectReference, reason: str, message: str) -> None:
        self.texts.append(f"{reason}: {message}")

    normal = warning


class Bench:
    def __init__(self, container: Container) -> None:
        self.clock = FakeClock()
        self.runner = FakeRunner()
        self.recorder = FakeRecorder()
        self.changes = 0
        self.started = True
        self.pod = a_pod(container)
        self.restart("one")

    def restart(self, container_id: str) -> None:
        started = ContainerStateRunning(started_at=times.format_time(self.clock.now_seconds()))
        name = self.pod.spec.containers[0].name
        self.pod.status = PodStatus(
            phase="Running",
            container_statuses=[
                ContainerStatus(
                    name=name, container_id=f"containerd://{container_id}", started=self.started,
                    state=ContainerState(running=started),
                )
            ],
        )  # fmt: skip

    def changed(self, _uid: str) -> None:
        self.changes += 1


@contextlib.asynccontextmanager
async def running(bench: Bench) -> AsyncIterator[ProbeManager]:
    await bench.clock.advance(1000)  # Long after the start of the agent: no jitter.
    bench.restart("one")
    async with asyncio.TaskGroup() as tasks:

        def status_of(_uid: str) -> tuple[Pod, PodStatus]:
            return bench.pod, bench.pod.status

        manager = ProbeManager(
            bench.runner, bench.clock, Random(1), bench.recorder, tasks, status_of, bench.changed  # type: ignore[arg-type]
        )  # fmt: skip
        manager._started -= 1000
        manager.ensure(bench.pod)
        await bench.clock.advance(0)
        yield manager
        manager.remove(bench.pod.metadata.uid)


def a_probe(**more: int) -> Probe:
    values = {"period_seconds": 10, "timeout_seconds": 1, "success_threshold": 1, "failure_threshold": 3, **more}
    return Probe(**values)


async def test_readiness_is_false_until_the_first_success() -> None:
    bench = Bench(a_container(readiness_probe=a_probe(initial_delay_seconds=5)))

    async with running(bench) as manager:
        assert manager.results.readiness == {"one": ProbeResult.FAILURE}
        assert bench.runner.runs == 0

        await bench.clock.advance(10)

        assert manager.results.readiness == {"one": ProbeResult.SUCCESS}


async def test_liveness_is_true_until_enough_failures_in_a_row() -> None:
    bench = Bench(a_container(liveness_probe=a_probe()))
    bench.runner.outcome = Outcome(OutcomeKind.FAILURE, "no")

    async with running(bench) as manager:
        await bench.clock.advance(10)
        assert manager.results.liveness == {"one": ProbeResult.SUCCESS}

        await bench.clock.advance(10)

        assert manager.results.liveness == {"one": ProbeResult.FAILURE}
        assert bench.recorder.texts == ["Unhealthy: Liveness probe failed: no"] * 3


async def test_a_new_container_begins_anew() -> None:
    bench = Bench(a_container(liveness_probe=a_probe(failure_threshold=1)))
    bench.runner.outcome = Outcome(OutcomeKind.FAILURE)

    async with running(bench) as manager:
        assert manager.results.liveness == {"one": ProbeResult.FAILURE}
        runs = bench.runner.runs
        await bench.clock.advance(50)
        assert bench.runner.runs == runs  # It rests until the container is replaced.

        bench.runner.outcome = Outcome(OutcomeKind.SUCCESS)
        bench.restart("two")
        await bench.clock.advance(10)

        assert manager.results.liveness == {"two": ProbeResult.SUCCESS}


async def test_the_others_wait_for_the_startup_probe() -> None:
    bench = Bench(a_container(startup_probe=a_probe(), readiness_probe=a_probe()))
    bench.started = False

    async with running(bench) as manager:
        await bench.clock.advance(10)
        assert manager.results.startup == {"one": ProbeResult.SUCCESS}
        assert manager.results.readiness == {"one": ProbeResult.FAILURE}

        bench.pod.status.container_statuses[0].started = True
        await bench.clock.advance(10)

        assert manager.results.readiness == {"one": ProbeResult.SUCCESS}


async def test_a_probe_that_cannot_run_decides_nothing() -> None:
    bench = Bench(a_container(readiness_probe=a_probe()))
    bench.runner.outcome = Outcome(OutcomeKind.ERROR, "broken")

    async with running(bench) as manager:
        assert bench.runner.runs == 3
        assert manager.results.readiness == {"one": ProbeResult.FAILURE}
        assert bench.recorder.texts == ["Unhealthy: Readiness probe errored and resulted in unknown state: broken"]


async def test_waking_probes_at_once_what_is_not_ready() -> None:
    bench = Bench(a_container(readiness_probe=a_probe(period_seconds=100)))
    bench.runner.outcome = Outcome(OutcomeKind.FAILURE)

    async with running(bench) as manager:
        bench.runner.outcome = Outcome(OutcomeKind.SUCCESS)
        manager.wake("uid-1")
        await bench.clock.advance(0)

        assert manager.results.readiness == {"one": ProbeResult.SUCCESS}


@pytest.mark.parametrize("threshold", [1, 2, 5])
def test_a_result_counts_after_so_many_in_a_row(threshold: int) -> None:
    tally = ProbeTally(success_threshold=threshold, failure_threshold=1)
    count: Callable[[ProbeResult], ProbeResult | None] = tally.count

    results = [count(ProbeResult.SUCCESS) for _ in range(threshold)]

    assert results == [None] * (threshold - 1) + [ProbeResult.SUCCESS]
    assert count(ProbeResult.FAILURE) is ProbeResult.FAILURE
    assert count(ProbeResult.SUCCESS) is (ProbeResult.SUCCESS if threshold == 1 else None)
