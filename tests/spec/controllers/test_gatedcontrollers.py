"""Controllers of features that are off by default."""

from __future__ import annotations

from typing import Any

from tests.spec.controllers.world import World

from haven.api.apiserverinternal import v1alpha1 as internal
from haven.api.apiserverinternal.encodings import Stored, recorded
from haven.api.certificates import v1beta1 as certificates
from haven.api.coordination import v1 as coordination
from haven.api.core import v1 as core
from haven.api.scheduling import v1alpha2 as scheduling
from haven.apimachinery import meta, times
from haven.controllers.actions import Wiring
from haven.controllers.catalog import catalog
from haven.controllers.podgroupprotection import FINALIZER, PodGroupProtectionController
from haven.controllers.settings import Settings
from haven.controllers.storageversiongc import StorageVersionGarbageCollector
from haven.controllers.trustbundles import (
    SIGNER,
    PodCertificateRequestCleaner,
    ServingTrustBundlePublisher,
    bundle_name,
)


def test_features_bring_their_controllers() -> None:
    everything = frozenset(
        {
            "ClusterTrustBundle", "DRADeviceTaintRules", "DRADeviceTaints", "DRAResourcePoolStatus", "GenericWorkload",
            "PodCertificateRequest", "StorageVersionAPI", "StorageVersionMigrator",
        }
    )  # fmt: skip

    def names(features: frozenset[str]) -> set[str]:
        return {entry.name for entry in catalog(Settings(root_ca_pem="x", features=features))}

    assert names(everything) - names(frozenset()) == {
        "device-taint-eviction", "kube-apiserver-serving-clustertrustbundle-publisher", "podgroup-protection",
        "podcertificaterequest-cleaner", "resourcepoolstatusrequest", "storage-version-garbage-collector",
        "storage-version-migrator",
    }  # fmt: skip


def test_controllers_are_chosen_by_name_and_a_star_stands_for_those_that_run_by_default() -> None:
    def running(*controllers: str) -> set[str]:
        settings = Settings(controllers=controllers)
        return {entry.name for entry in catalog(settings) if settings.is_enabled(entry.name)}

    usual = running("*")
    assert "job" in usual
    assert usual.isdisjoint({"selinux-warning", "bootstrap-signer", "token-cleaner"})
    assert running("*", "selinux-warning-controller", "token-cleaner") - usual == {"selinux-warning", "token-cleaner"}
    assert usual - running("-job-controller", "*") == {"job"}
    assert running("job-controller", "garbage-collector") == {"job", "garbage-collector"}
    assert running("*", "job", "-job") == usual  # The first word on a controller counts.


def test_the_authority_of_servers_is_published_once() -> None:
    world = World()
    stale = certificates.ClusterTrustBundle(metadata=meta.ObjectMeta(name="kubernetes.io:kube-apiserver-serving:old"))
    stale.spec.signer_name = SIGNER
    world.put(stale)

    def make(wiring: Wiring) -> Any:
        return ServingTrustBundlePublisher(wiring, root_ca_pem="PEM")

    world.start(make)
    world.settle()

    (bundle,) = world.all(certificates.ClusterTrustBundle)
    assert bundle.metadata.name == bundle_name(SIGNER, "PEM")
    assert bundle.metadata.name.startswith("kubernetes.io:kube-apiserver-serving:")
    assert (bundle.spec.signer_name, bundle.spec.trust_bundle) == (SIGNER, "PEM")


def test_old_requests_of_pods_are_removed() -> None:
    world = World()
    world.start(PodCertificateRequestCleaner)
    now = world.now_seconds()
    for name, age in (("young", 60), ("old", 3600)):
        made = times.format_time(now - age)
        metadata = meta.ObjectMeta(name=name, namespace="ns", creation_timestamp=made)
        world.put(certificates.PodCertificateRequest(metadata=metadata))

    world.wait(301)

    assert [one.metadata.name for one in world.all(certificates.PodCertificateRequest)] == ["young"]


def test_a_group_goes_with_its_last_unfinished_pod() -> None:
    world = World()
    pod = core.Pod(metadata=meta.ObjectMeta(name="p", namespace="ns"))
    pod.spec.scheduling_group = core.PodSchedulingGroup(pod_group_name="g")
    group = scheduling.PodGroup(metadata=meta.ObjectMeta(name="g", namespace="ns", finalizers=[FINALIZER]))
    world.put(pod, group)
    world.start(PodGroupProtectionController)
    at = times.format_time(world.now_seconds())
    world.change(scheduling.PodGroup, "ns", "g", lambda one: setattr(one.metadata, "deletion_timestamp", at))
    world.settle()
    assert world.all(scheduling.PodGroup)

    world.change(core.Pod, "ns", "p", lambda one: setattr(one.status, "phase", "Succeeded"))
    world.settle()

    assert not world.all(scheduling.PodGroup)


def an_identity(name: str) -> coordination.Lease:
    labels = {"apiserver.kubernetes.io/identity": "kube-apiserver"}
    return coordination.Lease(metadata=meta.ObjectMeta(name=name, namespace="kube-system", labels=labels))


def a_version(*servers: tuple[str, str]) -> internal.StorageVersion:
    found: internal.StorageVersion | None = None
    for server, encoding in servers:
        stored = Stored("apps", "deployments", encoding, (encoding,), (encoding,))
        found = recorded(found, stored, server, 0.0)
    assert found is not None
    return found


def test_a_server_without_an_identity_is_taken_out_of_a_storage_version() -> None:
    world = World()
    world.put(an_identity("here"))
    world.put(a_version(("here", "apps/v1"), ("gone", "apps/v1beta1")))

    world.start(StorageVersionGarbageCollector)
    world.settle()

    (left,) = world.all(internal.StorageVersion)
    assert [one.api_server_id for one in left.status.storage_versions] == ["here"]
    assert left.status.common_encoding_version == "apps/v1"
    assert [(one.status, one.reason) for one in left.status.conditions] == [("True", "CommonEncodingVersionSet")]


def test_a_storage_version_goes_with_its_last_server() -> None:
    world = World()
    world.put(an_identity("here"))
    world.put(a_version(("here", "apps/v1")))
    world.start(StorageVersionGarbageCollector)
    world.settle()
    assert world.all(internal.StorageVersion)

    world.remove(coordination.Lease, "kube-system", "here")
    world.settle()

    assert world.all(internal.StorageVersion) == []
