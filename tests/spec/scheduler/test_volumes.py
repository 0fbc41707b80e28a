"""A Pod goes where its volumes are or can be; what is chosen for one Pod is not chosen for the next."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis.strategies import integers, lists, sampled_from, tuples
from tests.spec.scheduler.objects import (
    Storage,
    a_claim,
    a_class,
    a_node,
    a_pod,
    a_snapshot,
    a_volume,
    mounts,
    put,
)

from haven.api.core import v1 as core
from haven.api.core.volumebinding import FreeVolumes
from haven.api.storage import v1 as storage
from haven.apimachinery import meta, serialization
from haven.apimachinery.quantity import Quantity
from haven.scheduler.cycle import Failure, Placement, Profile, default_profile, place
from haven.scheduler.podinfo import PodInfo
from haven.scheduler.preemption import find_preemption
from haven.scheduler.queue import ClusterEvent, Queue
from haven.scheduler.snapshot import Snapshot
from haven.scheduler.volumes import BindingFailed, PodVolumes

ZONE = "topology.kubernetes.io/zone"


def the_profile(snapshot: Snapshot, kept: Storage) -> Profile:
    return default_profile(snapshot, lambda _: {}, kept.view)


def try_place(snapshot: Snapshot, kept: Storage, pod: core.Pod) -> Placement | Failure:
    return place(PodInfo.of(pod), snapshot, the_profile(snapshot, kept), random.Random(1))


def node_of(snapshot: Snapshot, kept: Storage, pod: core.Pod) -> str:
    result = try_place(snapshot, kept, pod)
    assert isinstance(result, Placement), result
    return result.node_name


def why(snapshot: Snapshot, kept: Storage, pod: core.Pod) -> str:
    result = try_place(snapshot, kept, pod)
    assert isinstance(result, Failure), result
    return result.message


def chosen(snapshot: Snapshot, kept: Storage, pod: core.Pod) -> PodVolumes:
    info = PodInfo.of(pod)
    row = snapshot.by_name[node_of(snapshot, kept, pod)]
    return kept.view.assume(row.name, the_profile(snapshot, kept).binding.decide(info, row))


def test_a_claim_that_does_not_exist_is_waited_for_before_any_node_is_asked() -> None:
    snapshot = a_snapshot(a_node("a", unschedulable=True))

    assert why(snapshot, Storage(), a_pod(volumes=mounts("data"))) == (
        '0/1 nodes are available: persistentvolumeclaim "data" not found.'
    )


def test_a_claim_that_is_bound_at_once_is_waited_for_and_eviction_does_not_help() -> None:
    snapshot, kept = a_snapshot(a_node("a")), Storage()
    kept.classes.put(a_class(is_delayed=False))
    kept.claims.put(a_claim())
    info = PodInfo.of(a_pod(volumes=mounts("data"), priority=5))
    profile = the_profile(snapshot, kept)

    failure = place(info, snapshot, profile, random.Random(1))

    assert isinstance(failure, Failure)
    assert failure.message == "0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims."
    assert find_preemption(info, failure, snapshot, profile, lambda _: []).message == (
        "preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"status": core.PersistentVolumeClaimStatus(phase="Lost")},
            'persistentvolumeclaim "data" bound to non-existent persistentvolume "v".',
        ),
        (
            {"metadata": meta.ObjectMeta(name="data", namespace="default", deletion_timestamp="2026-01-01T00:00:00Z")},
            'persistentvolumeclaim "data" is being deleted.',
        ),
    ],
)
def test_a_claim_that_is_lost_or_going_keeps_the_pod_waiting(change: dict[str, object], message: str) -> None:
    snapshot, kept = a_snapshot(a_node("a")), Storage()
    claim = a_claim(volume_name="v", is_bound=True)
    for name, value in change.items():
        setattr(claim, name, value)
    kept.claims.put(claim)

    assert why(snapshot, kept, a_pod(volumes=mounts("data"))) == f"0/1 nodes are available: {message}"


def test_an_ephemeral_volume_waits_for_its_own_claim_and_takes_no_other_of_that_name() -> None:
    snapshot, kept = a_snapshot(a_node("a")), Storage()
    kept.classes.put(a_class(provisioner="example.com/maker"))
    pod = a_pod("web", volumes=[core.Volume(name="cache", ephemeral=core.EphemeralVolumeSource())])

    assert why(snapshot, kept, pod) == (
        "0/1 nodes are available: waiting for ephemeral volume controller to create the persistentvolumeclaim "
        '"web-cache".'
    )
    claim = a_claim("web-cache")
    kept.claims.put(claim)
    assert why(snapshot, kept, pod) == (
        "0/1 nodes are available: PVC default/web-cache was not created for pod default/web (pod is not owner)."
    )
    claim.metadata.owner_references = [
        meta.OwnerReference(api_version="v1", kind="Pod", name="web", uid=pod.metadata.uid, controller=True)
    ]
    assert node_of(snapshot, kept, pod) == "a"


def test_a_bound_volume_pulls_the_pod_to_its_node() -> None:
    snapshot, kept = a_snapshot(a_node("a"), a_node("b")), Storage()
    kept.claims.put(a_claim(volume_name="v", is_bound=True))
    kept.volumes.put(a_volume("v", host="b"))

    assert node_of(snapshot, kept, a_pod(volumes=mounts("data"))) == "b"


def test_a_bound_volume_that_no_node_reaches_is_the_reason() -> None:
    snapshot, kept = a_snapshot(a_node("a"), a_node("b")), Storage()
    kept.claims.put(a_claim(volume_name="v", is_bound=True))
    kept.volumes.put(a_volume("v", host="gone"))

    assert why(snapshot, kept, a_pod(volumes=mounts("data"))) == (
        "0/2 nodes are available: 2 node(s) didn't match PersistentVolume's node affinity."
    )


def test_a_claim_bound_to_a_volume_that_is_gone_says_which() -> None:
    snapshot, kept = a_snapshot(a_node("a")), Storage()
    kept.claims.put(a_claim(volume_name="v", is_bound=True))

    assert why(snapshot, kept, a_pod(volumes=mounts("data"))) == (
        '0/1 nodes are available: persistentvolume "v" not found.'
    )


def test_a_delayed_claim_gets_the_smallest_volume_that_its_node_reaches() -> None:
    snapshot, kept = a_snapshot(a_node("a"), a_node("b")), Storage()
    kept.classes.put(a_class())
    kept.claims.put(a_claim(size="2Gi"))
    for volume in (
        a_volume("small", size="1Gi", host="a"),
        a_volume("large", size="9Gi", host="b"),
        a_volume("right", size="3Gi", host="b"),
    ):
        kept.volumes.put(volume)

    decided = chosen(snapshot, kept, a_pod(volumes=mounts("data")))

    (binding,) = decided.bindings
    assert binding.volume.metadata.name == "right"
    assert binding.volume.spec.claim_ref is not None
    assert binding.volume.spec.claim_ref.uid == "claim-data"
    assert not decided.provisions


def test_small_claims_leave_large_volumes_to_large_claims() -> None:
    snapshot, kept = a_snapshot(a_node("a")), Storage()
    kept.classes.put(a_class())
    kept.claims.put(a_claim("large", size="5Gi"))
    kept.claims.put(a_claim("small", size="1Gi"))
    kept.volumes.put(a_volume("v1", size="5Gi", host="a"))
    kept.volumes.put(a_volume("v2", size="2Gi", host="a"))

    decided = chosen(snapshot, kept, a_pod(volumes=mounts("large", "small")))

    assert {each.claim.metadata.name: each.volume.metadata.name for each in decided.bindings} == {
        "small": "v2",
        "large": "v1",
    }


def test_what_is_chosen_for_one_pod_is_not_chosen_for_the_next_until_it_is_taken_back() -> None:
    snapshot, kept = a_snapshot(a_node("a")), Storage()
    kept.classes.put(a_class())
    kept.volumes.put(a_volume("only", host="a"))
    kept.claims.put(a_claim("one"))
    kept.claims.put(a_claim("two"))

    decided = chosen(snapshot, kept, a_pod(volumes=mounts("one")))

    assert why(snapshot, kept, a_pod(volumes=mounts("two"))) == (
        "0/1 nodes are available: 1 node(s) didn't find available persistent volumes to bind."
    )
    kept.view.forget(decided)
    assert node_of(snapshot, kept, a_pod(volumes=mounts("two"))) == "a"


@given(lists(tuples(integers(1, 4), sampled_from(["", "a", "b"])), max_size=6), integers(1, 4))
def test_each_node_is_offered_the_smallest_volume_that_it_reaches(volumes: list[tuple[int, str]], wanted: int) -> None:
    made = [a_volume(f"v{i}", size=f"{size}Gi", host=host) for i, (size, host) in enumerate(volumes)]
    free = FreeVolumes(a_claim(size=f"{wanted}Gi"), made)

    for host in ("a", "b", "c"):
        fit = [(size, f"v{i}") for i, (size, where) in enumerate(volumes) if size >= wanted and where in ("", host)]
        found = free.on_node({"kubernetes.io/hostname": host})
        assert (found.metadata.name if found else None) == (min(fit)[1] if fit else None)


def test_a_newer_version_of_the_object_replaces_the_assumption() -> None:
    snapshot, kept = a_snapshot(a_node("a")), Storage()
    kept.classes.put(a_class())
    kept.volumes.put(a_volume("only", host="a", version=4))
    kept.claims.put(a_claim())
    chosen(snapshot, kept, a_pod(volumes=mounts("data")))

    kept.volumes.put(a_volume("only", host="a", version=5))

    found = kept.view.volume("only")
    assert found is not None
    assert found.spec.claim_ref is None


def test_a_claim_without_a_free_volume_is_provisioned_for_the_chosen_node() -> None:
    snapshot, kept = a_snapshot(a_node("a")), Storage()
    kept.classes.put(a_class(provisioner="example.com/maker"))
    kept.claims.put(a_claim())

    decided = chosen(snapshot, kept, a_pod(volumes=mounts("data")))

    (claim,) = decided.provisions
    assert claim.metadata.annotations["volume.kubernetes.io/selected-node"] == "a"
    assert not decided.bindings


def test_a_claim_that_is_being_made_for_a_node_keeps_the_pod_there() -> None:
    snapshot, kept = a_snapshot(a_node("a"), a_node("b")), Storage()
    kept.classes.put(a_class(provisioner="example.com/maker"))
    kept.claims.put(a_claim(**{"volume.kubernetes.io/selected-node": "b"}))

    assert node_of(snapshot, kept, a_pod(volumes=mounts("data"))) == "b"


def test_a_class_may_allow_some_topologies_only() -> None:
    snapshot, kept = a_snapshot(a_node("a", labels={ZONE: "z1"}), a_node("b", labels={ZONE: "z2"})), Storage()
    allowed = a_class(provisioner="example.com/maker")
    allowed.allowed_topologies = [
        core.TopologySelectorTerm(
            match_label_expressions=[core.TopologySelectorLabelRequirement(key=ZONE, values=["z2"])]
        )
    ]
    kept.classes.put(allowed)
    kept.claims.put(a_claim())

    assert node_of(snapshot, kept, a_pod(volumes=mounts("data"))) == "b"


def test_a_driver_that_publishes_its_capacity_is_believed() -> None:
    snapshot, kept = a_snapshot(a_node("a"), a_node("b")), Storage()
    kept.classes.put(a_class(provisioner="example.com"))
    kept.csi_drivers.put(
        storage.CSIDriver(
            metadata=meta.ObjectMeta(name="example.com"), spec=storage.CSIDriverSpec(storage_capacity=True)
        )
    )
    kept.claims.put(a_claim(size="5Gi"))

    def publish(host: str, free: str) -> None:
        kept.capacities.put(
            storage.CSIStorageCapacity(
                metadata=meta.ObjectMeta(namespace="x", name=host),
                storage_class_name="local",
                capacity=Quantity.parse(free),
                node_topology=meta.LabelSelector(match_labels={"kubernetes.io/hostname": host}),
            )
        )

    publish("a", "4Gi")
    assert why(snapshot, kept, a_pod(volumes=mounts("data"))) == (
        "0/2 nodes are available: 2 node(s) did not have enough free storage."
    )
    publish("b", "6Gi")
    assert node_of(snapshot, kept, a_pod(volumes=mounts("data"))) == "b"


def test_a_volume_with_zones_is_used_in_one_of_them() -> None:
    snapshot = a_snapshot(a_node("a", labels={ZONE: "z1"}), a_node("b", labels={ZONE: "z3"}))
    kept = Storage()
    kept.claims.put(a_claim(volume_name="v", is_bound=True))
    kept.volumes.put(a_volume("v", labels={"failure-domain.beta.kubernetes.io/zone": "z2__z3"}))

    assert node_of(snapshot, kept, a_pod(volumes=mounts("data"))) == "b"
    snapshot.remove_node("b")
    assert why(snapshot, kept, a_pod(volumes=mounts("data"))) == (
        "0/1 nodes are available: 1 node(s) had no available volume zone."
    )


def test_a_claim_for_one_pod_admits_the_next_when_the_first_is_evicted() -> None:
    snapshot, kept = a_snapshot(a_node("a"), a_node("b")), Storage()
    kept.claims.put(a_claim(volume_name="v", is_bound=True, modes=["ReadWriteOncePod"]))
    kept.volumes.put(a_volume("v"))
    first = put(snapshot, a_pod("first", volumes=mounts("data")), "a")
    info = PodInfo.of(a_pod("second", volumes=mounts("data"), priority=9))
    profile = the_profile(snapshot, kept)

    failure = place(info, snapshot, profile, random.Random(1))

    assert isinstance(failure, Failure)
    assert failure.message == (
        "0/2 nodes are available: 2 node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access "
        "mode already in-use by another pod."
    )
    preemption = find_preemption(info, failure, snapshot, profile, lambda _: [])
    assert (preemption.node_name, preemption.victims) == ("a", (first,))


@pytest.mark.parametrize(("read_only", "fits"), [(True, True), (False, False)])
def test_a_disk_is_shared_on_a_node_by_readers_only(read_only: bool, fits: bool) -> None:
    snapshot, kept = a_snapshot(a_node("a")), Storage()
    disk = core.Volume(
        name="disk", iscsi=core.ISCSIVolumeSource(iqn="iqn.2026-01.com.example:x", lun=0, read_only=read_only)
    )
    put(snapshot, a_pod("first", volumes=[disk]), "a")

    result = try_place(snapshot, kept, a_pod("second", volumes=[disk]))

    assert isinstance(result, Placement) == fits
    if isinstance(result, Failure):
        assert result.message == "0/1 nodes are available: 1 node(s) had no available disk."


def test_a_node_attaches_no_more_volumes_than_its_driver_says() -> None:
    snapshot, kept = a_snapshot(a_node("a")), Storage()
    driver = storage.CSINodeDriver(name="d.example.com", allocatable=storage.VolumeNodeResources(count=2))
    kept.csi_nodes.put(storage.CSINode(metadata=meta.ObjectMeta(name="a"), spec=storage.CSINodeSpec(drivers=[driver])))
    for name in ("one", "two", "three"):
        kept.claims.put(a_claim(name, volume_name=f"v-{name}", is_bound=True))
        kept.volumes.put(a_volume(f"v-{name}", driver="d.example.com"))
    put(snapshot, a_pod("first", volumes=mounts("one")), "a")

    assert node_of(snapshot, kept, a_pod(volumes=mounts("one", "two"))) == "a"
    assert why(snapshot, kept, a_pod(volumes=mounts("two", "three"))) == (
        "0/1 nodes are available: 1 node(s) exceed max volume count."
    )
    kept.attachments.put(
        storage.VolumeAttachment(
            metadata=meta.ObjectMeta(name="left-behind"),
            spec=storage.VolumeAttachmentSpec(
                attacher="d.example.com",
                node_name="a",
                source=storage.VolumeAttachmentSource(persistent_volume_name="v-three"),
            ),
        )
    )
    assert isinstance(try_place(snapshot, kept, a_pod(volumes=mounts("two"))), Failure)


def test_binding_is_done_when_both_sides_show_it() -> None:
    snapshot, kept = a_snapshot(a_node("a")), Storage()
    kept.classes.put(a_class())
    kept.volumes.put(a_volume("v", host="a"))
    kept.claims.put(a_claim())
    decided = chosen(snapshot, kept, a_pod(volumes=mounts("data")))
    node = snapshot.by_name["a"].node
    assert node is not None

    written = serialization.copy(decided.bindings[0].volume)
    written.metadata.resource_version = "7"
    kept.volumes.put(written)
    assert not kept.view.is_done(node, decided)
    kept.claims.put(a_claim(volume_name="v", is_bound=True, version=8))
    assert kept.view.is_done(node, decided)
    kept.volumes.put(a_volume("v", host="a", version=9))
    with pytest.raises(BindingFailed, match='ClaimRef got reset for pv "v"'):
        kept.view.is_done(node, decided)


def test_a_provisioner_that_gives_up_sends_the_pod_back() -> None:
    snapshot, kept = a_snapshot(a_node("a")), Storage()
    kept.classes.put(a_class(provisioner="example.com/maker"))
    kept.claims.put(a_claim())
    decided = chosen(snapshot, kept, a_pod(volumes=mounts("data")))
    node = snapshot.by_name["a"].node
    assert node is not None

    kept.claims.put(a_claim(version=5))

    with pytest.raises(BindingFailed, match='provisioning failed for PVC "data"'):
        kept.view.is_done(node, decided)


def test_a_change_of_a_claim_wakes_only_the_pods_that_use_it() -> None:
    queue = Queue()
    mine, other = PodInfo.of(a_pod("mine", volumes=mounts("data"))), PodInfo.of(a_pod("other", volumes=mounts("else")))
    for info in (mine, other):
        queue.add(info, 0)
        queue.pop(0)
        queue.failed(info.uid, frozenset({"VolumeBinding"}), 0)

    queue.happened(ClusterEvent.CLAIM, 5, claim="default/data")

    assert [queue.pop(5), queue.pop(5)] == [mine, None]
