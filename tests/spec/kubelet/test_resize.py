"""Resizing a running pod: what is updated, what is restarted, and when it is over."""

from __future__ import annotations

import dataclasses

from tests.spec.kubelet.pods import a_container, a_pod, a_sandbox, seen

from haven.api.core.v1 import Container, ContainerResizePolicy, ResourceRequirements
from haven.apimachinery.quantity import Quantity
from haven.cri.interface import ContainerState, LinuxResources
from haven.kubelet.observation import ObservedContainer, ObservedPod
from haven.kubelet.resize import ResizePlan, is_carried_out, plan, resize_message


def asking(cpu: str, *, restarts: bool = False) -> Container:
    policies = [ContainerResizePolicy(resource_name="cpu", restart_policy="RestartContainer")] if restarts else []
    return a_container(resources=ResourceRequirements(requests={"cpu": Quantity.parse(cpu)}), resize_policy=policies)


def running(container: Container, shares: int, state: ContainerState = ContainerState.RUNNING) -> ObservedContainer:
    found = seen(container, state, exit_code=137 if state is ContainerState.EXITED else 0)
    status = dataclasses.replace(found.status, resources=LinuxResources(cpu_shares=shares))
    return dataclasses.replace(found, status=status)


def observed(*containers: ObservedContainer) -> ObservedPod:
    return ObservedPod((a_sandbox(),), containers)


def test_a_change_is_made_in_place_unless_the_container_wants_a_restart() -> None:
    soft, hard = asking("200m"), asking("200m", restarts=True)
    before = ResourceRequirements(requests={"cpu": Quantity.parse("100m")})
    found = running(soft, 102)

    in_place = plan(a_pod(soft), observed(found), {found.status.id: before}, 2**30)
    anew = plan(a_pod(hard), observed(found), {found.status.id: before}, 2**30)

    assert [update.cpu_shares for update in in_place.updates.values()] == [204]
    assert (in_place.restarts, anew.updates) == (frozenset(), {})
    assert anew.restarts == {found.status.id}


def test_a_resize_is_over_when_every_container_runs_with_its_new_resources() -> None:
    container = asking("200m", restarts=True)
    pod, nothing = a_pod(container), ResizePlan({}, frozenset())
    up, down = running(container, 204), running(container, 102, ContainerState.EXITED)

    assert is_carried_out(pod, observed(up), nothing)
    assert not is_carried_out(pod, observed(up), ResizePlan({}, frozenset({up.status.id})))
    assert not is_carried_out(pod, observed(down), nothing)  # Killed for it, and not started again yet.
    assert is_carried_out(a_pod(container, restart_policy="Never"), observed(down), nothing)


def test_events_tell_what_is_asked_for() -> None:
    assert resize_message(a_pod(asking("200m")), "started") == (
        'Pod resize started: {"containers":[{"name":"main","resources":{"requests":{"cpu":"200m"}}}],"generation":1}'
    )
