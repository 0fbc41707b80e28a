"""The queue gives out the most important Pod first and brings failed ones back when it may help."""

from __future__ import annotations

from hypothesis import given
from hypothesis.strategies import integers, lists, sampled_from, tuples
from tests.spec.scheduler.objects import a_pod

from haven.scheduler.podinfo import PodInfo
from haven.scheduler.queue import ClusterEvent, Queue


def test_priority_goes_before_age() -> None:
    queue = Queue()
    low, high = PodInfo.of(a_pod("low")), PodInfo.of(a_pod("high", priority=10))
    queue.add(low, 0)
    queue.add(high, 1)

    assert [queue.pop(2), queue.pop(2), queue.pop(2)] == [high, low, None]


def test_a_pod_that_lacks_room_waits_for_a_pod_to_go_and_then_backs_off() -> None:
    queue = Queue()
    info = PodInfo.of(a_pod())
    queue.add(info, 0)
    queue.pop(0)
    queue.failed(info.uid, frozenset({"NodeResourcesFit"}), 0)

    queue.happened(ClusterEvent.POD_PLACED, 0.1)
    assert queue.pop(5) is None
    queue.happened(ClusterEvent.POD_GONE, 0.2)
    assert queue.pop(0.5) is None
    assert queue.pop(1.0) is info


def test_an_event_during_the_cycle_is_not_missed() -> None:
    queue = Queue()
    info = PodInfo.of(a_pod())
    queue.add(info, 0)
    queue.pop(0)
    queue.happened(ClusterEvent.NODE_ADDED, 0)
    queue.failed(info.uid, frozenset({"NodeResourcesFit"}), 0)

    assert queue.pop(1.0) is info


def test_backoff_doubles_up_to_ten_seconds() -> None:
    queue = Queue()
    info = PodInfo.of(a_pod())
    queue.add(info, 0)
    now, pauses = 0.0, []
    for _ in range(6):
        assert queue.pop(now) is info
        queue.failed(info.uid, frozenset(), now, retry=True)
        pause = queue.next_due_seconds(now)
        assert pause is not None
        pauses.append(pause)
        now += pause

    assert pauses == [1, 2, 4, 8, 10, 10]


def test_the_time_of_one_that_backs_off_is_known_though_one_before_it_has_gone() -> None:
    queue = Queue()
    first, second = PodInfo.of(a_pod("first")), PodInfo.of(a_pod("second"))
    for info, now in ((first, 0), (second, 0.5)):
        queue.add(info, now)
        assert queue.pop(now) is info
        queue.failed(info.uid, frozenset(), now, retry=True)

    queue.remove(first.uid)

    assert queue.next_due_seconds(0.5) == 1.0


def test_nobody_waits_longer_than_five_minutes_without_a_try() -> None:
    queue = Queue()
    info = PodInfo.of(a_pod())
    queue.add(info, 0)
    queue.pop(0)
    queue.failed(info.uid, frozenset({"NodeName"}), 0)

    assert queue.next_due_seconds(0) == 301
    assert queue.pop(301) is info


@given(
    steps=lists(
        tuples(sampled_from(["add", "pop", "fail", "remove", "event"]), integers(0, 3), sampled_from(ClusterEvent)),
        max_size=40,
    )
)
def test_a_pod_is_always_in_exactly_one_place(steps: list[tuple[str, int, ClusterEvent]]) -> None:
    queue = Queue()
    infos = [PodInfo.of(a_pod(f"p{i}", priority=i)) for i in range(4)]
    for now, (step, which, event) in enumerate(steps):
        uid = infos[which].uid
        match step:
            case "add":
                queue.add(infos[which], now)
            case "pop":
                queue.pop(now)
            case "fail":
                queue.failed(uid, frozenset({"NodeResourcesFit"}), now) if not _placed(queue, uid) else None
            case "remove":
                queue.remove(uid)
            case "event":
                queue.happened(event, now)
        queue.check()


def _placed(queue: Queue, uid: str) -> bool:
    return uid in queue._in_active or uid in queue._in_backoff or uid in queue._waiting
