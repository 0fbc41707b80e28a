"""Fields of features: dropped while the feature is off, unless the object had them before; kept while it is on."""

from __future__ import annotations

import typing
from typing import Any

import pytest

from haven.api import scheme
from haven.api.apps import v1 as apps
from haven.api.batch import v1 as batch
from haven.api.coordination import v1 as coordination
from haven.api.core import v1 as core
from haven.api.gatedfields import DROPPED_BY_DEFAULT, FIELD_GATES, rules_of
from haven.api.resource import v1 as resource
from haven.api.storage import v1 as storage
from haven.api.strategies import strategy_for
from haven.apimachinery import meta, serialization
from haven.apiserver.featuregates import gates

NONE_OFF: frozenset[str] = frozenset()


def a_pod_spec(**fields: Any) -> core.PodSpec:
    return core.PodSpec(containers=[core.Container(name="c", image="i", **fields)])


def created(obj: Any, off: frozenset[str] = DROPPED_BY_DEFAULT) -> Any:
    obj = serialization.copy(obj)
    strategy_for(scheme.resource_of(type(obj)), off).prepare_for_create(obj)
    return obj


def updated(new: Any, old: Any, off: frozenset[str] = DROPPED_BY_DEFAULT) -> Any:
    new = serialization.copy(new)
    strategy_for(scheme.resource_of(type(new)), off).prepare_for_update(new, old)
    return new


def test_what_is_off_by_default_is_what_upstreams_gates_say() -> None:
    assert {name for name in FIELD_GATES if not gates()[name].default} == DROPPED_BY_DEFAULT


def test_every_path_of_the_table_leads_to_a_field() -> None:
    checked = 0
    for one in {each.group_resource: each for each in scheme.table().values()}.values():
        for rule in rules_of(one.group_resource):
            for path in rule.paths:
                kinds = {one.type}
                for part in path:
                    kinds = {found for kind in kinds for found in fields_of(kind).get(part, ())}
                    assert kinds, (one.kind, path, part)
                checked += 1

    assert checked > 100


def fields_of(kind: Any) -> dict[str, set[Any]]:
    """Return the types that each attribute may have, those in lists and maps taken out."""

    def leaves(hint: Any) -> set[Any]:
        inner = typing.get_args(hint)
        return {leaf for part in inner for leaf in leaves(part)} if inner else {hint}

    if not hasattr(kind, "__struct_fields__"):
        return {}
    return {name: leaves(hint) for name, hint in typing.get_type_hints(kind).items()}


def test_a_field_is_dropped_in_pods_and_in_every_template_of_pods() -> None:
    spec = a_pod_spec(lifecycle=core.Lifecycle(stop_signal="SIGUSR1"))
    spec.scheduling_group = core.PodSchedulingGroup(pod_group_name="g")
    template = core.PodTemplateSpec(spec=spec)
    inner = batch.CronJob()
    inner.spec.job_template.spec.template = template
    outer = apps.Deployment()
    outer.spec.template = template

    pod = created(core.Pod(spec=spec))
    found = [pod.spec, created(outer).spec.template.spec, created(inner).spec.job_template.spec.template.spec]

    for one in found:
        assert one.scheduling_group is None
        assert one.containers[0].lifecycle is None  # Nothing was left in it.


def test_what_holds_more_than_the_field_stays() -> None:
    stop = core.LifecycleHandler(exec=core.ExecAction(command=["x"]))

    pod = created(core.Pod(spec=a_pod_spec(lifecycle=core.Lifecycle(stop_signal="SIGUSR1", pre_stop=stop))))

    assert pod.spec.containers[0].lifecycle == core.Lifecycle(pre_stop=stop)


def test_what_was_empty_before_stays_and_is_judged() -> None:
    pod = created(core.Pod(spec=a_pod_spec(lifecycle=core.Lifecycle())))

    assert pod.spec.containers[0].lifecycle == core.Lifecycle()


def test_a_field_is_kept_when_its_feature_is_on_and_when_the_object_had_it() -> None:
    pod = core.Pod(spec=a_pod_spec(lifecycle=core.Lifecycle(stop_signal="SIGUSR1")))

    assert created(pod, NONE_OFF).spec.containers[0].lifecycle.stop_signal == "SIGUSR1"
    assert updated(pod, pod).spec.containers[0].lifecycle.stop_signal == "SIGUSR1"
    assert updated(pod, core.Pod(spec=a_pod_spec())).spec.containers[0].lifecycle is None


def test_an_init_container_remains_a_sidecar_without_restart_rules() -> None:
    spec = a_pod_spec(restart_policy="Never")
    spec.init_containers = [
        core.Container(name="a", restart_policy="Always"),
        core.Container(name="b", restart_policy="Never"),
    ]

    pod = created(core.Pod(spec=spec), frozenset({"ContainerRestartRules"}))

    assert pod.spec.containers[0].restart_policy is None
    assert [one.restart_policy for one in pod.spec.init_containers] == ["Always", None]


def test_fields_of_one_gate_are_in_use_each_for_itself_or_together() -> None:
    old = coordination.Lease(spec=coordination.LeaseSpec(strategy="OldestEmulationVersion"))
    new = coordination.Lease(spec=coordination.LeaseSpec(strategy="OldestEmulationVersion", preferred_holder="a"))
    assert updated(new, old).spec == old.spec

    before = resource.ResourceSlice()
    before.spec.devices = [resource.Device(name="a", node_name="n")]
    after = serialization.copy(before)
    after.spec.per_device_node_selection = True
    off = frozenset({"DRAPartitionableDevices"})
    assert updated(after, before, off).spec.per_device_node_selection is True
    assert created(after, off).spec.devices[0].node_name is None


def test_fields_in_items_of_maps_are_dropped() -> None:
    one = resource.ResourceSlice()
    one.spec.devices = [resource.Device(name="a", attributes={"x": resource.DeviceAttribute(ints=[1], string="s")})]

    assert created(one).spec.devices[0].attributes["x"] == resource.DeviceAttribute(string="s")


def test_a_claim_keeps_a_source_that_does_not_lead_elsewhere() -> None:
    def a_claim(namespace: str | None) -> core.PersistentVolumeClaim:
        claim = core.PersistentVolumeClaim(metadata=meta.ObjectMeta(name="c"))
        claim.spec.data_source_ref = core.TypedObjectReference(
            kind="PersistentVolumeClaim", name="n", namespace=namespace
        )
        return claim

    assert created(a_claim(None)).spec.data_source_ref is not None
    assert created(a_claim("other")).spec.data_source_ref is None
    assert created(a_claim("other"), NONE_OFF).spec.data_source_ref.namespace == "other"


def test_a_default_comes_with_its_feature() -> None:
    driver = scheme.resource_of(storage.CSIDriver)
    one = storage.CSIDriver()
    strategy_for(driver).default(one)
    assert one.spec.prevent_pod_scheduling_if_missing is None

    strategy_for(driver, NONE_OFF).default(one)

    assert one.spec.prevent_pod_scheduling_if_missing is False


@pytest.mark.parametrize("name", ["ImageVolumeWithDigest", "ResourceHealthStatusMessage"])
def test_a_status_loses_what_is_off(name: str) -> None:
    status = core.ContainerStatus(
        name="c",
        volume_mounts=[core.VolumeMountStatus(name="v", volume_status=core.VolumeStatus())],
        allocated_resources_status=[
            core.ResourceStatus(name="r", resources=[core.ResourceHealth(resource_id="1", message="ill")])
        ],
    )
    new = core.Pod(status=core.PodStatus(container_statuses=[status]))
    strategy = strategy_for(scheme.resource_of(core.Pod), frozenset({name})).subresources["status"]

    strategy.prepare_for_update(new, core.Pod())

    (left,) = new.status.container_statuses
    assert (left.volume_mounts[0].volume_status is None) == (name == "ImageVolumeWithDigest")
    assert (left.allocated_resources_status[0].resources[0].message is None) == (name == "ResourceHealthStatusMessage")
