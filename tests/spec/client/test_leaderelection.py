from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from haven.api.coordination import v1 as coordination_v1
from haven.apimachinery import apierrors, serialization
from haven.client.leaderelection import ElectionSettings, LeaderElector, LeadershipLost, decide
from haven.clock import FakeClock

NOW = 1_700_000_000.0


def elector(client: Any, clock: FakeClock, identity: str) -> LeaderElector:
    return LeaderElector(
        client, namespace="kube-system", name="it", identity=identity, clock=clock, chance=random.Random(1)
    )


def decided(seen: coordination_v1.LeaseSpec | None, age_seconds: float = 0.0) -> coordination_v1.LeaseSpec | None:
    return decide(seen, identity="me", age_seconds=age_seconds, now_seconds=NOW, lease_duration_seconds=15)


def test_a_free_lease_is_taken() -> None:
    lease = decided(None)

    assert lease is not None
    assert (lease.holder_identity, lease.lease_duration_seconds, lease.lease_transitions) == ("me", 15, 0)
    assert lease.acquire_time == lease.renew_time == "2023-11-14T22:13:20.000000Z"


def test_anothers_lease_is_left_alone_until_it_is_old() -> None:
    other = coordination_v1.LeaseSpec(
        holder_identity="other", lease_duration_seconds=15, acquire_time="x", lease_transitions=4
    )

    assert decided(other, age_seconds=14.9) is None
    taken = decided(other, age_seconds=15)
    assert taken is not None
    assert (taken.holder_identity, taken.lease_transitions) == ("me", 5)


def test_a_lease_that_was_given_back_is_taken_at_once() -> None:
    assert decided(coordination_v1.LeaseSpec(holder_identity="", lease_duration_seconds=1)) is not None


def test_renewing_keeps_when_it_was_acquired() -> None:
    mine = coordination_v1.LeaseSpec(
        holder_identity="me", lease_duration_seconds=15, acquire_time="2023-01-01T00:00:00.000000Z", lease_transitions=2
    )

    renewed = decided(mine, age_seconds=100)

    assert renewed is not None
    assert (renewed.acquire_time, renewed.lease_transitions) == ("2023-01-01T00:00:00.000000Z", 2)
    assert renewed.renew_time == "2023-11-14T22:13:20.000000Z"


def test_settings_that_let_two_lead_are_refused() -> None:
    with pytest.raises(ValueError, match="must decrease"):
        ElectionSettings(lease_duration_seconds=10, renew_deadline_seconds=10)


class Term:
    """What a leader does in these tests: nothing, until cancelled."""

    def __init__(self) -> None:
        self.leading = False
        self.terms = 0

    async def __call__(self) -> None:
        self.leading, self.terms = True, self.terms + 1
        try:
            await asyncio.Event().wait()
        finally:
            self.leading = False


async def stop(task: asyncio.Future[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError, LeadershipLost):
        await task


async def test_of_two_candidates_one_leads_and_the_other_follows_when_it_stops(client: Any, clock: FakeClock) -> None:
    first, second = Term(), Term()
    one = asyncio.ensure_future(elector(client, clock, "one").run(first))
    await clock.advance(0)
    two = asyncio.ensure_future(elector(client, clock, "two").run(second))
    for _ in range(60):
        await clock.advance(1)
        assert (first.leading, second.leading) == (True, False)

    await stop(one)
    await clock.advance(5)

    assert (first.leading, second.leading) == (False, True)
    assert client.objects[("kube-system", "it")].spec.lease_transitions == 1
    await stop(two)


async def test_a_leader_that_died_is_followed_after_the_lease_is_over(client: Any, clock: FakeClock) -> None:
    dead = coordination_v1.Lease(
        spec=coordination_v1.LeaseSpec(holder_identity="dead", lease_duration_seconds=15, lease_transitions=0)
    )
    dead.metadata.namespace, dead.metadata.name = "kube-system", "it"
    client.put(dead)
    term = Term()
    task = asyncio.ensure_future(elector(client, clock, "me").run(term))

    for _ in range(14):
        await clock.advance(1)
        assert not term.leading
    for _ in range(7):
        await clock.advance(1)

    assert term.leading
    await stop(task)


async def test_a_leader_that_cannot_renew_stops_before_another_may_begin(client: Any, clock: FakeClock) -> None:
    term = Term()
    task = asyncio.ensure_future(elector(client, clock, "me").run(term))
    await clock.advance(3)
    assert term.leading
    client.failures["update"] = [apierrors.ServiceUnavailable("down") for _ in range(50)]

    stopped_after = 0.0
    while term.leading:
        await clock.advance(0.5)
        stopped_after += 0.5

    assert stopped_after <= 11
    with pytest.raises(LeadershipLost):
        await task


async def test_a_leader_whose_request_hangs_stops_too(client: Any, clock: FakeClock) -> None:
    term = Term()
    task = asyncio.ensure_future(elector(client, clock, "me").run(term))
    await clock.advance(3)

    async def hang(*_: Any, **__: Any) -> None:
        if asyncio.current_task() is not task:  # Giving the lease back at the end shall fail, not hang.
            await asyncio.Event().wait()
        raise apierrors.ServiceUnavailable("down")

    client.update = hang
    for _ in range(24):
        await clock.advance(0.5)

    assert not term.leading
    with pytest.raises(LeadershipLost):
        await task


async def test_a_leader_that_was_overruled_stops_at_once(
    client: Any, clock: FakeClock, settle: Callable[[], Any]
) -> None:
    term = Term()
    task = asyncio.ensure_future(elector(client, clock, "me").run(term))
    await clock.advance(1)
    stolen = serialization.copy(client.objects[("kube-system", "it")])
    stolen.spec.holder_identity = "thief"
    client.put(stolen)

    await clock.advance(3)

    assert not term.leading
    with pytest.raises(LeadershipLost):
        await task
    assert client.objects[("kube-system", "it")].spec.holder_identity == "thief"


async def test_a_lease_that_somebody_deleted_is_made_anew(client: Any, clock: FakeClock) -> None:
    term = Term()
    task = asyncio.ensure_future(elector(client, clock, "me").run(term))
    await clock.advance(1)
    client.remove("kube-system", "it")

    await clock.advance(6)

    assert term.leading
    assert ("kube-system", "it") in client.objects
    await stop(task)
    assert client.objects[("kube-system", "it")].spec.holder_identity == ""


async def test_when_the_work_ends_the_lease_is_given_back(client: Any, clock: FakeClock) -> None:
    async def work() -> None:
        await clock.sleep(5)

    task = asyncio.ensure_future(elector(client, clock, "me").run(work))
    await clock.advance(0)
    await clock.advance(10)

    await task
    assert client.objects[("kube-system", "it")].spec.holder_identity == ""


async def test_a_leader_whose_lease_ran_out_long_ago_has_a_problem(client: Any, clock: FakeClock) -> None:
    term, one = Term(), elector(client, clock, "one")
    task = asyncio.ensure_future(one.run(term))
    await clock.advance(0)
    healthy = one.problem()
    clock._now += 36  # As a process that hangs sees it: time is over at once.

    assert (healthy, one.problem()) == ("", "failed election to renew leadership on lease it")
    await stop(task)
