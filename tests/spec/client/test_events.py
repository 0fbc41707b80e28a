from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from haven.api.core import v1 as core_v1
from haven.apimachinery import apierrors, meta
from haven.apimachinery.names import UID
from haven.client.eventcorrelator import EventCorrelator, Observation
from haven.client.events import EventRecorder, reference_to
from haven.clock import FakeClock


def a_pod(name: str = "web-0") -> core_v1.Pod:
    return core_v1.Pod(metadata=meta.ObjectMeta(name=name, namespace="ns", uid=UID(f"{name}-uid")))


def observe(
    correlator: EventCorrelator, message: str, now: float, *, pod: str = "web-0", reason: str = "Started"
) -> core_v1.Event | None:
    observation = Observation(
        reference_to(a_pod(pod)), "Normal", reason, message, core_v1.EventSource(component="kubelet", host="n1")
    )
    correlation = correlator.correlate(observation, now)
    return correlation.event if correlation is not None else None


def test_the_first_observation_is_a_new_event() -> None:
    event = observe(EventCorrelator(), "Started container c", 1_700_000_000.5)

    assert event is not None
    assert event.metadata.namespace == "ns"
    assert event.metadata.name == f"web-0.{1_700_000_000_500_000_000:x}"
    assert (event.count, event.first_timestamp, event.last_timestamp) == (
        1,
        "2023-11-14T22:13:20Z",
        "2023-11-14T22:13:20Z",
    )
    assert (event.source.component, event.source.host) == ("kubelet", "n1")
    assert (event.involved_object.kind, event.involved_object.uid) == ("Pod", "web-0-uid")


def test_the_same_again_counts_up_under_the_same_name() -> None:
    correlator = EventCorrelator()
    first = observe(correlator, "same", 1000)

    second = observe(correlator, "same", 1060)

    assert first is not None
    assert second is not None
    assert second.metadata.name == first.metadata.name
    assert (second.count, second.first_timestamp, second.last_timestamp) == (
        2,
        "1970-01-01T00:16:40Z",
        "1970-01-01T00:17:40Z",
    )


def test_the_tenth_message_of_one_kind_is_combined() -> None:
    correlator = EventCorrelator()
    messages = [observe(correlator, f"message {number}", 1000 + number) for number in range(12)]

    texts = [event.message for event in messages if event is not None]
    assert texts[8:] == [
        "message 8",
        "(combined from similar events): message 9",
        "(combined from similar events): message 10",
        "(combined from similar events): message 11",
    ]
    assert [event.count for event in messages[9:] if event is not None] == [1, 2, 3]
    assert len({event.metadata.name for event in messages[9:] if event is not None}) == 1
    assert [bool(event.reporting_component) for event in messages if event is not None] == [True] * 9 + [False] * 3


def test_messages_that_lie_ten_minutes_apart_are_not_combined() -> None:
    correlator = EventCorrelator()

    events = [observe(correlator, f"message {number}", 1000 + 601 * number) for number in range(12)]

    assert all(event is not None and event.message.startswith("message") for event in events)


def test_an_object_has_a_budget_of_25_events_and_one_more_every_five_minutes() -> None:
    correlator = EventCorrelator()

    passed = [observe(correlator, "m", 1000, reason=f"Reason{number}") is not None for number in range(30)]

    assert passed == [True] * 25 + [False] * 5
    assert observe(correlator, "m", 1000, pod="other") is not None
    assert observe(correlator, "m", 1299, reason="Late") is None
    assert observe(correlator, "m", 1301, reason="Later") is not None


@asynccontextmanager
async def running(recorder: EventRecorder) -> AsyncIterator[None]:
    task = asyncio.ensure_future(recorder.run())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def recorder_of(client: Any, clock: FakeClock, **settings: Any) -> EventRecorder:
    return EventRecorder(client, "kubelet", host="n1", clock=clock, chance=random.Random(1), **settings)


async def test_events_are_created_and_then_patched(client: Any, clock: FakeClock, settle: Callable[[], Any]) -> None:
    recorder = recorder_of(client, clock)
    async with running(recorder):
        for _ in range(3):
            recorder.event(a_pod(), "Normal", "Started", "Started container c")
            await settle()
            await clock.advance(1)

    (event,) = client.objects.values()
    assert (event.count, event.reason, event.type) == (3, "Started", "Normal")
    assert [call[0] for call in client.calls] == ["create", "patch", "patch"]
    assert client.calls[1][3].body == {
        "count": 2,
        "lastTimestamp": "2023-11-14T22:13:21Z",
        "message": "Started container c",
    }


async def test_an_event_whose_time_was_over_is_created_again(
    client: Any, clock: FakeClock, settle: Callable[[], Any]
) -> None:
    recorder = recorder_of(client, clock)
    async with running(recorder):
        recorder.event(a_pod(), "Normal", "Started", "m")
        await settle()
        ((namespace, name),) = client.objects
        client.remove(namespace, name)
        recorder.event(a_pod(), "Normal", "Started", "m")
        await settle()

    (event,) = client.objects.values()
    assert event.count == 2


async def test_recording_waits_for_a_server_that_is_down(
    client: Any, clock: FakeClock, settle: Callable[[], Any]
) -> None:
    client.failures["create"] = [apierrors.ServiceUnavailable("down")] * 3
    recorder = recorder_of(client, clock)
    async with running(recorder):
        recorder.event(a_pod(), "Warning", "Failed", "m")
        await settle()
        assert client.objects == {}
        await clock.advance(31)

    assert len(client.objects) == 1


async def test_an_event_that_the_server_refuses_is_forgotten(
    client: Any, clock: FakeClock, settle: Callable[[], Any]
) -> None:
    client.failures["create"] = [apierrors.Forbidden("namespace is being terminated")]
    recorder = recorder_of(client, clock)
    async with running(recorder):
        recorder.event(a_pod(), "Warning", "Failed", "m")
        recorder.event(a_pod(), "Warning", "Other", "m")
        await settle()

    assert [event.reason for event in client.objects.values()] == ["Other"]
    assert recorder.statistics().refused == 1


async def test_a_full_queue_drops_the_oldest_and_blocks_nobody(client: Any, clock: FakeClock) -> None:
    recorder = recorder_of(client, clock)

    for number in range(1100):
        recorder.event(a_pod(f"p{number}"), "Normal", "Started", "m")

    assert recorder.statistics().dropped == 100
    await recorder.flush()
    names = [event.involved_object.name for event in client.objects.values()]
    assert (names[0], names[-1], len(names)) == ("p100", "p1099", 1000)


async def test_long_messages_are_cut_to_what_the_server_takes(client: Any, clock: FakeClock) -> None:
    recorder = recorder_of(client, clock)
    recorder.event(a_pod(), "Normal", "Started", "ä" * 1000)

    await recorder.flush()

    (event,) = client.objects.values()
    assert len(event.message.encode()) <= 1024
    assert event.message.endswith("ä...")


async def test_the_newer_dialect_counts_repetitions_in_a_series(
    client: Any, clock: FakeClock, settle: Callable[[], Any]
) -> None:
    recorder = EventRecorder(client, "default-scheduler", series=True, clock=clock, chance=random.Random(1))
    async with running(recorder):
        for _ in range(4):
            recorder.event(a_pod(), "Warning", "FailedScheduling", "0/1 nodes are available", action="Scheduling")
            await settle()
        (event,) = client.objects.values()
        assert (event.event_time, event.action, event.reporting_controller) == (
            "2023-11-14T22:13:20.000000Z",
            "Scheduling",
            "default-scheduler",
        )
        assert (event.api_version, event.note) == ("events.k8s.io/v1", "0/1 nodes are available")
        assert (event.deprecated_count, event.deprecated_first_timestamp) == (0, None)
        assert event.deprecated_source.component == ""
        assert event.series is not None
        assert event.series.count == 2
        assert [call[0] for call in client.calls] == ["create", "patch"]

        await clock.advance(721)

    (event,) = client.objects.values()
    assert event.series is not None
    assert event.series.count == 4


def test_a_type_that_is_none_is_a_bug() -> None:
    recorder = EventRecorder(None, "x")  # type: ignore[arg-type]

    with pytest.raises(AssertionError):
        recorder.event(a_pod(), "Info", "R", "m")
