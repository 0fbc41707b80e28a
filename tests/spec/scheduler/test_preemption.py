"""An important Pod makes room for itself at the least cost."""

from __future__ import annotations

import random
from collections.abc import Sequence

from tests.spec.scheduler.objects import Storage, a_node, a_pod, a_snapshot, put

from haven.api.core import v1 as core
from haven.api.policy import v1 as policy
from haven.apimachinery import meta
from haven.scheduler.cycle import Failure, default_profile, place
from haven.scheduler.podinfo import PodInfo
from haven.scheduler.preemption import Preemption, find_preemption
from haven.scheduler.snapshot import Snapshot


def preempt(snapshot: Snapshot, pod: core.Pod, budgets: Sequence[policy.PodDisruptionBudget] = ()) -> Preemption:
    profile = default_profile(snapshot, lambda _: {}, Storage().view)
    info = PodInfo.of(pod)
    failure = place(info, snapshot, profile, random.Random(1))
    assert isinstance(failure, Failure)
    return find_preemption(info, failure, snapshot, profile, lambda _: budgets)


def test_only_as_many_pods_are_evicted_as_are_needed() -> None:
    snapshot = a_snapshot(a_node("a", cpu="3"))
    put(snapshot, a_pod("old", cpu="1", created="2026-01-01T00:00:00Z"), "a")
    put(snapshot, a_pod("mid", cpu="1", created="2026-01-02T00:00:00Z"), "a")
    put(snapshot, a_pod("new", cpu="1", created="2026-01-03T00:00:00Z"), "a")

    found = preempt(snapshot, a_pod(cpu="1", priority=10))

    assert (found.node_name, [victim.name for victim in found.victims]) == ("a", ["new"])


def test_the_node_with_the_least_important_victims_is_taken() -> None:
    snapshot = a_snapshot(a_node("a", cpu="1"), a_node("b", cpu="1"))
    put(snapshot, a_pod("important", cpu="1", priority=5), "a")
    put(snapshot, a_pod("humble", cpu="1", priority=1), "b")

    assert preempt(snapshot, a_pod(cpu="1", priority=10)).node_name == "b"


def test_a_disruption_budget_is_broken_only_if_no_other_node_will_do() -> None:
    snapshot = a_snapshot(a_node("a", cpu="1"), a_node("b", cpu="1"))
    put(snapshot, a_pod("protected", cpu="1", labels={"app": "db"}), "a")
    put(snapshot, a_pod("free", cpu="1", priority=1), "b")
    budget = policy.PodDisruptionBudget(
        metadata=meta.ObjectMeta(name="db", namespace="default"),
        spec=policy.PodDisruptionBudgetSpec(selector=meta.LabelSelector(match_labels={"app": "db"})),
    )

    assert preempt(snapshot, a_pod(cpu="1", priority=10), [budget]).node_name == "b"


def test_equals_are_never_evicted_and_the_message_says_what_would_not_help() -> None:
    snapshot = a_snapshot(a_node("a", cpu="1"), a_node("small", cpu="100m"))
    put(snapshot, a_pod(cpu="1", priority=10), "a")

    found = preempt(snapshot, a_pod(cpu="1", priority=10))

    assert (found.node_name, found.message) == (
        "",
        "preemption: 0/2 nodes are available: 1 No preemption victims found for incoming pod, "
        "1 Preemption is not helpful for scheduling.",
    )


def test_a_pod_may_decline_to_evict_others() -> None:
    snapshot = a_snapshot(a_node("a", cpu="1"))
    put(snapshot, a_pod(cpu="1"), "a")

    found = preempt(snapshot, a_pod(cpu="1", priority=10, preemption_policy="Never"))

    assert found.message == "preemption: not eligible due to preemptionPolicy=Never."


def test_room_that_is_promised_to_another_is_not_counted_twice() -> None:
    snapshot = a_snapshot(a_node("a", cpu="2"))
    lows = {put(snapshot, a_pod(f"low-{i}", cpu="1"), "a") for i in range(2)}
    put(snapshot, a_pod("nominated", cpu="1", priority=5), "a")  # As if there already: its victim is still going.

    found = preempt(snapshot, a_pod("next", cpu="1", priority=5))

    assert set(found.victims) == lows
