from __future__ import annotations

from haven.api.apps import v1 as apps_v1
from haven.api.core import v1 as core_v1
from haven.api.scheme import resource_of
from haven.apimachinery import meta
from haven.apimachinery.names import UID
from haven.client.interface import PatchType
from haven.client.owner import (
    Adopt,
    Release,
    adoption_patch,
    claim,
    controller_of,
    controller_reference,
    is_controlled_by,
    release_patch,
)

KIND = resource_of(apps_v1.ReplicaSet).gvk


def a_replicaset(*, deleting: bool = False) -> apps_v1.ReplicaSet:
    metadata = meta.ObjectMeta(name="rs", namespace="ns", uid=UID("rs-uid"))
    metadata.deletion_timestamp = "2024-01-01T00:00:00Z" if deleting else None
    return apps_v1.ReplicaSet(metadata=metadata)


def a_pod(name: str, *, owner: str = "", app: str = "web", deleting: bool = False) -> core_v1.Pod:
    metadata = meta.ObjectMeta(name=name, namespace="ns", uid=UID(f"{name}-uid"), labels={"app": app})
    if owner:
        metadata.owner_references = [meta.OwnerReference(uid=UID(owner), controller=True)]
    metadata.deletion_timestamp = "2024-01-01T00:00:00Z" if deleting else None
    return core_v1.Pod(metadata=metadata)


def is_web(pod: core_v1.Pod) -> bool:
    return pod.metadata.labels.get("app") == "web"


def test_a_created_object_is_controlled_by_its_creator() -> None:
    pod = core_v1.Pod()
    pod.metadata.owner_references = [
        meta.OwnerReference(uid=UID("other")),
        controller_reference(a_replicaset(), KIND),
    ]

    reference = controller_of(pod)

    assert reference is not None
    assert (reference.api_version, reference.kind, reference.name) == ("apps/v1", "ReplicaSet", "rs")
    assert reference.block_owner_deletion
    assert is_controlled_by(pod, UID("rs-uid"))
    assert not is_controlled_by(pod, UID("other"))


def test_orphans_that_match_are_adopted_and_strays_released() -> None:
    ours, stray = a_pod("ours", owner="rs-uid"), a_pod("stray", owner="rs-uid", app="db")
    orphan, foreign, unrelated = a_pod("orphan"), a_pod("foreign", owner="other"), a_pod("unrelated", app="db")

    claimed = claim(a_replicaset(), [ours, stray, orphan, foreign, unrelated], is_web)

    assert claimed.owned == [ours]
    assert claimed.adopt == [Adopt(orphan)]
    assert claimed.release == [Release(stray)]


def test_what_is_being_deleted_neither_adopts_nor_is_adopted() -> None:
    orphan, dying = a_pod("orphan"), a_pod("dying", deleting=True)
    ours, stray = a_pod("ours", owner="rs-uid"), a_pod("stray", owner="rs-uid", app="db")

    from_dying_owner = claim(a_replicaset(deleting=True), [orphan, ours, stray], is_web)
    of_dying_pod = claim(a_replicaset(), [dying], is_web)

    assert (from_dying_owner.owned, from_dying_owner.adopt, from_dying_owner.release) == ([ours], [], [])
    assert (of_dying_pod.owned, of_dying_pod.adopt) == ([], [])


def test_patches_carry_the_uid_so_that_a_later_namesake_is_not_touched() -> None:
    pod = a_pod("a")

    adopt = adoption_patch(pod, controller_reference(a_replicaset(), KIND), ["batch.kubernetes.io/job-tracking"])
    let_go = release_patch(pod, UID("rs-uid"))

    assert adopt.type is PatchType.STRATEGIC
    assert adopt.body["metadata"]["uid"] == "a-uid"
    assert adopt.body["metadata"]["ownerReferences"][0]["uid"] == "rs-uid"
    assert adopt.body["metadata"]["finalizers"] == ["batch.kubernetes.io/job-tracking"]
    assert let_go.body == {"metadata": {"uid": "a-uid", "ownerReferences": [{"$patch": "delete", "uid": "rs-uid"}]}}
