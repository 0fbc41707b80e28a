"""Warnings of volumes that Pods want with different SELinux labels."""

from __future__ import annotations

import pytest
from tests.spec.controllers.world import World

from haven.api.core import v1 as core
from haven.api.storage import v1 as storage
from haven.apimachinery import meta
from haven.apimachinery.names import UID
from haven.controllers.actions import Wiring
from haven.controllers.selinuxwarning import METRIC, SELinuxWarningController, labels_conflict
from haven.metrics.families import Registry, read_table

DRIVER = "csi.example.com"
ALONE = "If both pods land on the same node, only one of them may access the volume."


def a_pod(name: str, level: str = "", *, namespace: str = "ns", policy: str | None = None) -> core.Pod:
    context = core.PodSecurityContext(se_linux_change_policy=policy)
    if level:
        context.se_linux_options = core.SELinuxOptions(level=level)
    claim = core.PersistentVolumeClaimVolumeSource(claim_name="data")
    spec = core.PodSpec(
        containers=[core.Container(name="c", volume_mounts=[core.VolumeMount(name="v", mount_path="/v")])],
        volumes=[core.Volume(name="v", persistent_volume_claim=claim)],
        security_context=context,
    )
    return core.Pod(metadata=meta.ObjectMeta(name=name, namespace=namespace), spec=spec)


def a_world(*, se_linux_mount: bool = True) -> tuple[World, SELinuxWarningController]:
    """Return a world with claims named data in two namespaces, bound to volumes of the same disk."""
    world = World()
    world.put(
        storage.CSIDriver(
            metadata=meta.ObjectMeta(name=DRIVER), spec=storage.CSIDriverSpec(se_linux_mount=se_linux_mount)
        )
    )
    for namespace in ("ns", "other"):
        claim = core.PersistentVolumeClaim(
            metadata=meta.ObjectMeta(name="data", namespace=namespace, uid=UID(f"uid-{namespace}"))
        )
        claim.spec.volume_name = f"pv-{namespace}"
        claim.status.phase = "Bound"
        world.put(claim)
        volume = core.PersistentVolume(metadata=meta.ObjectMeta(name=f"pv-{namespace}"))
        volume.spec.csi = core.CSIPersistentVolumeSource(driver=DRIVER, volume_handle="disk-1")
        volume.spec.claim_ref = core.ObjectReference(
            namespace=namespace, name="data", uid=world.get(core.PersistentVolumeClaim, namespace, "data").metadata.uid
        )
        world.put(volume)
    made: list[SELinuxWarningController] = []

    def make(wiring: Wiring) -> SELinuxWarningController:
        made.append(SELinuxWarningController(wiring))
        return made[0]

    world.start(make)
    world.settle()
    return world, made[0]


def told(world: World) -> list[tuple[str, str, str, str]]:
    return [(event.name, event.type, event.reason, event.message) for event in world.events]


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("", "", False),
        ("u:r:t:s0", "u:r:t:s0", False),
        (":::s0:c1,c2", "u:r:t:s0:c1,c2", False),  # Nodes fill in the first three parts.
        (":::s0:c1,c2", ":::s0:c3,c4", True),
        (":::s0", "", True),
        ("u:r:t:s0", "u:r:x:s0", True),
        ("u:::s0", ":r::s0", False),
    ],
)
def test_labels_conflict_where_no_default_could_make_them_equal(one: str, other: str, expected: bool) -> None:
    assert labels_conflict(one, other) is expected
    assert labels_conflict(other, one) is expected


def test_both_pods_are_told_of_different_labels() -> None:
    world, _ = a_world()

    world.put(a_pod("a", "s0:c1,c2"))
    world.settle()
    world.put(a_pod("b", "s0:c3,c4"))
    world.settle()

    shared = "that uses the same volume as this pod with SELinuxLabel"
    first = f'SELinuxLabel ":::s0:c1,c2" conflicts with pod b {shared} ":::s0:c3,c4". {ALONE}'
    second = f'SELinuxLabel ":::s0:c3,c4" conflicts with pod a {shared} ":::s0:c1,c2". {ALONE}'
    assert sorted(told(world)) == [
        ("a", "Normal", "SELinuxLabelConflict", first),
        ("b", "Normal", "SELinuxLabelConflict", second),
    ]


def test_a_pod_learns_nothing_of_other_namespaces() -> None:
    world, _ = a_world()

    world.put(a_pod("a", "s0:c1,c2"))
    world.put(a_pod("secret", "s0:c3,c4", namespace="other"))
    world.settle()

    message = next(message for name, _, _, message in told(world) if name == "a")
    assert message == (
        'SELinuxLabel":::s0:c1,c2" conflicts with another pod that uses the same volume as this pod with a different '
        f"SELinuxLabel. {ALONE}"
    )


def test_policies_conflict_as_labels_do() -> None:
    world, _ = a_world()

    world.put(a_pod("a", "s0:c1,c2"))
    world.put(a_pod("b", "s0:c1,c2", policy="Recursive"))
    world.settle()

    assert {(name, reason) for name, _, reason, _ in told(world)} == {
        (name, reason) for name in "ab" for reason in ("SELinuxChangePolicyConflict", "SELinuxLabelConflict")
    }


def test_a_driver_that_mounts_with_labels_makes_the_conflicts() -> None:
    world, _ = a_world(se_linux_mount=False)
    world.put(a_pod("a", "s0:c1,c2"))
    world.put(a_pod("b", "s0:c3,c4"))
    world.settle()
    assert told(world) == []

    spec = storage.CSIDriverSpec(se_linux_mount=True)
    world.put(storage.CSIDriver(metadata=meta.ObjectMeta(name=DRIVER), spec=spec))
    world.settle()

    assert {reason for _, _, reason, _ in told(world)} >= {"SELinuxLabelConflict"}


def test_two_labels_for_a_volume_within_a_pod_are_told() -> None:
    world, _ = a_world()
    pod = a_pod("a", "s0:c1,c2")
    second = core.Container(name="d", volume_mounts=[core.VolumeMount(name="v", mount_path="/v")])
    second.security_context = core.SecurityContext(se_linux_options=core.SELinuxOptions(level="s0:c9"))
    pod.spec.containers.append(second)

    world.put(pod)
    world.settle()

    assert told(world)[0] == (
        "a",
        "Warning",
        "MultipleSELinuxLabels",
        'Volume "v" is mounted twice with different SELinux labels inside this pod',
    )


def test_the_metric_shows_conflicts_until_a_pod_ends() -> None:
    world, controller = a_world()
    labels = "pod1_name,pod1_namespace,pod1_value,pod2_name,pod2_namespace,pod2_value,property"
    registry = Registry(read_table(f"{METRIC}\tgauge\tALPHA\t\t{labels}\t\tConflicts."))
    world.put(a_pod("a", "s0:c1,c2"))
    world.put(a_pod("b", "s0:c3,c4"))
    world.settle()

    controller.measure(registry)
    assert set(registry[METRIC].values) == {
        ("a", "ns", ":::s0:c1,c2", "b", "ns", ":::s0:c3,c4", "SELinuxLabel"),
        ("b", "ns", ":::s0:c3,c4", "a", "ns", ":::s0:c1,c2", "SELinuxLabel"),
    }

    ended = a_pod("a", "s0:c1,c2")
    ended.status.phase = "Succeeded"
    world.put(ended)
    world.settle()
    controller.measure(registry)

    assert registry[METRIC].values == {}
