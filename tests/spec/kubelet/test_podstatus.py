"""What is reported of a pod."""

from __future__ import annotations

import pytest
from tests.spec.kubelet.pods import a_container, a_pod, a_sidecar, exited, observed, seen

from haven.api.core.v1 import (
    ContainerState,
    ContainerStateRunning,
    ContainerStateTerminated,
    ContainerStatus,
    Pod,
    PodCondition,
    PodReadinessGate,
    PodStatus,
    Probe,
)
from haven.cri import interface as cri
from haven.kubelet.containerstatus import StartFailure, StatusContext
from haven.kubelet.observation import ObservedPod
from haven.kubelet.podstate import ProbeResult, ProbeResults
from haven.kubelet.podstatus import (
    NodeFacts,
    Verdict,
    compute_status,
    fill_transition_times,
    terminated_status,
)


def status_of(
    pod: Pod,
    now: ObservedPod,
    previous: PodStatus | None = None,
    *,
    failures: dict[str, StartFailure] | None = None,
    probes: ProbeResults | None = None,
    final: bool = False,
    verdict: Verdict | None = None,
) -> PodStatus:
    return compute_status(
        pod,
        now,
        previous or PodStatus(),
        StatusContext(failures or {}),
        probes or ProbeResults(),
        NodeFacts(("192.0.2.1",)),
        is_terminal_now=final,
        verdict=verdict,
    )


def conditions(status: PodStatus) -> dict[str, tuple[str, str, str]]:
    return {item.type: (item.status, item.reason, item.message) for item in status.conditions}


def test_a_pod_without_a_sandbox_is_pending_with_containers_creating() -> None:
    status = status_of(a_pod(), ObservedPod())

    waiting = status.container_statuses[0].state.waiting
    assert (status.phase, waiting and waiting.reason) == ("Pending", "ContainerCreating")
    assert conditions(status) == {
        "PodReadyToStartContainers": ("False", "", ""),
        "Initialized": ("True", "", ""),
        "Ready": ("False", "ContainersNotReady", "containers with unready status: [main]"),
        "ContainersReady": ("False", "ContainersNotReady", "containers with unready status: [main]"),
        "PodScheduled": ("True", "", ""),
    }


def test_a_running_pod_is_ready_and_has_addresses() -> None:
    pod = a_pod()

    status = status_of(pod, observed(seen(pod.spec.containers[0])))

    assert (status.phase, status.pod_ip, status.host_ip) == ("Running", "10.0.0.5", "192.0.2.1")
    assert conditions(status)["Ready"] == ("True", "", "")
    only = status.container_statuses[0]
    assert (only.ready, only.started, only.restart_count) == (True, True, 0)
    assert only.container_id == "containerd://main-0"
    assert only.state.running is not None
    assert only.state.running.started_at == "1970-01-01T00:00:01Z"
    assert status.observed_generation == 1


def test_a_pod_on_the_nodes_network_has_the_nodes_address() -> None:
    assert status_of(a_pod(host_network=True), ObservedPod()).pod_ip == "192.0.2.1"


@pytest.mark.parametrize(
    ("policy", "code", "phase"),
    [("Never", 0, "Succeeded"), ("Never", 1, "Failed"), ("OnFailure", 0, "Succeeded"), ("OnFailure", 1, "Running"),
     ("Always", 0, "Running"), ("Always", 1, "Running")],
)  # fmt: skip
def test_the_phase_of_an_ended_container_depends_on_the_policy(policy: str, code: int, phase: str) -> None:
    pod = a_pod(restart_policy=policy)

    assert status_of(pod, observed(exited(pod.spec.containers[0], code))).phase == phase


def test_a_pod_is_pending_until_its_init_containers_are_done() -> None:
    first, second = a_container("first"), a_container("second")
    pod = a_pod(init_containers=[first, second])

    status = status_of(pod, observed(exited(first), seen(second)))

    assert status.phase == "Pending"
    assert conditions(status)["Initialized"] == (
        "False", "ContainersNotInitialized", "containers with incomplete status: [second]"
    )  # fmt: skip
    assert [item.ready for item in status.init_container_statuses] == [True, False]
    waiting = status.container_statuses[0].state.waiting
    assert waiting is not None
    assert waiting.reason == "PodInitializing"


def test_a_sidecar_counts_for_readiness() -> None:
    side = a_sidecar("side", readiness_probe=Probe())
    pod = a_pod(init_containers=[side])
    now = observed(seen(side), seen(pod.spec.containers[0]))

    unready = status_of(pod, now)
    ready = status_of(pod, now, probes=ProbeResults(readiness={"side-0": ProbeResult.SUCCESS}))

    assert conditions(unready)["Ready"][2] == "containers with unready status: [side]"
    assert conditions(ready)["Ready"][0] == "True"
    assert (unready.phase, ready.phase) == ("Running", "Running")


def test_a_failed_start_shows_as_waiting_and_the_last_end_moves_to_last_state() -> None:
    pod = a_pod()
    crash = StartFailure("CrashLoopBackOff", "back-off 10s restarting failed container=main pod=web_default(uid-1)")

    status = status_of(pod, observed(exited(pod.spec.containers[0], 3)), failures={"main": crash})

    only = status.container_statuses[0]
    assert only.state.waiting is not None
    assert only.state.waiting.reason == "CrashLoopBackOff"
    assert only.last_state.terminated is not None
    assert only.last_state.terminated.exit_code == 3
    assert status.phase == "Running"


def test_the_last_state_is_the_container_before() -> None:
    pod = a_pod()
    main = pod.spec.containers[0]

    status = status_of(pod, observed(seen(main, restart_count=1, created=5), exited(main, 2, created=1)))

    only = status.container_statuses[0]
    assert only.restart_count == 1
    assert only.last_state.terminated is not None
    assert only.last_state.terminated.exit_code == 2


def test_a_running_container_that_vanished_was_terminated_with_unknown_status() -> None:
    before = PodStatus(
        container_statuses=[
            ContainerStatus(
                name="main", container_id="containerd://x", restart_count=1,
                state=ContainerState(running=ContainerStateRunning(started_at="1970-01-01T00:00:00Z")),
            )
        ]
    )  # fmt: skip

    status = status_of(a_pod(), observed(), before)

    only = status.container_statuses[0]
    assert only.last_state.terminated is not None
    assert (only.last_state.terminated.reason, only.last_state.terminated.exit_code) == ("ContainerStatusUnknown", 137)
    assert only.restart_count == 2
    assert status.phase == "Running"


def test_readiness_gates_hold_back_ready_but_not_containers_ready() -> None:
    pod = a_pod(readiness_gates=[PodReadinessGate(condition_type="example.com/ok")])
    now = observed(seen(pod.spec.containers[0]))

    missing = conditions(status_of(pod, now))
    pod.status.conditions = [PodCondition(type="example.com/ok", status="True")]
    present = conditions(status_of(pod, now))

    assert missing["ContainersReady"][0] == "True"
    assert missing["Ready"] == (
        "False", "ReadinessGatesNotReady",
        'corresponding condition of pod readiness gate "example.com/ok" does not exist.',
    )  # fmt: skip
    assert present["Ready"][0] == "True"
    assert present["example.com/ok"][0] == "True"


def test_a_terminal_phase_is_never_left() -> None:
    pod = a_pod()
    pod.status.phase = "Failed"

    assert status_of(pod, observed(seen(pod.spec.containers[0]))).phase == "Failed"


def test_the_nodes_verdict_wins_and_keeps_its_reason() -> None:
    pod = a_pod()
    verdict = Verdict("Failed", "Evicted", "The node was low on resource: memory. ")

    status = status_of(pod, observed(seen(pod.spec.containers[0])), verdict=verdict)
    later = status_of(pod, observed(exited(pod.spec.containers[0], 137)), status)

    assert (status.phase, status.reason) == ("Failed", "Evicted")
    assert (later.phase, later.reason, later.message) == ("Failed", "Evicted", verdict.message)


def test_a_killed_pod_that_would_restart_ends_failed_or_succeeded() -> None:
    pod = a_pod()
    main = pod.spec.containers[0]

    assert status_of(pod, observed(exited(main, 0)), final=True).phase == "Succeeded"
    assert status_of(pod, observed(exited(main, 137)), final=True).phase == "Failed"


def test_a_terminated_pod_has_no_container_left_without_an_end() -> None:
    status = PodStatus(
        phase="Running",
        conditions=[PodCondition(type="Initialized", status="True")],
        container_statuses=[ContainerStatus(name="main")],
    )

    final = terminated_status(a_pod(), status)

    ended = final.container_statuses[0].state.terminated
    assert ended is not None
    assert (final.phase, ended.reason, ended.exit_code) == ("Failed", "ContainerStatusUnknown", 137)


def test_an_init_container_that_did_its_work_stays_ready_when_the_pod_is_over() -> None:
    done = ContainerState(terminated=ContainerStateTerminated(exit_code=0, reason="Completed"))
    status = PodStatus(
        phase="Succeeded",
        conditions=[PodCondition(type="Initialized", status="True")],
        init_container_statuses=[ContainerStatus(name="init1", state=done, ready=True)],
        container_statuses=[ContainerStatus(name="main", state=done)],
    )

    final = terminated_status(a_pod(), status)

    assert final.init_container_statuses[0].ready
    assert not final.container_statuses[0].ready


def test_transition_times_move_only_when_a_status_changes() -> None:
    old = PodStatus(conditions=[PodCondition(type="Ready", status="True", last_transition_time="then")])
    new = PodStatus(
        conditions=[PodCondition(type="Ready", status="True"), PodCondition(type="Initialized", status="True")]
    )

    fill_transition_times(new, old, "now")

    assert [item.last_transition_time for item in new.conditions] == ["then", "now"]
    assert new.start_time == "now"


def test_an_oom_kill_is_reported_as_such() -> None:
    pod = a_pod(restart_policy="Never")

    status = status_of(pod, observed(exited(pod.spec.containers[0], 137, reason="OOMKilled")))

    assert status.container_statuses[0].state.terminated == ContainerStateTerminated(
        exit_code=137, reason="OOMKilled", started_at="1970-01-01T00:00:01Z", finished_at="1970-01-01T00:00:02Z",
        container_id="containerd://main-0",
    )  # fmt: skip


def test_allocated_resources_are_the_requests_and_real_ones_come_from_the_runtime() -> None:
    from haven.api.core.v1 import ResourceRequirements
    from haven.apimachinery.quantity import Quantity

    amounts = {"cpu": Quantity.parse("100m"), "memory": Quantity.parse("64Mi")}
    container = a_container(resources=ResourceRequirements(limits=dict(amounts), requests=dict(amounts)))
    has = cri.LinuxResources(cpu_shares=204, cpu_quota=20000, cpu_period=100000, memory_limit_bytes=128 * 2**20)

    status = status_of(a_pod(container), observed(seen(container, resources=has))).container_statuses[0]

    assert status.allocated_resources == amounts
    assert status.resources is not None
    assert {name: str(amount) for name, amount in status.resources.limits.items()} == {"cpu": "200m", "memory": "128Mi"}
    assert str(status.resources.requests["cpu"]) == "200m"
