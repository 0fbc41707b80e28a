"""Requests wait their turn on one event loop, so that a flood waits for itself."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from haven.api.flowcontrol import v1 as flowcontrol
from haven.api.scheme import resource_of
from haven.apimachinery import meta
from haven.apimachinery.names import UID
from haven.apiserver.flowcontrol.dumps import dump_paths
from haven.apiserver.flowcontrol.runner import TURN_SECONDS, WAIT_SECONDS_MAX, FlowControl, TooManyRequests
from haven.apiserver.request import Request, UserInfo
from haven.apiserver.requestinfo import resolve
from haven.clock import FakeClock

SCHEMAS = resource_of(flowcontrol.FlowSchema)
LEVELS = resource_of(flowcontrol.PriorityLevelConfiguration)


def a_level(name: str, *, shares: int = 100, queues: int = 64, length: int = 50) -> Any:
    queuing = flowcontrol.QueuingConfiguration(queues=queues, hand_size=4, queue_length_limit=length)
    limited = flowcontrol.LimitedPriorityLevelConfiguration(
        nominal_concurrency_shares=shares,
        limit_response=flowcontrol.LimitResponse(type="Queue", queuing=queuing),
    )
    return flowcontrol.PriorityLevelConfiguration(
        metadata=meta.ObjectMeta(name=name, uid=UID(name)),
        spec=flowcontrol.PriorityLevelConfigurationSpec(type="Limited", limited=limited),
    )


def a_schema(name: str, level: str, user: str) -> Any:
    rule = flowcontrol.ResourcePolicyRule(
        verbs=["*"], api_groups=["*"], resources=["*"], namespaces=["*"], cluster_scope=True
    )
    subjects = [flowcontrol.Subject(kind="User", user=flowcontrol.UserSubject(name=user))]
    return flowcontrol.FlowSchema(
        metadata=meta.ObjectMeta(name=name, uid=UID(name)),
        spec=flowcontrol.FlowSchemaSpec(
            priority_level_configuration=flowcontrol.PriorityLevelConfigurationReference(name=level),
            matching_precedence=100,
            distinguisher_method=flowcontrol.FlowDistinguisherMethod(type="ByUser"),
            rules=[flowcontrol.PolicyRulesWithSubjects(subjects=subjects, resource_rules=[rule])],
        ),
    )


def a_request(user: str, path: str = "/api/v1/pods/x") -> Request:
    request = Request("GET", path, {}, {}, user=UserInfo(user))
    request.info = resolve("GET", path, {})
    return request


class Bench:
    """A flow control, and requests that each take a while of the only processor."""

    def __init__(self, *, seats: int, length: int = 50) -> None:
        self.clock = FakeClock()
        self.flows = FlowControl(self.clock, seats=seats)
        self.flows.changed(LEVELS, None, a_level("low", length=length))
        self.flows.changed(SCHEMAS, None, a_schema("all", "low", "*"))
        self.done: list[str] = []

    async def serve(self, user: str, cost: float) -> None:
        ticket = self.flows.enter(a_request(user), self.clock.monotonic_seconds())
        assert ticket is not None
        await self.flows.wait_turn(ticket)
        self.clock._now += cost
        self.done.append(user)
        self.flows.leave(ticket, self.clock.monotonic_seconds())


async def test_what_fits_into_one_turn_never_waits() -> None:
    bench = Bench(seats=100)

    for _ in range(3):
        ticket = bench.flows.enter(a_request("jane"), bench.clock.monotonic_seconds())
        assert ticket is not None
        assert ticket.started
        bench.clock._now += TURN_SECONDS / 4
        bench.flows.leave(ticket, bench.clock.monotonic_seconds())


async def test_a_request_of_somebody_else_overtakes_a_flood() -> None:
    bench = Bench(seats=600, length=500)
    flood = [asyncio.ensure_future(bench.serve("elephant", 0.01)) for _ in range(300)]
    await asyncio.sleep(0)
    mouse = asyncio.ensure_future(bench.serve("mouse", 0.001))

    await asyncio.gather(mouse)
    before = bench.done.index("mouse")
    await asyncio.gather(*flood)

    assert before <= 20, f"{before} requests of the flood went first"
    assert len(bench.done) == 301
    assert bench.flows.levels["low"].is_idle


async def test_a_request_that_waits_too_long_is_refused() -> None:
    bench = Bench(seats=1)
    holder = bench.flows.enter(a_request("jane"), bench.clock.monotonic_seconds())
    assert holder is not None
    late = bench.flows.enter(a_request("joe"), bench.clock.monotonic_seconds())
    assert late is not None
    asyncio.get_running_loop().call_soon(bench.flows._expire, late)

    with pytest.raises(TooManyRequests) as found:
        await bench.flows.wait_turn(late)

    assert found.value.retry_after_seconds == 1
    assert bench.flows.counts["low", "all"].rejected == {"time-out": 1}
    assert WAIT_SECONDS_MAX == 15.0


async def test_who_hangs_up_while_waiting_leaves_no_trace() -> None:
    bench = Bench(seats=1)
    holder = bench.flows.enter(a_request("jane"), bench.clock.monotonic_seconds())
    assert holder is not None
    waiting = asyncio.ensure_future(bench.serve("joe", 0.0))
    await asyncio.sleep(0)

    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    bench.flows.leave(holder, bench.clock.monotonic_seconds())

    assert bench.flows.levels["low"].is_idle
    bench.flows.levels["low"].check()


async def test_a_level_that_goes_serves_what_it_holds() -> None:
    bench = Bench(seats=1)
    holder = bench.flows.enter(a_request("jane"), bench.clock.monotonic_seconds())
    assert holder is not None
    waiting = asyncio.ensure_future(bench.serve("joe", 0.0))
    await asyncio.sleep(0)

    bench.flows.changed(LEVELS, a_level("low"), None)
    bench.flows.leave(holder, bench.clock.monotonic_seconds())
    await waiting

    assert bench.done == ["joe"]
    assert bench.flows.classify(UserInfo("jane"), a_request("jane").info) == ("", "")
    assert "low" not in bench.flows.levels


async def test_the_dumps_show_who_runs_and_who_waits() -> None:
    bench = Bench(seats=1)
    holder = bench.flows.enter(a_request("jane"), bench.clock.monotonic_seconds())
    late = bench.flows.enter(a_request("joe"), bench.clock.monotonic_seconds())
    assert holder is not None
    assert late is not None
    paths = dump_paths(bench.flows, bench.clock)
    asked = Request("GET", "/", {"includeRequestDetails": ["1"]}, {})

    texts = [(await handler(asked)).body.decode() for handler in paths.values()]

    assert texts[0].splitlines()[1].split() == ["low,", "1,", "false,", "false,", "1,", "1,", "1,", "0,", "0,", "0"]
    assert sum(line.split()[2] == "1," for line in texts[1].splitlines()[1:]) == 1
    assert texts[1].splitlines()[0].startswith("PriorityLevelName, Index,  PendingRequests,"), "eight wide at least"
    assert "joe," in texts[2]
    assert "jane," in texts[2]
