"""A simulated Pod goes the way a kubelet would let it go."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from haven.api.core import v1 as core
from haven.apimachinery import meta, times
from haven.hollow.behaviour import ANNOTATIONS, BadBehaviour, Behaviour, Rule, behaviour_of
from haven.hollow.podstate import PodState, State
from haven.hollow.podstatus import status_of

NOW = 1_700_000_000.0


def a_pod(*containers: core.Container, init: tuple[core.Container, ...] = (), **spec: Any) -> core.Pod:
    return core.Pod(
        metadata=meta.ObjectMeta(name="web", namespace="default", uid="u"),
        spec=core.PodSpec(
            containers=list(containers) or [core.Container(name="main", image="web")],
            init_containers=list(init),
            node_name="node-0",
            **{"restart_policy": "Always", **spec},
        ),
    )


def a_state(pod: core.Pod, **behaviours: Behaviour) -> PodState:
    return PodState(pod, lambda container: behaviours.get(container.name, Behaviour()), NOW, ip="10.0.0.1")


def conditions(state: PodState) -> dict[str, str]:
    return {item.type: item.status for item in status_of(state, NOW, host_ip="10.0.0.2").conditions}


def test_a_pod_runs_and_is_ready_at_once() -> None:
    pod = a_pod()
    state = a_state(pod)

    assert state.step(pod, NOW) is None

    assert (state.phase, state.main[0].ready) == ("Running", True)
    assert conditions(state) == {
        "PodReadyToStartContainers": "True",
        "Initialized": "True",
        "Ready": "True",
        "ContainersReady": "True",
        "PodScheduled": "True",
    }


def test_starting_and_getting_ready_take_their_time() -> None:
    pod = a_pod()
    state = a_state(pod, main=Behaviour(start_seconds=5, ready_seconds=10))

    assert state.step(pod, NOW) == NOW + 5
    assert state.phase == "Pending"
    assert state.step(pod, NOW + 5) == NOW + 15
    assert (state.phase, state.main[0].ready) == ("Running", False)
    assert state.step(pod, NOW + 15) is None
    assert state.main[0].ready


def test_init_containers_come_one_after_the_other_before_the_main_ones() -> None:
    init = (core.Container(name="one"), core.Container(name="two"))
    pod = a_pod(init=init)
    state = a_state(pod, one=Behaviour(run_seconds=3))

    state.step(pod, NOW)
    assert [item.state for item in state.all] == [State.RUNNING, State.WAITING, State.WAITING]
    assert conditions(state)["Initialized"] == "False"
    state.step(pod, NOW + 3)

    assert [item.state for item in state.all] == [State.ENDED, State.ENDED, State.RUNNING]


def test_a_failing_init_container_fails_a_pod_that_does_not_restart() -> None:
    pod = a_pod(init=(core.Container(name="one"),), restart_policy="Never")
    state = a_state(pod, one=Behaviour(run_seconds=0, exit_code=1))

    state.step(pod, NOW)

    assert (state.phase, state.main[0].state) == ("Failed", State.WAITING)


def test_a_sidecar_runs_beside_the_main_container_and_ends_with_it() -> None:
    sidecar = core.Container(name="proxy", restart_policy="Always")
    pod = a_pod(init=(sidecar,), restart_policy="Never")
    state = a_state(pod, main=Behaviour(run_seconds=5))
    state.step(pod, NOW)
    assert [item.state for item in state.all] == [State.RUNNING, State.RUNNING]

    state.step(pod, NOW + 5)

    assert (state.phase, state.init[0].state) == ("Succeeded", State.ENDED)


@pytest.mark.parametrize(
    ("policy", "code", "phase"),
    [("Never", 0, "Succeeded"), ("Never", 1, "Failed"), ("OnFailure", 0, "Succeeded"), ("OnFailure", 1, "Running")],
)
def test_the_restart_policy_decides_what_an_end_means(policy: str, code: int, phase: str) -> None:
    pod = a_pod(restart_policy=policy)
    state = a_state(pod)
    state.step(pod, NOW)

    state.order_end(NOW, code)
    state.step(pod, NOW)

    assert state.phase == phase


def test_restarts_wait_longer_and_longer() -> None:
    pod = a_pod()
    state = a_state(pod, main=Behaviour(run_seconds=1, exit_code=1))
    starts, now = [], NOW
    while len(starts) < 6:
        due = state.step(pod, now)
        if state.main[0].started_seconds == now and now - NOW not in starts:
            starts.append(now - NOW)
        assert due is not None
        now = due

    assert [b - a for a, b in itertools.pairwise(starts)] == [1, 11, 21, 41, 81]


def test_a_container_that_ran_long_starts_at_once_again() -> None:
    pod = a_pod()
    state = a_state(pod, main=Behaviour(run_seconds=700, exit_code=1))
    state.step(pod, NOW)
    state.step(pod, NOW + 700)

    state.step(pod, NOW + 1400)
    state.step(pod, NOW + 1400)

    assert (state.main[0].state, state.main[0].restarts) == (State.RUNNING, 2)


def test_a_deadline_ends_a_pod() -> None:
    pod = a_pod(active_deadline_seconds=60, restart_policy="Never")
    state = a_state(pod)

    assert state.step(pod, NOW) == NOW + 60
    state.step(pod, NOW + 60)

    assert (state.phase, state.reason) == ("Failed", "DeadlineExceeded")


@pytest.mark.parametrize(("stop", "ends", "code"), [(0.0, 0.0, 0), (5.0, 5.0, 0), (60.0, 30.0, 137)])
def test_a_deleted_pod_has_its_grace(stop: float, ends: float, code: int) -> None:
    pod = a_pod()
    state = a_state(pod, main=Behaviour(stop_seconds=stop))
    state.step(pod, NOW)
    deleted = core.Pod(metadata=meta.ObjectMeta(name="web", uid="u"), spec=pod.spec)
    deleted.metadata.deletion_timestamp = times.format_time(NOW)
    deleted.metadata.deletion_grace_period_seconds = 30

    due = state.step(deleted, NOW)
    if ends:
        assert due == NOW + ends
        assert not state.is_gone
        state.step(deleted, NOW + ends)

    assert state.is_gone
    assert state.main[0].end is not None
    assert state.main[0].end.exit_code == code


def test_probes_of_a_test_keep_their_thresholds() -> None:
    probe = core.Probe(initial_delay_seconds=5, period_seconds=10, failure_threshold=2, success_threshold=1)
    pod = a_pod(core.Container(name="main", liveness_probe=probe, readiness_probe=probe))
    well = {"readiness": True, "liveness": True}
    state = a_state(pod, main=Behaviour(probe=lambda pod, container, kind: well[kind]))
    state.step(pod, NOW)
    assert not state.main[0].ready
    state.step(pod, NOW + 5)
    assert state.main[0].ready

    well["readiness"] = False
    state.step(pod, NOW + 15)
    assert state.main[0].ready
    state.step(pod, NOW + 25)
    assert not state.main[0].ready
    well["liveness"] = False
    state.step(pod, NOW + 35)
    state.step(pod, NOW + 45)

    assert state.main[0].last_end is not None
    assert state.main[0].last_end.exit_code == 137


def test_a_pod_goes_on_where_its_status_says() -> None:
    pod = a_pod()
    before = a_state(pod)
    before.step(pod, NOW)
    pod.status = status_of(before, NOW, host_ip="10.0.0.2")

    again = a_state(pod)
    again.step(pod, NOW + 100)

    assert status_of(again, NOW + 100, host_ip="10.0.0.2") == pod.status


def test_copies_go_their_own_ways() -> None:
    pod = a_pod(restart_policy="Never")
    state = a_state(pod)
    state.step(pod, NOW)
    copied = state.copy()

    state.order_end(NOW, 1)
    state.step(pod, NOW)
    copied.step(pod, NOW)

    assert (state.phase, copied.phase) == ("Failed", "Running")


def test_later_rules_override_earlier_ones_and_annotations_override_all() -> None:
    pod = a_pod()
    pod.metadata.annotations = {f"{ANNOTATIONS}exit-code": "3"}
    rules = [
        Rule(Behaviour(run_seconds=1, exit_code=1)),
        Rule(Behaviour(exit_code=2, reason="Broken"), image="we*"),
        Rule(Behaviour(run_seconds=9), name="other"),
    ]

    found = behaviour_of(pod, pod.spec.containers[0], rules)

    assert (found.run_seconds, found.exit_code, found.reason) == (1, 3, "Broken")


@pytest.mark.parametrize(("name", "text"), [("run-seconds", "soon"), ("colour", "red"), ("ready", "yes")])
def test_annotations_that_make_no_sense_are_refused(name: str, text: str) -> None:
    pod = a_pod()
    pod.metadata.annotations = {f"{ANNOTATIONS}{name}": text}

    with pytest.raises(BadBehaviour, match=name):
        behaviour_of(pod, pod.spec.containers[0], [])
