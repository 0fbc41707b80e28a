"""Volumes attached to the nodes of the Pods that use them."""

from __future__ import annotations

from tests.spec.controllers.world import World

from haven.api.core import v1 as core
from haven.api.storage import v1 as storage
from haven.apimachinery import meta
from haven.apimachinery.names import UID
from haven.controllers.attachdetach import AttachDetachController, attachment_name

DRIVER = "csi.example.com"
SOURCE = core.CSIPersistentVolumeSource(driver=DRIVER, volume_handle="disk")
NAME = f"kubernetes.io/csi/{DRIVER}^disk"


def a_node(name: str) -> core.Node:
    annotations = {"volumes.kubernetes.io/controller-managed-attach-detach": "true"}
    node = core.Node(metadata=meta.ObjectMeta(name=name, annotations=annotations))
    node.status.conditions = [core.NodeCondition(type="Ready", status="True")]
    return node


def a_pod(name: str, node: str) -> core.Pod:
    volume = core.Volume(name="v", persistent_volume_claim=core.PersistentVolumeClaimVolumeSource(claim_name="c"))
    spec = core.PodSpec(node_name=node, volumes=[volume], containers=[core.Container(name="c")])
    return core.Pod(metadata=meta.ObjectMeta(name=name, namespace="ns", uid=UID(name)), spec=spec)


def a_world(*, modes: tuple[str, ...] = ("ReadWriteOnce",), attach_required: bool | None = None) -> World:
    claim = core.PersistentVolumeClaim(metadata=meta.ObjectMeta(name="c", namespace="ns", uid=UID("u")))
    claim.spec.volume_name = "pv"
    claim.status.phase = "Bound"
    volume = core.PersistentVolume(metadata=meta.ObjectMeta(name="pv"))
    volume.spec = core.PersistentVolumeSpec(
        csi=SOURCE,
        access_modes=list(modes),
        claim_ref=core.ObjectReference(namespace="ns", name="c", uid=UID("u")),
    )
    world = World()
    world.put(a_node("one"), a_node("two"), claim, volume)
    if attach_required is not None:
        spec = storage.CSIDriverSpec(attach_required=attach_required)
        world.put(storage.CSIDriver(metadata=meta.ObjectMeta(name=DRIVER), spec=spec))
    world.start(AttachDetachController)
    return world


def add(world: World, name: str, node: str) -> None:
    world.put(a_pod(name, node))
    world.settle()


def answer(world: World, node: str) -> None:
    """Have the driver attach the volume to a node."""
    name = attachment_name(SOURCE, node)

    def attach(attachment: storage.VolumeAttachment) -> None:
        attachment.status.attached = True

    world.change(storage.VolumeAttachment, "", name, attach)
    world.settle()


def attachments(world: World) -> list[tuple[str, str | None]]:
    return [
        (each.spec.node_name, each.spec.source.persistent_volume_name) for each in world.all(storage.VolumeAttachment)
    ]


def on_node(world: World, name: str) -> list[str]:
    node: core.Node = world.get(core.Node, "", name)
    return [each.name for each in node.status.volumes_attached]


def test_a_volume_is_attached_where_a_pod_uses_it_and_the_pod_is_told() -> None:
    world = a_world()

    add(world, "p", "one")
    assert attachments(world) == [("one", "pv")]
    assert on_node(world, "one") == []
    answer(world, "one")

    assert on_node(world, "one") == [NAME]
    assert [(event.name, event.reason, event.message) for event in world.events] == [
        ("p", "SuccessfulAttachVolume", 'AttachVolume.Attach succeeded for volume "pv" ')
    ]


def test_a_volume_of_a_driver_that_needs_no_attachment_is_left_alone() -> None:
    world = a_world(attach_required=False)

    add(world, "p", "one")

    assert attachments(world) == []


def test_a_volume_is_detached_with_its_last_pod() -> None:
    world = a_world()
    add(world, "p", "one")
    add(world, "q", "one")
    answer(world, "one")

    world.remove(core.Pod, "ns", "p")
    world.settle()
    assert attachments(world) == [("one", "pv")]
    world.change(core.Pod, "ns", "q", lambda pod: setattr(pod.status, "phase", "Succeeded"))
    world.settle()

    assert attachments(world) == []
    assert on_node(world, "one") == []


def test_a_volume_that_a_node_still_has_mounted_is_not_detached() -> None:
    world = a_world()
    add(world, "p", "one")
    answer(world, "one")
    world.change(core.Node, "", "one", lambda node: node.status.volumes_in_use.append(NAME))

    world.remove(core.Pod, "ns", "p")
    world.wait(60)
    assert attachments(world) == [("one", "pv")]
    world.change(core.Node, "", "one", lambda node: node.status.volumes_in_use.clear())
    world.wait(60)

    assert attachments(world) == []


def test_a_volume_for_one_node_is_not_attached_to_a_second_one_before_the_first_gives_it_back() -> None:
    world = a_world()
    add(world, "p", "one")
    answer(world, "one")

    add(world, "q", "two")
    assert attachments(world) == [("one", "pv")]
    assert world.events[-1].message == 'Multi-Attach error for volume "pv" Volume is already used by pod(s) p'
    world.remove(core.Pod, "ns", "p")
    world.settle()

    assert attachments(world) == [("two", "pv")]


def test_a_volume_for_many_nodes_is_attached_to_each() -> None:
    world = a_world(modes=("ReadWriteMany",))

    add(world, "p", "one")
    add(world, "q", "two")

    assert sorted(attachments(world)) == [("one", "pv"), ("two", "pv")]
