"""What a pod needs next."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.spec.kubelet.pods import a_container, a_pod, a_rule, a_sandbox, a_sidecar, exited, observed, seen

from haven.api.core.v1 import PodStatus, Probe
from haven.cri.interface import ContainerState, NamespaceMode
from haven.kubelet.observation import ObservedPod
from haven.kubelet.podstate import KillReason, ProbeResult, ProbeResults, compute_actions, restarts_all_containers


def test_a_new_pod_gets_a_sandbox_and_all_its_containers() -> None:
    pod = a_pod(a_container("a"), a_container("b"))

    actions = compute_actions(pod, ObservedPod())

    assert (actions.create_sandbox, actions.attempt, actions.start) == (True, 0, [0, 1])


def test_a_running_pod_needs_nothing() -> None:
    pod = a_pod()

    assert compute_actions(pod, observed(seen(pod.spec.containers[0]))).is_nothing


def test_a_lost_sandbox_means_starting_over_with_the_next_attempt() -> None:
    pod = a_pod(init_containers=[a_container("init")])
    past = observed(exited(pod.spec.containers[0], 137), sandbox=a_sandbox(ready=False))

    actions = compute_actions(pod, past)

    assert (actions.kill_pod, actions.create_sandbox, actions.attempt) == (True, True, 1)
    assert (actions.start_init, actions.start) == ([0], [])


def test_a_sandbox_without_an_address_is_replaced_unless_the_pod_uses_the_nodes_network() -> None:
    lone = a_sandbox(ip="")

    assert compute_actions(a_pod(), observed(sandbox=lone)).create_sandbox
    assert compute_actions(a_pod(host_network=True), observed(sandbox=lone)).create_sandbox
    host = a_sandbox(ip="", network=NamespaceMode.NODE)
    assert not compute_actions(a_pod(host_network=True), observed(sandbox=host)).create_sandbox


def test_a_pod_that_never_restarts_does_not_get_a_second_sandbox() -> None:
    pod = a_pod(restart_policy="Never")
    past = observed(exited(pod.spec.containers[0], 137), sandbox=a_sandbox(ready=False))

    actions = compute_actions(pod, past)

    assert (actions.kill_pod, actions.create_sandbox) == (True, False)


@pytest.mark.parametrize(
    ("policy", "exit_code", "restarts"),
    [("Always", 0, True), ("Always", 1, True), ("OnFailure", 0, False), ("OnFailure", 1, True), ("Never", 1, False)],
)
def test_the_restart_policy_decides_about_an_exited_container(policy: str, exit_code: int, restarts: bool) -> None:
    pod = a_pod(restart_policy=policy)

    actions = compute_actions(pod, observed(exited(pod.spec.containers[0], exit_code)))

    assert (actions.start == [0]) is restarts
    assert actions.kill_pod is not restarts  # Nothing left to run: the pod is over.


def test_a_containers_rule_overrides_its_policy_and_the_pods() -> None:
    container = a_container(restart_policy="Never", restart_policy_rules=[a_rule("Restart", 42)])
    pod = a_pod(container, restart_policy="Never")

    assert compute_actions(pod, observed(exited(container, 42))).start == [0]
    assert compute_actions(pod, observed(exited(container, 1))).start == []


def test_a_rule_may_restart_every_container_sources_last() -> None:
    source = a_container("source", restart_policy="Never", restart_policy_rules=[a_rule("RestartAllContainers", 7)])
    other = a_container("other")
    pod = a_pod(source, other)
    now = observed(exited(source, 7), seen(other))

    assert restarts_all_containers(pod, now, PodStatus())
    actions = compute_actions(pod, now, restart_all=True)

    assert [kill.name for kill in actions.reset] == ["other", "source"]


def test_init_containers_run_one_after_the_other() -> None:
    first, second = a_container("first"), a_container("second")
    pod = a_pod(init_containers=[first, second])

    assert compute_actions(pod, observed()).start_init == [0]
    assert compute_actions(pod, observed(seen(first))).is_nothing
    assert compute_actions(pod, observed(exited(first))).start_init == [1]
    done = compute_actions(pod, observed(exited(first), exited(second)))
    assert (done.start_init, done.start) == ([], [0])


def test_a_failed_init_container_ends_a_pod_that_never_restarts() -> None:
    init = a_container("init")

    never = compute_actions(a_pod(restart_policy="Never", init_containers=[init]), observed(exited(init, 1)))
    always = compute_actions(a_pod(init_containers=[init]), observed(exited(init, 1)))

    assert (never.kill_pod, never.start_init, never.start) == (True, [], [])
    assert (always.kill_pod, always.start_init) == (False, [0])


def test_a_started_sidecar_lets_the_next_begin_and_comes_back_for_ever() -> None:
    side, last = a_sidecar("side"), a_container("last")
    pod = a_pod(init_containers=[side, last])
    main = pod.spec.containers[0]

    assert compute_actions(pod, observed(seen(side))).start_init == [1]
    assert compute_actions(pod, observed(seen(side), exited(last))).start == [0]
    assert compute_actions(pod, observed(exited(side, 0), exited(last), seen(main))).start_init == [0]


def test_a_sidecar_with_a_startup_probe_holds_up_the_next_until_it_succeeds() -> None:
    side = a_sidecar("side", startup_probe=Probe())
    pod = a_pod(init_containers=[side])
    running = observed(seen(side))

    assert compute_actions(pod, running).is_nothing
    assert compute_actions(pod, running, ProbeResults(startup={"side-0": ProbeResult.SUCCESS})).start == [0]
    failed = compute_actions(pod, running, ProbeResults(startup={"side-0": ProbeResult.FAILURE}))
    assert ([kill.name for kill in failed.kill], failed.start_init, failed.start) == (["side"], [0], [])


def test_sidecars_do_not_keep_a_finished_pod_alive() -> None:
    side = a_sidecar("side")
    pod = a_pod(restart_policy="Never", init_containers=[side])

    actions = compute_actions(pod, observed(seen(side), exited(pod.spec.containers[0])))

    assert (actions.kill_pod, actions.start_init) == (True, [])


def test_a_failed_liveness_probe_kills_and_restarts() -> None:
    pod = a_pod()
    probes = ProbeResults(liveness={"main-0": ProbeResult.FAILURE})

    actions = compute_actions(pod, observed(seen(pod.spec.containers[0])), probes)

    assert [(kill.message, kill.reason) for kill in actions.kill] == [
        ("Container main failed liveness probe, will be restarted", KillReason.LIVENESS_PROBE)
    ]
    assert actions.start == [0]


def test_a_changed_image_restarts_the_container_whatever_the_policy() -> None:
    pod = a_pod(restart_policy="Never")
    before = observed(seen(pod.spec.containers[0]))
    pod.spec.containers[0].image = "img:2"

    actions = compute_actions(pod, before)

    assert actions.start == [0]
    assert actions.kill[0].message == "Container main definition changed, will be restarted"


def test_an_ephemeral_container_starts_once_and_before_the_pod_is_initialized() -> None:
    from haven.api.core.v1 import EphemeralContainer

    init = a_container("init")
    pod = a_pod(init_containers=[init], ephemeral_containers=[EphemeralContainer(name="debug", image="img")])

    assert compute_actions(pod, observed(seen(init))).start_ephemeral == [0]
    gone = exited(a_container("debug"), 1)
    assert compute_actions(pod, observed(seen(init), gone)).start_ephemeral == []


STATES = st.sampled_from([None, ContainerState.CREATED, ContainerState.RUNNING, ContainerState.EXITED])


@given(
    states=st.lists(STATES, min_size=4, max_size=4),
    codes=st.lists(st.sampled_from([0, 1]), min_size=4, max_size=4),
    policy=st.sampled_from(["Always", "OnFailure", "Never"]),
)
def test_a_regular_container_never_starts_while_an_init_container_is_unfinished(
    states: list[ContainerState | None], codes: list[int], policy: str
) -> None:
    init, side = a_container("init"), a_sidecar("side")
    pod = a_pod(a_container("a"), a_container("b"), init_containers=[init, side], restart_policy=policy)
    containers = [init, side, *pod.spec.containers]
    found = [
        seen(container, state, exit_code=code)
        for container, state, code in zip(containers, states, codes, strict=True)
        if state is not None
    ]

    actions = compute_actions(pod, observed(*found))

    has_regular = any(state in (ContainerState.CREATED, ContainerState.RUNNING) for state in states[2:])
    is_done = states[0] is ContainerState.EXITED and codes[0] == 0 and states[1] is ContainerState.RUNNING
    if actions.start and not has_regular:
        assert is_done or states[1] is ContainerState.RUNNING
    for index in actions.start:
        assert states[2 + index] is not ContainerState.RUNNING
