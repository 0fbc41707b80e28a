"""Pods that use tainted devices go, unless their claims bear the taint."""

from __future__ import annotations

from typing import Any

import pytest
from tests.spec.controllers.world import World

from haven.api.core import v1 as core
from haven.api.resource import v1 as resource
from haven.api.resource import v1beta2
from haven.apimachinery import meta, times
from haven.controllers.actions import Wiring
from haven.controllers.devicetainteviction import DeviceTaintEvictionController, selects, tolerates


def a_slice(*taints: resource.DeviceTaint, generation: int = 1, name: str = "s") -> resource.ResourceSlice:
    spec = resource.ResourceSliceSpec(
        driver="d.example",
        pool=resource.ResourcePool(name="p", generation=generation),
        devices=[resource.Device(name="gpu", taints=list(taints))],
    )
    return resource.ResourceSlice(metadata=meta.ObjectMeta(name=name), spec=spec)


def a_claim(uid: str, *tolerations: resource.DeviceToleration) -> resource.ResourceClaim:
    result = resource.DeviceRequestAllocationResult(
        request="r", driver="d.example", pool="p", device="gpu", tolerations=list(tolerations)
    )
    allocation = resource.AllocationResult(devices=resource.DeviceAllocationResult(results=[result]))
    user = resource.ResourceClaimConsumerReference(resource="pods", name="pod", uid=uid)
    return resource.ResourceClaim(
        metadata=meta.ObjectMeta(name="c", namespace="default"),
        status=resource.ResourceClaimStatus(allocation=allocation, reserved_for=[user]),
    )


def a_pod() -> core.Pod:
    spec = core.PodSpec(node_name="n", resource_claims=[core.PodResourceClaim(name="x", resource_claim_name="c")])
    metadata = meta.ObjectMeta(name="pod", namespace="default", finalizers=["example.com/hold"])
    return core.Pod(metadata=metadata, spec=spec)


def a_taint(world: World, effect: str = "NoExecute") -> resource.DeviceTaint:
    return resource.DeviceTaint(key="bad", effect=effect, time_added=times.format_time(world.now_seconds()))


def a_world(*tolerations: resource.DeviceToleration, with_rules: bool = False) -> World:
    world = World()

    def make(wiring: Wiring) -> Any:
        return DeviceTaintEvictionController(wiring, with_rules=with_rules)

    world.put(a_slice())
    pod = world.put(a_pod())
    pod = world.get(core.Pod, "default", "pod")
    world.put(a_claim(pod.metadata.uid, *tolerations))
    world.start(make)
    return world


def taint(world: World, *taints: resource.DeviceTaint) -> None:
    world.change(resource.ResourceSlice, "", "s", lambda one: setattr(one.spec.devices[0], "taints", list(taints)))
    world.settle()


def is_going(world: World) -> bool:
    return world.get(core.Pod, "default", "pod").metadata.deletion_timestamp is not None


def test_a_pod_goes_at_once_and_says_why() -> None:
    world = a_world()
    assert not is_going(world)

    taint(world, a_taint(world))

    assert is_going(world)
    condition = world.get(core.Pod, "default", "pod").status.conditions[0]
    assert (condition.type, condition.reason) == ("DisruptionTarget", "DeletionByDeviceTaintManager")
    assert condition.message == "Device Taint manager: deleting due to NoExecute taint"
    assert [(event.reason, event.message) for event in world.events] == [
        ("DeviceTaintManagerEviction", "Marking for deletion")
    ]


def test_other_effects_and_other_pods_claims_drive_nobody_away() -> None:
    world = a_world()
    taint(world, a_taint(world, "NoSchedule"))
    world.change(resource.ResourceClaim, "default", "c", lambda one: setattr(one.status.reserved_for[0], "uid", "old"))
    taint(world, a_taint(world))

    assert not is_going(world)


def test_a_pod_stays_as_long_as_its_claim_bears_the_taint() -> None:
    world = a_world(resource.DeviceToleration(operator="Exists", effect="NoExecute", toleration_seconds=60))

    taint(world, a_taint(world))
    world.wait(59)
    assert not is_going(world)
    world.wait(2)

    assert is_going(world)


def test_a_taint_that_is_taken_back_in_time_spares_the_pod() -> None:
    world = a_world(resource.DeviceToleration(operator="Exists", effect="NoExecute", toleration_seconds=60))
    taint(world, a_taint(world))

    taint(world)
    world.wait(100)

    assert not is_going(world)
    assert [event.message for event in world.events] == ["Cancelling deletion"]


def test_what_an_older_generation_of_a_pool_says_does_not_count() -> None:
    world = a_world()
    world.put(a_slice(name="newer", generation=2))

    taint(world, a_taint(world))

    assert not is_going(world)


def test_an_operators_rule_taints_devices_as_drivers_do() -> None:
    world = a_world(with_rules=True)
    rule = v1beta2.DeviceTaintRule(metadata=meta.ObjectMeta(name="r"))
    rule.spec.device_selector = v1beta2.DeviceTaintSelector(driver="d.example")
    rule.spec.taint = v1beta2.DeviceTaint(key="k", effect="NoExecute")

    world.put(rule)
    world.settle()

    assert is_going(world)
    assert not selects(rule, "other", "p", "gpu")
    assert not selects(v1beta2.DeviceTaintRule(), "d.example", "p", "gpu")


@pytest.mark.parametrize(
    ("toleration", "bears"),
    [
        (resource.DeviceToleration(operator="Exists"), True),
        (resource.DeviceToleration(operator="Exists", key="other"), False),
        (resource.DeviceToleration(operator="Equal", key="bad", value="v"), True),
        (resource.DeviceToleration(operator="Equal", key="bad", value="w"), False),
        (resource.DeviceToleration(operator="Exists", effect="NoSchedule"), False),
    ],
)
def test_a_toleration_bears_its_taint(toleration: resource.DeviceToleration, bears: bool) -> None:
    assert tolerates(toleration, resource.DeviceTaint(key="bad", value="v", effect="NoExecute")) == bears


def a_rule(effect: str) -> v1beta2.DeviceTaintRule:
    rule = v1beta2.DeviceTaintRule(metadata=meta.ObjectMeta(name="r", generation=1))
    rule.spec.device_selector = v1beta2.DeviceTaintSelector(driver="d.example")
    rule.spec.taint = v1beta2.DeviceTaint(key="bad", effect=effect)
    return rule


def said(world: World) -> tuple[str, str, str]:
    (condition,) = world.get(v1beta2.DeviceTaintRule, "", "r").status.conditions
    assert condition.type == "EvictionInProgress"
    return condition.status, condition.reason, condition.message


def test_a_rule_tells_how_many_pods_have_to_go_and_how_many_went() -> None:
    world = a_world(
        resource.DeviceToleration(operator="Exists", effect="NoExecute", toleration_seconds=60), with_rules=True
    )
    rule = a_rule("NoExecute")
    rule.spec.taint.time_added = times.format_time(world.now_seconds())
    world.put(rule)
    world.settle()
    assert said(world) == ("True", "PodsPendingEviction", "1 pod needs to be evicted in 1 namespace.")

    world.wait(90)

    assert is_going(world)
    assert said(world) == ("False", "Completed", "1 pod evicted since starting the controller.")


@pytest.mark.parametrize(
    ("effect", "reason", "message"),
    [
        ("NoSchedule", "OtherEffect", "Eviction only happens for the NoExecute effect."),
        (
            "None",
            "NoEffect",
            "1 published device selected. 1 allocated device selected. 1 pod would be evicted in 1 namespace if the "
            "effect was NoExecute. This information will not be updated again. Recreate the DeviceTaintRule to trigger "
            "an update.",
        ),
    ],
)
def test_a_rule_that_drives_nobody_away_says_so(effect: str, reason: str, message: str) -> None:
    world = a_world(with_rules=True)

    world.put(a_rule(effect))
    world.settle()

    assert said(world) == ("False", reason, message)
    assert not is_going(world)


def test_a_rule_about_devices_of_nobody_has_not_started() -> None:
    world = a_world(with_rules=True)
    rule = a_rule("NoExecute")
    rule.spec.device_selector = v1beta2.DeviceTaintSelector(driver="other.example")

    world.put(rule)
    world.settle()

    assert said(world) == ("False", "NotStarted", "")
