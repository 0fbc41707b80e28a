"""Claims that ask for more than they have."""

from __future__ import annotations

from typing import Any

import pytest
from tests.spec.controllers.world import World

from haven.api.core import v1 as core
from haven.apimachinery import meta
from haven.apimachinery.names import UID
from haven.apimachinery.quantity import Quantity
from haven.controllers.volumeexpand import VolumeExpandController

WAITING = "waiting for an external controller to expand this PVC"


def a_world(has: str = "1Gi", **source: Any) -> World:
    claim = core.PersistentVolumeClaim(metadata=meta.ObjectMeta(name="c", namespace="ns", uid=UID("u")))
    claim.spec.volume_name = "v"
    claim.spec.resources.requests = {"storage": Quantity.parse("2Gi")}
    claim.status = core.PersistentVolumeClaimStatus(phase="Bound", capacity={"storage": Quantity.parse(has)})
    volume = core.PersistentVolume(metadata=meta.ObjectMeta(name="v"), spec=core.PersistentVolumeSpec(**source))
    volume.spec.claim_ref = core.ObjectReference(namespace="ns", name="c", uid=UID("u"))
    world = World()
    world.put(volume, claim)
    world.start(VolumeExpandController)
    return world


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ({"csi": core.CSIPersistentVolumeSource(driver="x.y", volume_handle="h")}, ("Normal", WAITING)),
        ({"nfs": core.NFSVolumeSource(server="s", path="/")}, ("Warning", WAITING)),
        (
            {"gce_persistent_disk": core.GCEPersistentDiskVolumeSource(pd_name="d")},
            (
                "Normal",
                "CSI migration enabled for kubernetes.io/gce-pd; waiting for external resizer to expand the pvc",
            ),
        ),
    ],
)
def test_a_claim_is_told_that_somebody_else_has_to_enlarge_its_volume(
    source: dict[str, Any], expected: tuple[str, str]
) -> None:
    world = a_world(**source)

    assert [(event.reason, event.type, event.message) for event in world.events] == [("ExternalExpanding", *expected)]


def test_the_driver_of_a_migrated_volume_is_written_down() -> None:
    world = a_world(gce_persistent_disk=core.GCEPersistentDiskVolumeSource(pd_name="d"))

    annotations = world.get(core.PersistentVolumeClaim, "ns", "c").metadata.annotations
    assert annotations == {"volume.kubernetes.io/storage-resizer": "pd.csi.storage.gke.io"}


def test_a_claim_that_has_what_it_asks_for_is_left_alone() -> None:
    assert a_world(has="2Gi", nfs=core.NFSVolumeSource(server="s", path="/")).events == []
